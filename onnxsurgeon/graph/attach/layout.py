"""Type and shape of a tensor that a head is to read, and how it becomes one vector for each row."""

from __future__ import annotations

from contextlib import suppress

import onnx
from onnx import TensorProto, helper

from onnxsurgeon.errors import ModelError, OnnxSurgeonError
from onnxsurgeon.graph.attach.batch import (
    BATCH,
    Shape,
    backbone,
    has_open_batch,
    inputs_of_model,
    measured,
    runs_at,
    told_shape,
)
from onnxsurgeon.graph.files import Parts

POOLS = ("auto", "mean", "first", "flatten")
FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}
_CHANNELS_FIRST = frozenset(
    "Conv ConvTranspose BatchNormalization InstanceNormalization MaxPool AveragePool GlobalAveragePool".split()  # noqa: SIM905
)
_ELEMENTWISE = frozenset(
    "Relu Clip LeakyRelu PRelu Sigmoid Mul Add Elu HardSwish Cast Identity Dropout".split()  # noqa: SIM905
)


def described(parts: Parts, tensor: str, source: str) -> tuple[int, Shape]:
    """Element type and shape of the tensor, batch first; they are inferred, and measured where they cannot be inferred.

    Raises:
        ModelError: it is not floating point, has no batch axis, or its shape cannot be told.
    """
    part = backbone(parts, tensor)
    kind, shape = told_shape(part, tensor)
    where = f"{source}: tensor '{tensor}'"
    if not kind or shape is None or not all(isinstance(size, int) for size in shape[1:]):
        kind, shape = _measured(part, tensor, kind, shape, where)
    if kind not in FLOATS:
        name = TensorProto.DataType.Name(kind).lower()
        raise ModelError(f"{where} is of type {name}, not floating point: choose another with --at", "place-of-head")
    if len(shape) < 2:
        raise ModelError(
            f"{where} has {'one axis' if shape else 'no axes'}, and no batch axis beside it; choose another with --at",
            "place-of-head",
        )
    if any(map(has_open_batch, inputs_of_model(parts))) and isinstance(shape[0], int):
        raise ModelError(
            f"{where} has no batch axis: {shape[0]} rows, whatever is given; choose another with --at", "place-of-head"
        )
    return kind, (shape[0] if shape[0] is not None else BATCH, *shape[1:])


def _measured(part: Parts, tensor: str, kind: int, told: Shape | None, where: str) -> tuple[int, Shape]:
    """Type and shape for random rows, with None for sizes that follow the rows or other open sizes.

    Raises:
        ModelError: the type or the number of axes is not known, and the model does not run.
    """
    values, size, why = runs_at(part, tensor, 2)
    if values is None:
        if kind and told is not None:
            return kind, told
        raise ModelError(
            f"{where}: its shape is not known, and the model does not run on random rows: {why}", "place-of-head"
        )
    other = None
    for wider in (size + 1, size):
        if other is None:
            with suppress(OnnxSurgeonError):
                other = measured(part, tensor, 3, wider)
    found: list[int | str | None] = list(values.shape)
    if other is not None and other.ndim == values.ndim:
        spelled = told if told is not None and len(told) == values.ndim else (BATCH, *(None,) * (values.ndim - 1))
        for axis, (here, there) in enumerate(zip(values.shape, other.shape, strict=True)):
            if here != there:
                found[axis] = spelled[axis] if not isinstance(spelled[axis], int) else None
    return helper.np_dtype_to_tensor_dtype(values.dtype), tuple(found)


def layout_of(
    graph: onnx.GraphProto, tensor: str, shape: Shape, pool: str, mask: str | None, source: str
) -> tuple[str, str | None, list[str]]:
    """How the tensor becomes one vector, the mask that this needs, and sentences on both.

    Raises:
        ModelError: an axis that has to be known is not.
    """
    where, rank = f"{source}: tensor '{tensor}'", len(shape)
    spelled = " × ".join("?" if size is None else str(size) for size in shape)
    if rank == 2:
        found, axes = "vector", shape[1:]
    elif pool == "flatten":
        found, axes = "flat", shape[1:]
    elif _is_channels_first(graph, tensor, shape):
        found, axes = "channels first", shape[1:2]
    else:
        tokens = "first token" if pool == "first" else "tokens"
        found, axes = tokens if rank == 3 else "channels last", shape[-1:]
    if not all(isinstance(size, int) for size in axes):
        raise ModelError(
            f"{where} of shape {spelled}: its number of features is not known; choose another with --at",
            "place-of-head",
        )
    if pool == "first" and found != "first token":
        raise ModelError(f"{where} of shape {spelled} has no tokens to take the first of", "place-of-head")
    mask = mask if found == "tokens" else None
    words = {
        "vector": "",
        "flat": f"its {spelled} are laid out flat",
        "channels first": f"its {spelled} are averaged over all positions, channels being axis 1",
        "channels last": f"its {spelled} are averaged over all positions, channels being the last axis",
        "tokens": f"its {spelled} are averaged over the tokens" + (f" that '{mask}' has" if mask else ""),
        "first token": f"of its {spelled} the first token is taken",
    }[found]
    return found, mask, [words] if words else []


def _is_channels_first(graph: onnx.GraphProto, tensor: str, shape: Shape) -> bool:
    """Whether axis 1 holds the channels; the node that writes the tensor tells, or else the sizes do."""
    makers = {name: node for node in graph.node for name in node.output if name}
    name = tensor
    for _ in range(8):
        node = makers.get(name)
        if node is None or node.op_type not in (_CHANNELS_FIRST | _ELEMENTWISE):
            break
        if node.op_type in _CHANNELS_FIRST:
            return True
        name = node.input[0]
    if len(shape) == 3:
        return isinstance(shape[1], int) and not isinstance(shape[2], int)
    return not (shape[1] == shape[2] != shape[3] and isinstance(shape[-1], int)) and isinstance(shape[1], int)
