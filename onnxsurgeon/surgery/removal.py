"""What the two ways to take out a block's branch share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.graph.without_block import require_removable
from onnxsurgeon.surgery.base import Surgery
from onnxsurgeon.surgery.effects import Effect, Removed


@dataclass(frozen=True)
class Removal(Surgery):
    """The branch of residual block ``block`` goes, and with it its layers."""

    block: int
    layer: int = field(default=0, init=False)

    @property
    def effect(self) -> Effect:
        """The layers of the branch go."""
        return Removed(self.block)

    def require(self, network: Network) -> None:
        """The block must exist, and nothing else may read what its branch computes."""
        require_removable(network, network.block(self.block))


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
