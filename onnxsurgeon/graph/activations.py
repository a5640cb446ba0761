"""Activation functions: which there are, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxsurgeon.graph.activation_functions import FUNCTIONS
from onnxsurgeon.linear_algebra import Array


@dataclass(frozen=True)
class ActivationType:
    """What is known of an activation op.

    Attributes:
        since: the first opset that has the op.
        attributes: its attributes with ONNX's defaults.
        idempotent: whether φ(φ(x)) = φ(x) for every choice of the attributes.
        slope: whether it has a trainable parameter for each unit (PRelu).
    """

    since: int = 7
    attributes: Mapping[str, Any] = field(default_factory=dict)
    idempotent: bool = False
    slope: bool = False


# Clip's bounds are inputs from opset 11 on; here they are attributes, as in every other op of this table.
ACTIVATIONS: dict[str, ActivationType] = {
    "Relu": ActivationType(idempotent=True),
    "Clip": ActivationType(attributes={"min": -np.inf, "max": np.inf}, idempotent=True),
    "PRelu": ActivationType(slope=True),
    "LeakyRelu": ActivationType(attributes={"alpha": 0.01}),
    "Elu": ActivationType(attributes={"alpha": 1.0}),
    "Selu": ActivationType(attributes={"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Tanh": ActivationType(),
    "Sigmoid": ActivationType(),
    "HardSigmoid": ActivationType(attributes={"alpha": 0.2, "beta": 0.5}),
    "Softplus": ActivationType(),
    "Softsign": ActivationType(),
    "HardSwish": ActivationType(since=14),
    "Mish": ActivationType(since=18),
    "Gelu": ActivationType(since=20, attributes={"approximate": "none"}),
    "Swish": ActivationType(since=24, attributes={"alpha": 1.0}),
}


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
    def is_identity(self) -> bool:
        """Whether φ(x) = x for every x: a PRelu whose slopes are all 1."""
        return self.slope is not None and bool(np.all(self.slope == 1))

    @property
    def is_idempotent(self) -> bool:
        """Whether φ(φ(x)) = φ(x) for every x."""
        return ACTIVATIONS[self.op_type].idempotent

    def attribute(self, name: str) -> Any:
        """Value of an attribute, ONNX's default where it is not given."""
        return self.attributes.get(name, ACTIVATIONS[self.op_type].attributes[name])

    def with_slope(self, slope: Array | None) -> Activation:
        """The same op with other slopes; unchanged for an op that has none."""
        return self if self.slope is None else replace(self, slope=slope)

    def __call__(self, x: Array) -> Array:
        """φ(x) by numpy, elementwise over (..., n)."""
        if self.slope is not None:
            return np.asarray(np.where(x >= 0, x, self.slope * x))
        values = {name: self.attribute(name) for name in ACTIVATIONS[self.op_type].attributes}
        return np.asarray(FUNCTIONS[self.op_type](x, values))


def prelu(slope: Array) -> Activation:
    """PRelu with ``slope`` (n,): x where x ≥ 0, slope · x elsewhere."""
    return Activation("PRelu", slope=slope)
