"""Two consecutive layers as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import matmul
from onnxsurgeon.surgery.base import Replacement, Surgery, register
from onnxsurgeon.surgery.effects import Absorbed, Effect
from onnxsurgeon.surgery.parameters import add_bias, moments_like, slope_of


@register
@dataclass(frozen=True)
class Merge(Surgery):
    """Remove hidden layer ``layer``: W' = W_i W_{i+1}, b' = b_i W_{i+1} + b_{i+1} (paper, eq. 11-12).

    Exact only where φ_i is the identity. The result keeps the following layer's names and activation.
    """

    operation: ClassVar[str] = "merge"
    summary: ClassVar[str] = "it becomes a part of the next layer"
    exact_if: ClassVar[str] = "if φ is the identity"
    marker: ClassVar[str] = "D"
    recuperation: ClassVar[int] = 10
    layer: int

    @property
    def effect(self) -> Effect:
        """As its text tells it."""
        return Absorbed()

    def require(self, network: Network) -> None:
        """The layer must exist."""
        network.hidden(self.layer)

    def is_exact(self, network: Network) -> bool:
        """Where no nonlinearity is lost."""
        return network.hidden(self.layer).is_linear

    def parameters_after(self, network: Network) -> int:
        """Exact, and without a decomposition or a product of the weights."""
        layer, following = network.pair(self.layer)
        gone = sum(values.size for _, values in layer.parameters()) + following.weight.size
        gained = following.units if layer.bias is not None and following.bias is None else 0
        return network.parameter_count - gone + layer.inputs * following.units + gained

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """φ_{i+1}(φ_i(x W_i + b_i) W_{i+1} + b_{i+1}) → φ_{i+1}(x W' + b')."""
        layer, following = network.pair(self.layer)
        dtype = layer.weight.dtype
        moved = None if layer.bias is None else matmul(layer.bias, following.weight)
        merged = replace(
            following,
            weight=matmul(layer.weight, following.weight, dtype=dtype),
            bias=add_bias(following.bias, moved, dtype),
        )

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer]:
            """The product rule: d(W_i W_{i+1}) = dW_i W_{i+1} + W_i dW_{i+1}; the biases likewise."""
            first, second = moments
            outgoing = following.weight.astype(np.float64) ** power
            weight = matmul(first.weight, outgoing)
            weight += matmul(layer.weight.astype(np.float64) ** power, second.weight)
            bias = np.zeros(following.units) if second.bias is None else second.bias.astype(np.float64)
            if layer.bias is not None and first.bias is not None:
                bias = bias + matmul(first.bias, outgoing)
                bias += matmul(layer.bias.astype(np.float64) ** power, second.weight)
            return (moments_like(merged, weight, bias, slope_of(second)),)

        return Replacement(2, (merged,), carry)
