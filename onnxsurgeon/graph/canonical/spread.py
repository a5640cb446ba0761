"""Tensors that hold the same values for every row: noise of zeros, and constants laid out to a shape.

Exporters of policies leave the noise of a distribution in the graph where it is switched off, and lay its parameters
out to the shape of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.bounds import MAX_FOLDED_ELEMENTS, bound
from onnxsurgeon.graph.canonical.computed_sizes import computed_sizes
from onnxsurgeon.graph.canonical.elementwise import OPS
from onnxsurgeon.graph.canonical.noops import cast_type
from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, producer_of, same_shape, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array

DEEPEST = 8  # nodes
LIKE = ("RandomNormalLike", "RandomUniformLike")
RANDOM = (*LIKE, "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial")
COMPARED = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
ONE_BY_ONE = (*_ARITHMETIC, "Neg", "Abs", "Cast", "Identity", "Where", "Not", "And", "Or", *COMPARED)


def constant_term(rewriter: Rewriter, node: gs.Node) -> bool:
    """x ± 0 = x, x · 1 = x / 1 = x, and f(x, c laid out to x's shape) = f(x, c), for an arithmetic f.

    The 0 is noise that is switched off: it is drawn at random and multiplied by 0, or made of zeros.
    """
    for position in (1, 0):
        term, x = node.inputs[position], node.inputs[1 - position]
        values = None if isinstance(term, gs.Constant) else spread_values(rewriter, term)
        if values is None or isinstance(x, gs.Constant) or term is x or not _spreads(term, x):
            continue
        unit = 0 if node.op in ("Add", "Sub") else 1
        if not np.any(values != unit) and (position == 1 or node.op in ("Add", "Mul")):
            return same(rewriter, node, x)
        if not np.isfinite(values).all() or not values.any():
            continue  # x · 0 stays, so that the reader of the graph can explain it
        rewriter.set_input(node, position, gs.Constant(rewriter.variable(term).name, values))
        return True
    return False


def mask(rewriter: Rewriter, node: gs.Node) -> bool:
    """F(x, c laid out for every row) = f(x, c), for a mask c (1, …) that has other values along other axes than one."""
    for position, term in enumerate(node.inputs):
        values = None if isinstance(term, gs.Constant) else spread_values(rewriter, term)
        if values is None or values.ndim < 2 or not any(_covers(x, term) for x in node.inputs if x is not term):
            continue
        rewriter.set_input(node, position, gs.Constant(rewriter.variable(term).name, values))
        return True
    return False


def _covers(x: Any, term: Any) -> bool:
    """Whether f(x, term) has the shape of x, the rows being the first axis of both."""
    shape, over = shape_of(term), shape_of(x)
    if isinstance(x, gs.Constant) or not shape or not over or len(shape) != len(over):
        return False
    if shape[0] not in (1, over[0]) and (isinstance(shape[0], int) or isinstance(over[0], int)):
        return False
    return all(a == 1 or (isinstance(a, int) and a == b) for a, b in zip(shape[1:], over[1:], strict=True))


def own_shape(rewriter: Rewriter, node: gs.Node) -> bool:
    """Expand(x, s) = x for a shape s that is x's own, or has 1 wherever it differs; Tile(x, 1, 1, …) = x."""
    x, s = node.inputs[0], node.inputs[1]
    shape, sizes = shape_of(x), computed_sizes(s)
    if node.op == "Tile":
        fits = sizes is not None and all(size == 1 for size in sizes)
    else:
        fits = shape is not None and sizes is not None and _broadcasts(sizes, shape)
        fits = fits or _is_shape_of(s, x) or same_shape(shape, shape_of(node.outputs[0]))
    return bool(fits) and same(rewriter, node, x)


def same(rewriter: Rewriter, node: gs.Node, x: Any) -> bool:
    """Identity(x): the node is bypassed, or becomes an Identity where its output must stay."""
    if node.outputs[0].shape is None:
        node.outputs[0].shape = x.shape
    if not rewriter.bypass(node, x):
        rewriter.become(node, "Identity", [x])
    return True


def lay(rewriter: Rewriter, node: gs.Node) -> bool:
    """Note that a node's output is constant but for its shape: ConstantOfShape(s), c + Expand(c, s), 0 · x."""
    y = node.outputs[0]
    if isinstance(y, gs.Constant) or spread_values(rewriter, y) is not None:
        return False
    values = _made_by(rewriter, node)
    if values is None:
        return False
    if values.ndim > 1:
        rewriter.allow(node, values.nbytes)
    rewriter.spread[id(y)] = y, values
    return True


def spread_values(rewriter: Rewriter, tensor: Any) -> Array | None:
    """Values that broadcasting lays out to the tensor: (), (n,) for the last axis, or those of a mask.

    The result is None for a tensor that depends on the inputs.
    """
    if not isinstance(tensor, gs.Constant):
        return rewriter.spread[id(tensor)][1] if id(tensor) in rewriter.spread else None
    values = constant_values(tensor)
    if values is None or (values.dtype not in FLOATS and values.dtype != np.dtype(bool)):
        return None
    if any(size != 1 for size in tensor.shape[:-1]):
        return values if values.shape[0] == 1 and values.size <= bound(MAX_FOLDED_ELEMENTS) else None
    return values.reshape(-1 if values.size > 1 else ())


def _made_by(rewriter: Rewriter, node: gs.Node) -> Array | None:
    if node.op == "ConstantOfShape":
        value = node.attrs.get("value")
        filled = np.zeros((), np.float32) if value is None else np.asarray(value.values)
        return filled.reshape(()) if filled.dtype in FLOATS else None
    parts = [part for part in node.inputs[: 1 if node.op == "Expand" else None] if part.name]
    values = [found for part in parts if (found := spread_values(rewriter, part)) is not None]
    if not values:
        return None
    with np.errstate(all="ignore"):
        if node.op == "Mul" and any(not found.any() for found in values):
            # 0 · x = 0 for whatever is finite; a constant that is not finite, such as the logarithm of 0, gives NaN.
            # Constant zeros alone are a layer's output that no weight changes; they stay, so that the reader of the
            # graph can explain them.
            off = any(id(part) in rewriter.spread or _is_random(part) for part in parts)
            finite = all(np.isfinite(found).all() for found in values)
            return np.zeros((), values[0].dtype) if off and finite else None
        if len(values) < len(parts):
            return None
        if node.op == "Cast":
            kind = cast_type(node)
            return values[0].astype(kind) if kind in FLOATS else None
        return np.asarray(values[0] if node.op == "Expand" else OPS[node.op](*values))


def _is_random(tensor: Any) -> bool:
    """Whether the tensor is drawn at random, alone or times a deviation."""
    todo, steps = [tensor], 0
    while todo and steps < DEEPEST:
        node, steps = producer_of(todo.pop()), steps + 1
        if node is not None and node.op in RANDOM:
            return True
        if node is not None and node.op in ("Mul", "Cast", "Neg", "Identity", "Div"):
            todo.extend(part for part in node.inputs if not isinstance(part, gs.Constant))
    return False


def _spreads(term: Any, x: Any, depth: int = DEEPEST) -> bool:
    """Whether f(x, term) has the shape of x for an elementwise f."""
    shape, over = shape_of(term), shape_of(x)
    if shape is not None and over is not None and _broadcasts(shape, over):
        return True
    node = producer_of(term)
    if node is None or depth == 0:
        return term is x
    if node.op in LIKE:
        return node.inputs[0] is x or _spreads(node.inputs[0], x, depth - 1)
    if node.op == "ConstantOfShape":
        return _is_shape_of(node.inputs[0], x)
    if node.op == "Expand":
        return _is_shape_of(node.inputs[1], x) and _spreads(node.inputs[0], x, depth - 1)
    parts = [part for part in node.inputs if part.name]
    return term is x or (node.op in ONE_BY_ONE and all(_spreads(part, x, depth - 1) for part in parts))


def _is_shape_of(sizes: Any, x: Any) -> bool:
    """Whether the tensor is Shape(x), in whatever type."""
    node, steps = producer_of(sizes), 0
    while node is not None and node.op in ("Cast", "Identity") and steps < DEEPEST:
        node, steps = producer_of(node.inputs[0]), steps + 1
    return node is not None and node.op == "Shape" and not node.attrs and node.inputs[0] is x


def _broadcasts(shape: list[Any], over: list[Any]) -> bool:
    """Whether broadcasting a tensor of ``shape`` over another leaves that one's shape as it is."""
    pairs = zip(reversed(shape), reversed(over), strict=False)
    return len(shape) <= len(over) and all(size == 1 or (size is not None and size == wanted) for size, wanted in pairs)
