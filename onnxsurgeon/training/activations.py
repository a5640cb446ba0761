"""The forward pass of an activation in a training graph."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.decompose import activation_nodes
from onnxsurgeon.training.builder import OPSET, GraphBuilder


def apply(build: GraphBuilder, activation: Activation, z: str, slope: str = "") -> str:
    """Append y = φ(z); return its name."""
    y = f"y_{len(build.nodes)}"
    nodes, constants = activation_nodes(activation, z, y, y, build.dtype, OPSET, slope)
    build.nodes.extend(nodes)
    build.constants.update((constant.name, constant) for constant in constants)
    return y


def activated(
    build: GraphBuilder, activation: Activation | None, z: str, slope: str, *, prelu_in_parts: bool = False
) -> str:
    """Append a layer's y = φ(z); with ``prelu_in_parts``, and for float64, PRelu as Relu(z) − s·Relu(−z)."""
    if activation is None:
        return z
    if activation.slope is not None and (prelu_in_parts or build.dtype == np.float64):
        negative = build.add("Mul", slope, build.add("Relu", build.add("Neg", z)))
        return build.add("Sub", build.add("Relu", z), negative)
    return apply(build, activation, z, slope)
