"""Constant nodes, and nodes all of whose inputs are constant, become initializers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.bounds import MAX_FOLDED_ELEMENTS, bound
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph import makers
from onnxsurgeon.graph.canonical import masks
from onnxsurgeon.graph.canonical.masks import Fold, value
from onnxsurgeon.graph.canonical.quantized import DEQUANTIZE, QUANTIZE, dequantize, quantize
from onnxsurgeon.graph.canonical.queries import has_input
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array


def constant(rewriter: Rewriter, node: gs.Node) -> bool:
    """Constant() → an initializer of the same name."""
    y = node.outputs[0]
    if any(y is output for output in rewriter.graph.outputs):
        return False
    values = _constant_node(node)
    if values is None:
        return False
    readers = list(y.outputs)
    rewriter.remove(node)
    _make_constant(y, values)
    rewriter.touch(*readers)
    return True


def _constant_node(node: gs.Node) -> Any | None:
    """The values of a Constant node; None if nothing reads it."""
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if name in node.attrs:
            return np.asarray(node.attrs[name], dtype)
    if "value_ints" in node.attrs:
        return np.asarray(node.attrs["value_ints"], np.int64)
    given = node.attrs.get("value")
    return given._values if isinstance(given, gs.Constant) else None


def _make_constant(y: Any, values: Any) -> None:
    y.to_constant(values)


def fold(rewriter: Rewriter, node: gs.Node) -> bool:
    """f(constants) → a constant, named after the initializer from which it is made.

    It is never larger than its inputs.
    """
    y = node.outputs[0]
    if len(node.outputs) != 1 or rewriter.is_pinned(y) or not node.inputs:
        return False
    if not all(isinstance(tensor, gs.Constant) or not tensor.name for tensor in node.inputs):
        return False
    most = max(bound(MAX_FOLDED_ELEMENTS), sum(math.prod(t.shape) for t in node.inputs if t.name))
    name = node.inputs[0].name if node.op in FORMS_OF_ONE else y.name
    if node.op == "Identity":
        values = node.inputs[0]._values
    else:
        try:
            rewriter.allow(node, _bytes_at_most(node), made=False)
            with np.errstate(all="ignore"):
                values = FOLDS[node.op](node, most)
        except ModelError:
            raise
        except Exception:  # whatever is wrong with the node, the runtime will say
            return False
        if values is None:
            return False
        if not any(np.may_share_memory(values, value(node, i)) for i in range(len(node.inputs)) if has_input(node, i)):
            rewriter.allow(node, values.nbytes)
    # A scalar that numpy returns is no array to onnx-graphsurgeon.
    rewriter.redirect(y, makers.constant(name, np.asarray(values) if np.isscalar(values) else values))
    rewriter.remove(node)
    return True


def _bytes_at_most(node: gs.Node) -> int:
    """The bytes that folding the node makes, if it folds; the shapes alone tell. 0 where it makes a view."""
    shapes = [tuple(tensor.shape) for tensor in node.inputs if tensor.name]
    count = sum(math.prod(shape) for shape in shapes)
    if node.op in VIEWS:
        return 0
    if node.op == "Gather":
        rest = math.prod(shapes[0]) // max(1, shapes[0][node.attrs.get("axis", 0)])
        count = math.prod(shapes[1]) * rest
    elif node.op in BROADCAST:
        count = math.prod(np.broadcast_shapes(*shapes))
    elif node.op in ("Range", "Tile"):
        count = 0  # they are asked for where they are made
    return int(count) * WIDEST


def laid_out(rewriter: Rewriter, node: gs.Node) -> bool:
    """Expand(c, s) and ConstantOfShape(s) → a constant: integers, and what a mask is made of, as by Trilu and Where.

    What arithmetic broadcasts by itself is seen through without.
    """
    y = node.outputs[0]
    is_integer = y.dtype is not None and np.dtype(y.dtype).kind in "iu"
    return (is_integer or any(reader.op not in ARITHMETIC for reader in y.outputs)) and fold(rewriter, node)


def split(rewriter: Rewriter, node: gs.Node) -> bool:
    """Split(c) → constants: several matrices are one initializer."""
    if not isinstance(node.inputs[0], gs.Constant) or any(rewriter.is_pinned(y) for y in node.outputs):
        return False
    x = value(node, 0)
    axis, count = int(node.attrs.get("axis", 0)), len(node.outputs)
    sizes = _ints(node, "split", 1)
    if sizes is None:
        chunk = -(-x.shape[axis] // count)
        sizes = [min(chunk, x.shape[axis] - i * chunk) for i in range(count)]
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        return False
    parts = np.split(x, np.cumsum(sizes)[:-1], axis=axis)
    for y, values in zip(list(node.outputs), parts, strict=True):
        rewriter.redirect(y, gs.Constant(y.name, values))
    rewriter.remove(node)
    return True


def one_of_alike(values: Array, axis: int) -> Array | None:
    """What is the same for every place of an axis, for one of these; None where it is not the same."""
    one = np.take(values, [0], axis=axis)
    return one if np.array_equal(np.broadcast_to(one, values.shape), values) else None


def shape(rewriter: Rewriter, node: gs.Node) -> bool:
    """Shape(x) → a constant, where every size is known."""
    sizes, y = node.inputs[0].shape, node.outputs[0]
    if sizes is None or rewriter.is_pinned(y):
        return False
    wanted = list(sizes)[slice(node.attrs.get("start", 0), node.attrs.get("end", None))]
    if not all(isinstance(size, int) and size > 0 for size in wanted):
        return False
    rewriter.redirect(y, gs.Constant(y.name, np.array(wanted, np.int64)))
    rewriter.remove(node)
    return True


def _ints(node: gs.Node, name: str, position: int) -> list[int] | None:
    """Integers that are an attribute in older opsets and an input in newer ones."""
    if name in node.attrs:
        return [int(i) for i in np.ravel(node.attrs[name])]
    return [int(i) for i in value(node, position).ravel()] if has_input(node, position) else None


def _binary(function: Callable[[Array, Array], Array]) -> Fold:
    def apply(node: gs.Node, most: int) -> Array | None:
        a, b = value(node, 0), value(node, 1)
        if int(np.prod(np.broadcast_shapes(a.shape, b.shape))) > most:
            return None
        return np.asarray(function(a, b)).astype(a.dtype)

    return apply


def _divide(a: Array, b: Array) -> Array:
    return np.asarray(np.trunc(a / b) if a.dtype.kind in "iu" else a / b)


def _unary(function: Callable[[Array], Array]) -> Fold:
    return lambda node, _: np.asarray(function(value(node, 0))).astype(value(node, 0).dtype)


def _transpose(node: gs.Node, _: int) -> Array:
    return np.transpose(value(node, 0), node.attrs.get("perm"))


def _reshape(node: gs.Node, _: int) -> Array:
    x, sizes = value(node, 0), _ints(node, "shape", 1) or []
    if not node.attrs.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: gs.Node, _: int) -> Array:
    x, axis = value(node, 0), node.attrs.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _squeeze(node: gs.Node, _: int) -> Array:
    axes = _ints(node, "axes", 1)
    return np.squeeze(value(node, 0), None if axes is None else tuple(axes))


def _unsqueeze(node: gs.Node, _: int) -> Array:
    return np.expand_dims(value(node, 0), tuple(_ints(node, "axes", 1) or ()))


def _cast(node: gs.Node, _: int) -> Array:
    return value(node, 0).astype(helper.tensor_dtype_to_np_dtype(_type_number(node)))


def _type_number(node: gs.Node) -> int:
    wanted = node.attrs["to"]
    return int(wanted) if isinstance(wanted, int) else int(helper.np_dtype_to_tensor_dtype(np.dtype(wanted)))


def _concat(node: gs.Node, _: int) -> Array:
    return np.concatenate([value(node, i) for i in range(len(node.inputs))], axis=node.attrs.get("axis", 1))


def _gather(node: gs.Node, most: int) -> Array | None:
    x, indices, axis = value(node, 0), value(node, 1), node.attrs.get("axis", 0)
    if indices.size * (x.size // max(1, x.shape[axis])) > most:
        return None
    return np.take(x, indices, axis=axis)


def _slice(node: gs.Node, _: int) -> Array:
    x = value(node, 0)
    starts, ends = _ints(node, "starts", 1) or [], _ints(node, "ends", 2) or []
    axes = _ints(node, "axes", 3) or list(range(len(starts)))
    steps = _ints(node, "steps", 4) or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop = None if step < 0 and end <= -x.shape[axis] - 1 else end
        cut[axis] = slice(start, stop, step)
    return x[tuple(cut)]


def _modulo(node: gs.Node, most: int) -> Array | None:
    """The remainder with the divisor's sign, unless the node asks for C's."""
    return _binary(np.fmod if node.attrs.get("fmod", 0) else np.mod)(node, most)


WIDEST = 8  # bytes of an element
BROADCAST = ("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Where", *masks.COMPARISONS)
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
VIEWS = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Expand", "ConstantOfShape")
FORMS_OF_ONE = ("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast")
FOLDS: dict[str, Fold] = {
    **masks.FOLDS,
    "Identity": lambda node, _: value(node, 0),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
    "Mod": _modulo,
    "Pow": _binary(np.power),
    "Neg": _unary(np.negative),
    "Sqrt": _unary(np.sqrt),
    "Exp": _unary(np.exp),
    "Reciprocal": _unary(np.reciprocal),
    **dict.fromkeys((DEQUANTIZE, f"com.microsoft::{DEQUANTIZE}"), dequantize),
    **dict.fromkeys((QUANTIZE, f"com.microsoft::{QUANTIZE}"), quantize),
}
RULES: dict[str, Callable[[Rewriter, gs.Node], bool]] = {
    **dict.fromkeys(FOLDS, fold),
    **dict.fromkeys(("Expand", "ConstantOfShape"), laid_out),
    "Split": split,
}
