"""Compares two models: the changes of each layer, and their effect on the outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxsurgeon.comparison.layers import LayerChange, layer_changes
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.comparison.on_data import DataComparison, compare_on_data
from onnxsurgeon.comparison.outputs import OutputComparison, compare_on_random_inputs
from onnxsurgeon.comparison.similarity import align
from onnxsurgeon.data.given import DataSource, as_dataset
from onnxsurgeon.data.options import InputOptions, input_options
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.opening import ModelSource, open_model
from onnxsurgeon.graph.reader import load
from onnxsurgeon.operating.evaluate import require_split, rows_of
from onnxsurgeon.runs.selection import model_file


@dataclass(frozen=True)
class ModelSummary:
    """One of the two models.

    Attributes:
        name: what was given: a path, or a network's name.
        file: the model file; None for a network in memory.
        topology: widths of its layers, such as "784-10-10".
        parameters: trainable values.
        bytes: size of its file, with external data; None for a network in memory.
    """

    name: str
    file: str | None
    topology: str
    parameters: int
    bytes: int | None


@dataclass(frozen=True)
class Diff:
    """The differences between two models.

    Attributes:
        before: the first.
        after: the second.
        alignment: how the layers were matched: "lineage", by the surgeries that the files tell, or "similarity".
        undone: by lineage, the first model's surgeries since the last common ancestor.
        done: by lineage, the second's since then.
        layers: the change of each layer, in the second model's order.
        random: the outputs on random inputs.
        data: both models on the rows of a data set, where one was given.
    """

    before: ModelSummary
    after: ModelSummary
    alignment: str
    undone: tuple[str, ...]
    done: tuple[str, ...]
    layers: tuple[LayerChange, ...]
    random: OutputComparison
    data: DataComparison | None = None

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def diff(
    a: ModelSource,
    b: ModelSource,
    *,
    data: DataSource | None = None,
    split: str = "test",
    options: InputOptions | None = None,
    engine: str = "auto",
    device: str = "cpu",
    target: str | Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Any = None,
) -> Diff:
    """Compare model ``b`` with model ``a``, layer by layer and on the same inputs.

    Args:
        a: a network, an ``onnx.ModelProto``, bytes, a model file, a run (its best.onnx), or RUN#7 (its branch 7).
        b: likewise.
        data: rows on which to compare them too, as ``evolve`` takes them.
        split: which rows of it: "train", "validation", "test" or "all".
        options: how rows become the models' input.
        engine: "auto", "loop" or "artifacts"; it measures the accuracy.
        device: "cpu" or "cuda".
        target: columns of a table to predict, or the .npy file of labels; see ``load_dataset``.
        impute: what fills a table's missing values.
        validation_fraction: share of the training rows that is the split "validation".
        data_dir: where the data set's files lie.
        progress: see ``load_dataset``.

    Raises:
        OnnxSurgeonError: a model or the data set cannot be used, or the rows do not fit a model.
    """
    require_split(split)
    (first, before), (second, after) = _opened(a), _opened(b)
    related = kinship(first, second)
    groups = align(first, second) if related is None else related.groups
    on_data = None
    if data is not None and not (isinstance(data, str) and not data):
        folder = None if data_dir is None else Path(data_dir)
        rows: dict[str, Any] = {"target": target, "impute": impute, "validation_fraction": validation_fraction}
        dataset = as_dataset(data, **rows, folder=folder, progress=progress, networks=(first, second))
        chosen = rows_of(dataset, split)
        on_data = compare_on_data(
            (first, second), dataset, split, chosen, input_options(options), engine=engine, device=device
        )
    return Diff(
        before,
        after,
        "similarity" if related is None else "lineage",
        () if related is None else related.undone,
        () if related is None else related.done,
        layer_changes(first, second, groups),
        compare_on_random_inputs(first, second),
        on_data,
    )


def _opened(given: ModelSource) -> tuple[Network, ModelSummary]:
    if not isinstance(given, str | os.PathLike):
        network = open_model(given).network
        return network, ModelSummary(network.name, None, network.topology, network.parameter_count, None)
    path = model_file(given)
    network = load(path)
    size = size_on_disk(path)
    return network, ModelSummary(str(given), str(path), network.topology, network.parameter_count, size)
