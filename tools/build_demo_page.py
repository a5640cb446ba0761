"""Build the page of docs/demo: its sources, the network that it teaches, and what runs it.

    python tools/build_demo_page.py build/demo-page

The network is trained by `onnxsurgeon train`, its training loop written by `onnxsurgeon export-trainer`; ONNX Runtime
comes from runners/js/node_modules. The folder needs nothing else, from any host: serve it by any web server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import safetensors.numpy

from onnxsurgeon import create, load_dataset, save
from onnxsurgeon.data.rows import Rows

ROOT = Path(__file__).resolve().parent.parent
SOURCES, RUNNER = ROOT / "docs" / "demo", ROOT / "runners" / "js"
RUNTIME = RUNNER / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
WIDTHS = (64, 40, 10)
LEARNING = ("--optimizer", "adamw", "--learning-rate", "0.003")


def build(folder: Path) -> None:
    """Write the page into ``folder``, in place of what is there.

    Raises:
        FileNotFoundError: ONNX Runtime is not in runners/js/node_modules.
        subprocess.CalledProcessError: a command of onnxsurgeon failed.
    """
    if not (RUNTIME / RUNTIME_FILES[0]).is_file():
        raise FileNotFoundError(f"{RUNTIME}: run `make runners/js/node_modules/installed` first")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCES, folder)
    shutil.copytree(RUNNER / "src", folder / "runner", ignore=shutil.ignore_patterns("*.d.ts", "node.js"))
    (folder / "ort").mkdir()
    for name in RUNTIME_FILES:
        shutil.copyfile(RUNTIME / name, folder / "ort" / name)
    _network(folder)
    _digits(folder / "digits.safetensors")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / "files.json").write_text(json.dumps([name for name in files if name != "offline.js"], indent=1) + "\n")


def _network(folder: Path) -> None:
    model = folder / "digits.onnx"
    save(create(WIDTHS, input_shape=(8, 8), name="digits"), model)
    _onnxsurgeon("train", model, "--data", "digits", "--epochs", 30, *LEARNING, "-o", model, "--force")
    _onnxsurgeon("export-trainer", model, "--data", "digits", *LEARNING, "-o", folder / "trainer")


def _digits(path: Path) -> None:
    """The rows that the network came by, and others: as they are stored, bytes."""
    dataset = load_dataset("digits")
    arrays = {}
    for prefix, split in (("", dataset.train), ("test_", dataset.test)):
        assert isinstance(split.stored, Rows)  # of one input
        arrays[f"{prefix}rows"] = split.stored.source[split.stored.numbers]
        arrays[f"{prefix}labels"] = split.labels.astype("int32")
    path.write_bytes(safetensors.numpy.save(arrays))


def _onnxsurgeon(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "onnxsurgeon", *map(str, arguments)], cwd=ROOT, check=True, text=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
