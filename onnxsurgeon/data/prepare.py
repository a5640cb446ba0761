"""What the trained part of a network sees of a data set: rows fitted to the inputs, the prefix applied, targets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onnxsurgeon.data.agreement import require_agreement
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.data.heads import encode, resolve_tasks, with_class_names
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CLASS_WEIGHTS, LOSSES, METRICS, Task

LAYOUTS = ("hwc", "chw")


@dataclass(frozen=True)
class InputOptions:
    """How a data set and a model meet.

    Attributes:
        layout: order in which images are laid out in a flat input: "hwc", as in the paper, or "chw".
        scale: factor for the values; None: 1/255 (1/16 for digits) for integer pixels, 1 for other values.
        mean: subtracted after scaling, one value or one for each channel.
        std: divides after that, one value or one for each channel.
        loss: one of ``task.LOSSES``; "auto": what the model's outputs and the targets suggest.
        classes: names of the model's classes in the order of its outputs, where it names none; (): labels in order.
        class_weight: "none", or "balanced": the loss of a row is weighed by the inverse of its class's share.
        metric: "auto", or "balanced-accuracy", the mean over classes, where rows have classes.
    """

    layout: str = "hwc"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    loss: str = "auto"
    classes: tuple[str, ...] = ()
    class_weight: str = "none"
    metric: str = "auto"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise DataError(f"unknown layout '{self.layout}': expected hwc or chw")
        if not all(math.isfinite(value) for value in (self.scale or 0.0, *self.mean, *self.std)):
            raise DataError("scale, mean and std must be finite numbers")
        if 0 in self.std:
            raise DataError("a standard deviation of 0 cannot divide")
        if self.loss not in ("auto", *LOSSES):
            raise DataError(f"unknown loss '{self.loss}': expected auto, {', '.join(LOSSES)}")
        for name, value, known in (
            ("class-weight", self.class_weight, CLASS_WEIGHTS),
            ("metric", self.metric, METRICS),
        ):
            if value not in known:
                raise DataError(f"unknown {name} '{value}': expected {' or '.join(known)}")
        if len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise DataError(f"classes: {', '.join(self.classes)}: expected a name for each, no two alike")


def prepare(network: Network, dataset: Dataset, split: Split, options: InputOptions | None = None) -> Examples:
    """The rows of ``split`` as what enters the network's trained part, and its heads' targets.

    Raises:
        DataError: the rows do not fit the model's inputs, or a label not its outputs; names row or column.
        ModelError: the model's inputs are no tensors.
    """
    options = options or InputOptions()
    tasks, labels = _targets(network, dataset, split, options)
    inputs = model_inputs(network, dataset, split, options)
    require_agreement(network, tasks, inputs)
    return Examples(_features(network, dataset, split, inputs), labels, tasks)


def prepare_rows(network: Network, dataset: Dataset, split: Split, options: InputOptions | None = None) -> Examples:
    """The rows of ``split`` as what enters the network's trained part, without labels, whether they have any or not.

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
                f"{rows.shape[1:]}, which takes {takes}"
            )
    return tuple(replace(rows, dtype=network.dtype) for rows in features.values())


def require_targets(network: Network, dataset: Dataset, split: Split, options: InputOptions) -> None:
    """Raise DataError, naming the row, where a label of ``split`` fits none of the network's outputs."""
    _targets(network, dataset, split, options)


def require_plain_classes(options: InputOptions) -> None:
    """Raise DataError where classes are to be named, weighed or balanced, and a teacher is the only measure."""
    for name, value in (("class-weight", options.class_weight), ("metric", options.metric)):
        if value.startswith("balanced"):
            raise DataError(f"{name}: {value} goes by labels; here a teacher's outputs are what is measured by")


def _targets(
    network: Network, dataset: Dataset, split: Split, options: InputOptions
) -> tuple[tuple[Task, ...], tuple[Array, ...]]:
    """What the heads are trained for, and the labels of ``split`` as their targets."""
    named = with_class_names(network, options.classes)
    chosen = {"class_weight": options.class_weight, "metric": options.metric}
    tasks = resolve_tasks(named, dataset, options.loss, **chosen)
    return tasks, encode(named, dataset, split, tasks)


def _fits(have: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(have) == len(wanted) and all(w is None or h == w for h, w in zip(have, wanted, strict=True))
