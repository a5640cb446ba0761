"""ONNX's own Attention, from opset 23 on, written out in the reading aid: the file keeps the node as it is.

Y = softmax(scale · Q Kᵀ + M) V for each head, of queries, keys and values (rows, heads, steps, size), where M is −∞, or
the lowest number there is, for the keys that a query may not see: those behind it (``is_causal``) and those that the
mask leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.queries import FLOATS, dtype_of, has_input, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter

_OPERANDS = 3  # queries, keys, values; the mask comes behind them
_WRITTEN_OUT = frozenset(("is_causal", "scale", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode"))
_AXES = 4


def write_out_attention(graph: gs.Graph) -> None:
    """Replace every Attention of four axes, without caches, by products, a mask and a Softmax.

    One that does more than that, or of which sizes are not known, stays.
    """
    found = [node for node in graph.nodes if node.op == "Attention" and node.domain in (None, "", "ai.onnx")]
    if not found:
        return
    rewriter = Rewriter(graph)
    for node in found:
        if _is_plain(node):
            _write_out(rewriter, node)
    rewriter.finish()


def _is_plain(node: gs.Node) -> bool:
    shapes = [shape_of(tensor) for tensor in node.inputs[:_OPERANDS]]
    if any(shape is None or len(shape) != _AXES for shape in shapes) or len({str(s and s[1]) for s in shapes}) > 1:
        return False
    if any(has_input(node, position) for position in range(_OPERANDS + 1, len(node.inputs))):
        return False  # what is remembered of steps before
    if any(tensor.outputs for tensor in node.outputs[1:]) or dtype_of(node.inputs[0]) not in FLOATS:
        return False
    if any(value for name, value in node.attrs.items() if name not in _WRITTEN_OUT and name != "softmax_precision"):
        return False
    sizes = [size for shape in shapes for size in (shape or ())[2:]]
    return all(isinstance(size, int) and size > 0 for size in sizes)


def _write_out(rewriter: Rewriter, node: gs.Node) -> None:
    query, key, value = node.inputs[:_OPERANDS]
    (rows, heads, steps, size), keys, kind = query.shape, key.shape[2], dtype_of(query)
    y, given, mask = node.outputs[0], dict(node.attrs), node.inputs[_OPERANDS] if has_input(node, _OPERANDS) else None

    def constant(what: str, values: Any) -> gs.Constant:
        return gs.Constant(f"{y.name}/{what}", np.asarray(values, kind))

    def made(op: str, inputs: Sequence[Any], shape: Sequence[Any], **attributes: Any) -> Any:
        tensor = gs.Variable(f"{y.name}/{op.lower()}_{next(numbers)}", kind, list(shape))
        rewriter.insert(node, op, inputs, tensor, attributes).name = node.name
        return tensor

    numbers = count()
    scores = [rows, heads, steps, keys]
    turned = made("Transpose", [key], [rows, heads, size, keys], perm=[0, 1, 3, 2])
    x = made("MatMul", [query, turned], scores)
    x = made("Mul", [x, constant("scale", given.get("scale", 1 / math.sqrt(size)))], scores)
    lowest = constant("lowest", ml_dtypes.finfo(kind).min)
    if given.get("is_causal", 0):
        seen = gs.Constant(f"{y.name}/seen", np.tril(np.ones((steps, keys), bool)))
        x = made("Where", [seen, x, lowest], scores)
    if mask is not None:
        is_choice = dtype_of(mask) == np.dtype(bool)
        x = made("Where", [mask, x, lowest], scores) if is_choice else made("Add", [x, mask], scores)
    p = made("Softmax", [x], scores, axis=-1)
    rewriter.become(node, "MatMul", [p, value])
