"""Nodes that change nothing are bypassed: what they write is what they read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.graph.canonical.queries import constant_values, dtype_of, has_input, producer_of, same_shape, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter

MOST_AXES = 64
SHAPERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def identity(rewriter: Rewriter, node: gs.Node) -> bool:
    """Identity(x) = x."""
    return rewriter.bypass(node)


def dropout(rewriter: Rewriter, node: gs.Node) -> bool:
    """Dropout(x) = x outside training or where nothing is dropped, if nothing reads the mask."""
    if len(node.outputs) > 1 and (node.outputs[1].outputs or rewriter.is_pinned(node.outputs[1])):
        return False
    if has_input(node, 2):
        training, ratio = constant_values(node.inputs[2]), constant_values(node.inputs[1])
        if (training is None or bool(training.any())) and (ratio is None or bool(ratio.any())):
            return False
    return rewriter.bypass(node)


def cast(rewriter: Rewriter, node: gs.Node) -> bool:
    """Cast(x) = x where x has the wanted type already."""
    have = dtype_of(node.inputs[0])
    return have is not None and cast_type(node) == have and rewriter.bypass(node)


def cast_type(node: gs.Node) -> np.dtype[Any] | None:
    """The type that a Cast casts to."""
    wanted = node.attrs.get("to")
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(wanted) if isinstance(wanted, int) else wanted)
    except (KeyError, TypeError):
        return None


def shaper(rewriter: Rewriter, node: gs.Node) -> bool:
    """Reshape(x) = x, also of Flatten, Squeeze and Unsqueeze, where the shape cannot change."""
    x, y = node.inputs[0], node.outputs[0]
    shape = shape_of(x)
    if same_shape(shape, target_shape(node)) or (shape is not None and same_shape(shape, shape_of(y))):
        return rewriter.bypass(node)
    before = producer_of(x)
    if before is not None and before.op in SHAPERS and before.inputs[0] is not y:
        # Reshape(Reshape(x)) = x, where the second undoes the first.
        origin = before.inputs[0]
        shape = shape_of(origin)
        if shape is not None and (same_shape(shape, shape_of(y)) or same_shape(shape, target_shape(node))):
            return rewriter.bypass(node, origin)
    return False


def target_shape(node: gs.Node) -> list[Any] | None:
    """The shape that the node's attributes and constants ask for; None for sizes that are not known."""
    shape = shape_of(node.inputs[0])
    if node.op == "Reshape":
        wanted = computed_sizes(node.inputs[1]) if has_input(node, 1) else None
        if wanted is None:
            return None
        sizes: list[Any] = []
        for position, size in enumerate(wanted):
            if size == 0 and not node.attrs.get("allowzero", 0):
                sizes.append(shape[position] if shape is not None and position < len(shape) else None)
            else:
                sizes.append(None if isinstance(size, int) and size <= 0 else size)
        return sizes
    if node.op == "Flatten" and shape is not None and len(shape) == 2:
        return shape if node.attrs.get("axis", 1) in (1, -1) else None
    return None


def computed_sizes(tensor: Any, depth: int = 8) -> list[Any] | None:
    """Values of an integer tensor of rank 0 or 1 that is computed from shapes: numbers, symbolic names or None.

    Shape inference follows some of these chains in some opsets only.
    """
    if isinstance(tensor, gs.Constant):
        values = constant_values(tensor) if len(tensor.shape) <= 1 and int(np.prod(tensor.shape)) <= MOST_AXES else None
        return None if values is None or values.dtype.kind not in "iu" else [int(size) for size in values.ravel()]
    node = producer_of(tensor)
    if node is None or depth == 0 or not node.inputs:
        return None
    if node.op == "Shape":
        shape = shape_of(node.inputs[0])
        return None if shape is None else shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
    if node.op in ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"):
        return computed_sizes(node.inputs[0], depth - 1)
    if node.op == "Concat":
        parts = [computed_sizes(part, depth - 1) for part in node.inputs[:MOST_AXES]]
        return None if None in parts else [size for part in parts for size in part or ()]
    if node.op == "Gather" and len(node.inputs) > 1:
        return _pick(computed_sizes(node.inputs[0], depth - 1), computed_sizes(node.inputs[1], 1))
    if node.op == "Slice":
        sizes = computed_sizes(node.inputs[0], depth - 1)
        bounds = [
            [int(size) for size in node.attrs[name]] if name in node.attrs else _constant_sizes(node, position)
            for position, name in enumerate(("starts", "ends"), start=1)
        ]
        if sizes is None or None in bounds or has_input(node, 4) or any(len(b or ()) != 1 for b in bounds):
            return None
        (start,), (end,) = (b or [0] for b in bounds)
        return sizes[start:end]
    return None


def _constant_sizes(node: gs.Node, position: int) -> list[Any] | None:
    return computed_sizes(node.inputs[position], 1) if has_input(node, position) else None


def _pick(sizes: list[Any] | None, indices: list[Any] | None) -> list[Any] | None:
    if sizes is None or indices is None:
        return None
    if not all(isinstance(i, int) and -len(sizes) <= i < len(sizes) for i in indices):
        return None
    return [sizes[i] for i in indices]


def transpose(rewriter: Rewriter, node: gs.Node) -> bool:
    """Transpose(x) = x with axes in order; Transpose(Transpose(x)) = x where the second undoes the first."""
    permutation = _permutation(node)
    if permutation is None:
        return False
    if permutation == sorted(permutation):
        return rewriter.bypass(node)
    before = producer_of(node.inputs[0])
    if before is None or before.op != "Transpose" or before is node:
        return False
    first = _permutation(before)
    if first is None or len(first) != len(permutation):
        return False
    return [first[axis] for axis in permutation] == sorted(first) and rewriter.bypass(node, before.inputs[0])


def _permutation(node: gs.Node) -> list[int] | None:
    permutation = node.attrs.get("perm")
    if permutation is None:
        shape = shape_of(node.inputs[0]) or shape_of(node.outputs[0])
        return None if shape is None else list(reversed(range(len(shape))))
    permutation = [int(axis) for axis in permutation]
    return permutation if sorted(permutation) == list(range(len(permutation))) else None
