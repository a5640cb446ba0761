"""From a data set to examples: rows fitted to the inputs, the prefix applied, and targets."""

from __future__ import annotations

from dataclasses import replace

from onnxsurgeon.data.agreement import require_agreement
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.encoding import encode
from onnxsurgeon.data.examples import Examples, narrow
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.data.heads import resolve_tasks, with_class_names
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import Task


def prepare(
    network: Network,
    dataset: Dataset,
    split: Split,
    options: InputOptions | None = None,
    *,
    tasks: tuple[Task, ...] | None = None,
) -> Examples:
    """Make examples of the rows of ``split``: features for the network's trained part, and its heads' targets.

    ``tasks`` are the tasks of the heads, where the examples of another split have decided them.

    Raises:
        DataError: the rows do not fit the model's inputs, or a label not its outputs; names row or column.
        ModelError: the model's inputs are no tensors.
    """
    options = options or InputOptions()
    tasks, labels = _targets(network, dataset, split, options, tasks)
    inputs = model_inputs(network, dataset, split, options)
    require_agreement(network, tasks, inputs)
    return Examples(_features(network, dataset, split, inputs), labels, tasks)


def prepare_rows(network: Network, dataset: Dataset, split: Split, options: InputOptions | None = None) -> Examples:
    """Make examples of the rows of ``split`` without labels, whether the rows have any or not.

    Raises:
        DataError: the rows do not fit the model's inputs; names row or column.
        ModelError: the model's inputs are no tensors.
    """
    inputs = model_inputs(network, dataset, split, options or InputOptions())
    return Examples(_features(network, dataset, split, inputs), (), ())


def _features(network: Network, dataset: Dataset, split: Split, inputs: dict[str, Rows]) -> tuple[Rows, ...]:
    features = compute_features(network, inputs, split.rows)
    for name, rows in features.items():
        wanted = network.frame.trunk.features[name]
        if len(rows) != split.rows or not _fits(rows.shape[1:], wanted):
            found = f"{split.stored.shape[1:]}" if isinstance(split.stored, Rows) else "these columns"
            takes = f"{wanted[0]} values" if len(wanted) == 1 else str(wanted)
            raise DataError(
                f"{dataset.name}: its rows of shape {found} reach the dense layers of '{network.name}' as "
                f"{rows.shape[1:]}, which takes {takes}",
                "unlike-inputs",
            )
    return tuple(replace(rows, dtype=network.dtype) for rows in features.values())


def require_targets(
    network: Network, dataset: Dataset, split: Split, options: InputOptions, tasks: tuple[Task, ...] | None = None
) -> tuple[Task, ...]:
    """Raise DataError, naming the row, where a label of ``split`` fits none of the network's outputs.

    Returns:
        The tasks of the heads: ``tasks``, where they are known.
    """
    return _targets(network, dataset, split, options, tasks)[0]


def require_plain_classes(options: InputOptions) -> None:
    """Raise DataError where classes are to be named, weighed or balanced while a teacher is the only measure."""
    for name, value in (("class-weight", options.class_weight), ("metric", options.metric)):
        if value.startswith("balanced"):
            raise DataError(
                f"{name}: {value} goes by labels; here a teacher's outputs are what is measured by", "no-labels"
            )


def _targets(
    network: Network, dataset: Dataset, split: Split, options: InputOptions, tasks: tuple[Task, ...] | None
) -> tuple[tuple[Task, ...], tuple[Array, ...]]:
    """The tasks of the heads, and the labels of ``split`` as their targets."""
    named = with_class_names(network, options.classes)
    if tasks is None:
        chosen = {"class_weight": options.class_weight, "metric": options.metric}
        tasks = resolve_tasks(named, dataset, options.loss, **chosen)
    return tasks, tuple(map(narrow, encode(named, dataset, split, tasks), tasks))


def _fits(have: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(have) == len(wanted) and all(w is None or h == w for h, w in zip(have, wanted, strict=True))
