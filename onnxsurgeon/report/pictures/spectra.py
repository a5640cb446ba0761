"""Singular values of a layer before and after each surgery (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from onnxsurgeon.report.pictures.style import DOTTED, GREY, INK, SMALL, WIDTH, Scene, known, style_of
from onnxsurgeon.runs.branch import START
from onnxsurgeon.runs.family import Member, Spectrum

_ACROSS = 8
MOST = 120  # panels of one picture: very many surgeries must not make a page of many megabytes
_HEIGHT = 1.45  # inches, of a row of panels


def lineage_spectra(scene: Scene) -> Figure | None:
    """A panel for each surgery between the given model and the result."""
    members = [member for member in scene.history.lineage() if member.operated is not None]
    return _panels(scene, members, across=2, width=WIDTH)


def other_spectra(scene: Scene) -> Figure | None:
    """A small panel for each surgery from which the result does not descend; of many, the first ``MOST``."""
    members = others(scene)[:MOST]
    if not members:
        return None
    low, high = (math.log10(end) for end in _range(scene, members))
    down = -(-len(members) // _ACROSS)
    figure = Figure(figsize=(2.1 * WIDTH, 0.92 * down + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))  # one for all panels: axes for each would take a hundred times as long
    axes.set_axis_off()
    axes.set_xlim(-0.02, _ACROSS - 0.14)
    axes.set_ylim(down, -0.02)
    for position, member in enumerate(members):
        row, column = divmod(position, _ACROSS)
        _sketch(axes, scene, member, (column, row), (low, high))
    return figure


def _sketch(axes: Any, scene: Scene, member: Member, corner: tuple[float, float], ends: tuple[float, float]) -> None:
    """Draw a panel without figures, at the given left upper corner and with the given ends of the logarithmic axis."""
    column, row = corner
    operated = member.operated
    assert operated is not None
    longest = max((each.count for each in _spectra(member)), default=1)

    def height(value: float) -> float:
        share = (max(math.log10(value), ends[0]) if value > 0 else ends[0]) - ends[0]
        return row + 0.9 - 0.62 * share / (ends[1] - ends[0])

    def curve(spectrum: Spectrum, **style: Any) -> None:
        steps = max(spectrum.count - 1, 1) / max(longest - 1, 1) / max(len(spectrum.values) - 1, 1)
        places = [column + 0.82 * steps * number for number in range(len(spectrum.values))]
        axes.plot(places, [height(value) for value in spectrum.values], gid=f"trail-{member.number}", **style)

    if operated.before is not None:
        small = max(scene.thresholds.relative * operated.before.values[0], scene.thresholds.absolute)
        axes.plot([column, column + 0.82], [height(small)] * 2, color=INK, linewidth=0.7, linestyle=DOTTED)
        curve(operated.before, color=GREY, linewidth=2.6, alpha=0.55)
    for spectrum, dashes in zip(operated.after, ("-", "--"), strict=False):
        if spectrum is not None:
            curve(spectrum, color=_color(member), linewidth=1.3, linestyle=dashes)
    axes.text(column, row + 0.14, _title(member), fontsize=SMALL - 1, color=INK)


def others(scene: Scene) -> list[Member]:
    """The branches off the lineage for whose surgery the singular values are known."""
    members = scene.history.members.values()
    return [member for member in members if member.operated is not None and member.number not in scene.lineage]


def _panels(scene: Scene, members: Sequence[Member], *, across: int, width: float) -> Figure | None:
    if not members:
        return None
    across = min(across, max(2, len(members)))
    down = -(-len(members) // across)
    height = down * _HEIGHT + 0.55
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    figure.subplots_adjust(0.55 / width, 0.45 / height, 0.995, 1 - 0.3 / height, 0.12, 0.62)
    low, high = _range(scene, members)
    for axes in grid.flat[len(members) :]:
        axes.set_axis_off()
    for axes, member in zip(grid.flat, members, strict=False):
        _panel(axes, scene, member, low)
    first = grid[0][0]
    first.set_yscale("log")
    first.set_ylim(low, high)
    first.yaxis.set_minor_locator(NullLocator())
    for axes in grid[:, 0]:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    figure.supxlabel("number of the singular value, the largest first", fontsize=SMALL, y=0.04 / height)
    return figure


def _panel(axes: Any, scene: Scene, member: Member, low: float) -> None:
    operated = member.operated
    assert operated is not None
    shape, color = style_of(member)[0], _color(member)
    before = operated.before
    if before is not None:
        small = max(scene.thresholds.relative * before.values[0], scene.thresholds.absolute)
        axes.axhline(small, color=INK, linewidth=0.8, linestyle=DOTTED, zorder=1)
        _curve(
            axes, before, low, color=GREY, linewidth=3.2, alpha=0.55, solid_capstyle="round", marker="o", markersize=3
        )
    for spectrum, dashes in zip(operated.after, ((None, None), (3, 1.5)), strict=False):
        if spectrum is not None:
            _curve(
                axes, spectrum, low, color=color, linewidth=1.4, dashes=dashes, marker=shape, markersize=3.6,
                markeredgecolor=INK, markeredgewidth=0.4, markevery=max(1, len(spectrum.values) // 12), zorder=4,
            )  # fmt: skip
    axes.set_title(_title(member), fontsize=SMALL, loc="left", pad=3, color=INK)
    axes.tick_params(labelsize=SMALL - 1, length=2.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))


def _title(member: Member) -> str:
    operated = member.operated
    assert operated is not None
    missing = " (too large)" if operated.before is None or None in operated.after else ""
    return f"{member.number}: {known(member).replace('_', ' ')} {operated.layer}{missing}"


def _color(member: Member) -> str:
    return GREY if known(member) == START else style_of(member)[1]


def _curve(axes: Any, spectrum: Spectrum, low: float, **style: Any) -> None:
    """Draw a spectrum; values below the panel lie on its edge."""
    count, drawn = spectrum.count, len(spectrum.values)
    ranks = [1 + position * (count - 1) / max(drawn - 1, 1) for position in range(drawn)]
    style["dashes"] = style.get("dashes") or (None, None)
    axes.plot(ranks, [max(value, low * 1.12) for value in spectrum.values], clip_on=False, **style)


def _range(scene: Scene, members: Sequence[Member]) -> tuple[float, float]:
    """Ends of the y axis: from somewhat below the small values to the largest value."""
    found = [spectrum for member in members if member.operated for spectrum in _spectra(member)]
    largest = max((spectrum.values[0] for spectrum in found), default=1.0) or 1.0
    small = max(scene.thresholds.absolute, scene.thresholds.relative * largest)
    shown = [value for spectrum in found for value in spectrum.values if value >= small / 20]
    low = min([small / 2, *shown]) if small else min(shown, default=1e-3 * largest)
    return max(low, 1e-6 * largest) / 1.4, largest * 1.5


def _spectra(member: Member) -> list[Spectrum]:
    operated = member.operated
    return [each for each in (operated.before, *operated.after) if each is not None] if operated else []
