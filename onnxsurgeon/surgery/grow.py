"""New units in the directions in which the gradients of the loss are steepest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.regression import variance_of
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, eigen, matmul, single_threaded
from onnxsurgeon.surgery.base import DataAware, Needs, register, require_amount, spell
from onnxsurgeon.surgery.effects import Effect, Widened
from onnxsurgeon.surgery.maps import Change, Columns, Fresh, Gather
from onnxsurgeon.surgery.widen import require_size

# Standard deviation of a new unit's z, as a fraction of the others' root mean square: a small unit is still free to
# turn. Layer 1 of 784-10-10-10 doubled after 5 epochs on Fashion-MNIST, validation loss after 20 more with a cosine,
# five seeds: 0.368 (0.1: 0.370; 1: 0.384; ``Widen``'s split 0.389, fresh 0.379; random directions in such pairs 0.372).
_INCOMING = 0.3
# Added to the variance of every input, as a fraction of their mean: otherwise directions that hardly vary, in which M
# is the sample's noise, are blown up. There, 0.368 (0.001: 0.386; 100: 0.368).
_RIDGE = 1.0
_NO_GRADIENT = 1e-9  # as a fraction of the steepest direction's decrease


@register
@dataclass(frozen=True)
class Grow(DataAware):
    """Add ``units`` units to hidden layer ``layer`` where the loss falls fastest. Exact always.

    With M = E[(x − μ)ᵀ g], x the layer's input and g = ∂L/∂z of the next layer, a bypass x u vᵀ of the layer changes
    the loss at the rate uᵀ M v. Under a bound on its mean square, E[((x − μ) u)²] with a ridge, the steepest directions
    are the singular vectors of (Σ + ρ I)^(-1/2) M (Verbockhaven et al., "Growing tiny networks", TMLR 2024; with Σ = 0
    those of Evci et al., "GradMax", ICLR 2022).

    Each direction is taken by two units: equal incoming weights u, and outgoing ones −v and +v, which cancel. The
    function stays, yet incoming and outgoing weights have gradients at once, the incoming ones' opposite: the two
    become different units. (With outgoing weights 0, incoming ones have no gradient at first.) Beyond the rank of M,
    directions are random. An odd unit has outgoing weights 0.
    """

    operation: ClassVar[str] = "grow"
    summary: ClassVar[str] = "UNITS more units, where the loss falls fastest"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = ">"
    needs: ClassVar[Needs] = Needs.GRADIENTS
    layer: int
    units: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Widened(self.units)

    def require(self, network: Network) -> None:
        """The layer must exist and the number of units be positive."""
        if network.pair(self.layer).following.geometry is not None:
            raise SurgeryError(
                f"{spell(self)}: gradients are known of dense layers alone, and layer {self.layer} is read by a "
                f"convolution; widen:{self.layer}:{self.units} adds units by copying",
                "unlike-layer",
            )
        require_amount(self, self.units, None, "the number of units to add")
        require_size(self, network, self.units)

    def is_exact(self, network: Network) -> bool:
        """Always: the contributions of the new units cancel."""
        return True

    def refit(self, network: Network, moments: Moments) -> Change:
        """W_i → [W_i, U, U], b_i → [b_i, −μU, −μU], W_{i+1} → [W_{i+1}; −V; V]."""
        layer = network.hidden(self.layer)
        before = moments.input_of(network, self.layer)
        pairs = -(-self.units // 2)
        incoming, outgoing = self._directions(network, moments, pairs)
        spread = variance_of(before.covariance, layer.weight) / layer.units
        own = np.sqrt(np.maximum((matmul(before.covariance, incoming) * incoming).sum(axis=0), 0))
        incoming = incoming * (_INCOMING * np.sqrt(spread or 1.0) / np.where(own > 0, own, 1.0))
        new = np.concatenate([np.arange(pairs), np.arange(self.units - pairs)])
        signs = np.repeat([-1.0, 1.0], [pairs, self.units - pairs])
        signs[self.units - pairs : pairs] = 0

        # φ's slopes are those of other units.
        origin = np.concatenate([np.arange(layer.units), new % layer.units])
        columns = Columns(origin, Fresh(incoming[:, new], -matmul(before.mean, incoming)[new]))
        places = np.where(np.arange(len(origin)) < layer.units, origin, -1)
        rows = Gather(places, values=outgoing[new] * signs[:, None])
        return Change(network.group(self.layer), (columns,), (rows,), origin)

    def _directions(self, network: Network, moments: Moments, count: int) -> tuple[Array, Array]:
        """Incoming (n_{i-1}, count) of any length, and outgoing (count, n_{i+1}) as long as rows of W_{i+1} are."""
        found = steepest(network, self.layer, moments)
        _, following = network.pair(self.layer)
        rank = min(count, len(found.decreases))
        incoming, outgoing = found.incoming[:, :rank], found.outgoing[:rank]
        if rank < count:
            rng = np.random.default_rng([self.layer, network.hidden(self.layer).units])
            random = rng.standard_normal((incoming.shape[0], count - rank))
            ahead = matmul(random.T, moments.gradient_of(network, self.layer)) * _scales(following)
            lengths = np.linalg.norm(ahead, axis=1, keepdims=True)
            flat = np.full_like(ahead, 1 / np.sqrt(following.units))
            incoming = np.concatenate([incoming, random], axis=1)
            outgoing = np.concatenate(
                [outgoing, np.where(lengths > 0, ahead / np.where(lengths > 0, lengths, 1), flat)]
            )
        return incoming, outgoing * (_scales(following) * np.sqrt(following.units))


class Steepest(NamedTuple):
    """Directions of new units, the one that lowers the loss fastest first.

    Attributes:
        incoming: (n_{i-1}, m), E[((x − μ) u)²] + ρ‖u‖² = 1.
        outgoing: (m, n_{i+1}), ‖v‖ = 1 where each of z's components is in units of W_{i+1}'s root mean square there.
        decreases: squared singular values (m,).
    """

    incoming: Array
    outgoing: Array
    decreases: Array


def steepest(network: Network, i: int, moments: Moments) -> Steepest:
    """All directions in which a new unit of hidden layer ``i`` lowers the loss to first order.

    With A = (Σ + ρ I)⁻¹ M: MᵀA = V S² Vᵀ and U = A V S⁻¹, so that no root of Σ is needed.

    Raises:
        SurgeryError: there is no such layer, or it has no gradients.
    """
    gradient = moments.gradient_of(network, i) * _scales(network.pair(i).following)
    covariance = moments.input_of(network, i).covariance
    ridged = covariance + (_RIDGE * np.trace(covariance) / len(covariance) or 1.0) * np.eye(len(covariance))
    with single_threaded():
        solved = np.linalg.solve(ridged, gradient)
    values, vt = eigen(matmul(gradient.T, solved))
    kept = values > _NO_GRADIENT * max(float(values[0]), 0.0)
    incoming = matmul(solved, vt[kept].T) / np.sqrt(values[kept])
    return Steepest(incoming, vt[kept], values[kept])


def _scales(following: DenseLayer) -> Array:
    """Root mean square of each column of W_{i+1}: the size of a weight there, in whatever units its output is."""
    scales = np.sqrt(np.mean(following.weight.astype(np.float64) ** 2, axis=0))
    known = scales > 0
    return np.where(known, scales, scales[known].mean() if known.any() else 1.0)
