"""Glue: nodes between and behind the dense segments that stay as they are and are trained through."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical import constant_values
from onnxsurgeon.graph.contractions import NotByRow, of_einsum, of_matmul, require_by_row
from onnxsurgeon.graph.normal_form import NOT_TOLD, UNLIFTED, activation_of, label, reads
from onnxsurgeon.linear_algebra import Array

Shape = tuple[int | None, ...]
_EPSILON = float(np.float32(1e-5))  # a default attribute is a float32 like any other


@dataclass(frozen=True, eq=False)
class Glue:
    """One differentiable node in a form that does not depend on the opset; axis 0 is the batch.

    Attributes:
        op: a key of ``READERS`` or of ``ACTIVATIONS``, or what a reader there turns the node into.
        inputs: names of the tensors it reads, constants included.
        output: name of the tensor it writes.
        shapes: the inputs' shapes; None: a size that is not known, as the batch never is.
        shape: the output's.
        attributes: what else the op needs, ``axis``, ``axes``, ``activation``, …
        node: what messages call the node.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    shapes: tuple[Shape, ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""

    @property
    def signature(self) -> tuple[object, ...]:
        """Everything that the glue computes with, as plain values."""
        given = [(key, v.tobytes() if isinstance(v, np.ndarray) else str(v)) for key, v in self.attributes.items()]
        return self.op, self.inputs, self.output, self.shapes, self.shape, sorted(given)


class NotGlue(Exception):  # noqa: N818 - a finding, not an error
    """The node cannot be trained through; the text says why."""


def read_glue(node: gs.Node) -> list[Glue]:
    """The node as glue: one for each output it has, where it can be trained through.

    Raises:
        NotGlue: it cannot; says why.
    """
    if node.op.startswith(UNLIFTED):
        raise NotGlue(NOT_TOLD)
    if node.op not in READERS and node.op not in ACTIVATIONS:
        raise NotGlue("it has no gradient rule")
    if any(tensor.shape is None for tensor in (*_tensors(node), *node.outputs[:1])):
        raise NotGlue("the shapes around it are not known")
    if node.op in ACTIVATIONS:
        return [_glue(node, "Activation", 2 if node.op == "PRelu" else 1, activation=activation_of(node))]
    return READERS[node.op](node)


def frozen_dense(node: gs.Node) -> list[Glue]:
    """A dense layer that is not trained, y = x W + b, as a product and a sum with constants.

    Raises:
        NotGlue: the shapes around it are not known.
    """
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        raise NotGlue("the shapes around it are not known")
    for position, what in enumerate(("weight", "bias")[: len(node.inputs) - 1], start=1):
        # Under a name of its own: layers that share a tensor need not have the same values of it.
        if not node.inputs[position].name.startswith(f"{y.name}/frozen_"):
            node.inputs[position] = gs.Constant(f"{y.name}/frozen_{what}", np.asarray(node.inputs[position].values))
    shapes = (shape_of(x), shape_of(node.inputs[1]))
    try:
        equation = of_matmul(*shapes, is_row=(True, False), is_vector=(False, False))
    except NotByRow as problem:
        raise NotGlue(str(problem)) from problem
    made = y.name if len(node.inputs) == 2 else f"{y.name}/product"
    names = (x.name, node.inputs[1].name)
    product = Glue("Einsum", names, made, shapes, shape_of(y), {"equation": equation, "is_matmul": True}, label(node))
    if len(node.inputs) == 2:
        return [product]
    read, bias = (made, node.inputs[2].name), shape_of(node.inputs[2])
    return [product, Glue("Add", read, y.name, (shape_of(y), bias), shape_of(y), {}, label(node))]


def data_inputs(node: gs.Node) -> list[Any]:
    """Tensors whose values flow through the node: a shape, an axis or a split is not among them."""
    if node.op in ("Shape", "Size"):
        return []
    if node.op in _ONE_INPUT:
        return _tensors(node)[:1]
    return list(reads(node))


def shape_of(tensor: Any) -> Shape:
    """Shape of a tensor; of constants all sizes, of others None for axis 0 and for what is not known."""
    if isinstance(tensor, gs.Constant):
        return tuple(int(size) for size in np.shape(tensor.values))
    sizes = [size if isinstance(size, int) and size >= 0 else None for size in tensor.shape]
    return (None, *sizes[1:]) if sizes else ()


def _tensors(node: gs.Node) -> list[Any]:
    return [tensor for tensor in node.inputs if tensor.name]


def _glue(node: gs.Node, op: str = "", inputs: int | None = None, **attributes: Any) -> Glue:
    read = _tensors(node)[:inputs]
    for tensor in read:
        shape, out = shape_of(tensor), shape_of(node.outputs[0])
        if isinstance(tensor, gs.Constant) and len(shape) == len(out) and shape and shape[0] != 1:
            raise NotGlue(f"its constant '{tensor.name}' depends on the batch")
    return Glue(
        op or node.op,
        tuple(tensor.name for tensor in read),
        node.outputs[0].name,
        tuple(shape_of(tensor) for tensor in read),
        shape_of(node.outputs[0]),
        attributes,
        label(node),
    )


def _plain(node: gs.Node) -> list[Glue]:
    """An elementwise op whose inputs are all there is to it."""
    out = node.outputs[0].shape
    for tensor in _tensors(node):
        if not isinstance(tensor, gs.Constant):
            fewer = len(tensor.shape) < len(out)
            if fewer or (len(out) > 0 and tensor.shape[0] == 1 and out[0] != 1):
                raise NotGlue(f"its input '{tensor.name}' has no row for each row of the batch")
    return [_glue(node)]


def _first_input(node: gs.Node) -> list[Glue]:
    """Identity, Dropout outside training, and casts between floating point types: y = x."""
    wanted = node.outputs[0].dtype
    if node.op == "Cast" and (wanted is None or np.dtype(wanted).kind not in "fV"):
        raise NotGlue("it casts to a type that has no gradient")
    if node.op == "Dropout" and len(node.inputs) > 2 and np.any(_constant(node, 2)):
        raise NotGlue("it drops at random: the model was exported in training mode")
    return [_glue(node, "Identity", 1)]


def _power(node: gs.Node) -> list[Glue]:
    exponent = _constant(node, 1)
    if exponent.size != 1:
        raise NotGlue("its exponent is not one constant")
    return [_glue(node, "Pow", 1, exponent=float(exponent.reshape(())))]


def _reshape(node: gs.Node) -> list[Glue]:
    """Whatever only reshapes: y = Reshape(x, (−1, d_1, …))."""
    shape, have = shape_of(node.outputs[0]), shape_of(node.inputs[0])
    same_rows = isinstance(node.inputs[0].shape[0], str) and node.inputs[0].shape[0] == node.outputs[0].shape[0]
    if shape[1:].count(None) == 1 and None not in have[1:] and same_rows:
        known = math.prod(size for size in shape[1:] if size is not None)
        rest = math.prod(size or 0 for size in have[1:]) // max(known, 1)
        shape = (None, *(rest if size is None else size for size in shape[1:]))
    if not shape or None in shape[1:]:
        raise NotGlue("the shape it makes is not known")
    if None in have[1:] or math.prod(n or 0 for n in have[1:]) != math.prod(n or 0 for n in shape[1:]):
        raise NotGlue("it mixes rows of the batch")
    return [replace(_glue(node, "Reshape", 1), shape=shape)]


def _transpose(node: gs.Node) -> list[Glue]:
    rank = len(shape_of(node.inputs[0]))
    order = tuple(node.attrs.get("perm", tuple(reversed(range(rank)))))
    if order[0] != 0:
        raise NotGlue("it moves the batch axis")
    return [_glue(node, order=order)]


def _concat(node: gs.Node) -> list[Glue]:
    axis = _axis(node, node.attrs.get("axis", 1))
    if any(isinstance(tensor, gs.Constant) for tensor in node.inputs):
        raise NotGlue("it joins constants, whose number of rows is fixed")
    sizes = [shape_of(tensor)[axis] for tensor in node.inputs]
    if None in sizes:
        raise NotGlue("the sizes it joins are not known")
    return [_glue(node, axis=axis, sizes=sizes)]


def _reduce(node: gs.Node) -> list[Glue]:
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1 and node.inputs[1].name:
        given = _constant(node, 1).tolist()
    if given is None:
        raise NotGlue("it reduces over the batch")
    axes = tuple(sorted(_axis(node, axis) for axis in given))
    return [_glue(node, node.op, 1, axes=axes, keepdims=bool(node.attrs.get("keepdims", 1)))]


def _slice(node: gs.Node) -> list[Glue]:
    if "starts" in node.attrs:
        starts, ends, axes, steps = node.attrs["starts"], node.attrs["ends"], node.attrs.get("axes"), None
    else:
        parts = [_constant(node, i).tolist() if _has(node, i) else None for i in range(1, 5)]
        starts, ends, axes, steps = parts
    if starts is None or len(starts) != 1 or (steps is not None and steps != [1]):
        raise NotGlue("it slices several axes, or in steps")
    axis = _axis(node, axes[0] if axes else 0)
    size = shape_of(node.inputs[0])[axis]
    if size is None:
        raise NotGlue("the size it slices is not known")
    begin, end, _ = slice(int(starts[0]), int(ends[0])).indices(size)
    return [_piece(node, node.outputs[0], axis, begin, end)]


def _split(node: gs.Node) -> list[Glue]:
    axis = _axis(node, node.attrs.get("axis", 0))
    pieces, begin = [], 0
    for tensor in node.outputs:
        size = None if tensor.shape is None else shape_of(tensor)[axis]
        if size is None:
            raise NotGlue("the sizes it splits into are not known")
        pieces.append(_piece(node, tensor, axis, begin, begin + size))
        begin += size
    return pieces


def _piece(node: gs.Node, output: Any, axis: int, begin: int, end: int) -> Glue:
    x = node.inputs[0]
    attributes = {"axis": axis, "begin": begin, "end": end}
    return Glue("Slice", (x.name,), output.name, (shape_of(x),), shape_of(output), attributes, label(node))


def _gather(node: gs.Node) -> list[Glue]:
    """x[:, k] for one constant k: a slice, and the axis squeezed away."""
    axis, index = _axis(node, node.attrs.get("axis", 0)), _constant(node, 1)
    size = shape_of(node.inputs[0])[axis]
    if index.ndim != 0 or size is None or None in shape_of(node.outputs[0])[1:]:
        raise NotGlue("it picks several entries, or from an axis of unknown size")
    begin = int(index) % size
    x, y = node.inputs[0], node.outputs[0]
    kept = (*shape_of(x)[:axis], 1, *shape_of(x)[axis + 1 :])
    name = f"{y.name}/slice"
    attributes = {"axis": axis, "begin": begin, "end": begin + 1}
    return [
        Glue("Slice", (x.name,), name, (shape_of(x),), kept, attributes, label(node)),
        Glue("Reshape", (name,), y.name, (kept,), shape_of(y), {}, label(node)),
    ]


def _product(node: gs.Node) -> list[Glue]:
    """A product of two tensors of which at least one is computed, and none is a dense layer's weight."""
    read = _tensors(node)
    if len(read) != 2:
        raise NotGlue("it does not multiply two tensors")
    shapes = [shape_of(tensor) for tensor in read]
    is_row = (not isinstance(read[0], gs.Constant), not isinstance(read[1], gs.Constant))
    try:
        if node.op == "Einsum":
            equation = of_einsum(str(node.attrs.get("equation", "")), [len(shape) for shape in shapes])
        else:
            vectors = node.attrs.get("vectors", (False, False))
            equation = of_matmul(shapes[0], shapes[1], is_row=is_row, is_vector=vectors)
        require_by_row(equation, shapes, is_row)
    except NotByRow as problem:
        raise NotGlue(str(problem)) from problem
    given, y = {"equation": equation}, node.outputs[0]
    return [Glue("Einsum", tuple(t.name for t in read), y.name, tuple(shapes), shape_of(y), given, label(node))]


def _softmax(node: gs.Node) -> list[Glue]:
    rank = len(shape_of(node.inputs[0]))
    if node.attrs.get("axis", -1) not in (-1, rank - 1):
        raise NotGlue("its axis is not the last one")
    return [_glue(node)]


def _layer_normalization(node: gs.Node) -> list[Glue]:
    rank = len(shape_of(node.inputs[0]))
    if node.attrs.get("axis", -1) not in (-1, rank - 1) or len([t for t in node.outputs if t.outputs]) > 1:
        raise NotGlue("it normalises over more than the last axis")
    scale, shift = _constant(node, 1), _constant(node, 2) if _has(node, 2) else None
    return [_glue(node, node.op, 1, epsilon=float(node.attrs.get("epsilon", _EPSILON)), scale=scale, shift=shift)]


def _batch_normalization(node: gs.Node) -> list[Glue]:
    """Outside training an affine map of each channel: y = x · scale + shift."""
    if node.attrs.get("training_mode", 0):
        raise NotGlue("it is in training mode: export the model for inference")
    gamma, beta, mean, variance = (_constant(node, i).astype(np.float64) for i in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", _EPSILON))
    channels = (-1,) + (1,) * (len(shape_of(node.inputs[0])) - 2)
    return [_glue(node, "Affine", 1, scale=scale.reshape(channels), shift=(beta - mean * scale).reshape(channels))]


def _axis(node: gs.Node, axis: int) -> int:
    rank = len(shape_of(node.inputs[0]))
    axis = int(axis) % rank if rank else 0
    if axis == 0:
        raise NotGlue("it works along the batch")
    return axis


def _has(node: gs.Node, position: int) -> bool:
    return len(node.inputs) > position and bool(node.inputs[position].name)


def _constant(node: gs.Node, position: int) -> Array:
    values = constant_values(node.inputs[position]) if _has(node, position) else None
    if values is None:
        raise NotGlue(f"its input {position} is not constant")
    return values


READERS: dict[str, Callable[[gs.Node], list[Glue]]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Reciprocal"), _plain),
    **dict.fromkeys(("Identity", "Dropout", "Cast"), _first_input),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    "Pow": _power,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Einsum": _product,
    "MatMul": _product,
    "Softmax": _softmax,
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
}
# Whose other inputs are shapes, axes, indices and the like.
_ONE_INPUT = frozenset(
    {
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Slice",
        "Split",
        "Gather",
        "ReduceMean",
        "ReduceSum",
        "Pow",
        "Dropout",
    }
)
# What only changes shapes; where such a node is the last one before the outputs, it belongs to the suffix.
SHAPE_ONLY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Cast"})
# What turns logits into probabilities; where such a node is behind all dense layers, it belongs to the suffix.
SQUASHES = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
