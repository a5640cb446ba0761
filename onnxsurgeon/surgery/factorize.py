"""Factorizes one layer's weight as the product of two thin ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import matmul, rank, truncated_svd
from onnxsurgeon.surgery.base import Replacement, Surgery, register, require_amount
from onnxsurgeon.surgery.effects import Effect, Preceded
from onnxsurgeon.surgery.parameters import fill_for_new, slope_of, slots_for
from onnxsurgeon.surgery.written import written_by


@register
@dataclass(frozen=True)
class Factorize(Surgery):
    """Truncated SVD of hidden layer ``layer`` at ``rank`` r (paper, 3.1).

    W_i → U_r Σ_r, a linear layer without bias, then V_rᵀ with b_i and φ. Exact where r ≥ rank(W_i). A convolution
    becomes one with its taps and r units, and one of one tap; so does one that alone writes a width which several
    segments share, such as before a pool.
    """

    operation: ClassVar[str] = "factorize"
    summary: ClassVar[str] = "two layers in its place, with RANK units between them, by its singular values"
    exact_if: ClassVar[str] = "if the rank is no less than that of its weight"
    marker: ClassVar[str] = "P"
    layer: int
    rank: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Preceded(self.rank)

    def require(self, network: Network) -> None:
        """1 ≤ r ≤ min(n_{i-1}, n_i)."""
        _, layer = written_by(network, self.layer)
        require_amount(self, self.rank, min(layer.weight.shape), "the rank")

    def is_exact(self, network: Network) -> bool:
        """Where nothing but zeros is cut off."""
        return self.rank >= rank(written_by(network, self.layer)[1].weight)

    def parameters_after(self, network: Network) -> int:
        """Exact, without a decomposition or a product of the weights."""
        network = network.parted()
        _, layer = written_by(network, self.layer)
        return network.parameter_count - layer.weight.size + self.rank * (layer.inputs + layer.units)

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """φ(x W + b) → φ((x U_r Σ_r) V_rᵀ + b)."""
        _, layer = written_by(network, self.layer)
        projected, vt = truncated_svd(layer.weight, self.rank)
        first = DenseLayer(projected, None, None, network.fresh_names(), layer.geometry)
        geometry = None if layer.geometry is None else Geometry.pointwise(layer.geometry.rank)
        second = replace(layer, weight=vt.astype(layer.weight.dtype), geometry=geometry)

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """U_r Σ_r = W V_r moves as W does; V_rᵀ is new."""
            (old,) = moments
            thin = matmul(old.weight, vt.T**power)
            rest = np.full(second.weight.shape, fill_for_new(old, power))
            return slots_for(first, thin, None, None), slots_for(second, rest, old.bias, slope_of(old))

        return Replacement(1, (first, second), carry)
