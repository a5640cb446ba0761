"""Fewer units in a hidden layer, by singular value decomposition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import matmul, rank, truncated_svd
from onnxsurgeon.surgery.base import add_bias, register, require_amount


@register
@dataclass(frozen=True)
class Narrow:
    """Reduce hidden layer ``layer`` to ``units`` units (paper, 3.1, removing neurons).

    With W_i = U Σ Vᵀ cut to r = ``units``: W_i' = U_r Σ_r, b_i' = b_i V_r, W_{i+1}' = V_rᵀ W_{i+1}, and
    b_{i+1}' = b_{i+1} + b_i (I − V_r V_rᵀ) W_{i+1}. The last is our addition: without it, the part of the bias
    outside V_r is lost. PRelu's slopes are averaged with the weights V_r², so that slopes of 1 stay 1.

    Exact only where φ is the identity and r ≥ rank(W_i).
    """

    operation: ClassVar[str] = "narrow"
    layer: int
    units: int

    def require(self, network: Network) -> None:
        """1 ≤ r ≤ min(n_{i-1}, n_i): the decomposition has no more than that many columns."""
        layer = network.hidden(self.layer)
        require_amount(self, self.units, min(layer.weight.shape), "the number of units that stay")

    def is_exact(self, network: Network) -> bool:
        """Where φ is the identity and nothing but zeros is cut off."""
        layer = network.hidden(self.layer)
        return layer.is_linear and self.units >= rank(layer.weight)

    def rewrite(self, network: Network, rng: np.random.Generator) -> Network:
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
        return network.splice(self.layer, 2, (narrowed, refitted))
