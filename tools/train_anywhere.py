"""Steps a second of an exported trainer in Python, Node and Chromium, beside TensorFlow.js; sizes of files and heap.

    make runners/js/node_modules/installed
    npm --prefix tools/train_anywhere install --no-package-lock --ignore-scripts
    python tools/train_anywhere.py

The network is 784-128-10 with SGD, batches of 32 rows of bytes. All take turns and change places from round to round,
one computing at any moment, each with one thread; ratios are medians over the rounds of the quotient within a round.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "runners" / "python")]

from onnxsurgeon_runner import Trainer  # noqa: E402

from onnxsurgeon import create, export_trainer, save  # noqa: E402
from onnxsurgeon.data.examples import Examples  # noqa: E402
from onnxsurgeon.data.rows import Rows  # noqa: E402
from onnxsurgeon.task import CROSS_ENTROPY, Task  # noqa: E402
from onnxsurgeon.training.loop import LoopEngine  # noqa: E402
from onnxsurgeon.training.settings import TrainingSpec  # noqa: E402

JS = HERE.parent / "runners" / "js"
BATCH = 32
SCRIPT = """
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
const [folder, runtime, js] = process.argv.slice(2);
const { Trainer } = await import(js + '/src/index.js');
const { fromFolder } = await import(js + '/src/node.js');
const ort = await import(js + '/node_modules/' + runtime);
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
const session = { intraOpNumThreads: 1 };
const trainer = await Trainer.load(fromFolder(folder + '/trainer'), { ort, session });
const x = new Uint8Array(readFileSync(folder + '/x.bin'));
const y = new Int32Array(new Uint8Array(readFileSync(folder + '/y.bin')));
for await (const line of createInterface({ input: process.stdin })) {
  const count = Number(line);
  const begin = performance.now();
  await trainer.train(x.subarray(0, count * 784), y.subarray(0, count), { batchSize: 32 }).next();
  console.log(JSON.stringify({ ms: performance.now() - begin }));
}
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def node(folder: Path, runtime: str) -> Callable[[int], float]:
    """Milliseconds of an epoch of so many rows in Node."""
    (folder / "script.mjs").write_text(SCRIPT)
    command = ["node", "script.mjs", str(folder), runtime, str(JS)]
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(count: int) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        return float(json.loads(process.stdout.readline())["ms"])

    return measure


def python_runner(folder: Path, x: Any, y: Any) -> Callable[[int], float]:
    """Milliseconds of an epoch of the Python runner."""
    trainer = Trainer(folder / "trainer")

    def measure(count: int) -> float:
        begin = time.perf_counter()
        list(trainer.train(x[:count], y[:count], batch_size=BATCH))
        return 1000 * (time.perf_counter() - begin)

    return measure


def engine(network: Any, x: Any, y: Any) -> Callable[[int], float]:
    """Milliseconds of an epoch of the loop engine."""
    loop = LoopEngine()

    def measure(count: int) -> float:
        rows = Rows(x[:count], np.dtype(np.float32), scale=1 / 255)
        examples = Examples((rows,), (y[:count],), (Task(CROSS_ENTROPY, 10, "Softmax"),))
        order = np.random.default_rng(0).permutation(count).reshape(-1, BATCH)
        begin = time.perf_counter()
        loop.train(network, examples, [order], TrainingSpec(learning_rate=0.05, report_loss=True))
        return 1000 * (time.perf_counter() - begin)

    return measure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=12_800, help="of each turn")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch)
        network = create((784, 128, 10), seed=0)
        save(network, folder / "m.onnx")
        exported = export_trainer(network, folder / "trainer", rows="uint8", batch_size=BATCH)
        sizes = {path.name: path.stat().st_size for path in sorted((folder / "trainer").iterdir())}
        model = (folder / "m.onnx").stat().st_size
        kind, total = exported.description["optimizer"]["name"], sum(sizes.values())
        print(f"files of 784-128-10 with {kind}: {total / model:.2f} times the model")
        print("  " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()) + f"; model {model:,}")
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (60_000, 784), np.uint8), rng.integers(0, 10, 60_000)
        x.tofile(folder / "x.bin")
        y.astype(np.uint8).tofile(folder / "y.bin")
        (folder / "src").symlink_to(JS / "src")
        (folder / "ort").symlink_to(JS / "node_modules" / "onnxruntime-web" / "dist")
        (folder / "tf").symlink_to(HERE / "train_anywhere" / "node_modules" / "@tensorflow")
        shutil.copy(HERE / "train_anywhere" / "page.html", folder / "index.html")
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=scratch))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

        def page() -> Any:
            found = browser.new_page()
            found.goto(f"http://127.0.0.1:{server.server_port}/")
            found.wait_for_function("window.ready === true", timeout=60_000)
            return found

        def in_browser(what: str) -> Callable[[int], float]:
            own = page()
            more = ", 1" if what == "ours" else ""
            return lambda count: float(own.evaluate(f"() => measure('{what}', {count}, {BATCH}{more})")["ms"])

        peers = {
            "loop engine, Python": engine(network, x, y),
            "runner, Python": python_runner(folder, x, y),
            "runner, Node, onnxruntime-node": node(folder, "onnxruntime-node/dist/index.js"),
            "runner, Node, wasm": node(folder, "onnxruntime-web/dist/ort.node.min.mjs"),
            "runner, Chromium, wasm": in_browser("ours"),
            "TensorFlow.js, Chromium, wasm": in_browser("wasm"),
            "TensorFlow.js, Chromium, its default": in_browser("default"),
        }
        times: dict[str, list[float]] = {name: [] for name in peers}
        for measure in peers.values():
            measure(20 * BATCH)  # sessions and compilers are done before the clock starts
        for turn in range(given.rounds):
            names = list(peers)[turn % len(peers) :] + list(peers)[: turn % len(peers)]
            for name in names:
                times[name].append(peers[name](given.rows))
        steps, base = given.rows / BATCH, times["runner, Chromium, wasm"]
        print(f"\nsteps a second, batches of {BATCH}, medians of {given.rounds} rounds; time against Chromium's wasm")
        for name, found in times.items():
            ratio = statistics.median(own / other for own, other in zip(found, base, strict=True))
            print(f"  {name:38} {steps / statistics.median(found) * 1000:8,.0f} {ratio:8.2f}")
        own = page()
        own.evaluate(f"() => measure('ours', {len(x)}, {BATCH}, 1)")
        heap = own.evaluate("() => heap()")
        what = f"{len(x):,} rows of 784 bytes ({x.nbytes / 2**20:.0f} MiB)"
        print(f"\nwasm heap after an epoch over {what}: {heap / 2**20:.0f} MiB")
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
