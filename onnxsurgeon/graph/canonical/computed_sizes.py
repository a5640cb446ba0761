"""Sizes that a graph computes from shapes: integer arithmetic, in any type, followed backward from a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.queries import constant_values, dtype_of, has_input, producer_of, shape_of

MOST_AXES = 64
DEEPEST = 32  # nodes between a Shape and what reads the sizes
LARGEST = 2**31 - 1  # beyond it, int32 would have overflowed

Sizes = list[Any] | None


def computed_sizes(tensor: Any) -> Sizes:
    """Values of an integer tensor of rank 0 or 1 that is computed from shapes: numbers, symbolic names or None.

    Shape inference follows some of these chains in some opsets only, and none in int32.
    """
    return _Followed().sizes(tensor, DEEPEST)


class _Followed:
    """One search backward from a tensor; each node is visited once."""

    def __init__(self) -> None:
        self.known: dict[int, Sizes] = {}

    def sizes(self, tensor: Any, depth: int) -> Sizes:
        if id(tensor) not in self.known:
            found = _constant(tensor) if isinstance(tensor, gs.Constant) else self._of_node(tensor, depth)
            self.known[id(tensor)] = None if found is None or len(found) > MOST_AXES else found
        return self.known[id(tensor)]

    def _of_node(self, tensor: Any, depth: int) -> Sizes:
        node = producer_of(tensor)
        if node is None or depth == 0 or not node.inputs:
            return None
        if node.op == "Shape":
            shape = shape_of(node.inputs[0])
            return None if shape is None else shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        if node.op == "Size":
            shape = shape_of(node.inputs[0])
            return None if shape is None else [_product(shape)]
        inputs = [self.sizes(part, depth - 1) for part in node.inputs[:MOST_AXES] if part.name]
        if None in inputs:
            return None
        if node.op == "Split":
            return _split(node, inputs, next(i for i, made in enumerate(node.outputs) if made is tensor))
        return _OF[node.op](node, inputs) if node.op in _OF else None


def _constant(tensor: gs.Constant) -> Sizes:
    values = constant_values(tensor) if len(tensor.shape) <= 1 and int(np.prod(tensor.shape)) <= MOST_AXES else None
    return None if values is None or values.dtype.kind not in "iub" else [int(size) for size in values.ravel()]


def _concat(node: gs.Node, inputs: list[Any]) -> Sizes:
    return [size for part in inputs for size in part]


def _gather(node: gs.Node, inputs: list[Any]) -> Sizes:
    sizes, indices = inputs
    if not all(isinstance(i, int) and -len(sizes) <= i < len(sizes) for i in indices):
        return None
    return [sizes[i] for i in indices]


def _slice(node: gs.Node, inputs: list[Any]) -> Sizes:
    sizes = inputs[0]
    bounds = [node.attrs["starts"], node.attrs["ends"]] if "starts" in node.attrs else inputs[1:3]
    step = inputs[-1] if has_input(node, 4) else [1]
    if any(len(bound) != 1 or not isinstance(bound[0], int) for bound in (*bounds, step)) or step[0] == 0:
        return None
    (start,), (end,) = bounds  # a backward slice to the very beginning ends before it
    end = None if step[0] < 0 and end < -len(sizes) else end
    return list(sizes[start : end : step[0]])


def _split(node: gs.Node, inputs: list[Any], index: int) -> Sizes:
    """The part of the sizes that output ``index`` of a Split has."""
    sizes, count = inputs[0], len(node.outputs)
    widths = node.attrs.get("split", inputs[1] if len(inputs) > 1 else None)
    if widths is None:  # of equal width, but for the last one
        width = -(-len(sizes) // count)
        return list(sizes[index * width : (index + 1) * width])
    if not all(isinstance(width, int) and width >= 0 for width in widths) or sum(widths) != len(sizes):
        return None
    begin = sum(widths[:index])
    return list(sizes[begin : begin + widths[index]])


def _reduce_prod(node: gs.Node, inputs: list[Any]) -> Sizes:
    axes = node.attrs.get("axes", inputs[1] if len(inputs) > 1 else None)
    if axes is None and node.attrs.get("noop_with_empty_axes", 0):
        return list(inputs[0])
    return [_product(inputs[0])] if axes is None or [int(axis) for axis in axes] in ([0], [-1]) else None


def _product(sizes: list[Any]) -> Any:
    """Product of sizes: a number, or one symbolic size if all others are 1; else None."""
    numbers = math.prod(size for size in sizes if isinstance(size, int))
    others = [size for size in sizes if not isinstance(size, int)]
    if not others:
        return _bounded(numbers)
    return others[0] if len(others) == 1 and numbers == 1 else None


def _bounded(number: int) -> int | None:
    return number if abs(number) <= LARGEST else None


def _multiply(a: Any, b: Any) -> Any:
    return _product([a, b])


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return _bounded(a + b)
    return a if b == 0 else b if a == 0 else None


def _subtract(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return _bounded(a - b)
    return a if b == 0 else None


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a >= 0 and b > 0 else None
    return a if b == 1 else None


def _larger(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else a if a is not None and a == b else None


def _smaller(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else a if a is not None and a == b else None


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    return 0 if any(isinstance(size, int) and size < 0 for size in (a, b)) else None


def _where(node: gs.Node, inputs: list[Any]) -> Sizes:
    length = max(len(part) for part in inputs)
    wide = [list(part) * (length if len(part) == 1 else 1) for part in inputs]
    fits = all(len(part) == length for part in wide)
    return [None if one is None else a if one else b for one, a, b in zip(*wide, strict=True)] if fits else None


def _each(function: Callable[[Any, Any], Any]) -> Callable[[gs.Node, list[Any]], Sizes]:
    def apply(node: gs.Node, inputs: list[Any]) -> Sizes:
        if len(inputs) != 2 or (len(inputs[0]) != len(inputs[1]) and 1 not in (len(inputs[0]), len(inputs[1]))):
            return None
        a, b = inputs
        length = max(len(a), len(b)) if len(a) and len(b) else 0
        return [function(a[i % len(a)], b[i % len(b)]) for i in range(length)]

    return apply


def _cast(node: gs.Node, inputs: list[Any]) -> Sizes:
    kind = dtype_of(node.outputs[0])
    return inputs[0] if kind is None or kind in (np.dtype(np.int64), np.dtype(np.int32)) else None


_OF: dict[str, Callable[[gs.Node, list[Any]], Sizes]] = {
    **dict.fromkeys(("Identity", "Unsqueeze", "Squeeze", "Reshape"), lambda node, inputs: inputs[0]),
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "ReduceProd": _reduce_prod,
    "Mul": _each(_multiply),
    "Add": _each(_add),
    "Sub": _each(_subtract),
    "Div": _each(_divide),
    "Max": _each(_larger),
    "Min": _each(_smaller),
    "Equal": _each(_equal),
    "Where": _where,
}
