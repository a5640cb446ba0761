"""Normalisations that are one operator where others are several, written out in the reading aid: the file keeps them.

RMSNormalization, from opset 23 on, is x / √(mean x² + ε) · γ over the last axis. SkipLayerNormalization and
SkipSimplifiedLayerNormalization, which ONNX Runtime writes when it optimises a transformer, are a LayerNormalization
and an RMSNormalization of x + skip + bias, a sum that they may write too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, dtype_of, has_input, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter

_OWN = (None, "", "ai.onnx")
_RUNTIME = "com.microsoft"
_SKIP = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
_EPSILON = 1e-12  # where a SkipLayerNormalization gives none
_SUM = 3  # the output of a SkipLayerNormalization that is x + skip + bias


def write_out_normalisations(graph: gs.Graph) -> None:
    """Replace each of these by its parts; one over several axes, or whose mean or deviation is read, stays."""
    found = []
    for node in graph.nodes:
        is_known = node.domain == _RUNTIME and node.op in _SKIP
        if (is_known or (node.domain in _OWN and node.op == "RMSNormalization")) and _is_plain(node):
            found.append((node, node.op))
    if not found:
        return
    rewriter = Rewriter(graph)
    for node, op in found:
        _write_out(rewriter, node, op)
    rewriter.finish()


def _is_plain(node: gs.Node) -> bool:
    shape, first = shape_of(node.inputs[0]), 2 if node.op in _SKIP else 1
    gain = constant_values(node.inputs[first]) if has_input(node, first) else None
    if not shape or gain is None or gain.ndim != 1 or gain.dtype not in FLOATS or shape[-1] != gain.size:
        return False
    axis = int(node.attrs.get("axis", -1))
    if any(tensor.outputs for tensor in node.outputs[1:_SUM]) or axis not in (-1, len(shape) - 1):
        return False
    return dtype_of(node.inputs[0]) in (None, gain.dtype)


def _write_out(rewriter: Rewriter, node: gs.Node, op: str) -> None:
    inputs, y = list(node.inputs), node.outputs[0]
    is_skip = op in _SKIP
    gain = inputs[2 if is_skip else 1]
    shape, kind = list(inputs[0].shape), constant_values(gain).dtype  # type: ignore[union-attr]
    names = iter(range(len(inputs) + 8))
    y.shape, y.dtype = y.shape or shape, y.dtype or kind

    def made(kind_of: str, given: Sequence[Any], sizes: Sequence[Any], **attributes: Any) -> Any:
        tensor = gs.Variable(f"{y.name}/{kind_of.lower()}_{next(names)}", kind, list(sizes))
        rewriter.insert(node, kind_of, given, tensor, attributes).name = node.name
        return tensor

    x = inputs[0]
    if is_skip:
        bias = 4 if op == _SKIP[0] else 3
        for term in [inputs[1], *([inputs[bias]] if has_input(node, bias) else [])]:
            x = made("Add", [x, term], shape)
        if len(node.outputs) > _SUM and node.outputs[_SUM].outputs:
            rewriter.redirect(node.outputs[_SUM], x)
    epsilon = float(node.attrs.get("epsilon", _EPSILON if is_skip else 1e-5))
    if op == _SKIP[0]:
        offset = [inputs[3]] if has_input(node, 3) else []
        rewriter.become(node, "LayerNormalization", [x, gain, *offset], {"axis": -1, "epsilon": epsilon})
        return
    square = made("Mul", [x, x], shape)
    mean = made("ReduceMean", [square], [*shape[:-1], 1], axes=[-1], keepdims=1)
    more = made("Add", [mean, gs.Constant(f"{y.name}/epsilon", np.asarray(epsilon, kind))], [*shape[:-1], 1])
    root = made("Sqrt", [more], [*shape[:-1], 1])
    rewriter.become(node, "Mul", [made("Div", [x, root], shape), gain])
