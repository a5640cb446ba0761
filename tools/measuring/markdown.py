"""Tables as Markdown, and figures as they stand in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import mean, stdev

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Rows under a head; the first ``texts`` columns are set to the left, figures to the right."""
    lines = [head, ["---"] * texts + ["---:"] * (len(head) - texts), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean ± standard deviation of the sample; the mean alone of one value, a dash of none."""
    if not values:
        return NONE
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def change(before: float, after: Sequence[float], digits: int = 0) -> str:
    """From what was given to the mean of what came out, and how many times less that is."""
    if not after:
        return NONE
    now = mean(after)
    return f"{before:,.{digits}f} → {now:,.{digits}f} ({before / now:.1f}×)"


def is_clearly_below(own: Sequence[float], others: Sequence[float]) -> bool:
    """Whether the mean is below the others' by more than both deviations combined, √(s² + s'²).

    That is the deviation of the difference between one value of each; a single value has a deviation of 0.
    """
    return mean(others) - mean(own) > math.hypot(*(stdev(each) if len(each) > 1 else 0.0 for each in (own, others)))
