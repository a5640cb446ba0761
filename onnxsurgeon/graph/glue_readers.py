"""Readers of glue for nodes that work on axes of any meaning; those that know of space are in ``glue_space``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import VIEW
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.queries import has_input
from onnxsurgeon.graph.contractions import NotByRow, of_einsum, of_matmul, require_by_row
from onnxsurgeon.graph.glue_node import (
    EPSILON,
    Glue,
    NotGlue,
    Shape,
    axis_of,
    constant_of,
    glue_of,
    glue_shape,
    names_from,
    tensors_of,
)
from onnxsurgeon.graph.normal_form import HELD

LARGEST = 2**31 - 1  # an end of a slice beyond which exporters mean "all"
MOST_REPEATS = 16


def _plain(node: gs.Node) -> list[Glue]:
    """An elementwise operator that needs nothing besides its inputs."""
    out = node.outputs[0].shape
    for tensor in node.inputs:
        if tensor.name and not isinstance(tensor, gs.Constant):
            shape = tensor.shape
            if len(shape) < len(out) or (len(out) > 0 and shape[0] == 1 and out[0] != 1):
                raise NotGlue(f"its input '{tensor.name}' has no row for each row of the batch")
    return [glue_of(node)]


def _first_input(node: gs.Node) -> list[Glue]:
    """Identity, Dropout outside training, and casts between floating point types: y = x."""
    wanted = node.outputs[0].dtype
    if node.op == "Cast" and (wanted is None or np.dtype(wanted).kind not in "fV"):
        raise NotGlue("it casts to a type that has no gradient")
    if node.op == "Dropout" and len(node.inputs) > 2 and np.any(constant_of(node, 2)):
        raise NotGlue("it drops at random: the model was exported in training mode")
    return [glue_of(node, "Identity", 1)]


def _power(node: gs.Node) -> list[Glue]:
    exponent = constant_of(node, 1)
    if exponent.size != 1:
        raise NotGlue("its exponent is not one constant")
    return [glue_of(node, "Pow", 1, exponent=float(exponent.reshape(())))]


def _sum(node: gs.Node) -> list[Glue]:
    """Sum of any number of tensors, as older exporters write residual additions: one Add after the other."""
    whole = glue_of(node, "Add")
    if len(whole.inputs) == 1:
        return [replace(whole, op="Identity")]
    found, before, shape = [], whole.inputs[0], whole.shapes[0]
    for number, (name, other) in enumerate(zip(whole.inputs[1:], whole.shapes[1:], strict=True), start=2):
        is_last = number == len(whole.inputs)
        made = whole.shape if is_last else _broadcast(shape, other)
        output = whole.output if is_last else f"{whole.output}/first_{number}"
        found.append(replace(whole, inputs=(before, name), output=output, shapes=(shape, other), shape=made))
        before, shape = output, made
    return found


def _broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of the sum of two tensors; a size that is not known may be any."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    wide = (*(1 for _ in range(len(longer) - len(shorter))), *shorter)
    return tuple(n if m == 1 else m for m, n in zip(longer, wide, strict=True))


def _reshape(node: gs.Node) -> list[Glue]:
    """Any node that only reshapes: y = Reshape(x, (−1, d_1, …))."""
    shape, have = glue_shape(node.outputs[0]), glue_shape(node.inputs[0])
    same_rows = isinstance(node.inputs[0].shape[0], str) and node.inputs[0].shape[0] == node.outputs[0].shape[0]
    if shape[1:].count(None) == 1 and None not in have[1:] and same_rows:
        known = math.prod(size for size in shape[1:] if size is not None)
        rest = math.prod(size or 0 for size in have[1:]) // max(known, 1)
        shape = (None, *(rest if size is None else size for size in shape[1:]))
    if not shape or None in shape[1:]:
        raise NotGlue("the shape it makes is not known")
    if None in have[1:] or math.prod(n or 0 for n in have[1:]) != math.prod(n or 0 for n in shape[1:]):
        raise NotGlue("it mixes rows of the batch")
    return [replace(glue_of(node, "Reshape", 1), shape=shape)]


def _transpose(node: gs.Node) -> list[Glue]:
    rank = len(glue_shape(node.inputs[0]))
    order = tuple(node.attrs.get("perm", tuple(reversed(range(rank)))))
    if order[0] != 0:
        raise NotGlue("it moves the batch axis")
    return [glue_of(node, order=order)]


def _concat(node: gs.Node) -> list[Glue]:
    axis = axis_of(node, node.attrs.get("axis", 1))
    if any(isinstance(tensor, gs.Constant) for tensor in node.inputs):
        raise NotGlue("it joins constants, whose number of rows is fixed")
    sizes = [glue_shape(tensor)[axis] for tensor in node.inputs]
    if None in sizes:
        raise NotGlue("the sizes it joins are not known")
    return [glue_of(node, axis=axis, sizes=sizes)]


def _reduce(node: gs.Node) -> list[Glue]:
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1 and node.inputs[1].name:
        given = constant_of(node, 1).tolist()
    if given is None:
        raise NotGlue("it reduces over the batch")
    axes = tuple(sorted(axis_of(node, axis) for axis in given))
    return [glue_of(node, node.op, 1, axes=axes, keepdims=bool(node.attrs.get("keepdims", 1)))]


def _slice(node: gs.Node) -> list[Glue]:
    """Slices along one axis after the other; an axis that is taken as a whole is left out."""
    if "starts" in node.attrs:
        starts, ends, axes, steps = node.attrs["starts"], node.attrs["ends"], node.attrs.get("axes"), None
    else:
        parts = [constant_of(node, i).tolist() if has_input(node, i) else None for i in range(1, 5)]
        starts, ends, axes, steps = parts
    if starts is None or (steps is not None and any(step != 1 for step in steps)):
        raise NotGlue("it slices in steps")
    axes = list(range(len(starts))) if axes is None else axes
    whole = [starts[i] == 0 and ends[i] >= LARGEST for i in range(len(starts))]
    cuts = [(axis_of(node, axes[i]), int(starts[i]), int(ends[i])) for i in range(len(starts)) if not whole[i]]
    x, y = node.inputs[0], node.outputs[0]
    if not cuts:
        return [glue_of(node, "Identity", 1)]
    found: list[Glue] = []
    name, shape = x.name, glue_shape(x)
    for number, (axis, start, stop) in enumerate(cuts, start=1):
        size = shape[axis]
        if size is None:
            raise NotGlue("the size it slices is not known")
        begin, end, _ = slice(start, stop).indices(size)
        behind = (*shape[:axis], max(end - begin, 0), *shape[axis + 1 :])
        made = y.name if number == len(cuts) else f"{y.name}/along_{axis}"
        given = {"axis": axis, "begin": begin, "end": end}
        found.append(Glue("Slice", (name,), made, (shape,), behind, given, label(node)))
        name, shape = made, behind
    return found


def _tile(node: gs.Node) -> list[Glue]:
    """Copies of the tensor side by side along one axis."""
    times = constant_of(node, 1).tolist()
    sizes, rank = glue_shape(node.inputs[0]), len(glue_shape(node.outputs[0]))
    if node.op == "Expand" and any(
        n != 1 and (len(times) > rank or sizes[i - len(times)] != 1) for i, n in enumerate(times)
    ):
        raise NotGlue("it lays out to a shape that is told in numbers")
    times = [1] * (len(sizes) - len(times)) + times
    axes = [axis for axis, count in enumerate(times) if count != 1]
    if not axes:
        return [glue_of(node, "Identity", 1)]
    if len(sizes) != rank or len(axes) > 1 or not 1 < times[axes[0]] <= MOST_REPEATS:
        raise NotGlue(f"it repeats along several axes, or more than {MOST_REPEATS} times")
    axis, count = axis_of(node, axes[0]), int(times[axes[0]])
    size = sizes[axis]
    if size is None:
        raise NotGlue("the size it repeats is not known")
    x, y = node.inputs[0], node.outputs[0]
    behind = (*sizes[:axis], size * count, *sizes[axis + 1 :])
    given = {"axis": axis, "sizes": [size] * count}
    return [Glue("Concat", (x.name,) * count, y.name, (sizes,) * count, behind, given, label(node))]


def _split(node: gs.Node) -> list[Glue]:
    axis = axis_of(node, node.attrs.get("axis", 0))
    pieces, begin = [], 0
    for tensor in node.outputs:
        size = None if tensor.shape is None else glue_shape(tensor)[axis]
        if size is None:
            raise NotGlue("the sizes it splits into are not known")
        pieces.append(_piece(node, tensor, axis, begin, begin + size))
        begin += size
    return pieces


def _piece(node: gs.Node, output: Any, axis: int, begin: int, end: int) -> Glue:
    x = node.inputs[0]
    attributes = {"axis": axis, "begin": begin, "end": end}
    return Glue("Slice", (x.name,), output.name, (glue_shape(x),), glue_shape(output), attributes, label(node))


def _gather(node: gs.Node) -> list[Glue]:
    """x[:, k] for one constant k: a slice whose axis is then squeezed away."""
    axis, index = axis_of(node, node.attrs.get("axis", 0)), constant_of(node, 1)
    size = glue_shape(node.inputs[0])[axis]
    if index.ndim != 0 or size is None or None in glue_shape(node.outputs[0])[1:]:
        raise NotGlue("it picks several entries, or from an axis of unknown size")
    begin = int(index) % size
    x, y = node.inputs[0], node.outputs[0]
    kept = (*glue_shape(x)[:axis], 1, *glue_shape(x)[axis + 1 :])
    name = f"{y.name}/slice"
    attributes = {"axis": axis, "begin": begin, "end": begin + 1}
    return [
        Glue("Slice", (x.name,), name, (glue_shape(x),), kept, attributes, label(node)),
        Glue("Reshape", (name,), y.name, (kept,), glue_shape(y), {}, label(node)),
    ]


def _product(node: gs.Node) -> list[Glue]:
    """A product of two tensors, of which at least one is computed and neither is a dense layer's weight."""
    read = tensors_of(node)
    if len(read) != 2:
        raise NotGlue("it does not multiply two tensors")
    shapes = [glue_shape(tensor) for tensor in read]
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
    return [Glue("Einsum", tuple(t.name for t in read), y.name, tuple(shapes), glue_shape(y), given, label(node))]


def _softmax(node: gs.Node) -> list[Glue]:
    rank = len(glue_shape(node.inputs[0]))
    if node.attrs.get("axis", -1) not in (-1, rank - 1):
        raise NotGlue("its axis is not the last one")
    return [glue_of(node)]


def _layer_normalization(node: gs.Node) -> list[Glue]:
    rank = len(glue_shape(node.inputs[0]))
    if node.attrs.get("axis", -1) not in (-1, rank - 1) or len([t for t in node.outputs if t.outputs]) > 1:
        raise NotGlue("it normalises over more than the last axis")
    scale, shift = constant_of(node, 1), constant_of(node, 2) if has_input(node, 2) else None
    epsilon, names = float(node.attrs.get("epsilon", EPSILON)), names_from(node, 1)
    return [glue_of(node, node.op, 1, epsilon=epsilon, scale=scale, shift=shift, constants=names)]


def _batch_normalization(node: gs.Node) -> list[Glue]:
    """BatchNormalization outside training is an affine map of each channel: y = x · scale + shift."""
    if node.attrs.get("training_mode", 0):
        raise NotGlue("it is in training mode: export the model for inference")
    gamma, beta, mean, variance = (constant_of(node, i).astype(np.float64) for i in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", EPSILON))
    channels = (-1,) + (1,) * (len(glue_shape(node.inputs[0])) - 2)
    scale, shift = scale.reshape(channels), (beta - mean * scale).reshape(channels)
    return [glue_of(node, "Affine", 1, scale=scale, shift=shift, constants=names_from(node, 1))]


READERS: dict[str, Callable[[gs.Node], list[Glue]]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Reciprocal"), _plain),
    **dict.fromkeys(("Identity", "Dropout", "Cast", HELD), _first_input),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", VIEW), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    "Where": _plain,
    "Sum": _sum,
    "Pow": _power,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    **dict.fromkeys(("Expand", "Tile"), _tile),
    "Split": _split,
    "Gather": _gather,
    "Einsum": _product,
    "MatMul": _product,
    "Softmax": _softmax,
    "LayerNormalization": _layer_normalization,
    "BatchNormalization": _batch_normalization,
}
