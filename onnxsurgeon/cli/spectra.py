"""Singular values as small bar charts in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from onnxsurgeon.linear_algebra import Array
    from onnxsurgeon.recommend import LayerReport, Thresholds

WIDTH = 44
BLOCKS, ASCII = "·▁▂▃▄▅▆▇█", "_.:-=+*#@"
MARK, ASCII_MARK = "┊", "|"
# Where eq. 13's threshold is a smaller part of the largest value, it would lie in the lowest of eight equal steps.
_LINEAR_DOWN_TO, _FOOT = 1 / 16, 1e-6


def spectra(console: Console, reports: Sequence[LayerReport], thresholds: Thresholds) -> None:
    """Print a bar chart of each hidden layer's singular values, eq. 13's threshold marked; at most 80 columns wide."""
    plain = not _has(console, BLOCKS + MARK)
    decades = _decades(reports, thresholds)
    bars, mark = (ASCII, ASCII_MARK) if plain else (BLOCKS, MARK)
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("layer")
    grid.add_column("singular values, descending", no_wrap=True)
    grid.add_column("σ max … min", no_wrap=True)
    for report in reports:
        values = report.singular_values
        ends = f"{values[0]:.3g} … {values[-1]:.3g}" if len(values) > 1 else f"{values[0]:.3g}"
        grid.add_row(str(report.layer), chart(values, thresholds, decades, bars, mark), ends)
    console.print()
    console.print(grid)
    console.print(Text(_caption(reports, thresholds, decades, mark, bars[0]), style="dim"))


def chart(values: Array, thresholds: Thresholds, decades: int, bars: str, mark: str) -> Text:
    """A bar for each of the values, (n,) descending, or for each ``WIDTH``-th of them; what eq. 13 removes in yellow.

    A bar that stands for several values shows the largest; none stands for values on both sides of the threshold.
    """
    largest = float(values[0])
    small = _small(values, thresholds)
    kept = len(values) - small
    shares = _shares(kept, small)
    text = Text()
    for part, width, style in ((values[:kept], shares[0], ""), (values[kept:], shares[1], "yellow")):
        for block in np.array_split(part, width) if width else ():
            text.append(bars[_height(float(block[0]), largest, decades)], style)
        if style == "" and small:
            text.append(mark, "bold yellow")
    return text


def _small(values: Array, thresholds: Thresholds) -> int:
    """The number of values that are below eq. 13's thresholds."""
    return int(np.count_nonzero(values < max(thresholds.relative * float(values[0]), thresholds.absolute)))


def _shares(kept: int, small: int) -> tuple[int, int]:
    """The number of bars on each side of the threshold: in proportion, and at least one where it has any value."""
    if kept + small <= WIDTH:
        return kept, small
    left = min(max(round(WIDTH * kept / (kept + small)), min(kept, 1)), WIDTH - min(small, 1))
    return left, WIDTH - left


def _height(value: float, largest: float, decades: int) -> int:
    """The height of a bar, 1 to 8, and 0 for the value 0 or, on a logarithmic scale, for values below its foot."""
    if value <= 0 or largest <= 0:
        return 0
    share = value / largest if not decades else 1 + math.log10(value / largest) / decades
    return min(8, max(0, math.ceil(8 * share)))


def _decades(reports: Sequence[LayerReport], thresholds: Thresholds) -> int:
    """The number of decades of a logarithmic scale; 0 where a linear one tells the thresholds from 0."""
    largest = max(float(report.singular_values[0]) for report in reports)
    threshold = max(thresholds.relative, thresholds.absolute / largest if largest > 0 else 1.0)
    if threshold >= _LINEAR_DOWN_TO:
        return 0
    return math.ceil(-math.log10(threshold)) if threshold > _FOOT else round(-math.log10(_FOOT))


def _caption(reports: Sequence[LayerReport], thresholds: Thresholds, decades: int, mark: str, zero: str) -> str:
    scale = f"logarithmic from {10.0**-decades:g} σ max" if decades else "linear from 0"
    parts = [f"bars: {scale} to the layer's σ max, {zero} for what is {'less' if decades else '0'}"]
    most = max(len(report.singular_values) for report in reports)
    if most > WIDTH:
        parts.append(f"of more than {WIDTH} values, a bar shows the largest of several")
    parts.append(_removable(reports, thresholds, mark))
    return "\n".join(parts)


def _removable(reports: Sequence[LayerReport], thresholds: Thresholds, mark: str) -> str:
    """Say in a sentence what the column "removable" of the table counts."""
    rule = f"σ < {thresholds.relative:g} σ max or σ < {thresholds.absolute:g} (eq. 13)"
    is_marked, has_beyond = any(report.small for report in reports), any(report.beyond for report in reports)
    if is_marked:
        more = "\nand, in a linear layer, units beyond its number of inputs" if has_beyond else ""
        return f"right of {mark} what is removable: {rule}{more}"
    if has_beyond:
        return f"removable are a linear layer's units beyond its number of inputs, and none\nby {rule}"
    return f"none is removable: {rule}"


def _has(console: Console, characters: str) -> bool:
    try:
        characters.encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
