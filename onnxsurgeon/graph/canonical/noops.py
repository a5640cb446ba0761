"""Nodes that change nothing are bypassed: their readers read their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.graph.canonical.queries import constant_values, dtype_of, has_input, producer_of, same_shape, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.canonical.shapes import target_shape

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
    """Reshape(x) = x where the shape cannot change; also for Flatten, Squeeze and Unsqueeze."""
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


def transpose(rewriter: Rewriter, node: gs.Node) -> bool:
    """Transpose(x) = x with axes in order; Transpose(Transpose(x)) = x where the second undoes the first."""
    permutation = permutation_of(node)
    if permutation is None:
        return False
    if permutation == sorted(permutation):
        return rewriter.bypass(node)
    before = producer_of(node.inputs[0])
    if before is None or before.op != "Transpose" or before is node:
        return False
    first = permutation_of(before)
    if first is None or len(first) != len(permutation):
        return False
    return [first[axis] for axis in permutation] == sorted(first) and rewriter.bypass(node, before.inputs[0])


def permutation_of(node: gs.Node) -> list[int] | None:
    """The order of axes that a Transpose makes; None where it is not known."""
    permutation = node.attrs.get("perm")
    if permutation is None:
        shape = shape_of(node.inputs[0]) or shape_of(node.outputs[0])
        return None if shape is None else list(reversed(range(len(shape))))
    permutation = [int(axis) for axis in permutation]
    return permutation if sorted(permutation) == list(range(len(permutation))) else None
