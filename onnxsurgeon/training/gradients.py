"""The vector-Jacobian product of an activation in a training graph, by the activation's own rule."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.activation import ACTIVATIONS, Activation
from onnxsurgeon.graph.activation_gradients import Gradients, Point
from onnxsurgeon.training.builder import GraphBuilder

STEEP = 3e38  # near the largest float32


def activation_gradients(
    build: GraphBuilder, activation: Activation, point: Point, *, is_large: bool = False
) -> Gradients:
    """Append the nodes of φ's vector-Jacobian product.

    With ``is_large``, Relu's has a form that takes half the time for large tensors.

    Raises:
        EngineError: there is no rule for the operator.
    """
    require_rule(activation)
    if is_large and activation.op_type == "Relu" and build.dtype == np.float32:  # the only type of HardSigmoid
        # It is so steep that it is 1 for all y > 0 except those below 1e-38.
        return Gradients(build.add("Mul", point.g, build.add("HardSigmoid", point.y, alpha=STEEP, beta=0.0)))
    found: Gradients = ACTIVATIONS[activation.op_type].gradient(build, activation, point)  # type: ignore[misc]
    return found


def has_rule(activation: Activation) -> bool:
    """Whether the loop engine can train through the activation."""
    return ACTIVATIONS[activation.op_type].gradient is not None


def require_rule(activation: Activation, node: str = "") -> None:
    """Raise EngineError where there is no gradient rule for ``activation``."""
    if not has_rule(activation):
        where = f"node '{node}': " if node else ""
        raise EngineError(f"{where}the loop engine has no gradient rule for {activation.op_type}", "engine-lacks")
