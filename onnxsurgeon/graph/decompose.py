"""Activations written as ONNX nodes: one, or several where an opset or ONNX Runtime lacks the operator for a type.

ONNX Runtime on the CPU (1.19 to 1.32) has no float64 kernel of PRelu, LeakyRelu, Elu, Selu, HardSigmoid, Softplus,
Softsign, HardSwish, Mish, Gelu and Erf, nor of Clip before opset 12. None of these forms overflows. Reading
(graph.canonical) takes each back as the one activation it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activation import ACTIVATIONS, Activation
from onnxsurgeon.graph.activation_functions import TANH_GELU_CUBIC, TANH_GELU_SCALE


class NodeWriter:
    """The nodes of one activation under construction; the last one bears its name and writes its output."""

    def __init__(self, x: str, base: str, dtype: np.dtype[Any], slope: str = "") -> None:
        self.x, self.base, self.dtype, self.slope = x, base, dtype, slope
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; return its output's name."""
        y = f"{self.base}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [y], name=y, **attributes))
        return y

    def scalar(self, value: float, name: str = "") -> str:
        """Add a constant of shape ()."""
        name = f"{self.base}.{name or f'c{len(self.constants)}'}"
        self.constants[name] = numpy_helper.from_array(np.array(value, self.dtype), name)
        return name

    def finish(self, y: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return the nodes and their constants; the last node writes ``y``."""
        self.nodes[-1].output[0] = y
        self.nodes[-1].name = self.base
        return self.nodes, list(self.constants.values())


def clip(p: NodeWriter, phi: Activation) -> None:
    """Min(Max(x, low), high)."""
    y = p.x
    for op, bound in (("Max", phi.attribute("min")), ("Min", phi.attribute("max"))):
        if np.isfinite(bound):
            y = p.add(op, y, p.scalar(bound))
    if y == p.x:
        p.add("Identity", p.x)


def prelu(p: NodeWriter, _: Activation) -> None:
    """Relu(x) − s Relu(−x)."""
    negative = p.add("Relu", p.add("Neg", p.x))
    p.add("Sub", p.add("Relu", p.x), p.add("Mul", p.slope, negative))


def leaky_relu(p: NodeWriter, phi: Activation) -> None:
    """Relu(x) − α Relu(−x)."""
    negative = p.add("Relu", p.add("Neg", p.x))
    p.add("Sub", p.add("Relu", p.x), p.add("Mul", p.scalar(phi.attribute("alpha")), negative))


def _below(p: NodeWriter, scale: float) -> str:
    """scale · (exp(min(x, 0)) − 1)."""
    power = p.add("Exp", p.add("Neg", p.add("Relu", p.add("Neg", p.x))))
    return p.add("Mul", p.scalar(scale), p.add("Sub", power, p.scalar(1.0)))


def elu(p: NodeWriter, phi: Activation) -> None:
    """Relu(x) + α (exp(min(x, 0)) − 1)."""
    p.add("Add", p.add("Relu", p.x), _below(p, phi.attribute("alpha")))


def selu(p: NodeWriter, phi: Activation) -> None:
    """γ Relu(x) + γα (exp(min(x, 0)) − 1)."""
    gamma = phi.attribute("gamma")
    above = p.add("Mul", p.scalar(gamma), p.add("Relu", p.x))
    p.add("Add", above, _below(p, gamma * phi.attribute("alpha")))


def hard_sigmoid(p: NodeWriter, phi: Activation) -> None:
    """Min(Max(αx + β, 0), 1)."""
    _hard_sigmoid(p, phi.attribute("alpha"), phi.attribute("beta"))


def _hard_sigmoid(p: NodeWriter, alpha: float, beta: float) -> str:
    line = p.add("Add", p.add("Mul", p.x, p.scalar(alpha)), p.scalar(beta))
    return p.add("Min", p.add("Max", line, p.scalar(0.0)), p.scalar(1.0))


def softplus(p: NodeWriter, _: Activation) -> None:
    """Relu(x) + log(1 + exp(−|x|))."""
    _softplus(p)


def _softplus(p: NodeWriter) -> str:
    if p.dtype != np.float64:
        return p.add("Softplus", p.x)
    small = p.add("Exp", p.add("Neg", p.add("Abs", p.x)))
    return p.add("Add", p.add("Relu", p.x), p.add("Log", p.add("Add", small, p.scalar(1.0))))


def softsign(p: NodeWriter, _: Activation) -> None:
    """x / (1 + |x|)."""
    p.add("Div", p.x, p.add("Add", p.add("Abs", p.x), p.scalar(1.0)))


def hard_swish(p: NodeWriter, _: Activation) -> None:
    """x · HardSigmoid(x; 1/6, 1/2)."""
    if p.dtype == np.float64:
        p.add("Mul", p.x, _hard_sigmoid(p, 1 / 6, 0.5))
    else:
        p.add("Mul", p.x, p.add("HardSigmoid", p.x, alpha=1 / 6, beta=0.5))


def mish(p: NodeWriter, _: Activation) -> None:
    """x tanh(Softplus(x))."""
    p.add("Mul", p.x, p.add("Tanh", _softplus(p)))


def gelu(p: NodeWriter, phi: Activation) -> None:
    """x/2 · (1 + erf(x/√2)), erf in float32 at most; or x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    if phi.attribute("approximate") == "tanh":
        cubic = p.add("Mul", p.add("Mul", p.x, p.x), p.scalar(TANH_GELU_SCALE * TANH_GELU_CUBIC))
        inner = p.add("Mul", p.x, p.add("Add", cubic, p.scalar(TANH_GELU_SCALE)))
        step = p.add("Tanh", inner)
    else:
        step = p.add("Mul", p.x, p.scalar(1 / math.sqrt(2)))
        if p.dtype == np.float64:
            narrow = p.add("Erf", p.add("Cast", step, to=onnx.TensorProto.FLOAT))
            step = p.add("Cast", narrow, to=onnx.TensorProto.DOUBLE)
        else:
            step = p.add("Erf", step)
    p.add("Mul", p.add("Mul", p.x, p.scalar(0.5)), p.add("Add", step, p.scalar(1.0)))


def swish(p: NodeWriter, phi: Activation) -> None:
    """x · σ(αx); in float64 x · (1 + tanh(αx/2))/2, as ONNX Runtime 1.19 fuses the former into what it cannot run."""
    alpha = phi.attribute("alpha")
    if p.dtype == np.float64:
        half = p.scalar(0.5)
        step = p.add("Tanh", p.add("Mul", p.x, p.scalar(alpha / 2)))
        p.add("Mul", p.x, p.add("Add", p.add("Mul", step, half), half))
        return
    inner = p.x if alpha == 1 else p.add("Mul", p.x, p.scalar(alpha))
    p.add("Mul", p.x, p.add("Sigmoid", inner))


def activation_nodes(
    phi: Activation, x: str, y: str, base: str, dtype: np.dtype[Any], opset: int, slope: str = ""
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return y = φ(x) as ONNX nodes, with the initializers they need.

    One node, or several where ONNX Runtime needs them. The last node bears the name ``base``, and every new name starts
    with it. ``slope`` names the tensor with PRelu's slopes.

    Raises:
        ModelError: the opset has neither the operator nor its parts.
    """
    if not is_native(phi, np.dtype(dtype), opset):
        return decompose(phi, x, y, base, np.dtype(dtype), opset, slope)
    if phi.op_type == "Clip" and opset >= 11:
        bounds = {f"{base}.{bound}": np.array(phi.attribute(bound), dtype) for bound in ("min", "max")}
        constants = [numpy_helper.from_array(value, name) for name, value in bounds.items()]
        return [helper.make_node("Clip", [x, *bounds], [y], name=base)], constants
    inputs = [x, slope] if phi.slope is not None else [x]
    return [helper.make_node(phi.op_type, inputs, [y], name=base, **phi.attributes)], []


def is_native(phi: Activation, dtype: np.dtype[Any], opset: int) -> bool:
    """Whether the opset has the operator and ONNX Runtime computes it in this type."""
    if ACTIVATIONS[phi.op_type].form is None:
        return True
    if phi.op_type == "Swish":  # ONNX Runtime 1.32 has a kernel of it in opset 24 only
        return False
    if dtype == np.float64:
        return phi.op_type == "Clip" and opset >= 12
    return opset >= ACTIVATIONS[phi.op_type].since


def decompose(
    phi: Activation, x: str, y: str, base: str, dtype: np.dtype[Any], opset: int, slope: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return y = φ(x) as nodes that every ONNX Runtime computes.

    Raises:
        ModelError: the opset lacks the parts too.
    """
    needed = {"Gelu": 9, "Clip": 8, "HardSigmoid": 8, "HardSwish": 8 if dtype == np.float64 else 7}
    if opset < needed.get(phi.op_type, 7) and phi.attributes.get("approximate") != "tanh":
        raise ModelError(f"node '{base}': {phi.op_type} cannot be written in opset {opset}", "opset")
    parts = NodeWriter(x, base, np.dtype(dtype), slope)
    form = ACTIVATIONS[phi.op_type].form
    assert form is not None  # see is_native
    form(parts, phi)
    return parts.finish(y)
