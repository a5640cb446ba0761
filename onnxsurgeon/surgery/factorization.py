"""What the two ways to factorize a layer share: a layer without bias, then one with the layer's bias and activation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.base import Surgery, require_amount
from onnxsurgeon.surgery.effects import Effect, Preceded
from onnxsurgeon.surgery.parameters import fill_for_new, slope_of, slots_for
from onnxsurgeon.surgery.written import written_by


@dataclass(frozen=True)
class Factorization(Surgery):
    """Two layers in the place of hidden layer ``layer``, with ``rank`` units between them.

    A convolution becomes one with its taps and ``rank`` units, and one of one tap.
    """

    layer: int
    rank: int

    @property
    def effect(self) -> Effect:
        """A layer of ``rank`` units before this one."""
        return Preceded(self.rank)

    def require(self, network: Network) -> None:
        """1 ≤ r ≤ min(n_{i-1}, n_i)."""
        _, layer = written_by(network, self.layer)
        require_amount(self, self.rank, min(layer.weight.shape), "the rank")


@dataclass(frozen=True, eq=False)
class Halves:
    """The two layers.

    Attributes:
        first: writes the units between them; it has no bias and no activation.
        second: with the layer's activation.
        vt: the weight of the second, as it was computed (rank, n_i).
    """

    first: DenseLayer
    second: DenseLayer
    vt: Array

    @classmethod
    def of(cls, network: Network, layer: DenseLayer, thin: Array, vt: Array, bias: Array | None) -> Halves:
        """The layers with weights ``thin`` (n_{i-1}, rank) and ``vt``, and the bias of the second."""
        first = DenseLayer(thin, None, None, network.fresh_names(), layer.geometry)
        geometry = None if layer.geometry is None else Geometry.pointwise(layer.geometry.rank)
        return cls(first, replace(layer, weight=vt.astype(layer.weight.dtype), bias=bias, geometry=geometry), vt)

    def carry(self, old: DenseLayer, bias: Array | None, power: int) -> tuple[DenseLayer, DenseLayer]:
        """Moments where the first weight is W V_r, and moves as W does; V_rᵀ is new. ``bias`` are those of the bias."""
        thin = matmul(old.weight, self.vt.T**power)
        rest = np.full(self.second.weight.shape, fill_for_new(old, power))
        return slots_for(self.first, thin, None, None), slots_for(self.second, rest, bias, slope_of(old))
