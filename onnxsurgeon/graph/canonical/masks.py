"""What masks are made of, where it is constant: shapes that are filled, ranges, triangles, comparisons, choices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.queries import constant_values, has_input
from onnxsurgeon.linear_algebra import Array

Fold = Callable[[gs.Node, int], "Array | None"]  # of a node, and of how many elements its result may have


def value(node: gs.Node, position: int) -> Array:
    """The values of an input.

    Raises:
        ValueError: it is not constant.
    """
    values = constant_values(node.inputs[position])
    if values is None:
        raise ValueError("not constant")
    return values


def _constant_of_shape(node: gs.Node, most: int) -> Array | None:
    """Of integers, which exporters compute pads and shapes from, and of what a mask is made of: a view."""
    given = node.attrs.get("value")
    filled = np.zeros(1, np.float32) if given is None else np.asarray(given.values)
    shape = [int(size) for size in value(node, 0)]
    return np.broadcast_to(filled.reshape(()), shape) if math.prod(shape) <= most else None


def _expand(node: gs.Node, most: int) -> Array | None:
    """A view."""
    x = value(node, 0)
    shape = np.broadcast_shapes(x.shape, tuple(int(size) for size in value(node, 1)))
    return np.broadcast_to(x, shape) if math.prod(shape) <= most else None


def _tile(node: gs.Node, most: int) -> Array | None:
    x, times = value(node, 0), [int(n) for n in value(node, 1)]
    return np.tile(x, times) if x.size * math.prod(times) <= most else None


def _range(node: gs.Node, most: int) -> Array | None:
    start, limit, delta = (value(node, i).reshape(()) for i in range(3))
    count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    return (start + delta * np.arange(count)).astype(start.dtype) if count <= most else None


def _triangle(node: gs.Node, _: int) -> Array:
    """Trilu's k tells the diagonal, 0 the main one."""
    diagonal = int(value(node, 1).reshape(())) if has_input(node, 1) else 0
    return (np.triu if node.attrs.get("upper", 1) else np.tril)(value(node, 0), diagonal)


def _where(node: gs.Node, most: int) -> Array | None:
    parts = [value(node, i) for i in range(3)]
    return np.where(*parts) if math.prod(np.broadcast_shapes(*(part.shape for part in parts))) <= most else None


def _compared(function: Callable[..., Array]) -> Fold:
    """Of one operand or two; the result has the type that numpy gives it, which is bool."""

    def apply(node: gs.Node, most: int) -> Array | None:
        parts = [value(node, i) for i in range(len(node.inputs))]
        fits = math.prod(np.broadcast_shapes(*(part.shape for part in parts))) <= most
        return np.asarray(function(*parts)) if fits else None

    return apply


COMPARISONS: dict[str, Callable[..., Array]] = {
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Not": np.logical_not,
    "IsNaN": np.isnan,
    "IsInf": np.isinf,
}
FOLDS: dict[str, Fold] = {
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Trilu": _triangle,
    "Where": _where,
    **{op: _compared(function) for op, function in COMPARISONS.items()},
}
