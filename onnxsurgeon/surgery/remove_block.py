"""A residual block whose branch is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.without_block import last_layer, without_block
from onnxsurgeon.surgery.base import Lost, Rebuilt, register
from onnxsurgeon.surgery.removal import Removal, count_without


@register
@dataclass(frozen=True)
class RemoveBlock(Removal):
    """Take the branch out of residual block ``block``: y = x + f(x) becomes y = x.

    All that f computes goes, its activations, normalisations and attention with its layers; what stands behind the sum
    stays. Where x goes through a projection on its way to the sum, that stays too. Exact where f's last layer is zero.
    """

    operation: ClassVar[str] = "remove_block"
    summary: ClassVar[str] = "residual block BLOCK without its branch"
    exact_if: ClassVar[str] = "if the branch's last layer is zero"
    marker: ClassVar[str] = "H"

    def is_exact(self, network: Network) -> bool:
        """Where the branch adds nothing."""
        last = last_layer(network, network.block(self.block))
        return last is not None and not last.weight.any() and (last.bias is None or not last.bias.any())

    def parameters_after(self, network: Network) -> int:
        """Without those that the branch alone has."""
        return count_without(network, self.block)

    def rewrite(self, network: Network, rng: np.random.Generator) -> Rebuilt:
        """Leave the branch out of the sum."""
        return Rebuilt(without_block(network, self.block), Lost(network.block(self.block), None))
