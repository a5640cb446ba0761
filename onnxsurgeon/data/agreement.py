"""Checks that a model's outputs follow the heads that are trained: nodes behind them may turn a prediction around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.data.rows import Rows
from onnxsurgeon.data.soft import sigmoid
from onnxsurgeon.errors import DataError, EngineError, ModelError
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.parts import LARGEST_FILE
from onnxsurgeon.graph.sizes import largest_tensor, rows_that_fit
from onnxsurgeon.graph.writer import to_model, to_parts
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import run
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task

ROWS = 64
AGREEING = 0.98  # 16-bit outputs have ties that their logits do not
_CHANGED = "what stands behind the last dense layer changes what it predicts; another --loss may fit"
MAGNIFIED = 8.0  # logits of this size give probabilities that any type tells apart


def require_agreement(network: Network, tasks: tuple[Task, ...], inputs: Mapping[str, Rows]) -> None:
    """Run the whole model on some rows: for each head, one output must agree with the task's reading of the head.

    Nothing is checked where the model takes inputs that are not given, or does not fit one protobuf.

    Raises:
        DataError: there are labels for another number of positions than the head has.
        ModelError: no output follows a head; names it and what reads it.
    """
    parts = to_parts(network)
    if parts.skeleton.ByteSize() + sum(array.nbytes for array in parts.arrays.values()) > LARGEST_FILE // 2:
        return
    model = to_model(network)
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted = [value.name for value in model.graph.input if value.name not in constants]
    if any(name not in inputs for name in wanted):
        return
    names = list(dict.fromkeys(value.name for value in model.graph.output))
    for head in network.heads:
        if head.tensor not in names:
            model.graph.output.append(onnx.ValueInfoProto(name=head.tensor))
    one_row, label = network.frame.takes_one_row, f"'{network.name}'"
    rows = ROWS if one_row else _rows(model, inputs)
    shapes = {name: tuple(inputs[name].shape[1:]) for name in wanted}
    if one_row:
        largest_tensor(model, shapes, name=label)
    elif _rows(model, {}) == rows:
        rows = rows_that_fit(model, shapes, rows, name=label)
    else:  # the model's own batch
        largest_tensor(model, {name: (rows, *shape) for name, shape in shapes.items()}, name=label)
    feeds = {name: inputs[name].take(np.arange(rows) % len(inputs[name])) for name in wanted}
    try:
        values = run(model, feeds)
    except EngineError:
        return  # the prefix reports rows on which it fails more precisely
    found = dict(zip([value.name for value in model.graph.output], values, strict=True))
    direct = {name for segment in network.segments for name in segment.ends}
    for head, task in zip(network.heads, tasks, strict=True):
        logits = np.asarray(found[head.tensor], np.float64)
        if not np.isfinite(logits).all():
            raise DataError(
                f"'{network.name}': what its head '{head.tensor}' puts out is not finite for these rows: their values, "
                "or the model's own, are too large",
                "outputs-not-finite",
            )
        positions = logits.size // max(1, len(logits) * head.width)  # a head of one number may lack its last axis
        if positions != task.positions:
            raise DataError(
                f"'{network.name}': its head '{head.tensor}' has {positions} positions a row; the labels have "
                f"{task.positions}",
                "label-columns",
            )
        logits = logits.reshape(-1, head.width)
        outputs = [as_table(found[name]) for name in names]
        probable = task.loss == BINARY and not task.squash and head.tensor not in direct and _within_one(logits)
        follows = _follows(head, task, logits, [output for output in outputs if output is not None])
        if probable or not (follows or _follows_magnified(network, head, task, logits, feeds)):
            readers = f" ({', '.join(head.readers)} behind it)" if head.readers else ""
            raise ModelError(
                f"'{network.name}': no output follows tensor '{head.tensor}'{readers} as {task.kind} with {task.loss} "
                f"needs: {head.obstacle or _CHANGED}",
                "outputs-not-followed",
            )


def _follows_magnified(network: Network, head: Head, task: Task, logits: Array, feeds: Mapping[str, Array]) -> bool:
    """Whether an output follows a head whose values are small, once they are made large.

    A Softmax or a Sigmoid of values near 0 gives probabilities that a float cannot tell apart. Values are that small
    for inputs of size 1e-6, or for a last layer that was drawn very small, as policies' are. That layer is multiplied,
    or the inputs are if other nodes stand between it and the head, until the largest value is ``MAGNIFIED``.
    """
    largest = float(np.abs(logits).max(initial=0.0))
    if not 0 < largest < 1:
        return False
    factor = MAGNIFIED / largest
    # A layer whose weights are applied elsewhere too is not multiplied.
    alone = {number for number, each in enumerate(network.segments) if network.is_alone(number)}
    segments = tuple(
        _scaled(each, head.tensor, factor) if number in alone else each for number, each in enumerate(network.segments)
    )
    if all(head.tensor not in network.segments[number].ends for number in alone):
        feeds = {
            name: (values * factor).astype(values.dtype) if values.dtype.kind == "f" else values
            for name, values in feeds.items()
        }
    model = to_model(replace(network, segments=segments))
    names = list(dict.fromkeys(value.name for value in model.graph.output))
    if head.tensor not in names:
        model.graph.output.append(onnx.ValueInfoProto(name=head.tensor))
    found = dict(zip([value.name for value in model.graph.output], run(model, feeds), strict=True))
    larger = np.asarray(found[head.tensor], np.float64)
    tables = [as_table(found[name]) for name in names]
    return _follows(head, task, larger.reshape(-1, head.width), [table for table in tables if table is not None])


def _scaled(segment: DenseChain, tensor: str, factor: float) -> DenseChain:
    """The segment with weight and bias multiplied for the units of its last layer that write ``tensor``, if any do."""
    last, factors = segment.layers[-1], segment.over_ends({tensor: np.array(factor)}, 1.0)
    if factors is None:
        return segment
    weight = (last.weight * factors).astype(last.weight.dtype)
    bias = None if last.bias is None else (last.bias * factors).astype(last.bias.dtype)
    return replace(segment, layers=(*segment.layers[:-1], replace(last, weight=weight, bias=bias)))


def _rows(model: onnx.ModelProto, inputs: Mapping[str, Rows]) -> int:
    """A number of rows: a few, or the model's fixed batch."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in inputs and dims and dims[0].dim_value > 0:
            return int(dims[0].dim_value)
    return ROWS


def as_table(output: Any) -> Array | None:
    """An output of a model as rows of values, also ZipMap's, which is a dictionary for each row; None for no table."""
    if isinstance(output, list):
        return np.array([list(row.values()) for row in output]) if output and isinstance(output[0], dict) else None
    if not isinstance(output, np.ndarray) or output.ndim == 0:
        return None
    wide = output.astype(np.float64) if output.dtype.name == "bfloat16" else output
    return wide.reshape(len(wide), -1) if len(wide) else None


def _follows(head: Head, task: Task, logits: Array, outputs: list[Array]) -> bool:
    # Some exporters lay out labels, or several targets, in one column or one row.
    rows = len(logits)
    outputs = [output.reshape(rows, -1) for output in outputs if output.size % rows == 0]
    singles = [output for output in outputs if output.shape[1] == 1 and output.dtype.kind == "f"]
    if len(singles) == head.width > 1:  # ZipMap's columns, one output for each class
        outputs.append(np.concatenate(singles, axis=1))
    return any(_agrees(head, task, logits, output) for output in outputs)


def _agrees(head: Head, task: Task, logits: Array, output: Array) -> bool:
    """Whether this output says the same as the task's reading of the head."""
    numbers = output.dtype.kind in "fiub"
    if numbers and output.shape[1] == head.width and _same(output, logits):
        return True
    if task.loss == SQUARED:
        prediction = sigmoid(logits) if task.squash == "Sigmoid" else logits
        return numbers and output.shape[1] == head.width and _same(output, prediction)
    if task.loss == BINARY and head.width > 1:
        return numbers and output.shape == logits.shape and _share((output > 0.5) == (logits > 0))
    chosen = logits.argmax(axis=1) if task.loss == CROSS_ENTROPY else (logits[:, 0] > 0).astype(np.int64)
    classes = max(2, head.width)
    if numbers and output.dtype.kind == "f" and output.shape[1] == classes:
        return _share(output.argmax(axis=1) == chosen)
    if numbers and output.dtype.kind == "f":  # the probability of the second of two classes
        return classes == 2 and output.shape[1] == 1 and _share((output[:, 0] > 0.5) == (chosen == 1))
    labels = np.array([str(label) for label in head.labels or range(classes)])
    told = output[:, 0].astype(np.int64) if output.dtype.kind == "b" else output[:, 0]
    return _share(np.array([str(label) for label in told]) == labels[chosen])


def _same(output: Array, values: Array) -> bool:
    scale = float(np.abs(values).max(initial=0.0)) or 1.0
    return bool(np.abs(output.astype(np.float64) - values).max(initial=0.0) <= 0.01 * scale)


def _share(equal: Array) -> bool:
    return float(np.mean(equal)) >= AGREEING


def _within_one(values: Array) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())
