"""Two consecutive layers as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import matmul
from onnxsurgeon.surgery.base import add_bias, register


@register
@dataclass(frozen=True)
class Merge:
    """Remove hidden layer ``layer``: W' = W_i W_{i+1}, b' = b_i W_{i+1} + b_{i+1} (paper, eq. 11-12).

    Exact only where φ_i is the identity. The result keeps the following layer's names and activation.
    """

    operation: ClassVar[str] = "merge"
    layer: int

    def require(self, network: Network) -> None:
        """The layer must exist."""
        network.hidden(self.layer)

    def is_exact(self, network: Network) -> bool:
        """Where no nonlinearity is lost."""
        return network.hidden(self.layer).is_linear

    def rewrite(self, network: Network, rng: np.random.Generator) -> Network:
        """φ_{i+1}(φ_i(x W_i + b_i) W_{i+1} + b_{i+1}) → φ_{i+1}(x W' + b')."""
        layer, following = network.pair(self.layer)
        dtype = layer.weight.dtype
        moved = None if layer.bias is None else matmul(layer.bias, following.weight)
        merged = replace(
            following,
            weight=matmul(layer.weight, following.weight, dtype=dtype),
            bias=add_bias(following.bias, moved, dtype),
        )
        return network.splice(self.layer, 2, (merged,))
