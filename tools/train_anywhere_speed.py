"""Steps a second of one network trained everywhere, beside TensorFlow.js; sizes of the files; the browser's memory.

    make compare-anywhere                       # installs what it needs, and prints the tables
    python tools/train_anywhere_speed.py --rounds 5 --batch 32

784-128-10 with plain SGD, rows of bytes. In each round everyone trains for some seconds, one after the other, and
ratios are of one round: what slows a whole round cancels out. Everyone starts from the same weights and sees the same
batches; how far a peer's weights are from the loop engine's after the first epoch stands beside its speed. Of
TensorFlow.js the faster of two ways counts, its layers' `fit` and a loop over its operations; its rows are floats
before it starts.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import safetensors.numpy
from measuring.markdown import NONE, table
from playwright.sync_api import Browser, sync_playwright

from onnxsurgeon import Dataset, Network, Split, TrainingSettings, create, export_trainer, prepare, save
from onnxsurgeon.training.loop import LoopEngine

ROOT = Path(__file__).resolve().parent.parent
HERE, RUNNER = ROOT / "tools" / "train_anywhere", ROOT / "runners" / "js"
SIZES, PIXELS, CLASSES = (784, 128, 10), 784, 10
MANY = 60_000  # rows with which the browser's memory is measured
RATE = 0.01
ENGINE, TENSORFLOW = "Python, loop engine", "Chromium, TensorFlow.js, wasm"
# By file, where the page and Node find what they load.
LINKS = {
    "ort": RUNNER / "node_modules" / "onnxruntime-web" / "dist",
    "runner": RUNNER / "src",
    "tf": HERE / "node_modules" / "@tensorflow",
    **{name: HERE / name for name in ("index.html", "memories.js", "entrants.js", "repeated.mjs")},
}
NODE = {
    "Node, onnxruntime-web (wasm)": "onnxruntime-web/dist/ort.node.min.mjs",
    "Node, onnxruntime-node": "onnxruntime-node/dist/index.js",
}
Weights = list[np.ndarray]
Found = tuple[float, Weights]


class Isolated(SimpleHTTPRequestHandler):
    """Files with the headers by which a page may use threads; says nothing."""

    def end_headers(self) -> None:
        """As ever, after these."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Task:
    """The network, its rows, and its trainer, in a folder from which the page is served."""

    def __init__(self, folder: Path, rows: int, batch: int) -> None:
        """Write what everyone loads."""
        self.folder, self.batch = folder, batch
        self.network = create(SIZES, name="mlp")
        save(self.network, folder / "model.onnx")
        self.settings = TrainingSettings(optimizer="sgd", learning_rate=RATE)
        self.x, self.y = self._drawn("rows.safetensors", rows)
        split = Split(self.x, self.y.astype(np.int64))
        self.dataset = Dataset("bytes", split, split, CLASSES, 255.0)
        how = {"dataset": self.dataset, "settings": self.settings, "batch_size": batch}
        self.exported = export_trainer(self.network, folder / "trainer", **how)  # type: ignore[arg-type]
        for name, target in LINKS.items():
            (folder / name).symlink_to(target)

    def _drawn(self, name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (rows, PIXELS), dtype=np.uint8)
        y = rng.integers(0, CLASSES, rows).astype(np.int32)
        (self.folder / name).write_bytes(safetensors.numpy.save({"x": x, "y": y}))
        return x, y

    def many(self) -> str:
        """Write a file of many rows; returns its name."""
        self._drawn("many.safetensors", MANY)
        return "many.safetensors"


def repeated(epoch: Callable[[], object], steps: float, seconds: float) -> float:
    """Steps a second of epochs after one another; the first is not counted."""
    epoch()
    begin, done, passed = time.perf_counter(), 0.0, 0.0
    while passed < seconds:
        epoch()
        done, passed = done + steps, time.perf_counter() - begin
    return done / passed


def by_engine(task: Task, seconds: float) -> Found:
    """The loop engine that trains inside onnxsurgeon."""
    from onnxsurgeon_runner import order_of

    examples, engine = prepare(task.network, task.dataset, task.dataset.train), LoopEngine()
    rows = len(task.y)
    order = order_of(0, 0, rows).astype(np.int64).reshape(-1, task.batch)
    spec = task.settings.spec(1, len(order), report_loss=True)

    def epoch() -> Network:
        return engine.train(task.network, examples, [order], spec).network

    weights = [layer.weight.T for layer in epoch().segments[0].layers]
    return repeated(epoch, rows / task.batch, seconds), weights


def by_python(task: Task, seconds: float) -> Found:
    """The runner of runners/python."""
    from onnxsurgeon_runner import Trainer

    trainer = Trainer(task.exported.folder)

    def epoch() -> list[object]:
        return list(trainer.train(task.x, task.y, batch_size=task.batch))

    epoch()
    weights = [values for name, values in trainer.state.items() if name.startswith("parameter/") and values.ndim == 2]
    return repeated(epoch, len(task.y) / task.batch, seconds), weights


def by_node(runtime: str, task: Task, seconds: float) -> Found:
    """The runner of runners/js in Node."""
    arguments = [runtime, task.exported.folder, task.folder / "rows.safetensors", task.batch, seconds]
    command = ["node", str(HERE / "node.mjs"), *map(str, arguments)]
    done = subprocess.run(command, cwd=RUNNER, capture_output=True, text=True, check=True)
    return read_found(json.loads(done.stdout))


def by_page(browser: Browser, address: str, call: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a fresh page answers: each entrant has a memory of its own."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(0)
    try:
        page.goto(address)
        page.wait_for_function("globalThis.entrants !== undefined")
        found: dict[str, Any] = page.evaluate(f"asked => entrants.{call}(asked)", asked)
    finally:
        context.close()
    return found


def read_found(found: dict[str, Any]) -> Found:
    """What JavaScript found: the rate, and the two matrices of weights."""
    weights = [np.array(values, np.float32) for values in found["weights"]]
    return found["rate"], [weights[0].reshape(SIZES[1], -1), weights[2].reshape(SIZES[2], -1)]


def in_browser(
    browser: Browser, address: str, batch: int, notes: dict[str, str]
) -> dict[str, Callable[[Task, float], Found]]:
    """The entrants of the browser by name; ``notes`` gets what they say of themselves."""

    def runtime(threads: int, _: Task, seconds: float) -> Found:
        asked = {"file": "rows.safetensors", "batch": batch, "seconds": seconds, "threads": threads}
        return read_found(by_page(browser, address, "byRuntime", asked))

    def tensorflow(name: str, backend: str, threads: int, _: Task, seconds: float) -> Found:
        asked = {"file": "rows.safetensors", "batch": batch, "seconds": seconds, "threads": threads, "backend": backend}
        found = by_page(browser, address, "byTensorFlow", asked)
        notes[name] = (
            f"backend {found['backend']}; loop {found['looped']:,.0f}, fit {found['fitted']:,.0f} steps a second"
        )
        return read_found(found)

    peers = {
        TENSORFLOW: ("wasm", 1),
        "Chromium, TensorFlow.js, wasm, 2 threads": ("wasm", 2),
        "Chromium, TensorFlow.js, its default": ("default", 1),
    }
    return {
        "Chromium, onnxruntime-web (wasm)": functools.partial(runtime, 1),
        "Chromium, onnxruntime-web (wasm), 2 threads": functools.partial(runtime, 2),
        **{name: functools.partial(tensorflow, name, *how) for name, how in peers.items()},
    }


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's address on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Isolated, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


def apart(weights: Weights, others: Weights) -> float:
    """The largest difference of a weight, relative to the largest of its matrix."""
    pairs = zip(weights, others, strict=True)
    return max(float(np.abs(mine - theirs).max() / np.abs(theirs).max()) for mine, theirs in pairs)


def speeds(task: Task, browser: Browser, address: str, rounds: int, seconds: float) -> str:
    """The table of steps a second."""
    notes: dict[str, str] = {}
    entrants: dict[str, Callable[[Task, float], Found]] = {ENGINE: by_engine, "Python, runner": by_python}
    entrants |= {name: functools.partial(by_node, path) for name, path in NODE.items()}
    entrants |= in_browser(browser, address, task.batch, notes)
    rates: dict[str, list[float]] = {name: [] for name in entrants}
    weights: dict[str, Weights] = {}
    for number in range(rounds):
        for name, train in entrants.items():
            try:
                rate, weights[name] = train(task, seconds)
            except Exception as error:  # one that cannot be run here is shown as such
                notes[name] = str(error).splitlines()[0]
                rate = float("nan")
            rates[name].append(rate)
            print(f"round {number + 1}: {name}: {rate:,.0f} steps a second", file=sys.stderr, flush=True)
    rows = []
    for name, each in rates.items():
        ratios = [
            f"{median(a / b for a, b in zip(each, rates[other], strict=True)):.2f}" for other in (ENGINE, TENSORFLOW)
        ]
        difference = f"{apart(weights[name], weights[ENGINE]):.1e}" if name in weights else NONE
        rows.append([name, f"{median(each):,.0f}", *ratios, difference])
    head = ["784-128-10, SGD", "steps a second", "to the loop engine", "to TensorFlow.js wasm", "weights apart"]
    return "\n".join([table(head, rows), "", *(f"{name}: {note}" for name, note in notes.items())])


def sizes(task: Task) -> str:
    """The table of the files' sizes."""
    model = (task.folder / "model.onnx").stat().st_size
    files = {path.name: path.stat().st_size for path in sorted(task.exported.folder.iterdir())}
    files["together"] = sum(files.values())
    rows = [[name, f"{size:,}", f"{size / model:.3f}"] for name, size in {"model.onnx": model, **files}.items()]
    return table(["file", "bytes", "to the model"], rows)


def memory(task: Task, browser: Browser, address: str) -> str:
    """The table of WebAssembly's memory after an epoch of many rows."""
    file, rows = task.many(), []
    asked = {"file": file, "batch": task.batch, "seconds": 0, "threads": 1, "backend": "wasm"}
    for name, call in (("onnxruntime-web", "byRuntime"), ("TensorFlow.js", "byTensorFlow")):
        heap = by_page(browser, address, call, asked)["heap"]
        rows.append([name, f"{heap / 2**20:,.1f}"])
    head = [f"training {MANY:,} rows of {PIXELS} bytes ({MANY * PIXELS / 2**20:,.1f} MiB)", "MiB of WebAssembly"]
    return table(head, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often everyone is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each is measured in a round")
    parser.add_argument("--batch", type=int, default=16, help="rows in a batch")
    parser.add_argument("--rows", type=int, default=3_200, help="rows of an epoch; whole batches")
    parser.add_argument("--memory", action="store_true", help="the browser's memory and the files' sizes alone")
    given = parser.parse_args()
    if given.rows % given.batch:
        parser.error(f"--rows {given.rows}: no whole batches of {given.batch}")
    missing = [str(path) for path in LINKS.values() if not path.exists()]
    if missing:
        parser.error(f"{missing[0]} is missing: run make compare-anywhere")
    sys.path.insert(0, str(ROOT / "runners" / "python"))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        task = Task(Path(folder), given.rows, given.batch)
        # --no-sandbox: root has none.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        with served(Path(folder)) as address:
            print(f"{sizes(task)}\n\n{memory(task, browser, address)}\n", flush=True)
            if not given.memory:
                print(speeds(task, browser, address, given.rounds, given.seconds))
        browser.close()


if __name__ == "__main__":
    main()
