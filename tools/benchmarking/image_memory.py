"""Peak memory of training a convolutional network on many images, in a process of its own.

The process is told what to do by a JSON line on standard input and answers with one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarking.environments import TOOLS
from benchmarking.whole_run import peak_memory

TOPOLOGY, IMAGE, CLASSES = "3-64-64", (32, 32, 3), 10
MODEL = "32x32x3-c64-p-c64-p-10"
ROWS, FEW, TEST_ROWS, BATCH = 50_000, 10_000, 10_000, 64


def work() -> None:
    """An epoch, and the test rows, as asked; answer with the peaks."""
    request = json.loads(sys.stdin.readline())
    from onnxsurgeon import create_convolutional, load_dataset, make_engine
    from onnxsurgeon.training.fit import fit

    network = create_convolutional(MODEL)
    imports = peak_memory()
    data = load_dataset(request["data"])
    loaded = peak_memory()
    trained, _ = fit(network, data, make_engine("loop"), epochs=1, batch_size=BATCH)
    print(json.dumps({"imports": imports, "loaded": loaded, "peak": peak_memory(), "steps": trained.steps}))


def measure(rows: int) -> dict[str, Any]:
    """Peaks in bytes of training on so many rows. Raises SystemExit with the process's last line where it fails."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npz")
        arrays: dict[str, Any] = {}
        for name, count in (("train", rows), ("test", TEST_ROWS)):
            arrays[f"x_{name}"] = rng.integers(0, 256, (count, *IMAGE), np.uint8)
            arrays[f"y_{name}"] = (np.arange(count) % CLASSES).astype(np.uint8)
        np.savez(path, **arrays)
        stored = sum(values.nbytes for values in arrays.values())
        del arrays
        paths = [str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
        process = subprocess.run(
            [sys.executable, "-m", "benchmarking.image_memory"],
            input=json.dumps({"data": str(path)}) + "\n",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
            check=False,
        )
    if process.returncode:
        said = process.stderr.strip().splitlines()
        raise SystemExit(f"memory: {said[-1] if said else f'ended by code {process.returncode}'}")
    return {"rows": rows, "test_rows": TEST_ROWS, "batch": BATCH, "stored": stored, **json.loads(process.stdout)}


def text(record: dict[str, Any]) -> str:
    """The figures as a Markdown list item."""
    mega = {key: record[key] / 1e6 for key in ("imports", "loaded", "peak", "stored")}
    image = " × ".join(map(str, IMAGE))
    return (
        f"- {TOPOLOGY} on {record['rows']:,} × {image} bytes, and {record['test_rows']:,} test rows: an epoch of "
        f"{record['steps']:,} steps, batch {record['batch']}, and a test: peak memory {mega['peak']:.0f} MB, of which "
        f"the rows are {mega['stored']:.0f} MB; {mega['imports']:.0f} MB before they were read, {mega['loaded']:.0f} "
        "MB behind that"
    )


if __name__ == "__main__":
    work()
