"""A whole run of the Surgeon in a process of its own: time, time outside ONNX Runtime, peak memory.

The process is told what to do by a JSON line on standard input and answers with one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarking.environments import TOOLS

MODELS = TOOLS.parent / "models"
KERAS = 104 / 33_800  # seconds a step, all in, of the authors' Keras code on Fashion-MNIST on a machine of this kind
ALLOWED_FACTOR, ALLOWED_BYTES = 1.5, 300e6
CIFAR_ROWS = 50_000


class BusyClock:
    """How long at least one of several threads was inside, and how long all of them were, added up."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._lock = now, threading.Lock()
        self._inside, self._since = 0, 0.0
        self.any = self.sum = 0.0

    def enter(self) -> float:
        """A thread goes in; its ticket is for ``leave``."""
        with self._lock:
            now = self._now()
            if self._inside == 0:
                self._since = now
            self._inside += 1
            return now

    def leave(self, entered: float) -> None:
        """It comes out."""
        with self._lock:
            now = self._now()
            self._inside -= 1
            self.sum += now - entered
            if self._inside == 0:
                self.any += now - self._since

    def watch(self, kind: type, *names: str) -> None:
        """Count what happens in these methods of the class ``kind``."""

        def watched(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def call(*arguments: Any, **named: Any) -> Any:
                entered = self.enter()
                try:
                    return method(*arguments, **named)
                finally:
                    self.leave(entered)

            return call

        for name in names:
            setattr(kind, name, watched(getattr(kind, name)))


def peak_memory() -> int:
    """Largest resident size of this process in bytes.

    On Linux ``ru_maxrss`` starts at the size of the process that this one was forked from: VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work() -> None:
    """Run ``evolve`` as asked, and answer with its figures."""
    import onnxruntime

    from onnxsurgeon import SurgeonSettings, evolve, load_dataset

    request = json.loads(sys.stdin.readline())
    clock = BusyClock()
    clock.watch(onnxruntime.InferenceSession, "run", "run_with_ort_values", "run_with_iobinding")
    settings = SurgeonSettings.from_preset("paper", **request["settings"])
    begun, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        evolved = evolve(request["model"], request["data"], settings=settings, run_dir=run, workers=request["workers"])
        digest = hashlib.sha256((run / "best.onnx").read_bytes()).hexdigest()
    wall, peak = time.perf_counter() - begun, peak_memory()
    answer = {
        "wall": wall,
        "processor": time.process_time() - processor,
        "steps": evolved.steps,
        "outside": 1 - clock.any / wall,
        "sessions_active": clock.sum / clock.any,
        "peak_bytes": peak,
        "data_bytes": stored_bytes(load_dataset(request["data"])),
        "topology": evolved.network.topology,
        "digest": digest,
        "test_accuracy": evolved.test.accuracy,
    }
    print(json.dumps(answer))


def stored_bytes(dataset: Any) -> int:
    """Bytes of the inputs in their own type, and one for each label."""
    return int(sum(split.inputs.nbytes + split.rows for split in dataset.splits))


def ask(model: Path, data: str, workers: int | str | None = None, **settings: Any) -> dict[str, Any]:
    """The figures of one run of preset paper with these settings and workers.

    Raises SystemExit with the run's last line where it fails.
    """
    paths = [str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, "-m", "benchmarking.whole_run"],
        input=json.dumps({"model": str(model), "data": data, "workers": workers, "settings": settings}) + "\n",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        said = process.stderr.strip().splitlines()
        raise SystemExit(f"run on {data}: {said[-1] if said else f'ended by code {process.returncode}'}")
    answer: dict[str, Any] = json.loads(process.stdout)
    allowed = ALLOWED_FACTOR * answer["data_bytes"] + ALLOWED_BYTES
    return {"model": model.name, "settings": settings, **answer, "allowed_bytes": allowed}


def fashion(epochs: int) -> dict[str, Any]:
    """Preset paper on Fashion-MNIST, small."""
    answer = ask(MODELS / "fashion-mnist-small.onnx", "fashion-mnist", epochs=epochs)
    step = answer["wall"] / answer["steps"]
    return {"data": "Fashion-MNIST", **answer, "step": step, "faster_than_keras": KERAS / step}


def cifar_sized() -> dict[str, Any]:
    """Two epochs on random pixels in the shape of CIFAR-10's training set, brought as a user's own .npz."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pixels.npz")
        pixels = rng.integers(0, 256, (CIFAR_ROWS, 32, 32, 3), np.uint8)
        np.savez(path, x_train=pixels, y_train=np.arange(CIFAR_ROWS, dtype=np.uint8) % 10)
        del pixels
        model = MODELS / "cifar10-small.onnx"
        return {"data": "50,000 × 3072 uint8", **ask(model, str(path), epochs=2, initial_epochs=1, epoch_step=1)}


def text(record: dict[str, Any]) -> str:
    """The figures as Markdown list items."""
    mega = {key: record[f"{key}_bytes"] / 1e6 for key in ("peak", "data", "allowed")}
    lines = [f"- {record['data']}, {record['model']}, preset paper, {record['settings']['epochs']} epochs"]
    if "step" in record:
        lines += [
            f"  - wall time {record['wall']:.1f} s for {record['steps']:,} training steps: {record['step'] * 1e6:.1f} "
            f"µs a step, all in; {record['faster_than_keras']:.0f} times as fast as the authors' Keras code "
            f"({KERAS * 1e3:.1f} ms)",
            f"  - {record['outside']:.1%} of the wall time outside session.run; inside, "
            f"{record['sessions_active']:.2f} sessions at a time",
        ]
    lines.append(
        f"  - peak memory {mega['peak']:.0f} MB; the data set is {mega['data']:.0f} MB as stored; 1.5 times that plus "
        f"300 MB is {mega['allowed']:.0f} MB"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    work()
