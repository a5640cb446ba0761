"""The record of an activation function and of what is known about it; ``activations`` has the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxsurgeon.linear_algebra import Array


@dataclass(frozen=True)
class ActivationType:
    """What is known about an activation operator.

    Attributes:
        op: the ONNX operator.
        function: φ by numpy, of x (..., n) and the attributes; None where it takes more than these (PRelu).
        form: writes φ in older operators, for an opset that lacks this one or a type for which ONNX Runtime has no
            kernel; None where there is always a kernel.
        gradient: appends φ's vector-Jacobian product; None where the loop engine cannot train it.
        since: the first opset that has the operator.
        attributes: its attributes with ONNX's defaults.
        idempotent: whether φ(φ(x)) = φ(x) for every choice of the attributes.
        slope: whether it has a trainable parameter for each unit (PRelu).
    """

    op: str
    function: Callable[[Array, Mapping[str, Any]], Array] | None
    form: Callable[[Any, Activation], object] | None = None
    gradient: Callable[[Any, Activation, Any], Any] | None = None
    since: int = 7
    attributes: Mapping[str, Any] = field(default_factory=dict)
    idempotent: bool = False
    slope: bool = False


ACTIVATIONS: dict[str, ActivationType] = {}


def register(kind: ActivationType) -> ActivationType:
    """Enter an activation into the table, under its operator."""
    ACTIVATIONS[kind.op] = kind
    return kind


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise nonlinearity φ.

    Attributes:
        op_type: a key of ``ACTIVATIONS``.
        attributes: ONNX attributes that differ from the defaults.
        slope: PRelu's slopes for negative inputs, shape (n,), trained; None for every other op.
    """

    op_type: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    slope: Array | None = None

    def __str__(self) -> str:
        if not self.attributes:
            return self.op_type
        return f"{self.op_type}({', '.join(f'{key}={value}' for key, value in self.attributes.items())})"

    @property
    def told(self) -> str:
        """The activation as people name it: "Relu6", "Clip -1 to 1", "LeakyRelu 0.1", and so on."""
        if self.op_type == "Clip":
            low, high = (float(self.attribute(name)) for name in ("min", "max"))
            if (low, high) == (0.0, 6.0):
                return "Relu6"
            ends = [f"{low:g} to {high:g}", f"from {low:g}", f"up to {high:g}", "without bounds"]
            return f"Clip {ends[2 * math.isinf(low) + math.isinf(high)]}"
        if len(self.attributes) == 1 and isinstance(value := next(iter(self.attributes.values())), float):
            return f"{self.op_type} {value:g}"
        return str(self)

    @property
    def is_identity(self) -> bool:
        """Whether φ(x) = x for every x: a PRelu whose slopes are all 1."""
        return self.slope is not None and bool(np.all(self.slope == 1))

    @property
    def is_idempotent(self) -> bool:
        """Whether φ(φ(x)) = φ(x) for every x."""
        return ACTIVATIONS[self.op_type].idempotent

    def attribute(self, name: str) -> Any:
        """Return the value of an attribute, which is ONNX's default where none is given."""
        return self.attributes.get(name, ACTIVATIONS[self.op_type].attributes[name])

    def with_slope(self, slope: Array | None) -> Activation:
        """Return the same activation with other slopes; an activation that has none is returned unchanged."""
        return self if self.slope is None else replace(self, slope=slope)

    def __call__(self, x: Array) -> Array:
        """φ(x) by numpy, elementwise over (..., n)."""
        if self.slope is not None:
            return np.asarray(np.where(x >= 0, x, self.slope * x))
        known = ACTIVATIONS[self.op_type]
        assert known.function is not None  # only PRelu has none
        return np.asarray(known.function(x, {name: self.attribute(name) for name in known.attributes}))


def prelu(slope: Array) -> Activation:
    """PRelu with ``slope`` (n,): x where x ≥ 0, slope · x elsewhere."""
    return Activation("PRelu", slope=slope)
