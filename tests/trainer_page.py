"""A page that trains by the JavaScript runner, and a server for it."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import MODELS

RUNNER = MODELS.parent / "runners" / "js"

PAGE = """<!doctype html><meta charset="utf-8"><title>training</title><link rel="icon" href="data:,">
<script type="module">
import * as ort from '/node_modules/onnxruntime-web/dist/BUNDLE';
import { Trainer } from '/src/index.js';
window.trained = (async () => {
  ort.env.wasm.numThreads = 1;
  const asked = await (await fetch('/asked.json')).json();
  const KINDS = { uint8: Uint8Array, float32: Float32Array, int32: Int32Array };
  const read = async ({ file, dtype }) => new KINDS[dtype](await (await fetch(file)).arrayBuffer());
  const rows = await read(asked.rows);
  const targets = await read(asked.targets);
  const session = asked.providers ? { executionProviders: asked.providers } : {};
  const trainer = await Trainer.load('/trainer', { ort, session });
  const losses = [];
  for await (const epoch of trainer.train(rows, targets, asked.options)) losses.push(epoch.loss);
  return { losses, metrics: await trainer.evaluate(rows, targets), state: Array.from(trainer.save()) };
})();
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder on loopback, with the runner and the runtime in it."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "src").symlink_to(RUNNER / "src")
    (folder / "node_modules").symlink_to(RUNNER / "node_modules")
    (folder / "index.html").write_text(PAGE.replace("BUNDLE", "ort.wasm.bundle.min.mjs"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
