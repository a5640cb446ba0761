"""Activations in normal form: one node of ``ACTIVATIONS`` with its parameters as attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.affine import AFFINE
from onnxsurgeon.graph.canonical.elementwise import clip_bounds
from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, has_input, like, producer_of, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.canonical.shapes import learn


def clip(rewriter: Rewriter, node: gs.Node) -> bool:
    """Clip(x; 0, ∞) = Relu(x); other constant bounds become attributes."""
    low, high = clip_bounds(node)
    if low is None or high is None:
        return False
    largest = float(np.finfo(np.float32).max)
    low, high = -np.inf if low <= -largest else low, np.inf if high >= largest else high
    if low == 0 and high == np.inf:
        rewriter.become(node, "Relu", [node.inputs[0]])
        return True
    wanted = {"min": low, "max": high}
    if len(node.inputs) == 1 and all(node.attrs.get(name) == value for name, value in wanted.items()):
        return False
    rewriter.become(node, "Clip", [node.inputs[0]], wanted)
    return True


def prelu(rewriter: Rewriter, node: gs.Node) -> bool:
    """Relu(x) − s Relu(−x) = Relu(x) + (−s) Relu(−x) = PRelu(x, s), with sum and product in either order."""
    orders = (node.inputs,) if node.op == "Sub" else (node.inputs, node.inputs[::-1])
    for order in orders:
        positive, scaled = (producer_of(tensor) for tensor in order[:2])
        if positive is None or scaled is None or positive.op != "Relu" or scaled.op != "Mul" or scaled is node:
            continue
        slope = _slope(rewriter, scaled, positive.inputs[0])
        if slope is not None and _private(rewriter, positive) and _private(rewriter, scaled):
            if node.op == "Add":
                slope = like(slope, -slope.values)
            rewriter.become(node, "PRelu", [positive.inputs[0], slope])
            return True
    return False


def _slope(rewriter: Rewriter, scaled: gs.Node, x: Any) -> gs.Constant | None:
    """The constant c of a product c Relu(−x); a scalar of shape () is LeakyRelu's."""
    for position in (0, 1):
        slope, negative = scaled.inputs[position], producer_of(scaled.inputs[1 - position])
        if not isinstance(slope, gs.Constant) or len(slope.shape) == 0:
            continue
        if negative is None or negative.op != "Relu" or not _private(rewriter, negative):
            continue
        negated = producer_of(negative.inputs[0])
        if negated is not None and negated.op == "Neg" and negated.inputs[0] is x and _private(rewriter, negated):
            return slope
    return None


def prelu_slope(rewriter: Rewriter, node: gs.Node) -> bool:
    """PRelu(x, s (1, …, 1, n)) = PRelu(x, s (n,))."""
    slope = node.inputs[1] if len(node.inputs) > 1 else None
    if not isinstance(slope, gs.Constant) or len(slope.shape) == 1:
        return False
    if any(size != 1 for size in list(slope.shape)[:-1]):
        return False
    values = constant_values(slope)
    if values is None or values.dtype not in FLOATS:
        return False
    rewriter.set_input(node, 1, like(slope, values.reshape(-1)))
    return True


def _private(rewriter: Rewriter, node: gs.Node) -> bool:
    """Whether exactly one other node reads what the node writes."""
    y = node.outputs[0]
    return len(node.outputs) == 1 and len(y.outputs) == 1 and not rewriter.is_pinned(y)


def fused_gelu(rewriter: Rewriter, node: gs.Node) -> bool:
    """BiasGelu(x, b) = Gelu(x + b); FastGelu(x, b) = Gelu(x + b; tanh); QuickGelu(x; α) = Swish(x; α)."""
    op = node.op.removeprefix("com.microsoft::")
    x = node.inputs[0]
    if op in ("BiasGelu", "FastGelu") and has_input(node, 1):
        total = rewriter.variable(x, shape_of(x))
        rewriter.insert(node, "Add", list(node.inputs[:2]), total, {})
        x = total
    if op == "QuickGelu":
        rewriter.become(node, "Swish", [x], {"alpha": float(node.attrs.get("alpha", 1.702))})
    else:
        rewriter.become(node, "Gelu", [x], {"approximate": "tanh"} if op == "FastGelu" else {})
    return True


def known_shape(rewriter: Rewriter, node: gs.Node) -> bool:
    """An elementwise φ(x) has the shape of x; shape inference does not know operators of other domains."""
    x, y = node.inputs[0], node.outputs[0]
    if len(node.inputs) == 2 and isinstance(x, gs.Constant):
        x = node.inputs[1]
    if x.shape is not None and y.shape == x.shape:
        return False
    for other in node.inputs[:2] if node.op in AFFINE and node.op != "BatchNormalization" else ():
        shape = shape_of(x)
        if other is not x and (
            not isinstance(other, gs.Constant) or shape is None or not _spreads(list(other.shape), shape)
        ):
            return False
    shape = shape_of(x)
    if node.op == "GroupNormalization" and y.dtype is None:
        y.dtype = x.dtype
    return shape is not None and learn(y, shape)


def _spreads(shape: list[int], over: list[Any]) -> bool:
    """Whether broadcasting a constant of ``shape`` over a tensor leaves that tensor's shape as it is."""
    pairs = zip(reversed(shape), reversed(over), strict=False)
    return len(shape) <= len(over) and all(size in (1, wanted) for size, wanted in pairs)


# Besides the activations: operators that stand before dense layers and keep the shape, such as skl2onnx's scaler.
KEEPS_SHAPE = (
    "Cast",
    "Neg",
    "BatchNormalization",
    "GroupNormalization",  # of which onnx infers nothing from opset 21 on
    *(f"ai.onnx.ml::{op}" for op in ("Scaler", "Imputer", "Normalizer")),
)
