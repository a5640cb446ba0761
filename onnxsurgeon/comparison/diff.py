"""Two models compared: what became of each layer, and what that did to the outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxsurgeon.choices import SPLITS
from onnxsurgeon.comparison.layers import LayerChange, layer_changes
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.comparison.on_data import DataComparison, compare_on_data
from onnxsurgeon.comparison.outputs import OutputComparison, compare_on_random_inputs
from onnxsurgeon.comparison.similarity import align
from onnxsurgeon.data.load import load_dataset
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import load
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
    """What lies between two models.

    Attributes:
        before: the first.
        after: the second.
        alignment: how the layers were matched: "lineage", by the surgeries that the files tell, or "similarity".
        undone: by lineage, the first model's surgeries since the last ancestor that both share.
        done: by lineage, the second's since then.
        layers: what became of each layer, in the second model's order.
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
    a: str | os.PathLike[str] | Network,
    b: str | os.PathLike[str] | Network,
    *,
    data: str = "",
    split: str = "test",
    options: InputOptions | None = None,
    engine: str = "auto",
    device: str = "cpu",
    target: Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Any = None,
) -> Diff:
    """Compare model ``b`` with model ``a``, layer by layer and on the same inputs.

    Args:
        a: a network, a model file, a run (its best.onnx), or RUN#7 (its branch 7).
        b: likewise.
        data: a data set on whose rows to compare them too; see ``load_dataset``.
        split: which rows of it: "train", "validation" or "test".
        options: how rows become the models' input.
        engine: "auto", "loop" or "artifacts": what measures the accuracy.
        device: "cpu" or "cuda".
        target: columns of a table to predict, or the .npy file of labels; see ``load_dataset``.
        impute: what fills a table's missing values.
        validation_fraction: share of the training rows that is the split "validation".
        data_dir: where the data set's files lie.
        progress: see ``load_dataset``.

    Raises:
        OnnxSurgeonError: a model or the data set cannot be used, or the rows do not fit a model.
    """
    if split not in SPLITS:
        raise SettingsError(f"split: '{split}' is unknown: expected one of {', '.join(SPLITS)}")
    (first, before), (second, after) = _opened(a), _opened(b)
    related = kinship(first, second)
    groups = align(first, second) if related is None else related.groups
    on_data = None
    if data:
        folder = None if data_dir is None else Path(data_dir)
        rows: dict[str, Any] = {"target": tuple(target), "impute": impute, "validation_fraction": validation_fraction}
        dataset = load_dataset(data, **rows, folder=folder, progress=progress, networks=(first, second))
        chosen = dataset.hold_out()[1] if split == "validation" else getattr(dataset, split)
        on_data = compare_on_data(
            (first, second), dataset, split, chosen, options or InputOptions(), engine=engine, device=device
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


def _opened(given: str | os.PathLike[str] | Network) -> tuple[Network, ModelSummary]:
    if isinstance(given, Network):
        return given, ModelSummary(given.name, None, given.topology, given.parameter_count, None)
    path = model_file(given)
    network = load(path)
    size = size_on_disk(path)
    return network, ModelSummary(str(given), str(path), network.topology, network.parameter_count, size)
