"""A new convolution behind a pool that does nothing at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.behind_pool import pooled, with_convolution
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgery.base import Rebuilt, Surgery, register
from onnxsurgeon.surgery.effects import BehindPool, Effect


@register
@dataclass(frozen=True)
class InsertBehindPool(Surgery):
    """Insert a convolution behind the pool that reads width ``layer``: p becomes φ(K * p + 0), with p what is pooled.

    The kernel K has a 1 at the centre of each channel's own and 0 elsewhere; it has 3 taps along each axis of which the
    pool leaves several positions, and the map keeps its size. φ is the activation that the layer has where φ(φ(x)) =
    φ(x) (Relu, Clip), which leaves maxima and means of its values as they are; else it is a PRelu of slope 1, the
    identity at first, and trainable. It is always exact.

    Everything that read p reads the new convolution: the next one, or a dense layer behind a Flatten.
    """

    operation: ClassVar[str] = "insert_behind_pool"
    summary: ClassVar[str] = "another convolution behind the pool that reads it"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "*"
    recuperation: ClassVar[int] = 10
    layer: int

    @property
    def effect(self) -> Effect:
        """What the docstring of the class says, as data."""
        return BehindPool()

    def require(self, network: Network) -> None:
        """A convolution must write the width alone, and a pool alone read it."""
        pooled(network, self.layer)

    def is_exact(self, network: Network) -> bool:
        """Always."""
        return True

    def parameters_after(self, network: Network) -> int:
        """With a kernel, biases, and slopes where φ is new."""
        network = network.parted()
        site = pooled(network, self.layer)
        units = site.layer.units
        return network.parameter_count + units * (site.geometry.taps * units + 1 + (site.activation is None))

    def rewrite(self, network: Network, rng: np.random.Generator) -> Rebuilt:
        """The file with one more convolution, read anew."""
        made, copies = with_convolution(network, self.layer)
        return Rebuilt(made, copies=copies)
