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
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from onnxsurgeon import (
    Dataset,
    InputOptions,
    Network,
    OnnxSurgeonError,
    SurgeonSettings,
    TrainingSettings,
    evolve,
    load,
    load_dataset,
    make_engine,
    operate,
    parse,
    save,
)
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.graph.equivalence import Difference
from onnxsurgeon.graph.files import read_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import evaluator
from onnxsurgeon.training.fit import fit

ROOT = Path(__file__).resolve().parent.parent
EXPORTS = ROOT / "models" / "exports"
EXACT = ("widen:{}:3", "insert_identity:{}")
APPROXIMATE = ("narrow:{}:{}", "factorize:{}:{}", "merge:{}")
SAME, EXACT_WITHIN = 1e-6, 1e-5
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


def compare(first: onnx.ModelProto, second: onnx.ModelProto, feeds: dict[str, Array]) -> Difference:
    """Largest difference of the two models' numeric outputs on the same inputs."""
    maximum = scale = 0.0
    for a, b in zip(evaluator(first)(None, feeds), evaluator(second)(None, feeds), strict=True):
        x, y = _numbers(a), _numbers(b)
        if x.size:
            maximum, scale = max(maximum, float(np.abs(x - y).max())), max(scale, float(np.abs(x).max()))
    return Difference(maximum, scale)


def _numbers(output: Any) -> Array:
    """The floating point values of an output; ZipMap's are a dictionary a row."""
    if isinstance(output, list):
        return np.array([list(row.values()) for row in output], np.float64)
    wide = isinstance(output, np.ndarray) and (output.dtype.kind == "f" or output.dtype.name == "bfloat16")
    return output.astype(np.float64) if wide else np.zeros(0)


def interface(model: onnx.ModelProto) -> dict[str, Any]:
    """What a caller of the model sees, and what describes it."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        "inputs": [value.SerializeToString() for value in model.graph.input if value.name not in constants],
        "outputs": [value.SerializeToString() for value in model.graph.output],
        "opset": [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")],
        "IR version": model.ir_version,
        "metadata": [(entry.key, entry.value) for entry in model.metadata_props],
        "doc strings": (model.doc_string, model.graph.doc_string, model.graph.name, model.domain, model.model_version),
        "producer": (model.producer_name, model.producer_version),
    }


def check_interface(fixture: Fixture, network: Network, feeds: dict[str, Array], folder: Path) -> str:
    """Write the model back untouched: "same, …" with the outputs' difference, or what changed."""
    save(network, folder / "same.onnx", overwrite=True)
    original, written = read_model(fixture.path), read_model(folder / "same.onnx")
    then, now = interface(original), interface(written)
    changed = [name for name in then if then[name] != now[name]]
    if changed:
        return f"no: {', '.join(changed)}"
    if compare(original, original, feeds).maximum > 0:
        return "same, the original's outputs are random"
    difference = compare(original, written, feeds).relative
    verdict = "same" if difference <= SAME else "no"
    return f"{verdict}, {'equal bits' if difference == 0 else f'{difference:.0e}'}"


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


def check_epoch(fixture: Fixture, network: Network, dataset: Dataset) -> str:
    """Train for one epoch: the loss before and after."""
    engine = make_engine("auto", network=network)
    rate = 0.0005 if fixture.task == "regression" else 0.001
    before = fit(network, dataset, engine, fixture.options, epochs=0)[1]
    _, after = fit(network, dataset, engine, fixture.options, epochs=1, settings=TrainingSettings(rate))
    return f"{before.loss:.3g} → {after.loss:.3g}"


def check_evolve(fixture: Fixture, folder: Path, row: Row) -> None:
    """Evolve over two decision points; fill in the rest of the row."""
    rate = 0.0005 if fixture.task == "regression" else 0.001
    settings = SurgeonSettings.from_preset("corrected", initial_epochs=1, epoch_step=1, epochs=3, learning_rate=rate)
    data = str(ROOT / fixture.data) if "/" in fixture.data else fixture.data
    evolved = evolve(
        fixture.path,
        data,
        target=fixture.target,
        settings=settings,
        options=fixture.options,
        run_dir=folder / "run",
    )
    best = read_model(evolved.run / "best.onnx")
    unlike = [k for k, v in interface(read_model(fixture.path)).items() if k != "metadata" and interface(best)[k] != v]
    row.evolves = f"no: {', '.join(unlike)}" if unlike else f"yes, {evolved.network.topology}"
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
            row.interface = check_interface(fixture, network, feeds, folder)
            row.surgeries = check_surgeries(fixture, network, feeds)
            row.epoch = check_epoch(fixture, network, dataset)
            check_evolve(fixture, folder, row)
        except OnnxSurgeonError as error:
            text = str(error).replace(f"{fixture.path}: ", "").replace(str(ROOT) + "/", "")
            if row.loads == "no":
                row.loads = f"refused: {text}" if fixture.refused else f"NO: {text}"
            else:
                row.evolves = f"no: {text}"
    return row


def main() -> None:
    """Print the table; exit 1 where a fixture that should be read is not."""
    chosen = fixtures(sys.argv[1:])
    print(f"| {' | '.join(HEADINGS)} |")
    print(f"| {' | '.join('---' for _ in HEADINGS)} |")
    failed = 0
    for fixture in chosen:
        row = check(fixture)
        failed += row.loads.startswith("NO")
        print(f"| {' | '.join(row.cells())} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
