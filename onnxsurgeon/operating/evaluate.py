"""Measures a model on the rows of a data set, or beside a teacher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onnxsurgeon.choices import SPLITS
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.given import DataSource, as_dataset
from onnxsurgeon.data.options import InputOptions, input_options
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.opening import ModelSource, open_model
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.teaching import imitating


def evaluate(
    model: ModelSource,
    data: DataSource,
    *,
    split: str = "test",
    teacher: str | os.PathLike[str] | None = None,
    options: InputOptions | None = None,
    engine: str = "auto",
    device: str = "cpu",
    target: str | Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Metrics:
    """Measure the accuracy and the loss of ``model`` on rows of ``data``; with a teacher, its agreement or fidelity.

    Args:
        model: an ONNX model: a path, bytes, an ``onnx.ModelProto`` or a ``Network``.
        data: rows with labels, as ``evolve`` takes them.
        split: which of them: "train", "validation" (of the training rows, where the data bring none), "test" or "all".
        teacher: path of an ONNX model whose outputs stand for labels.
        options: how rows become the model's input.
        engine: "auto", "loop" or "artifacts".
        device: "cpu" or "cuda".
        target: columns of a table to predict.
        impute: what fills a table's missing values.
        validation_fraction: share of the training rows that is the split "validation".
        data_dir: where a named data set's files lie.

    Raises:
        OnnxSurgeonError: an argument cannot be used; says why.
    """
    require_split(split)
    chosen, network = input_options(options), open_model(model).network
    dataset = as_dataset(
        data,
        target=target,
        impute=impute,
        validation_fraction=validation_fraction,
        folder=None if data_dir is None else Path(data_dir),
        networks=(network,),
    )
    return measured(network, dataset, split, chosen, make_engine(engine, device, network), teacher)


def measured(
    network: Network,
    dataset: Dataset,
    split: str,
    options: InputOptions,
    engine: Engine,
    teacher: str | os.PathLike[str] | None = None,
) -> Metrics:
    """The same of what was read already.

    Raises:
        OnnxSurgeonError: there is no such split, or the rows do not fit.
    """
    require_split(split)
    rows = rows_of(dataset, split)
    if teacher is None:
        examples = prepare(network, dataset, rows, options)
    else:
        examples = imitating(network, dataset, rows, options, teacher=TeacherModel.read(teacher))
    return engine.evaluate(network, examples)


def require_split(split: str) -> None:
    """Raise SettingsError where there is no such split."""
    if split not in SPLITS:
        raise SettingsError(
            f"split: '{split}' is unknown: expected one of {', '.join(SPLITS)}{_near(split)}", "unknown-choice"
        )


def rows_of(dataset: Dataset, split: str) -> Split:
    """The rows of that split."""
    if split == "all":
        return dataset.every_row
    if split == "validation":
        return dataset.hold_out()[1]
    return dataset.train if split == "train" else dataset.test


def _near(split: object) -> str:
    return did_you_mean(split, SPLITS) if isinstance(split, str) else ""
