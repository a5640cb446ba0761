"""Take every convolutional export through the whole of onnxsurgeon, and print a row for each.

    python tools/convolution_table.py                      # all of tests/convolutions, as a Markdown table
    python tools/convolution_table.py vgg-tf2onnx.onnx

Each file is loaded, written back and compared, operated on, trained for an epoch, and evolved over two decision points,
on 480 rows of noise with a profile for each class; where the output is a map, its targets are the rows themselves.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
from export_checks import EXACT_WITHIN, check_epoch, check_evolve, check_interface, compare, printed

from onnxsurgeon import (
    Factorize,
    InsertIdentity,
    MergeDuplicates,
    Network,
    OnnxSurgeonError,
    Widen,
    load,
    operate,
)
from onnxsurgeon.data.given import as_dataset
from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.files import read_model
from onnxsurgeon.graph.groups import Pinned
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import evaluator
from onnxsurgeon.surgery import Surgery

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "convolutions"
EXPORTERS = {
    "torch-legacy": "PyTorch, older",
    "torch-dynamo": "PyTorch, newer",
    "tf2onnx": "tf2onnx",
    "keras": "Keras",
    "jax2onnx": "jax2onnx",
}
OUTPUT = "it is what the model is trained for"
ROWS, RATE = 480, 0.01


@dataclass
class Row:
    """What came of one file; every cell says yes, or why not."""

    file: str
    exporter: str
    layers: str = ""
    groups: str = ""
    surgeries: str = ""
    epoch: str = ""
    evolves: str = ""
    interface: str = ""

    def cells(self) -> list[str]:
        """The row's cells."""
        return [str(getattr(self, each.name)).replace("|", "/") for each in fields(self)]


HEADINGS = (
    "network",
    "exporter",
    "layers found",
    "groups: free, tied; kept",
    "exact surgeries",
    "one epoch: loss",
    "2 decision points",
    "interface, outputs",
)


def files(names: list[str]) -> list[Path]:
    """All files, or those of these names."""
    return [path for path in sorted(FOLDER.glob("*.onnx")) if not names or path.name in names]


def split_name(path: Path) -> tuple[str, str]:
    """The network's name and its exporter."""
    exporter = next(each for each in EXPORTERS if path.stem.endswith(f"-{each}"))
    return path.stem.removesuffix(f"-{exporter}"), EXPORTERS[exporter]


def file_of(network: str, exporter: str) -> str:
    """The name of the file, back from these two."""
    return f"{network}-{next(key for key, value in EXPORTERS.items() if value == exporter)}.onnx"


def rows_for(model: onnx.ModelProto) -> tuple[Array, Array]:
    """Rows of the input's shape and their classes: noise, and along each axis a profile of the class.

    Where the output is a map, its targets are the rows themselves.
    """
    draw = np.random.default_rng(0)
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = draw.standard_normal((ROWS, *sizes)).astype(np.float32)
    (outputs,) = evaluator(model)(None, random_inputs(model, rows=2))
    shape = outputs.shape[1:]
    if len(shape) > 1:
        return x, np.ascontiguousarray(np.broadcast_to(x, (ROWS, *shape)))
    classes = np.arange(ROWS) % shape[0]
    for axis, size in enumerate(sizes):
        profile = draw.standard_normal((shape[0], size)).astype(np.float32)[classes]
        x += profile.reshape(ROWS, *(size if other == axis else 1 for other in range(len(sizes))))
    return x, classes


def check_groups(network: Network) -> str:
    """How many groups there are, how many several layers share, and what is kept for which reason."""
    shared = [group for group in network.units.free if group.ports > 2]
    text = f"{network.group_count}, {len(shared)}"
    reasons = dict.fromkeys(pinned.reason for pinned in network.units.pinned if not is_output(pinned))
    return "; ".join([text, *reasons])


def is_output(pinned: Pinned) -> bool:
    """Whether units stay because they are a head's."""
    return pinned.reason == OUTPUT


def exact_surgeries(network: Network) -> list[Surgery]:
    """Units added in every group, an identity behind every hidden layer, each hidden layer at full rank."""
    found: list[Surgery] = []
    for i in range(1, network.group_count + 1):
        if not network.group(i).normalised:
            found += [Widen(i, 2), Widen(i, 2, "equal")]
    for i in range(1, network.hidden_count + 1):
        found += [InsertIdentity(i), Factorize(i, min(network.hidden(i).weight.shape))]
    return found


def check_surgeries(network: Network) -> str:
    """Perform every exact surgery: how many leave the whole model's outputs as they are, and the worst deviation."""
    original = to_model(network)
    feeds = random_inputs(original, rows=3)
    exact, worst, done = 0, 0.0, exact_surgeries(network)
    for surgery in done:
        operated, record = operate(network, surgery)
        difference = compare(original, to_model(operated), feeds).relative
        if isinstance(surgery, Widen) and surgery.mode == "equal" and network.group(surgery.layer).is_hidden:
            again = operate(operated, MergeDuplicates(surgery.layer)).network
            difference = max(difference, compare(original, to_model(again), feeds).relative)
        exact += record.exact and difference <= EXACT_WITHIN
        worst = max(worst, difference)
    if not done:
        return "none: no width is free, no layer hidden"
    return f"{exact} of {len(done)}, {worst:.0e}"


def check(path: Path) -> Row:
    """The file's row."""
    row = Row(*split_name(path))
    with tempfile.TemporaryDirectory() as name:
        folder, step = Path(name), "layers"
        try:
            network = load(path)
            row.layers = network.topology
            step = "groups"
            row.groups = check_groups(network)
            step = "interface"
            row.interface = check_interface(path, network, random_inputs(read_model(path), rows=3), folder)
            step = "surgeries"
            row.surgeries = check_surgeries(network)
            step = "epoch"
            given = rows_for(read_model(path))
            row.epoch = check_epoch(network, as_dataset(given), RATE)
            step = "evolves"
            row.evolves, _ = check_evolve(path, given, RATE, folder, workers=1)
        except OnnxSurgeonError as error:
            setattr(row, step, f"no: {str(error).replace(f'{path}: ', '')}")
    return row


def main() -> None:
    """Print the table; exit 1 where a cell says no."""
    rows = printed(HEADINGS, map(check, files(sys.argv[1:])))
    sys.exit(1 if any(cell.startswith("no: ") or not cell for row in rows for cell in row.cells()) else 0)


if __name__ == "__main__":
    main()
