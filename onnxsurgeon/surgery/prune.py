"""Fewer units in a hidden layer: those that the others can stand in for go, and the next layer is refitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.calibration.moments import Elimination, Moments
from onnxsurgeon.calibration.regression import eliminate, linear_error, relative, smoother, variance_of
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.base import DataAware, Replacement, add_bias, moments_like, register, require_amount, slope_of
from onnxsurgeon.surgery.effects import Effect, Narrowed


@register
@dataclass(frozen=True)
class Prune(DataAware):
    """Keep ``units`` units of hidden layer ``layer``, by what the next layer loses on the data.

    The units R that go are chosen by backward elimination (``eliminate``); those that stay, K, are not changed. With
    mean μ and covariance Σ of the layer's outputs, T = (Σ_KK + λ D)⁻¹ Σ_KR (``smoother``) foretells the former from the
    latter: W' = W_K + T W_R and b' = b + (μ_R − μ_K T) W_R in the next layer. Dead and constant units go without a
    loss, units that depend linearly on others with one of the order of rounding, on inputs like the sample's.

    Measured on three networks 784-256-128-10, the next layer refitted alike, by the Kullback-Leibler divergence of the
    class probabilities on 6,000 rows held out, with a half and a quarter of the units kept: backward elimination 0.0072
    and 0.043, forward selection 0.0076 and 0.049, pivoted Cholesky of Σ 0.0090 and 0.054.

    Where the moments have sensitivities, errors of the next layer's outputs are weighed by what they do to the
    network's. A policy 48-512-256-128-24, of which 12 outputs are used, pruned at all layers to 96,000, 48,000 and
    19,000 parameters: R² 0.940, 0.844, 0.686, unweighed 0.935, 0.827, 0.643 (white rows).
    """

    operation: ClassVar[str] = "prune"
    summary: ClassVar[str] = "UNITS units stay, those that the next layer needs"
    exact_if: ClassVar[str] = "if no unit goes"
    marker: ClassVar[str] = "<"
    layer: int
    units: int

    @property
    def effect(self) -> Effect:
        """As its text tells it."""
        return Narrowed(self.units)

    def require(self, network: Network) -> None:
        """1 ≤ units ≤ n_i."""
        require_amount(self, self.units, network.hidden(self.layer).units, "the number of units that stay")

    def is_exact(self, network: Network) -> bool:
        """Where no unit goes: what depends on others on the sample need not elsewhere."""
        return self.units == network.hidden(self.layer).units

    def refit(self, network: Network, moments: Moments) -> Replacement:
        """Drop columns of W_i; refit W_{i+1} and b_{i+1}."""
        layer, following = network.pair(self.layer)
        output = moments.output_of(network, self.layer)
        order = _elimination(network, self.layer, moments).order
        gone, kept = np.sort(order[: layer.units - self.units]), np.sort(order[layer.units - self.units :])
        total = variance_of(output.covariance, following.weight)
        foretell = self._foretell(output.covariance, following.weight, kept, gone, total, moments, network)
        offset = output.mean[gone] - matmul(output.mean[kept], foretell)

        pruned = _columns(layer, kept)
        dtype = following.weight.dtype
        lost = following.weight[gone]
        weight = (following.weight[kept] + matmul(foretell, lost)).astype(dtype)
        refitted = replace(following, weight=weight, bias=add_bias(following.bias, matmul(offset, lost), dtype))

        def carry(past: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """What stays keeps its moments; W' and b' move as W and b do, with T and the means held fixed."""
            first, second = past
            away = second.weight[gone]
            moved = matmul(offset**power, away)
            return (
                _columns(first, kept),
                moments_like(
                    refitted,
                    second.weight[kept] + matmul(foretell**power, away),
                    moved if second.bias is None else moved + second.bias,
                    slope_of(second),
                ),
            )

        change = np.zeros(following.weight.shape)
        change[kept] = weight
        change -= following.weight
        shift = np.asarray(refitted.bias, np.float64) - (0.0 if following.bias is None else following.bias)
        error = linear_error(output, change, shift)
        return Replacement(2, (pruned, refitted), carry, relative(error, total))

    def _foretell(
        self, covariance: Array, weight: Array, kept: Array, gone: Array, total: float, moments: Moments, net: Network
    ) -> Array:
        """T (kept, gone), the coefficients of the units that go in terms of those that stay."""
        cross, lost = covariance[np.ix_(kept, gone)], weight[gone].astype(np.float64)
        variance = variance_of(covariance[np.ix_(gone, gone)], lost)
        rows = moments.rows_of(net, self.layer)
        return matmul(smoother(covariance[np.ix_(kept, kept)], matmul(cross, lost), variance, rows, total), cross)


def pruning_costs(network: Network, i: int, moments: Moments) -> Array:
    """What ``Prune(i, k)`` costs for k = 1, 2, …, n_i: the squared error of the next pre-activation, summed.

    In the metric of the network's outputs where the moments have sensitivities, so that layers can be compared.

    Raises:
        SurgeryError: there is no such layer, or it has no moments.
    """
    errors = _elimination(network, i, moments).errors
    return np.array([*errors[-2::-1], 0.0])


def _elimination(network: Network, i: int, moments: Moments) -> Elimination:
    """Of hidden layer ``i``'s units, by the next layer's outputs, these weighed by what their errors cost, if known."""
    covariance, weight = moments.output_of(network, i).covariance, network.pair(i).following.weight
    place = network.segment_of(i), network.depth(i)[0]
    known = moments.eliminations.get(place)
    if known is not None and known[0] is weight:
        return known[1]
    metric = moments.sensitivity_of(network, i)
    found = eliminate(covariance, weight if metric is None else matmul(weight, metric))
    moments.eliminations[place] = weight, found
    return found


def pruning_errors(network: Network, i: int, moments: Moments) -> Array:
    """What ``Prune(i, k)`` predicts for k = 1, 2, …, n_i, as in ``SurgeryRecord``, but for its ridge.

    Raises:
        SurgeryError: there is no such layer, or it has no moments.
    """
    covariance, weight = moments.output_of(network, i).covariance, network.pair(i).following.weight
    errors = eliminate(covariance, weight).errors
    total = variance_of(covariance, weight)
    return np.array([relative(float(error), total) for error in (*errors[-2::-1], 0.0)])


def _columns(layer: DenseLayer, kept: Array) -> DenseLayer:
    """Some units of a layer: of its weights, or of their moments."""
    activation = layer.activation
    if activation is not None and activation.slope is not None:
        activation = activation.with_slope(activation.slope[kept])
    bias = None if layer.bias is None else layer.bias[kept]
    return replace(layer, weight=take_columns(layer.weight, kept), bias=bias, activation=activation)
