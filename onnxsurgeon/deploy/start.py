"""From a model and options to the plan of a trainer: the tasks of its heads, and the form of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxsurgeon.data.features import prefix_model
from onnxsurgeon.data.heads import imitated_loss
from onnxsurgeon.data.inputs import declared_inputs
from onnxsurgeon.deploy import names
from onnxsurgeon.deploy.plan import RowInput
from onnxsurgeon.errors import ModelError, SettingsError
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.network import Network
from onnxsurgeon.runtime import evaluator, numpy_type
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.resident import numbered

# Operators of a prefix that may only move values; running it shows whether it does.
_MOVING = frozenset(
    {
        "Cast",
        "CastLike",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Mul",
        "Reshape",
        "Shape",
        "Slice",
        "Squeeze",
        "Unsqueeze",
    }
)


def tasks_of(network: Network, loss: str = "auto", labels: int | None = None) -> tuple[Task, ...]:
    """Choose the task of each head without rows: by the nodes behind it, or by ``loss``.

    Args:
        network: the network.
        loss: one of ``task.LOSSES``, or "auto".
        labels: number of labels of a row for each head, where the model does not tell; else it is checked.

    Raises:
        SettingsError: the loss fits no head, or cannot be told; or the number of labels is another.
    """
    found = []
    for head in network.heads:
        chosen = _loss(network, head) if loss == "auto" else loss
        if chosen == CROSS_ENTROPY and head.width < 2:
            raise SettingsError(
                f"loss: '{network.name}': its head '{head.tensor}' has a single output, no classes", "unlike-targets"
            )
        if chosen != CROSS_ENTROPY and head.squash == "Softmax":
            raise SettingsError(
                f"loss: '{network.name}': its head '{head.tensor}' ends in a Softmax, which has no {chosen}",
                "unlike-targets",
            )
        positions = positions_of(network, head, 1 if chosen == CROSS_ENTROPY else head.width, labels)
        found.append(Task(chosen, head.width, head.squash, positions=positions))
    return tuple(found)


def _loss(network: Network, head: Head) -> str:
    told = imitated_loss(head, head.squash)
    if told == SQUARED and not head.squash:
        raise SettingsError(
            f"loss: the output '{head.tensor}' of '{network.name}' may be logits or values: say --loss "
            f"{CROSS_ENTROPY}, {BINARY} or {SQUARED}, or give --data, whose labels tell",
            "trainer-tells",
        )
    return told


def positions_of(network: Network, head: Head, each: int, labels: int | None) -> int:
    """The number of rows of outputs for one row of the data."""
    between = trunk_shape(network, head.tensor)[:-1] if head.rank > 2 else ()
    known = None if None in between else math.prod(size or 1 for size in between)
    if labels is None:
        if known is None:
            raise SettingsError(
                f"labels: how many labels a row has, '{network.name}' does not say: its head '{head.tensor}' has "
                f"{head.rank} axes of unknown sizes; give --labels",
                "trainer-tells",
            )
        return known
    if known is not None and labels != known * each:
        raise SettingsError(
            f"labels: a row of '{network.name}' has {known * each} for its head '{head.tensor}', not {labels}",
            "trainer-tells",
        )
    if labels % each:
        raise SettingsError(
            f"labels: {labels} are no multiple of the {each} outputs of the head '{head.tensor}'", "trainer-tells"
        )
    return labels // each


def trunk_shape(network: Network, tensor: str) -> tuple[int | None, ...]:
    """The shape of a tensor of the trunk without its batch axis, with None for sizes that are not known."""
    trunk = network.frame.trunk
    shapes: dict[str, tuple[int | None, ...]] = dict(trunk.features)
    for step in trunk.steps:
        if isinstance(step, int):
            segment = network.segments[step]
            for name, columns in segment.ends.items():
                shapes[name] = (*shapes[segment.input_name][:-1], columns.stop - columns.start)
            shapes[segment.output_name] = (*shapes[segment.input_name][:-1], segment.widths[-1])
        else:
            shapes[step.output] = tuple(step.shape[1:])
    return shapes[tensor]


def rows_of(
    network: Network, dtype: str = "", scale: float | None = None, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> tuple[tuple[RowInput, ...], tuple[RowInput, ...], bool]:
    """The rows as they are given, the rows that the trained part takes, and whether these are computed from those.

    Args:
        network: the model.
        dtype: type of the values as they are given: "" for the model's own, or "uint8".
        scale: factor for the values; None: 1/255 for bytes, else 1.
        mean: subtracted after that, one value.
        std: divides after that, one value.

    Raises:
        ModelError: an input is no tensor, or has more than one unknown size besides the batch.
        SettingsError: the values cannot be scaled so.
    """
    inputs = []
    for value in declared_inputs(network):
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"'{network.name}': its input '{value.name}' is no tensor", "open-shape")
        own = numpy_type(value.type.tensor_type.elem_type)
        sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        given = np.dtype(dtype or own)
        factor, offset = _scaling(given, own, scale, mean, std)
        inputs.append(RowInput(value.name, given, sizes[1:], factor, offset, value.name))
    features = network.frame.trunk.features
    row_names = numbered(names.ROWS, len(features))
    sources = [_source(network, feature, inputs) for feature in features]
    if all(source is not None for source in sources):
        rows = [
            RowInput(name, source.dtype, source.shape, source.scale, source.offset, source.source)
            for name, source in zip(row_names, sources, strict=True)
            if source is not None
        ]
        return tuple(inputs), tuple(rows), False
    made = [RowInput(name, network.dtype, shape) for name, shape in zip(row_names, features.values(), strict=True)]
    return tuple(inputs), tuple(made), True


def _scaling(
    given: np.dtype[np.generic],
    own: np.dtype[np.generic],
    scale: float | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[float, float]:
    if len(mean) > 1 or len(std) > 1:
        raise SettingsError("mean and std: without --data one value each, for all channels", "trainer-tells")
    if own.kind not in "f":
        if given != own or scale is not None or mean or std:
            raise SettingsError(f"rows: the model takes {own}, which is neither converted nor scaled", "trainer-tells")
        return 1.0, 0.0
    factor = (1 / 255 if given == np.uint8 else 1.0) if scale is None else scale
    divisor = std[0] if std else 1.0
    return factor / divisor, (-mean[0] / divisor if mean else 0.0)


def _source(network: Network, feature: str, inputs: Sequence[RowInput]) -> RowInput | None:
    """The input that a feature is, perhaps with other axes; None where the feature is computed."""
    known = {each.name: each for each in inputs}
    if feature in known:
        return known[feature] if known[feature].dtype.kind in "fui" else None
    if network.frame.takes_one_row or not all(node.op_type in _MOVING for node in network.frame.prefix_nodes):
        return None
    model = prefix_model(network, [feature])
    if len(model.graph.input) != 1 or model.graph.input[0].name not in known:
        return None
    source = known[model.graph.input[0].name]
    kind = numpy_type(model.graph.input[0].type.tensor_type.elem_type)
    shape = network.frame.trunk.features[feature]
    if kind.kind != "f" or None in source.shape or None in shape:
        return None
    if math.prod(int(s or 0) for s in source.shape) != math.prod(int(s or 0) for s in shape):
        return None
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    rows = first.dim_value if first.HasField("dim_value") else 3
    x = np.random.default_rng(0).standard_normal((rows, *(int(s or 0) for s in source.shape))).astype(kind)
    try:
        (y,) = evaluator(model)([feature], {source.name: x})
    except Exception:  # ONNX Runtime's exceptions share no narrower base; a prefix that fails is no mere reshaping
        return None
    same = y.shape == (rows, *shape) and np.array_equal(
        np.asarray(y, np.float64).reshape(x.shape), x.astype(np.float64)
    )
    return source if same else None
