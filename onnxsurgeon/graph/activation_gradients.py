"""Vector-Jacobian products of activations as ONNX nodes, in one function for each activation.

Given g = ∂L/∂y of y = φ(x), each function returns the name of ∂L/∂x = g ⊙ φ'(x), and of ∂L/∂slope where φ is trained. A
rule reads y rather than x where φ' is simpler in y. At a kink, Relu and its bounded variants have φ' = 0, and the leaky
ones have the derivative from below, as in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from onnx import TensorProto

from onnxsurgeon.graph.activation import Activation
from onnxsurgeon.graph.activation_functions import TANH_GELU_CUBIC, TANH_GELU_SCALE


class Builder(Protocol):
    """Appends nodes to a graph; see ``training.builder.GraphBuilder``."""

    dtype: np.dtype[Any]

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node with one output; return the output's name."""

    def scalar(self, value: float) -> str:
        """A floating point constant of shape ()."""

    def axes(self, *axes: int) -> str:
        """A constant with these axes."""


class Point(NamedTuple):
    """The place where a rule is applied: the names of x, y = φ(x), g = ∂L/∂y and PRelu's slopes ("" for others).

    ``examples`` are the axes over which a slope's gradient is summed: 0 where an example is a row, 1 where it is a
    column; for a convolution, the examples' axis and all axes of space.
    """

    x: str
    y: str
    g: str
    slope: str = ""
    examples: tuple[int, ...] = (0,)


class Gradients(NamedTuple):
    """The name of ∂L/∂x, which has x's shape, and for PRelu the name of ∂L/∂slope, (1, n) or (n, 1).

    For a convolution, ∂L/∂slope is (1, n, 1…).
    """

    x: str
    slope: str = ""


def relu(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = sign(y), since y ≥ 0: cheaper than a comparison and a cast of its boolean."""
    return Gradients(build.add("Mul", at.g, build.add("Sign", at.y)))


def clip(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = sign(y − min) sign(max − y), leaving out a bound that is not finite."""
    low, high = activation.attribute("min"), activation.attribute("max")
    g = at.g
    if low > np.finfo(build.dtype).min:
        g = build.add("Mul", g, build.add("Sign", build.add("Sub", at.y, build.scalar(low))))
    if high < np.finfo(build.dtype).max:
        g = build.add("Mul", g, build.add("Sign", build.add("Sub", build.scalar(high), at.y)))
    return Gradients(g if g != at.g else build.add("Identity", g))


def prelu(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = 1 for x > 0, else the slope; ∂L/∂slope = Σ over the batch of g ⊙ min(x, 0)."""
    below = build.add("Min", at.x, build.scalar(0.0))
    slope = build.add("ReduceSum", build.add("Mul", at.g, below), build.axes(*at.examples), keepdims=1)
    return Gradients(build.add("Mul", at.g, _two_sided(build, at.x, at.slope)), slope)


def leaky_relu(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = 1 for x > 0, else α."""
    alpha = build.scalar(activation.attribute("alpha"))
    return Gradients(build.add("Mul", at.g, _two_sided(build, at.x, alpha)))


def elu(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = 1 for x > 0, else y + α."""
    below = build.add("Add", at.y, build.scalar(activation.attribute("alpha")))
    return Gradients(build.add("Mul", at.g, _two_sided(build, at.x, below)))


def selu(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = γ for x > 0, else y + αγ."""
    gamma = activation.attribute("gamma")
    below = build.add("Add", at.y, build.scalar(activation.attribute("alpha") * gamma))
    return Gradients(build.add("Mul", at.g, _two_sided(build, at.x, below, gamma)))


def tanh(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = 1 − y²."""
    square = build.add("Mul", at.y, at.y)
    return Gradients(build.add("Mul", at.g, build.add("Sub", build.scalar(1.0), square)))


def sigmoid(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = y (1 − y)."""
    product = build.add("Mul", at.y, build.add("Sub", build.scalar(1.0), at.y))
    return Gradients(build.add("Mul", at.g, product))


def hard_sigmoid(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = α where 0 < y < 1, else 0."""
    inside = build.add("Sign", build.add("Mul", at.y, build.add("Sub", build.scalar(1.0), at.y)))
    return Gradients(build.add("Mul", at.g, build.add("Mul", inside, build.scalar(activation.attribute("alpha")))))


def softplus(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = σ(x)."""
    return Gradients(build.add("Mul", at.g, build.add("Sigmoid", at.x)))


def softsign(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = (1 − |y|)², since y = x / (1 + |x|)."""
    rest = build.add("Sub", build.scalar(1.0), build.add("Abs", at.y))
    return Gradients(build.add("Mul", at.g, build.add("Mul", rest, rest)))


def gelu(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = Φ(x) + x Φ'(x); for the approximation, Φ = (1 + t)/2 and Φ' = (1 − t²)/2 · u', t = tanh(u(x))."""
    square = build.add("Mul", at.x, at.x)
    if activation.attribute("approximate") == "tanh":
        scale, cubic = TANH_GELU_SCALE, TANH_GELU_SCALE * TANH_GELU_CUBIC
        inner = build.add("Add", build.add("Mul", square, build.scalar(cubic)), build.scalar(scale))
        t = build.add("Tanh", build.add("Mul", at.x, inner))
        slope = build.add("Add", build.add("Mul", square, build.scalar(1.5 * cubic)), build.scalar(0.5 * scale))
        rest = build.add("Sub", build.scalar(1.0), build.add("Mul", t, t))
        density = build.add("Mul", rest, slope)
    else:
        t = erf(build, build.add("Mul", at.x, build.scalar(1 / math.sqrt(2))))
        bell = build.add("Exp", build.add("Mul", square, build.scalar(-0.5)))
        density = build.add("Mul", bell, build.scalar(1 / math.sqrt(2 * math.pi)))
    distribution = build.add("Add", build.add("Mul", t, build.scalar(0.5)), build.scalar(0.5))
    return Gradients(build.add("Mul", at.g, build.add("Add", distribution, build.add("Mul", at.x, density))))


def erf(build: Builder, x: str) -> str:
    """Append Erf in float32 at most, since ONNX Runtime has no other kernel."""
    if build.dtype != np.float64:
        return build.add("Erf", x)
    narrow = build.add("Erf", build.add("Cast", x, to=TensorProto.FLOAT))
    return build.add("Cast", narrow, to=TensorProto.DOUBLE)


def swish(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = s + α y (1 − s), s = σ(αx)."""
    alpha = activation.attribute("alpha")
    scaled = (at.x, at.y) if alpha == 1 else [build.add("Mul", tensor, build.scalar(alpha)) for tensor in (at.x, at.y)]
    s = build.add("Sigmoid", scaled[0])
    rest = build.add("Mul", scaled[1], build.add("Sub", build.scalar(1.0), s))
    return Gradients(build.add("Mul", at.g, build.add("Add", s, rest)))


def mish(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = t + x σ(x) (1 − t²), t = tanh(Softplus(x)) = (1 − q²)/(1 + q²), q = σ(−x)."""
    q = build.add("Sigmoid", build.add("Neg", at.x))
    square = build.add("Mul", q, q)
    one = build.scalar(1.0)
    t = build.add("Div", build.add("Sub", one, square), build.add("Add", one, square))
    rest = build.add("Mul", build.add("Sub", one, build.add("Mul", t, t)), build.add("Sub", one, q))
    return Gradients(build.add("Mul", at.g, build.add("Add", t, build.add("Mul", at.x, rest))))


def hard_swish(build: Builder, activation: Activation, at: Point) -> Gradients:
    """φ' = 0 for x ≤ −3, 1 for x ≥ 3, x/3 + 1/2 between: h + x/6 · [0 < h < 1], h = HardSigmoid(x; 1/6, 1/2)."""
    one = build.scalar(1.0)
    line = build.add("Add", build.add("Mul", at.x, build.scalar(1 / 6)), build.scalar(0.5))
    h = build.add("Min", build.add("Max", line, build.scalar(0.0)), one)
    inside = build.add("Sign", build.add("Mul", h, build.add("Sub", one, h)))
    rest = build.add("Mul", build.add("Mul", at.x, inside), build.scalar(1 / 6))
    return Gradients(build.add("Mul", at.g, build.add("Add", h, rest)))


def _two_sided(build: Builder, x: str, below: str, above: float = 1.0) -> str:
    """``above`` for x > 0, else ``below``."""
    positive = build.add("Relu", build.add("Sign", x))
    rest = build.add("Mul", build.add("Sub", build.scalar(1.0), positive), below)
    if above != 1.0:
        positive = build.add("Mul", positive, build.scalar(above))
    return build.add("Add", positive, rest)
