"""Singular values of a layer, and how many of its neurons they call removable."""

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
    """

    relative: float = 0.005
    absolute: float = 0.3
    rank_bound: bool = True


def removable_neurons(weight: Array, thresholds: Thresholds) -> int:
    """n_r: the number of singular values of ``weight`` (n_in, n_out) with σ < ε1 σ_max or σ < ε2 (paper, eq. 13)."""
    beyond = weight.shape[1] - min(weight.shape) if thresholds.rank_bound else 0
    return count_below(weight, thresholds.relative, thresholds.absolute) + beyond
