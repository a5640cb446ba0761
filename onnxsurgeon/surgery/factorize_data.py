"""Factorizes one layer's weight as the product of two thin ones, cut where the data lose least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.regression import linear_error, relative, variance_of
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, Eigen, eigen, matmul
from onnxsurgeon.surgery.base import DataAware, Replacement, register
from onnxsurgeon.surgery.factorization import Factorization, Halves
from onnxsurgeon.surgery.parameters import add_bias
from onnxsurgeon.surgery.written import written_by

# The share of a plain SVD, as a fraction of the inputs' mean variance: it ranks directions in which the sample does not
# vary by the weights.
_WEIGHTS_SHARE = 1e-10


@register
@dataclass(frozen=True)
class FactorizeData(Factorization, DataAware):
    """Truncated SVD of hidden layer ``layer`` at ``rank`` r in the metric of its input.

    With mean μ and covariance Σ of the input, and V_r the r leading eigenvectors of Wᵀ Σ W: W → W V_r, a linear layer
    without bias, then V_rᵀ with φ and the bias b' = b + μ W (I − V_r V_rᵀ). The bias takes the mean of what is cut off,
    and the expected squared error of the pre-activation is the sum of the other eigenvalues: the least that any rank r
    can have, and no more than with E[xᵀx] for Σ and b unchanged, since E[xᵀx] − Σ = μᵀμ is positive semidefinite. No
    inverse is taken, so inputs that are constant do no harm. (Cf. Wang et al., "SVD-LLM", arXiv 2403.07378, which
    whitens by a Cholesky factor instead.)

    Exact on any input where r is the number of units. A width that several segments share is a layer too where a single
    convolution writes it, such as before a pool.
    """

    operation: ClassVar[str] = "factorize_data"
    summary: ClassVar[str] = "two layers in its place, with RANK units between them, by what enters it"
    exact_if: ClassVar[str] = "if the rank is the number of units"
    marker: ClassVar[str] = "p"

    def is_exact(self, network: Network) -> bool:
        """Where nothing is cut off."""
        return self.rank >= written_by(network, self.layer)[1].units

    def refit(self, network: Network, moments: Moments) -> Replacement:
        """φ(x W + b) → φ((x W V_r) V_rᵀ + b')."""
        place, layer = written_by(network, self.layer)
        input_moment = moments.at(network, place)
        dtype = layer.weight.dtype
        vt = _decompose(layer.weight, input_moment.covariance).vt[: self.rank]
        thin = matmul(layer.weight, vt.T, dtype=dtype)
        through = matmul(input_moment.mean, layer.weight)
        bias = add_bias(layer.bias, through - matmul(matmul(through, vt.T), vt), dtype)
        halves = Halves.of(network, layer, thin, vt, bias)

        def carry(past: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """W V_r and b' move as W and b do, with V_r and μ held fixed."""
            (old,) = past
            outside = np.eye(layer.units) - matmul(vt.T, vt)
            moved = matmul(matmul(input_moment.mean**power, old.weight), outside**power)
            moved = moved if old.bias is None else moved + old.bias
            return halves.carry(old, moved, power)

        lost = layer.weight - matmul(thin, halves.second.weight)
        shift = (0.0 if layer.bias is None else layer.bias.astype(np.float64)) - np.asarray(bias, np.float64)
        error = linear_error(input_moment, lost, shift)
        variance = variance_of(input_moment.covariance, layer.weight)
        return Replacement(1, (halves.first, halves.second), carry, relative(error, variance))


def factorization_errors(network: Network, i: int, moments: Moments) -> Array:
    """The errors that ``FactorizeData(i, r)`` predicts for r = 1, 2, …, min(n_{i-1}, n_i), as in ``SurgeryRecord``.

    Raises:
        SurgeryError: there is no such layer, or it has no moments.
    """
    place, layer = written_by(network, i)
    covariance = moments.at(network, place).covariance
    vt = _decompose(layer.weight, covariance).vt
    along = matmul(layer.weight, vt.T)
    parts = np.maximum((matmul(covariance, along) * along).sum(axis=0), 0)
    left = np.cumsum(parts[::-1])[::-1]
    errors = [relative(float(error), float(left[0])) for error in (*left[1:], 0.0)]
    return np.array(errors[: min(layer.weight.shape)])


def factorization_costs(network: Network, i: int, moments: Moments) -> Array:
    """The costs of ``FactorizeData(i, r)`` for r = 1, 2, …, min(n_{i-1}, n_i): its squared error, summed.

    They are in the metric of the network's outputs where the moments have sensitivities.

    Raises:
        SurgeryError: there is no such layer, or it has no moments.
    """
    place, layer = written_by(network, i)
    covariance, metric = moments.at(network, place).covariance, moments.sensitivity_at(network, place)
    vt = _decompose(layer.weight, covariance).vt
    along = matmul(layer.weight, vt.T)
    parts = np.maximum((matmul(covariance, along) * along).sum(axis=0), 0)
    if metric is not None:
        parts = parts * (matmul(vt, metric) ** 2).sum(axis=1)
    left = np.cumsum(parts[::-1])[::-1]
    return np.array([*left[1:], 0.0])[: min(layer.weight.shape)]


def _decompose(weight: Array, covariance: Array) -> Eigen:
    """Eigenvectors of Wᵀ (Σ + ε I) W."""
    share = _WEIGHTS_SHARE * float(np.trace(covariance)) / len(covariance) or 1.0
    return eigen(matmul(weight.T, matmul(covariance, weight) + share * weight))
