"""Linear regression from moments alone: ridge, the order in which predictors can go, and the error of a layer.

Everything is computed in float64 on one thread, see ``linear_algebra``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxsurgeon.calibration.moments import Elimination, Moment
from onnxsurgeon.linear_algebra import Array, eigen, matmul, single_threaded

# Ridge parameters tried, as fractions of each predictor's variance.
RIDGES = 10.0 ** np.arange(-10, 1.5, 0.5)
# The smallest variance that a predictor counts with, as a fraction of the mean of all.
_FLOOR = 0.01
# A rest of the targets' variance that does not count: activations are float32, whose rounding is of this order.
_ROUNDING = 1e-13
_ELIMINATION_RIDGE = 1e-9


def smoother(covariance: Array, cross: Array, variance: float, rows: int, scale: float) -> Array:
    """M (a, a) such that M · cov(x, y) are the coefficients of the ridge regression of any y on x.

    M = (Σ + λ D)⁻¹, D = diag Σ + 0.01 · (mean of diag Σ). λ minimises the generalised cross-validation error RSS(λ) /
    (1 − df(λ) / rows)² (Golub, Heath and Wahba, Technometrics 21, 1979) of the given targets; of equal ones it is the
    largest λ. A predictor that is constant gets coefficients 0.

    Measured by the error on 6,000 rows held out, three networks 784-256-128-10: layer 1 merged by 512 rows 0.27 of z's
    standard deviation (λ = 1e-3 instead: 0.51; D = diag Σ, with which pixels that hardly ever vary get huge weights:
    0.61; D a multiple of I: 0.27), by 4,096 rows 0.25 (0.27; 0.26; 0.25); pruned to half by 4,096 rows 0.086 (0.086;
    0.086; 0.089).

    Args:
        covariance: Σ (a, a) of the predictors.
        cross: their covariance (a, m) with the targets.
        variance: variance of the targets, summed over them.
        rows: number of rows over which the moments are means.
        scale: variance of the whole to which the targets belong; errors of its rounding do not count.
    """
    weights = _weights(covariance)
    values, vt = eigen(covariance * weights * weights[:, None])
    values = np.maximum(values, 0)[:, None]
    energy = (matmul(vt * weights, cross) ** 2).sum(axis=1)[:, None]
    shrunk = values + RIDGES
    left = variance - (energy * (shrunk + RIDGES) / shrunk**2).sum(axis=0)
    freedom = 1 - (1 + (values / shrunk).sum(axis=0)) / rows
    with np.errstate(divide="ignore"):
        scores = np.where(freedom > 0, np.maximum(left, _ROUNDING * scale) / freedom**2, np.inf)
    best = len(RIDGES) - 1 - int(np.argmin(scores[::-1]))
    basis = vt * weights
    return matmul(basis.T / shrunk[:, best], basis)


def eliminate(covariance: Array, weight: Array) -> Elimination:
    """Backward elimination of the predictors x (…, n) of x W, W (n, m), with the rest refitted each time.

    Without predictor j the error grows by ‖B_j‖² / P_jj, where B are the present coefficients and P = Σ⁻¹ over the
    present predictors: the predictor with the least growth goes first (Hassibi and Stork, "Second order derivatives for
    network pruning: optimal brain surgeon", NIPS 1992, eq. 5, with a layer's own quadratic error for the loss).
    """
    n = len(covariance)
    weights = _weights(covariance)
    correlation = covariance * weights * weights[:, None]
    # A constant predictor loses nothing: with a 1 of its own on the diagonal it is independent of all others.
    constant = weights == 0
    correlation[np.diag_indices(n)] += np.where(constant, 1.0, _ELIMINATION_RIDGE)
    coefficients = np.where(constant, 0, 1 / np.where(constant, 1, weights))[:, None] * weight.astype(np.float64)
    order, errors, there = [], [], np.ones(n, bool)
    with single_threaded():
        precision = np.linalg.inv(correlation)
        for _ in range(n):
            costs = np.full(n, np.inf)
            costs[there] = (coefficients[there] ** 2).sum(axis=1) / np.diag(precision)[there]
            j = int(np.argmin(costs))
            order.append(j)
            errors.append(costs[j])
            there[j] = False
            column = precision[:, j] / precision[j, j]
            coefficients -= np.outer(column, coefficients[j])
            precision -= np.outer(column, precision[j])
    return Elimination(np.array(order), np.cumsum(errors))


def eliminate_together(known: Sequence[tuple[Array, Array]], units: int) -> Elimination:
    """Backward elimination of units that several readers read, each perhaps in several places.

    For every reader, ``known`` has the covariance (units · taps, units · taps) of what it reads, unit by unit, and its
    weight W (units · taps, m). Without unit j a reader's error grows by tr(B_jᵀ (P_jj)⁻¹ B_j), B_j and P_jj being the
    unit's block of the present coefficients and of P = Σ⁻¹: the unit with the least sum over the readers goes first.
    """
    if len(known) == 1 and len(known[0][0]) == units:
        return eliminate(*known[0])
    with single_threaded():
        states = [_Eliminated(covariance, weight, units) for covariance, weight in known]
        order: list[int] = []
        errors, there, error = [], np.ones(units, bool), 0.0
        for _ in range(units):
            costs = np.where(there, np.sum([state.costs(there) for state in states], axis=0), np.inf)
            j = int(np.argmin(costs))
            error += float(costs[j])
            order.append(j)
            errors.append(error)
            there[j] = False
            for state in states:
                state.drop(j)
    return Elimination(np.array(order), np.array(errors))


class _Eliminated:
    """The regression of one reader while units go."""

    def __init__(self, covariance: Array, weight: Array, units: int) -> None:
        weights = _weights(covariance)
        correlation = covariance * weights * weights[:, None]
        constant = weights == 0
        correlation[np.diag_indices(len(weights))] += np.where(constant, 1.0, _ELIMINATION_RIDGE)
        scaled = np.where(constant, 0, 1 / np.where(constant, 1, weights))[:, None] * weight.astype(np.float64)
        self.units, self.taps = units, len(weights) // units
        self.coefficients, self.precision = scaled, np.linalg.inv(correlation)

    def costs(self, there: Array) -> Array:
        """The cost of each unit that is still there, (units,)."""
        blocks = self.precision.reshape(self.units, self.taps, self.units, self.taps)
        own = blocks[np.arange(self.units), :, np.arange(self.units)]
        b = self.coefficients.reshape(self.units, self.taps, -1)
        found = np.zeros(self.units)
        found[there] = (np.linalg.solve(own[there], b[there]) * b[there]).sum(axis=(1, 2))
        return found

    def drop(self, j: int) -> None:
        """Refit without unit ``j``."""
        rows = np.arange(j * self.taps, (j + 1) * self.taps)
        column = np.linalg.solve(self.precision[np.ix_(rows, rows)].T, self.precision[:, rows].T).T
        self.coefficients -= column @ self.coefficients[rows]
        self.precision -= column @ self.precision[rows]


def _weights(covariance: Array) -> Array:
    """D^(-1/2), see ``smoother``; 0 for a constant predictor."""
    variances = np.diag(covariance)
    varies = variances > 0
    scales = np.where(varies, variances + _FLOOR * variances.mean(), 1.0)
    return np.where(varies, 1 / np.sqrt(scales), 0.0)


def linear_error(moment: Moment, weight: Array, bias: Array) -> float:
    """E‖x W + b‖² of rows with that mean and covariance."""
    weight = weight.astype(np.float64)
    spread = float((matmul(moment.covariance, weight) * weight).sum())
    return max(spread, 0.0) + float(((matmul(moment.mean, weight) + bias) ** 2).sum())


def variance_of(covariance: Array, weight: Array) -> float:
    """E‖x W − E x W‖²."""
    return max(float((matmul(covariance, weight) * weight).sum()), 0.0)


def relative(error: float, variance: float) -> float:
    """√(error / variance): a root mean square error as a fraction of a standard deviation."""
    return float(np.sqrt(max(error, 0.0) / variance if variance > 0 else max(error, 0.0)))
