"""A run's history drawn, as SVG to be placed inside a page.

Markers tell the surgery by colour and by shape, and carry an outline in the colour of the page's text, so that they
are told apart on white and on black, in print, and by readers who see fewer colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from onnxsurgeon.report.history import History, Member
from onnxsurgeon.surgeon.branch import START

# Stands for the page's text colour: matplotlib wants a number, CSS's currentColor takes its place in the SVG.
_INK = "#010203"
_SIZE = (5.4, 4.6)  # inches: as wide as a phone, so that text keeps its size there
_GREY = "#808080"  # legible on white and on black
# Marker and colour (Okabe and Ito, Color Universal Design) of each surgery.
_STYLES = {
    START: ("*", _INK),
    "identity": ("o", "#56b4e9"),
    "widen": ("^", "#d55e00"),
    "narrow": ("v", "#0072b2"),
    "insert_identity": ("s", "#009e73"),
    "merge": ("D", "#cc79a7"),
    "factorize": ("P", "#e69f00"),
}
_OTHER = ("X", _GREY)
_UNNAMED = (START, "identity")  # whose numbers would only crowd the picture
_KEPT, _DROPPED = 52, 20  # areas of markers in square points
_DASHED = (0, (5, 4))
_RC = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "onnxsurgeon",
    "font.size": 10.5,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": _INK,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GREY,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.axisbelow": True,
}


def accuracy_picture(history: History, accuracy_name: str) -> str:
    """Accuracy by epoch of every branch that was measured; the result's lineage thick, the given model dashed."""
    members = [member for member in history.members.values() if member.points]
    lineage = [member for member in history.lineage() if member.points]
    with _style():
        figure, panels = _panels([point.accuracy for member in members for point in member.points])
        for axes in panels:
            for member in members:
                if member.kept or len(member.points) > 1:
                    _draw_path(axes, history, member, color=_GREY, linewidth=1.0, zorder=2)
            for member in lineage:
                _draw_path(axes, history, member, color=_INK, linewidth=2.4, zorder=3)
            _draw_given(axes, history)
            _scatter(axes, history, members, [member.points[-1].epoch for member in members])
            for member in lineage:
                if member.operation not in _UNNAMED or member.number == history.result:
                    _name(axes, member, member.points[-1].epoch)
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        panels[-1].set_xlabel("epoch")
        panels[0].set_ylabel(accuracy_name)
        _add_key(figure, members)
        return _as_svg(figure, "accuracy")


def size_picture(history: History, accuracy_name: str) -> str:
    """Accuracy against parameters of every branch that was measured; the result's lineage joined by a line."""
    sized = {member: member.parameters for member in history.members.values() if member.points and member.parameters}
    lineage = [member for member in history.lineage() if member in sized]
    with _style():
        figure, panels = _panels([member.points[-1].accuracy for member in sized])
        for axes in panels:
            accuracies = [member.points[-1].accuracy for member in lineage]
            axes.plot([sized[member] for member in lineage], accuracies, color=_INK, linewidth=2.4, zorder=3)
            _draw_given(axes, history)
            _scatter(axes, history, list(sized), list(sized.values()))
            for member in lineage:
                if member.number == history.result:
                    _name(axes, member, sized[member])
        _scale_sizes(panels[-1], list(sized.values()))
        panels[-1].set_xlabel("parameters")
        panels[0].set_ylabel(accuracy_name)
        _add_key(figure, list(sized))
        return _as_svg(figure, "size")


def gap(values: Sequence[float]) -> tuple[float, float] | None:
    """Where an axis of ``values`` is best broken: the ends of an empty stretch of more than half of it; or None.

    A given model near chance would otherwise press all that follows into one line at the top.
    """
    ordered = sorted(set(values))
    low, high = max(pairwise(ordered), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
    if low == high or high == ordered[-1] or high - low < 0.5 * (ordered[-1] - ordered[0]):
        return None
    return low, high


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's own defaults and ours, whatever the user's matplotlibrc says; put back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def _panels(values: Sequence[float]) -> tuple[Figure, list[Any]]:
    """A figure with one pair of axes, or with two, one above the other, where the values leave a wide gap."""
    broken = gap(values)
    if broken is None:
        figure = Figure(figsize=_SIZE, layout="constrained")
        panels = [figure.subplots()]
        _limit(panels[0], values)
        return figure, panels
    figure = Figure(figsize=_SIZE, layout=ConstrainedLayoutEngine(hspace=0.03, h_pad=0.03))
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 1]})
    _limit(upper, [value for value in values if value >= broken[1]])
    _limit(lower, [value for value in values if value <= broken[0]])
    lower.yaxis.set_major_locator(MaxNLocator(2))
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(bottom=False)
    slanted = {"marker": [(-1, -0.6), (1, 0.6)], "markersize": 9, "linestyle": "none", "color": _GREY, "clip_on": False}
    upper.plot([0], [0], transform=upper.transAxes, **slanted)
    lower.plot([0], [1], transform=lower.transAxes, **slanted)
    return figure, [upper, lower]


def _limit(axes: Any, values: Sequence[float]) -> None:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.02
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.get_major_formatter().set_useOffset(False)


def _draw_path(axes: Any, history: History, member: Member, **style: Any) -> None:
    """A branch's measurements, joined to the end of its parent's."""
    parent = history.members.get(member.parent) if member.parent is not None else None
    points = [*(parent.points[-1:] if parent else ()), *member.points]
    axes.plot([point.epoch for point in points], [point.accuracy for point in points], **style)


def _draw_given(axes: Any, history: History) -> None:
    given = history.members.get(0)
    if given is not None and given.points:
        axes.axhline(given.points[0].accuracy, color=_INK, linestyle=_DASHED, linewidth=1.2, zorder=1)


def _scatter(axes: Any, history: History, members: Sequence[Member], positions: Sequence[float]) -> None:
    """One marker a branch, at its latest measurement: large if it was kept, the result's lineage on top."""
    lineage = {member.number for member in history.lineage()}
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for member, position in zip(members, positions, strict=True):
        level = 6 if member.number in lineage else 5 if member.kept else 4
        found.setdefault((level, _known(member)), []).append((position, member.points[-1].accuracy))
    for (level, operation), drawn in sorted(found.items()):
        marker, color = _STYLES.get(operation, _OTHER)
        style = {"marker": marker, "facecolor": color, "edgecolor": _INK, "linewidth": 0.7}
        area = (_DROPPED if level == 4 else _KEPT) * (1.6 if operation == START else 1)
        axes.scatter(*zip(*drawn, strict=True), s=area, zorder=level, **style)


def _name(axes: Any, member: Member, position: float) -> None:
    """Write the branch's number above its marker."""
    axes.annotate(
        str(member.number),
        (position, member.points[-1].accuracy),
        xytext=(0, 7),
        textcoords="offset points",
        horizontalalignment="center",
        annotation_clip=True,
        zorder=7,
    )


def _scale_sizes(axes: Any, sizes: Sequence[int]) -> None:
    """Parameters along the x axis: logarithmic where they differ widely."""
    ratio = max(sizes, default=1) / min(sizes, default=1)
    if ratio > 3:
        axes.set_xscale("log")
        steps = (1, 1.5, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 100 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _known(member: Member) -> str:
    """The branch's operation, or "other": no word of the journal gets into a picture."""
    return member.operation if member.operation in _STYLES else "other"


def _operations(members: Sequence[Member]) -> list[str]:
    found = {_known(member) for member in members}
    return [operation for operation in (*_STYLES, "other") if operation in found]


def _add_key(figure: Figure, members: Sequence[Member]) -> None:
    entries = []
    for operation in _operations(members):
        marker, color = _STYLES.get(operation, _OTHER)
        style: dict[str, Any] = {"marker": marker, "markerfacecolor": color, "markeredgecolor": _INK}
        label = "given model" if operation == START else operation
        entries.append(Line2D([], [], linestyle="none", markersize=7, markeredgewidth=0.7, label=label, **style))
    entries.append(Line2D([], [], color=_INK, linewidth=2.4, label="result's lineage"))
    entries.append(Line2D([], [], color=_INK, linestyle=_DASHED, linewidth=1.2, label="as given"))
    figure.legend(handles=entries, loc="outside lower center", ncols=3, frameon=False, handletextpad=0.5, fontsize=10)


def _thousands(value: float, _: int) -> str:
    return f"{value:,.0f}"


def _as_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element whose ids start with ``name``, so that two of them can share a page."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.draw_without_rendering()  # the layout of a first drawing is made before the ticks are what they will be
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r'((?: id="|href="#|url\(#))', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", '<svg class="picture" aria-hidden="true" ', 1)
