"""Topologies within a budget of parameters, as hyperparameters whose meaning does not depend on the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from searching.networks import count

MOST_HIDDEN, MOST_EPOCHS = 3, 30
SMALLEST_RATIO, SMALLEST_SHARE = 0.25, 0.4


def topology(trial: Any, n_in: int, classes: int, budget: int) -> tuple[int, ...]:
    """Widths from the input to the classes, of at most ``budget`` parameters; ``trial`` is Optuna's.

    The networks compared are as large as their budget, and settings that are good at one budget can be tried at the
    next: so what is sampled is the share of the budget to use, and the ratio of each width to the one before.
    """
    hidden = trial.suggest_int("hidden_layers", 1, MOST_HIDDEN)
    share = trial.suggest_float("share", SMALLEST_SHARE, 1.0, log=True)
    later = range(2, hidden + 1)
    ratios = [trial.suggest_float(f"ratio_{layer}", SMALLEST_RATIO, 1.0, log=True) for layer in later]
    return fit_widths(n_in, classes, [1.0, *ratios], int(share * budget))


def fit_widths(n_in: int, classes: int, ratios: Sequence[float], budget: int) -> tuple[int, ...]:
    """The widest network of at most ``budget`` parameters with these ratios; with a unit a layer where none is.

    Args:
        n_in: features.
        classes: outputs.
        ratios: of each hidden width to the one before; the first is 1.
        budget: parameters.
    """

    def sizes(width: int) -> tuple[int, ...]:
        widths, exact = [], float(width)
        for ratio in ratios:
            exact *= ratio
            widths.append(max(1, round(exact)))
        return n_in, *widths, classes

    lowest, above = 1, budget // n_in + 2
    while above - lowest > 1:
        middle = (lowest + above) // 2
        lowest, above = (middle, above) if count(sizes(middle)) <= budget else (lowest, middle)
    return sizes(lowest)
