"""Reshape–dense–Reshape around (batch, time, n), as Keras writes it: a dense layer on the tensor of rank 3 itself."""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.affine import affine_of
from onnxsurgeon.graph.canonical.noops import SHAPERS
from onnxsurgeon.graph.canonical.queries import dtype_of, producer_of, same_shape, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.canonical.shapes import target_shape

LONGEST = 64


def unfold(rewriter: Rewriter, node: gs.Node) -> bool:
    """Reshape(f(Reshape(x, (−1, n))), (…, m)) = f(x), where f works on the last axis and … are x's own sizes."""
    between: list[gs.Node] = []
    tensor = node.inputs[0]
    while len(between) < LONGEST:
        source = producer_of(tensor)
        if source is None or len(tensor.outputs) != 1 or rewriter.is_pinned(tensor) or source is node:
            return False
        if source.op in SHAPERS:
            break
        x = _last_axis_input(source)
        if x is None:
            return False
        between.append(source)
        tensor = x
    else:
        return False
    first, x = source, source.inputs[0]
    if not between or not any(n.op == "Dense" for n in between) or not _opens(first, x):
        return False
    before = shape_of(x) or []
    units = next(n for n in between if n.op == "Dense").inputs[1].shape[1]
    wanted = [*before[:-1], int(units)]
    if not any(same_shape(wanted, shape) for shape in (target_shape(node), shape_of(node.outputs[0]))):
        return False
    if node.outputs[0].shape is None:
        node.outputs[0].shape = wanted
    _unfold(rewriter, node, between, x)
    return True


def _last_axis_input(node: gs.Node) -> Any | None:
    """The input of a node that works on the last axis alone; None for any other node."""
    if node.op == "Dense" or (node.op in ACTIVATIONS and len(node.inputs) == 1):
        return node.inputs[0]
    if node.op == "BatchNormalization":
        return None  # its axis 1 is the last one only at rank 2
    found = affine_of(node)
    return None if found is None else found.x


def _opens(node: gs.Node, x: Any) -> bool:
    """Whether the node reshapes x (…, n) to (−1, n)."""
    shape, flat = shape_of(x), shape_of(node.outputs[0])
    wanted = target_shape(node)
    last = [s[-1] for s in (wanted, flat) if s is not None and len(s) == 2 and isinstance(s[-1], int)]
    return shape is not None and len(shape) >= 2 and isinstance(shape[-1], int) and last[:1] == [shape[-1]]


def _unfold(rewriter: Rewriter, node: gs.Node, between: list[gs.Node], x: Any) -> None:
    leading = (shape_of(x) or [])[:-1]
    y = node.outputs[0]
    for later, source in enumerate(between):
        old = source.outputs[0]
        shape = shape_of(old)
        if later == 0:
            rewriter.set_output(node, rewriter.variable(y))
            rewriter.set_output(source, y)
            rewriter.remove(node)
            continue
        # The tensor now has another rank than the tensor of that name in the file.
        new = rewriter.variable(old, None if shape is None else [*leading, shape[-1]])
        new.dtype = dtype_of(old)
        rewriter.set_output(source, new)
        rewriter.redirect(old, new)
    first = between[-1]
    for position, tensor in enumerate(first.inputs):
        if tensor is not x and producer_of(tensor) is not None:
            rewriter.set_input(first, position, x)
            break
    for source in between:
        if source.op == "Dense":
            tensor = source.inputs[0]
            source.attrs["entry"] = tensor.name if tensor is not x or rewriter.is_original(x) else None
