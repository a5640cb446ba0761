"""Shortens what is too long for a terminal: a topology, a series of numbers, a list of items."""

from __future__ import annotations

import re
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_HEADINGS = {"balanced accuracy": "b.acc.", "R²": "R²", "agreement": "agree.", "fidelity": "fidel."}


def heading(metric: str) -> str:
    """The heading of a column of a metric's values, in at most six columns; the mean of several metrics."""
    if " and " in metric:
        return "mean"
    return _HEADINGS.get(metric, "accur.")


def shorten(topology: str, width: int) -> str:
    """A topology in no more than ``width`` columns: layers in the middle are left out, never digits of a width."""
    if len(topology) <= width:
        return topology
    # Parts between dashes, or single layers of short segments: whichever shows more.
    found = [_shortened(re.split(pattern, topology), width) for pattern in ("(-)", "([-+])")]
    return max(found, key=len) or topology[: width - 1] + "…"


def _shortened(parts: list[str], width: int) -> str:
    """The ends of ``parts``, which are layers and the signs that join them, as many as fit.

    "" where not even two fit.
    """
    layers, joints = parts[::2], parts[1::2]
    for kept in range(len(layers) - 1, 1, -1):
        head, tail = (kept + 1) // 2, kept // 2
        text = "".join(parts[: 2 * head]) + "…" + joints[-tail] + "".join(parts[len(parts) - 2 * tail + 1 :])
        if len(text) <= width:
            return text
    return ""


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of a series in at most ``width`` columns, one block for a value, from the lowest to the highest.

    Of more values than columns, evenly spaced ones are shown, including the first and the last.
    """
    if not values:
        return ""
    if len(values) > width:
        last = max(width - 1, 1)
        values = [values[round(i * (len(values) - 1) / last)] for i in range(width)]
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in values)


def packed(beginning: str, items: Sequence[str], width: int) -> str:
    """``beginning`` and the items behind it, on as many lines as needed; no item is broken."""
    lines, indent = [beginning], " " * len(beginning)
    for number, item in enumerate(items):
        text = item if number == len(items) - 1 else f"{item},"
        if len(lines[-1]) + 1 + len(text) > width and lines[-1].strip() and lines[-1] != beginning:
            lines.append(indent)
        lines[-1] += f" {text}"
    return "\n".join(lines)
