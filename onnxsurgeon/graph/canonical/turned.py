"""Axes that are turned and turned back: between two such Transposes, all nodes work on each entry by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.noops import permutation_of
from onnxsurgeon.graph.canonical.products import ELEMENTWISE
from onnxsurgeon.graph.canonical.queries import constant_values, like, producer_of, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array

DEEPEST = 16  # nodes


def turned_back(rewriter: Rewriter, node: gs.Node) -> bool:
    """T⁻¹(f(T(x), c)) = f(x, T⁻¹(c)) for chains of elementwise f whose result nothing else reads.

    Frameworks whose channels come last write a convolution between two such Transposes, and its bias and activation
    behind the second.
    """
    order = permutation_of(node)
    if order is None:
        return False
    chain: list[gs.Node] = []
    tensor = node.inputs[0]
    while len(chain) < DEEPEST:
        source = producer_of(tensor)
        if source is None or len(tensor.outputs) != 1 or rewriter.is_pinned(tensor) or len(source.outputs) != 1:
            return False
        if source.op == "Transpose":
            break
        if source.op not in {*ACTIVATIONS, *ELEMENTWISE}:
            return False
        moved = [each for each in source.inputs if not isinstance(each, gs.Constant) and each.name]
        if len(moved) != 1 or not all(_fits(each, len(order)) for each in source.inputs):
            return False
        chain.append(source)
        tensor = moved[0]
    else:
        return False
    first = permutation_of(source)
    if not chain or first is None or [first[axis] for axis in order] != sorted(order):
        return False
    x = source.inputs[0]
    for each in reversed(chain):
        inputs: list[Any] = [x if not isinstance(part, gs.Constant) and part.name else part for part in each.inputs]
        inputs = [like(part, _turned(part, order)) if isinstance(part, gs.Constant) else part for part in inputs]
        shape = shape_of(each.outputs[0])
        made = rewriter.variable(each.outputs[0], None if shape is None else [shape[axis] for axis in order])
        rewriter.set_output(each, made)
        rewriter.set_inputs(each, inputs)
        x = made
    rewriter.set_input(node, 0, x)
    rewriter.become(node, "Identity", [x])
    return True


def _fits(tensor: Any, rank: int) -> bool:
    """Whether a constant broadcasts to that many axes without being wider; True for what is no constant."""
    values = constant_values(tensor)
    return values is None or values.ndim <= rank


def _turned(constant: gs.Constant, order: list[int]) -> Array:
    values = np.asarray(constant.values)
    if values.size == 1 and values.ndim <= 1:
        return values
    return np.ascontiguousarray(values.reshape([1] * (len(order) - values.ndim) + list(values.shape)).transpose(order))
