"""Singular values of a layer, and how many of its neurons are removable by them."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.linear_algebra import Array, count_below


@dataclass(frozen=True)
class Thresholds:
    """When a singular value counts as small.

    Attributes:
        relative: ε1, as a fraction of the layer's largest singular value.
        absolute: ε2.
        rank_bound: whether units beyond the rank bound, n_i − min(n_{i-1}, n_i), count too; not in the paper.
            Of a linear layer only: behind an activation, more units than inputs may all be needed.
    """

    relative: float = 0.005
    absolute: float = 0.3
    rank_bound: bool = True


def small_values(weight: Array, thresholds: Thresholds) -> int:
    """The number of singular values of ``weight`` with σ < ε1 σ_max or σ < ε2."""
    return count_below(weight, thresholds.relative, thresholds.absolute)


def beyond_rank(weight: Array, small: int, thresholds: Thresholds, *, is_linear: bool) -> int:
    """Number of units that are removable though they have no singular value.

    Those beyond the rank bound, where it counts. The outputs of a linear layer span no more dimensions than its weight
    has rank. φ(x W + b) of n > n_in units spans up to n, so behind an activation units beyond the bound count only
    where all singular values are ``small``: then every unit is a constant.
    """
    counts = thresholds.rank_bound and (is_linear or small == min(weight.shape))
    return weight.shape[1] - min(weight.shape) if counts else 0


def removable_neurons(weight: Array, thresholds: Thresholds, *, is_linear: bool = True) -> int:
    """n_r: the number of small singular values of ``weight`` (n_in, n_out) (paper, eq. 13), and ``beyond_rank``."""
    small = small_values(weight, thresholds)
    return small + beyond_rank(weight, small, thresholds, is_linear=is_linear)
