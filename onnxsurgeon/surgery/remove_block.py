"""A residual block whose branch is taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.graph.without_block import last_layer, require_removable, without_block
from onnxsurgeon.surgery.base import Lost, Rebuilt, Surgery, register
from onnxsurgeon.surgery.effects import Effect, Removed


@register
@dataclass(frozen=True)
class RemoveBlock(Surgery):
    """Take the branch out of residual block ``block``: y = x + f(x) becomes y = x.

    All that f computes goes, its activations, normalisations and attention with its layers; what stands behind the sum
    stays. Where x goes through a projection on its way to the sum, that stays too. Exact where f's last layer is zero.
    """

    operation: ClassVar[str] = "remove_block"
    summary: ClassVar[str] = "residual block BLOCK without its branch"
    exact_if: ClassVar[str] = "if the branch's last layer is zero"
    marker: ClassVar[str] = "H"
    recuperation: ClassVar[int] = 1
    block: int
    layer: int = field(default=0, init=False)

    @property
    def effect(self) -> Effect:
        """What the docstring of the class says, as data."""
        return Removed(self.block)

    def require(self, network: Network) -> None:
        """The block must exist, and nothing else may read what its branch computes."""
        require_removable(network, network.block(self.block))

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


def count_without(network: Network, number: int) -> int:
    """Parameter count without those that a block's branch alone has."""
    return network.parameter_count - own_counts(network, [network.block(number)])[0]


def own_counts(network: Network, blocks: Sequence[Block]) -> list[int]:
    """How many parameters each of the blocks' branches has alone."""
    uses = Counter(name for segment in network.segments for name, _ in segment.parameters())
    found = []
    for block in blocks:
        pairs = [pair for number in block.segments for pair in network.segments[number].parameters()]
        inside, sizes = Counter(name for name, _ in pairs), {name: values.size for name, values in pairs}
        found.append(sum(sizes[name] for name, count in inside.items() if count == uses[name]))
    return found
