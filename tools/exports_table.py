"""Take every real export through the whole of onnxsurgeon, and print a row for each.

    python tools/exports_table.py                       # all of models/exports, as a Markdown table
    python tools/exports_table.py torch-legacy-cnn.onnx sklearn-pipeline.onnx

Each file is loaded, written back and compared, operated on, trained for an epoch, and evolved over two decision points.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
from export_checks import EXACT_WITHIN, check_epoch, check_evolve, check_interface, compare, printed

from onnxsurgeon import (
    Dataset,
    InputOptions,
    Network,
    OnnxSurgeonError,
    load,
    load_dataset,
    operate,
    parse,
)
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.linear_algebra import Array

ROOT = Path(__file__).resolve().parent.parent
EXPORTS = ROOT / "models" / "exports"
EXACT = ("widen:{}:3", "insert_identity:{}")
APPROXIMATE = ("narrow:{}:{}", "factorize:{}:{}", "merge:{}")
ROWS = 100


@dataclass
class Row:
    """What came of one fixture; every cell says yes, or why not."""

    file: str
    exporter: str
    loads: str = "no"
    layers: str = ""
    surgeries: str = ""
    epoch: str = ""
    evolves: str = ""
    interface: str = ""
    before: str = ""
    after: str = ""

    def cells(self) -> list[str]:
        """The row's cells."""
        values = (
            self.file.removesuffix(".onnx"),
            self.exporter,
            self.loads,
            self.layers,
            self.surgeries,
            self.epoch,
            self.evolves,
            self.interface,
            self.before,
            self.after,
        )
        return [value.replace("|", "/") for value in values]


HEADINGS = (
    "fixture",
    "exporter",
    "loads",
    "layers found",
    "exact surgeries",
    "one epoch: loss",
    "2 decision points",
    "interface, outputs",
    "before",
    "after",
)


@dataclass(frozen=True)
class Fixture:
    """An entry of fixtures.json."""

    file: str
    exporter: str
    what: str
    topology: str
    task: str
    data: str
    target: list[str] = field(default_factory=list)
    scale: float | None = None
    refused: str | None = None

    @property
    def path(self) -> Path:
        """The model."""
        return EXPORTS / self.file

    @property
    def options(self) -> InputOptions:
        """How its data set and it meet."""
        return InputOptions(scale=self.scale)

    def dataset(self) -> Dataset:
        """Its data set."""
        name = str(ROOT / self.data) if "/" in self.data else self.data
        return load_dataset(name, target=self.target)


def fixtures(names: Sequence[str] = ()) -> list[Fixture]:
    """All fixtures, or those of these file names."""
    found = []
    for entry in json.loads((EXPORTS / "fixtures.json").read_text()):
        if not names or entry["file"] in names:
            target = entry.get("target") or []
            entry["target"] = [target] if isinstance(target, str) else target
            found.append(Fixture(**{key: entry.get(key) for key in Fixture.__dataclass_fields__}))
    return found


def spelled_out(topology: str) -> str:
    """The topology of fixtures.json as ``Network.topology`` spells it."""
    return re.sub(r"([\d-]+) twice", r"\1+\1", topology.replace("; ", "+"))


def rows_of(network: Network, fixture: Fixture, dataset: Dataset, count: int = ROWS) -> dict[str, Array]:
    """The first test rows as the model's inputs, those that only the suffix reads left out."""
    split = dataset.test.take(np.arange(min(count, dataset.test.rows)))
    return {name: rows.take() for name, rows in model_inputs(network, dataset, split, fixture.options).items()}


def check_surgeries(fixture: Fixture, network: Network, feeds: dict[str, Array]) -> str:
    """Perform every surgery on every hidden layer: how many exact ones leave the whole model's outputs as they are."""
    original = to_model(network)
    kinds = {segment.file_dtype for segment in network.segments}
    # Where the file's own type has 16 bits, every tensor on the way is rounded to it.
    within = max(EXACT_WITHIN, *(4 * float(ml_dtypes.finfo(kind).eps) for kind in kinds if kind.itemsize == 2), 0)
    tried = exact = 0
    worst = 0.0
    for layer in range(1, network.hidden_count + 1):
        smaller = max(1, min(network.hidden(layer).weight.shape) - 1)
        for text in (*EXACT, *APPROXIMATE):
            operated, record = operate(network, parse(text.format(layer, smaller)))
            if record.exact:
                difference = compare(original, to_model(operated), feeds).relative
                tried, worst = tried + 1, max(worst, difference)
                exact += difference <= within
    return f"{exact} of {tried}, {worst:.0e}" if tried else "none: no hidden layer is free"


def rate_of(fixture: Fixture) -> float:
    """The learning rate that it is trained with."""
    return 0.0005 if fixture.task == "regression" else 0.001


def check_evolution(fixture: Fixture, folder: Path, row: Row) -> None:
    """Evolve over two decision points; fill in the rest of the row."""
    data = str(ROOT / fixture.data) if "/" in fixture.data else fixture.data
    row.evolves, evolved = check_evolve(
        fixture.path, data, rate_of(fixture), folder, target=fixture.target, options=fixture.options
    )
    row.before, row.after = f"{evolved.start.accuracy:.4f}", f"{evolved.test.accuracy:.4f}"
    if evolved.test.metric != "accuracy":
        row.before, row.after = f"{evolved.test.metric} {row.before}", f"{evolved.test.metric} {row.after}"


def check(fixture: Fixture) -> Row:
    """The fixture's row."""
    row = Row(fixture.file, fixture.exporter)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            network = load(fixture.path)
            row.loads = "yes"
            wanted = spelled_out(fixture.topology)
            row.layers = network.topology
            if network.topology != wanted:
                row.layers += f" of {wanted}: {'; '.join(network.frame.notes)}" if network.frame.notes else ""
            dataset = fixture.dataset()
            feeds = rows_of(network, fixture, dataset)
            row.interface = check_interface(fixture.path, network, feeds, folder)
            row.surgeries = check_surgeries(fixture, network, feeds)
            row.epoch = check_epoch(network, dataset, rate_of(fixture), fixture.options)
            check_evolution(fixture, folder, row)
        except OnnxSurgeonError as error:
            text = str(error).replace(f"{fixture.path}: ", "").replace(str(ROOT) + "/", "")
            if row.loads == "no":
                row.loads = f"refused: {text}" if fixture.refused else f"NO: {text}"
            else:
                row.evolves = f"no: {text}"
    return row


def main() -> None:
    """Print the table; exit 1 where a fixture that should be read is not."""
    rows = printed(HEADINGS, map(check, fixtures(sys.argv[1:])))
    sys.exit(1 if any(row.loads.startswith("NO") for row in rows) else 0)


if __name__ == "__main__":
    main()
