"""Factorizes one layer's weight as the product of two thin ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import rank, truncated_svd
from onnxsurgeon.surgery.base import Replacement, register
from onnxsurgeon.surgery.factorization import Factorization, Halves
from onnxsurgeon.surgery.written import written_by


@register
@dataclass(frozen=True)
class Factorize(Factorization):
    """Truncated SVD of hidden layer ``layer`` at ``rank`` r (paper, 3.1).

    W_i → U_r Σ_r, a linear layer without bias, then V_rᵀ with b_i and φ. Exact where r ≥ rank(W_i). A convolution
    becomes one with its taps and r units, and one of one tap; so does one that alone writes a width which several
    segments share, such as before a pool.
    """

    operation: ClassVar[str] = "factorize"
    summary: ClassVar[str] = "two layers in its place, with RANK units between them, by its singular values"
    exact_if: ClassVar[str] = "if the rank is no less than that of its weight"
    marker: ClassVar[str] = "P"

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
        halves = Halves.of(network, layer, projected, vt, layer.bias)

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """U_r Σ_r = W V_r."""
            (old,) = moments
            return halves.carry(old, old.bias, power)

        return Replacement(1, (halves.first, halves.second), carry)
