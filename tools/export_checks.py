"""What is checked of every export alike, and how a table of it is printed: exports_table.py, convolution_table.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx

from onnxsurgeon import (
    Dataset,
    Evolved,
    InputOptions,
    Network,
    SurgeonSettings,
    TrainingSettings,
    evolve,
    make_engine,
    save,
)
from onnxsurgeon.graph.equivalence import Difference
from onnxsurgeon.graph.files import read_model
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import evaluator
from onnxsurgeon.training.fit import fit

SAME, EXACT_WITHIN = 1e-6, 1e-5  # of the outputs' scale: of a file written back, of an exact surgery


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


def changed(first: Path, second: Path, *, but: Sequence[str] = ()) -> list[str]:
    """What of the interface of two files is not the same."""
    then, now = interface(read_model(first)), interface(read_model(second))
    return [name for name in then if then[name] != now[name] and name not in but]


def check_interface(path: Path, network: Network, feeds: dict[str, Array], folder: Path) -> str:
    """Write the model back untouched: "same, …" with the outputs' difference, or what changed."""
    save(network, folder / "same.onnx", overwrite=True)
    unlike = changed(path, folder / "same.onnx")
    if unlike:
        return f"no: {', '.join(unlike)}"
    original, written = read_model(path), read_model(folder / "same.onnx")
    if compare(original, original, feeds).maximum > 0:
        return "same, the original's outputs are random"
    difference = compare(original, written, feeds).relative
    verdict = "same" if difference <= SAME else "no"
    return f"{verdict}, {'equal bits' if difference == 0 else f'{difference:.0e}'}"


def check_epoch(network: Network, dataset: Dataset, rate: float, options: InputOptions | None = None) -> str:
    """Train for one epoch at a learning rate: the loss before and after."""
    engine = make_engine("auto", network=network)
    before = fit(network, dataset, engine, options, epochs=0)[1]
    _, after = fit(network, dataset, engine, options, epochs=1, settings=TrainingSettings(rate))
    return f"{before.loss:.3g} → {after.loss:.3g}"


def check_evolve(path: Path, data: Any, rate: float, folder: Path, **how: Any) -> tuple[str, Evolved]:
    """Evolve over two decision points: what came out behind the same interface, and the run."""
    settings = SurgeonSettings.from_preset("corrected", initial_epochs=1, epoch_step=1, epochs=3, learning_rate=rate)
    evolved = evolve(path, data, settings=settings, run_dir=folder / "run", **how)
    unlike = changed(path, evolved.run / "best.onnx", but=("metadata",))
    return f"no: {', '.join(unlike)}" if unlike else f"yes, {evolved.network.topology}", evolved


class Cells(Protocol):
    """A row of a table."""

    def cells(self) -> list[str]:
        """Its cells."""


T = TypeVar("T", bound=Cells)


def printed(headings: Sequence[str], rows: Iterable[T]) -> list[T]:
    """The rows, printed as a table in Markdown, each as soon as it is there."""
    print(f"| {' | '.join(headings)} |")
    print(f"| {' | '.join('---' for _ in headings)} |")
    done = []
    for row in rows:
        print(f"| {' | '.join(row.cells())} |", flush=True)
        done.append(row)
    return done
