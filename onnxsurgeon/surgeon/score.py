"""The score of a recuperated candidate."""

from __future__ import annotations

import math

LOWEST = -1.0
_LARGEST = 700.0  # exp(−700) is nothing beside any accuracy; exp of more than 709 overflows


def paper_score(accuracy: float, gain: float, parameter_fraction: float) -> float:
    """S = a + exp(Δa) / exp(f) (paper, eq. 16).

    Args:
        accuracy: a, on the validation split; for a regression R², which counts as −1 where it is lower.
        gain: Δa, the accuracy minus the parent's; within ±2, which only R² can exceed.
        parameter_fraction: f, the parameter count as a fraction of the parent's.
    """
    a, change = max(accuracy, LOWEST), min(max(gain, LOWEST - 1), 1 - LOWEST)
    return a + math.exp(change) / math.exp(min(parameter_fraction, _LARGEST))
