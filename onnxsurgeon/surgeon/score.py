"""How a recuperated candidate is judged."""

from __future__ import annotations

import math


def paper_score(accuracy: float, gain: float, parameter_fraction: float) -> float:
    """S = a + exp(Δa) / exp(f) (paper, eq. 16).

    Args:
        accuracy: a, on the validation split.
        gain: Δa, the accuracy minus the parent's.
        parameter_fraction: f, the parameter count as a fraction of the parent's.
    """
    return accuracy + math.exp(gain) / math.exp(parameter_fraction)
