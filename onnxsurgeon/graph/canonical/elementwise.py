"""Elementwise nodes evaluated by numpy in float64, alone or in a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activation_functions import erf
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.noops import cast_type
from onnxsurgeon.graph.canonical.queries import constant_values, has_input
from onnxsurgeon.linear_algebra import Array

Evaluate = Callable[..., Array]

LINEAR = ("Add", "Sub", "Mul", "Div", "Neg", "Cast", "Identity")
OPS: dict[str, Evaluate] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
    "Identity": lambda x: x,
    "Abs": np.abs,
    "Sign": np.sign,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Pow": np.power,
    "Erf": erf,
    "Max": lambda *x: np.maximum.reduce(np.broadcast_arrays(*x)),
    "Min": lambda *x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "Sum": lambda *x: sum(x),
    "Where": np.where,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "Equal": np.equal,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
}


def is_elementwise(node: gs.Node) -> bool:
    """Whether the node has one output, computed element by element from its non-constant inputs."""
    if len(node.outputs) != 1 or node.op == "PRelu":
        return False
    return node.op in OPS or node.op in ACTIVATIONS or (node.op == "Cast" and _rounding(node) is not None)


def is_scalar(tensor: gs.Constant) -> bool:
    """Whether the constant has shape () or (1,)."""
    return all(size == 1 for size in tensor.shape[:2]) and len(tensor.shape) <= 1


def scalar_of(tensor: Any) -> Array | None:
    """The value of a constant of one element, in float64 unless it is a truth value."""
    if not isinstance(tensor, gs.Constant) or not is_scalar(tensor):
        return None
    values = np.asarray(constant_values(tensor)).reshape(())
    return values if values.dtype.kind == "b" else values.astype(np.float64)


def evaluate(node: gs.Node, values: list[Array]) -> Array:
    """The node's output for the values of its inputs."""
    function = ACTIVATIONS[node.op].function if node.op in ACTIVATIONS else None
    if function is not None:
        return function(values[0], attributes_of(node))
    if node.op == "Cast":
        kind = _rounding(node)
        return values[0].astype(kind).astype(bool if kind == np.dtype(bool) else np.float64)
    return np.asarray(OPS[node.op](*values))


def attributes_of(node: gs.Node) -> dict[str, Any]:
    """The activation's attributes, with ONNX's defaults for those that are not given."""
    known = dict(ACTIVATIONS[node.op].attributes)
    if node.op == "Clip" and len(node.inputs) > 1:
        low, high = clip_bounds(node)
        return {"min": -np.inf if low is None else low, "max": np.inf if high is None else high}
    return {name: node.attrs.get(name, value) for name, value in known.items()}


def clip_bounds(node: gs.Node) -> tuple[float | None, float | None]:
    """Clip's minimum and maximum from attributes or constant inputs; None for one that is not constant."""
    bounds: list[float | None] = []
    for position, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        if has_input(node, position):
            values = constant_values(node.inputs[position])
            bounds.append(None if values is None or values.size != 1 else float(values.reshape(())))
        else:
            bounds.append(float(node.attrs.get(name, default)))
    return bounds[0], bounds[1]


def _rounding(node: gs.Node) -> np.dtype[Any] | None:
    """The type of a Cast that can stand within an activation; None for any other."""
    kind = cast_type(node)
    return kind if kind in (np.dtype(np.float32), np.dtype(np.float64), np.dtype(bool)) else None
