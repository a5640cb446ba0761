"""A head as large as VGG-16's: inspect, every surgery and one training step, with seconds and memory.

    python tools/large_head.py FOLDER [--sizes 25088-4096-4096-1000] [--storage inline] [--rank 0] [--only STEP ...]

Each step is a process of its own, so that each one's peak memory is its own: it loads the model, does its work, and
writes the result where there is one. The files are deleted in the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnxsurgeon import Network

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from large_model import measured, write_model_file  # noqa: E402

SURGERIES = (
    "insert_identity:1",
    "insert_identity:2",
    "widen:1:409",
    "widen:2:409",
    "narrow:1:3072",
    "narrow:2:3072",
    "factorize:1:2048",
    "factorize:2:1024",
    "merge:1",
    "merge:2",
)
STEPS = ("imports", "load", "save", "inspect", *SURGERIES, "train")
BATCH = 16


def main() -> int:
    """Parse the options, and run every step in a process, or one in this."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="25088-4096-4096-1000", help="widths from input to output")
    parser.add_argument(
        "--storage",
        choices=("inline", "transposed", "external"),
        default="inline",
        help="weights in the file itself, there but transposed as PyTorch writes them, or in a file beside it",
    )
    parser.add_argument("--rank", type=int, default=0, help="rank of the hidden layers' weights; 0: full")
    parser.add_argument("--only", nargs="+", metavar="STEP", help=f"some of {', '.join(STEPS)}, or other surgeries")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = options.folder / "head.onnx"
    if options.step == "write":
        widths = tuple(int(width) for width in options.sizes.split("-"))
        write_model_file(model, widths, storage=options.storage, rank=options.rank, gain=2.0)
        return 0
    if options.step:
        with measured(options.step, model):
            run_step(options.step, options.folder)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        # A process begins with the peak memory of the one that starts it: this one has to stay small.
        for step in ("write", *(options.only or STEPS)):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", step], check=step == "write")
            for path in options.folder.glob("changed.onnx*"):
                path.unlink()
    finally:
        for path in (*options.folder.glob("head.onnx*"), *options.folder.glob("changed.onnx*")):
            path.unlink()
    return 0


def run_step(step: str, folder: Path) -> None:
    """What the command line's inspect and operate do, or one training step."""
    from onnxsurgeon import Thresholds, inspect_layers, load, operate, parse, propose, save

    if step == "imports":
        return
    network = load(folder / "head.onnx")
    if step == "inspect":
        inspect_layers(network, Thresholds())
        propose(network, Thresholds())
    elif step == "train":
        train(network)
    elif step != "load":
        if step != "save":
            network = operate(network, parse(step)).network
        save(network, folder / "changed.onnx", overwrite=True)


def train(network: Network) -> None:
    """One step of SGD on a random batch."""
    from onnxsurgeon import Examples, TrainingSpec, make_engine

    rng = np.random.default_rng(0)
    inputs, classes = network.widths[0], network.widths[-1]
    features = rng.standard_normal((BATCH, inputs), dtype=np.float32)
    examples = Examples.classification(features, rng.integers(0, classes, BATCH), classes)
    trained = make_engine("loop").train(network, examples, [np.arange(BATCH)[None]], TrainingSpec())
    if not trained.network.is_finite:
        raise SystemExit("the step did not end in finite weights")


if __name__ == "__main__":
    sys.exit(main())
