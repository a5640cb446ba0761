"""Merges two consecutive layers to the one that comes closest on the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.regression import relative, smoother, variance_of
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.base import DataAware, Replacement, register, spell
from onnxsurgeon.surgery.effects import Absorbed, Effect
from onnxsurgeon.surgery.parameters import add_bias, slope_of, slots_for


@register
@dataclass(frozen=True)
class MergeData(DataAware):
    """Remove hidden layer ``layer``: the next one becomes the affine map of x that comes closest to what the two did.

    With mean μ and covariance Σ of the layer's input x, mean ν of its output h, and X their covariance: h ≈ ν + (x − μ)
    A, hence W' = A W_{i+1} and b' = b_{i+1} + (ν − μ A) W_{i+1}. A is a ridge regression, shrunk not towards 0 but
    towards W_i diag(g), in which each unit's φ is replaced by its best straight line: A = W_i diag(g) + (Σ + λ D)⁻¹ (X
    − Σ W_i diag(g)) (``smoother``), g_j = cov(z_j, h_j) / var z_j. For Gaussian x, W_i diag(g) is the least-squares
    solution itself (Bussgang, 1952); for linear φ it is ``Merge``.

    It is exact only where φ_i is the identity.
    """

    operation: ClassVar[str] = "merge_data"
    summary: ClassVar[str] = "it becomes a part of the next layer, as near as an affine map comes"
    exact_if: ClassVar[str] = "if φ is the identity"
    marker: ClassVar[str] = "d"
    layer: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Absorbed()

    def require(self, network: Network) -> None:
        """The layer must exist, and must not be a convolution."""
        if network.hidden(self.layer).geometry is not None:
            raise SurgeryError(
                f"{spell(self)}: layer {self.layer} is a convolution; merge:{self.layer} goes by weights",
                "unlike-layer",
            )

    def is_exact(self, network: Network) -> bool:
        """Whether no nonlinearity is lost."""
        return network.hidden(self.layer).is_linear

    def refit(self, network: Network, moments: Moments) -> Replacement:
        """φ_{i+1}(φ_i(x W_i + b_i) W_{i+1} + b_{i+1}) → φ_{i+1}(x W' + b')."""
        layer, following = network.pair(self.layer)
        before, after = moments.input_of(network, self.layer), moments.output_of(network, self.layer)
        cross = moments.cross_of(network, self.layer)
        gains = _gains(layer, before.covariance, cross)
        lines = layer.weight * gains
        total = variance_of(after.covariance, following.weight)

        # The straight lines leave r = (h − (x − μ) W_i diag(g)) W_{i+1}: its covariance with x, its variance.
        rest = cross - matmul(before.covariance, lines)
        ahead = matmul(lines, following.weight)
        variance = (
            total - 2 * float((matmul(cross, following.weight) * ahead).sum()) + variance_of(before.covariance, ahead)
        )
        rows = moments.rows_of(network, self.layer)
        inverse = smoother(before.covariance, matmul(rest, following.weight), max(variance, 0.0), rows, total)
        linear = lines + matmul(inverse, rest)
        offset = after.mean - matmul(before.mean, linear)
        dtype = following.weight.dtype
        weight = matmul(linear, following.weight, dtype=dtype)
        bias = add_bias(following.bias, matmul(offset, following.weight), dtype)
        merged = replace(following, weight=weight, bias=bias)

        def carry(past: Sequence[DenseLayer], power: int) -> tuple[DenseLayer]:
            """The product rule for W' = A W_{i+1}, where h moves as φ's straight line does: dA = dW_i diag(g)."""
            first, second = past
            outgoing = following.weight.astype(np.float64) ** power
            through = matmul(first.weight * gains**power, outgoing) + matmul(linear**power, second.weight)
            moved = matmul(offset**power, second.weight)
            if second.bias is not None:
                moved = moved + second.bias
            if first.bias is not None:
                moved = moved + matmul(first.bias * gains**power, outgoing)
            return (slots_for(merged, through, moved, slope_of(second)),)

        error = total - 2 * float((matmul(cross, following.weight) * weight).sum())
        error += variance_of(before.covariance, weight)
        shift = matmul(after.mean, following.weight) - matmul(before.mean, weight) - np.asarray(bias, np.float64)
        error += float(((shift + (0.0 if following.bias is None else following.bias)) ** 2).sum())
        return Replacement(2, (merged,), carry, relative(error, total))


def _gains(layer: DenseLayer, covariance: Array, cross: Array) -> Array:
    """Slope of each unit's best straight line: cov(z, h) / var z; 0 for a unit whose z is constant."""
    if layer.is_linear:
        return np.ones(layer.units)
    weight = layer.weight.astype(np.float64)
    variances = (matmul(covariance, weight) * weight).sum(axis=0)
    known = variances > 0
    return np.where(known, (cross * weight).sum(axis=0) / np.where(known, variances, 1.0), 0.0)
