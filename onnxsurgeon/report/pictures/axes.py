"""Axes for accuracies, broken where they would be empty, and for numbers of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from onnxsurgeon.report.pictures.style import GREY, WIDTH


def gap(values: Sequence[float]) -> tuple[float, float] | None:
    """The ends of an empty stretch of more than half of an axis of ``values``, where it is best broken; or None.

    A given model near chance would otherwise press all others into one line at the top.
    """
    ordered = sorted(set(values))
    low, high = max(pairwise(ordered), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
    if low == high or high == ordered[-1] or high - low < 0.5 * (ordered[-1] - ordered[0]):
        return None
    return low, high


def panels(values: Sequence[float], height: float = 4.2) -> tuple[Figure, list[Any]]:
    """A figure with one pair of axes, or with two, one above the other, where the values leave a wide gap."""
    broken = gap(values)
    if broken is None:
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        found = [figure.subplots()]
        _limit(found[0], values)
        return figure, found
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(hspace=0.03, h_pad=0.03))
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [6, 1]})
    _limit(upper, [value for value in values if value >= broken[1]])
    _limit(lower, [value for value in values if value <= broken[0]])
    lower.yaxis.set_major_locator(MaxNLocator(2))
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(bottom=False)
    slanted = {"marker": [(-1, -0.6), (1, 0.6)], "markersize": 9, "linestyle": "none", "color": GREY, "clip_on": False}
    upper.plot([0], [0], transform=upper.transAxes, **slanted)
    lower.plot([0], [1], transform=lower.transAxes, **slanted)
    return figure, [upper, lower]


def _limit(axes: Any, values: Sequence[float]) -> None:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.08 * (high - low) or max(0.02, 0.02 * abs(high))
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.get_major_formatter().set_useOffset(False)


def scale_sizes(axes: Any, sizes: Sequence[int]) -> None:
    """Scale the x axis for parameters: logarithmic where they differ widely."""
    ratio = max(sizes, default=1) / max(min(sizes, default=1), 1)
    if ratio > 3:
        axes.set_xscale("log")
        steps = (1, 1.5, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 100 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("parameters")
