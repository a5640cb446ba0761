"""Another residual block that does nothing at first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.another_block import require_repeatable, with_block
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgery.base import Rebuilt, Surgery, register
from onnxsurgeon.surgery.effects import Effect, Repeated


@register
@dataclass(frozen=True)
class InsertBlock(Surgery):
    """Put another residual block behind block ``block``: y becomes y + f'(y), with f' like the block's branch f.

    Its layers have weights of their own, copies of f's, but for the last, which is zero: exact always, and all of it
    has gradients once that has moved. Where an activation φ with φ(φ(y)) = φ(y) stands behind the block's sum, the new
    one stands behind φ, and has φ behind its own.
    """

    operation: ClassVar[str] = "insert_block"
    summary: ClassVar[str] = "another residual block behind block BLOCK"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = r"$\oplus$"
    recuperation: ClassVar[int] = 10
    block: int
    layer: int = field(default=0, init=False)

    @property
    def effect(self) -> Effect:
        """What the docstring of the class says, as data."""
        return Repeated(self.block)

    def require(self, network: Network) -> None:
        """The block must exist, its branch must end in a layer, and x must come to the sum as it is."""
        require_repeatable(network, network.block(self.block))

    def is_exact(self, network: Network) -> bool:
        """Always."""
        return True

    def parameters_after(self, network: Network) -> int:
        """With as many more as the branch has."""
        block = network.block(self.block)
        pairs = (pair for number in block.segments for pair in network.segments[number].parameters())
        return network.parameter_count + sum(values.size for values in dict(pairs).values())

    def rewrite(self, network: Network, rng: np.random.Generator) -> Rebuilt:
        """Add the copies' values, which are zero at first, to the block's sum."""
        made, copies = with_block(network, self.block)
        return Rebuilt(made, copies=copies)
