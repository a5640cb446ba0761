"""Fewer units in a hidden layer, by singular value decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import matmul, rank, truncated_svd
from onnxsurgeon.surgery.base import (
    Replacement,
    Surgery,
    add_bias,
    moments_like,
    register,
    require_amount,
    slope_of,
    spell,
)
from onnxsurgeon.surgery.effects import Effect, Narrowed


@register
@dataclass(frozen=True)
class Narrow(Surgery):
    """Reduce hidden layer ``layer`` to ``units`` units (paper, 3.1, removing neurons).

    With W_i = U Σ Vᵀ cut to r = ``units``: W_i' = U_r Σ_r, b_i' = b_i V_r, W_{i+1}' = V_rᵀ W_{i+1}, and
    b_{i+1}' = b_{i+1} + b_i (I − V_r V_rᵀ) W_{i+1}. The last is our addition: without it, the part of the bias
    outside V_r is lost. PRelu's slopes are averaged with the weights V_r², so that slopes of 1 stay 1.

    Exact only where φ is the identity and r ≥ rank(W_i).
    """

    operation: ClassVar[str] = "narrow"
    summary: ClassVar[str] = "UNITS units stay, by its singular values"
    exact_if: ClassVar[str] = "if φ is the identity, and no less than the rank is left"
    marker: ClassVar[str] = "v"
    recuperation: ClassVar[int] = 10
    layer: int
    units: int

    @property
    def effect(self) -> Effect:
        """As its text tells it."""
        return Narrowed(self.units)

    def require(self, network: Network) -> None:
        """1 ≤ r ≤ min(n_{i-1}, n_i): the decomposition has no more than that many columns."""
        layer = network.hidden(self.layer)
        most = min(layer.weight.shape)
        if most < self.units and most < layer.units:
            raise SurgeryError(
                f"{spell(self)}: narrow goes by the rank of the weight, {layer.inputs} × {layer.units}: the number of "
                f"units that stay must be 1 to {most}; prune:{self.layer}:{min(self.units, layer.units)} with --data "
                "keeps any number"
            )
        require_amount(self, self.units, most, "the number of units that stay")

    def is_exact(self, network: Network) -> bool:
        """Where φ is the identity and nothing but zeros is cut off."""
        layer = network.hidden(self.layer)
        return layer.is_linear and self.units >= rank(layer.weight)

    def parameters_after(self, network: Network) -> int:
        """Exact, and without a decomposition or a product of the weights."""
        layer, following = network.pair(self.layer)
        each = layer.inputs + (layer.bias is not None) + (slope_of(layer) is not None) + following.units
        gained = following.units if layer.bias is not None and following.bias is None else 0
        return network.parameter_count - (layer.units - self.units) * each + gained

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """Rotate the layer's outputs onto the leading right singular vectors."""
        layer, following = network.pair(self.layer)
        r, dtype = self.units, layer.weight.dtype
        projected, vt = truncated_svd(layer.weight, r)
        bias = lost = None
        if layer.bias is not None:
            inside = matmul(layer.bias, vt.T)
            bias = inside.astype(dtype)
            lost = matmul(layer.bias - matmul(inside, vt), following.weight)
        activation = layer.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(matmul(vt**2, activation.slope, dtype=dtype))
            if layer.is_linear:  # the squares add up to 1 but for rounding
                activation = activation.with_slope(np.ones(r, dtype))
        narrowed = replace(layer, weight=projected, bias=bias, activation=activation)
        refitted = replace(
            following,
            weight=matmul(vt, following.weight, dtype=dtype),
            bias=add_bias(following.bias, lost, dtype),
        )

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """W_i' = W_i V_r and W_{i+1}' = V_rᵀ W_{i+1} move as the old ones do; b_{i+1}' by the product rule."""
            first, second = moments
            v = vt.T**power
            slope, old_slope = None, slope_of(first)
            if old_slope is not None:
                slope = matmul(vt ** (2 * power), old_slope)
            bias, moved = None, np.zeros(following.units) if second.bias is None else second.bias
            if layer.bias is not None and first.bias is not None:
                bias = matmul(first.bias, v)
                outside = following.weight - matmul(vt.T, matmul(vt, following.weight))
                rest = layer.bias - matmul(matmul(layer.bias, vt.T), vt)
                moved = moved + matmul(first.bias, outside**power) + matmul(rest**power, second.weight)
            return (
                moments_like(narrowed, matmul(first.weight, v), bias, slope),
                moments_like(refitted, matmul(v.T, second.weight), moved, slope_of(second)),
            )

        return Replacement(2, (narrowed, refitted), carry)
