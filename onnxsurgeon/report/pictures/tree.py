"""The family tree: every branch that was tried, at its decision point."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from onnxsurgeon.report.pictures.style import GREY, INK, SMALL, Scene, add_key, mark
from onnxsurgeon.runs.branch import START, TRAINED
from onnxsurgeon.runs.family import History, Member

COLUMN, ROW = 1.06, 0.185  # inches
_BEND = 0.42  # of a column: the place where an edge leaves its parent's row
_REDRAW = 1.3  # rows that the heading of a further draw takes


def tree_picture(scene: Scene) -> Figure | None:
    """From left to right.

    In a column, the kept branches are on top, then the others of each draw by descending score.
    """
    places, headings, epochs = _places(scene.history)
    if len(places) < 2:
        return None
    depth = max(y for _, y in places.values())
    size = (COLUMN * (len(epochs) + 1.0), ROW * (depth + 3.2) + (0.5 if scene.standalone else 0))
    # Only a key needs room, and a layout takes as long as the drawing.
    figure = Figure(figsize=size, layout="constrained" if scene.standalone else None)
    axes = figure.subplots() if scene.standalone else figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.2, len(epochs) + 0.8)
    axes.set_ylim(depth + 0.7, -1.9)
    for column, epoch in enumerate(epochs, start=1):
        axes.text(column - 0.06, -1.3, f"epoch {epoch:g}", fontsize=SMALL, color=INK)
    for x, y in headings:
        axes.text(x - 0.06, y + 0.25, "redraw", fontsize=SMALL - 1, color=GREY, style="italic")
    for number, place in places.items():
        member = scene.history.members[number]
        if member.parent in places:
            _edge(axes, scene, member, places[member.parent], place)
    for number, (x, y) in places.items():
        member = scene.history.members[number]
        mark(axes, scene, member, x, y, scale=0.95)
        _label(axes, scene, member, x, y)
        if number == scene.history.result:
            ring: dict[str, Any] = {
                "markersize": 14,
                "markerfacecolor": "none",
                "markeredgecolor": INK,
                "markeredgewidth": 1.2,
            }
            axes.plot([x], [y], marker="o", zorder=5, gid=f"trail-{number}", **ring)
    add_key(figure, scene, [scene.history.members[number] for number in places])
    return figure


def _places(history: History) -> tuple[dict[int, tuple[float, float]], list[tuple[float, float]], list[float]]:
    """Column and row of each branch, those of the headings of further draws, and the epoch of each column."""
    members = [member for member in history.members.values() if member.surgery != START]
    epochs = sorted({member.epoch for member in members})
    places: dict[int, tuple[float, float]] = {
        member.number: (0.0, 0.0) for member in history.members.values() if member.surgery == START
    }
    headings = []
    for column, epoch in enumerate(epochs, start=1):
        row, draw = 0.0, 0
        for member in sorted((member for member in members if member.epoch == epoch), key=_order):
            if not member.kept and member.draw != draw:
                headings.append((float(column), row))
                row, draw = row + _REDRAW, member.draw
            places[member.number] = (float(column), row)
            row += 1
    return places, headings, epochs


def _order(member: Member) -> tuple[bool, int, float, int]:
    score = member.score if member.score is not None else float("-inf")
    return not member.kept, 0 if member.kept else member.draw, -score, member.number


def _edge(axes: Any, scene: Scene, member: Member, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a line from a parent to its child: along the parent's row, then down to the child's."""
    (x0, y0), (x1, y1) = start, end
    bend = x1 - 1 + _BEND + 0.16  # right of the parent's words
    style: dict[str, Any] = {"color": GREY, "linewidth": 0.6, "alpha": 0.55, "zorder": 1}
    if member.number in scene.lineage:
        style = {"color": INK, "linewidth": 2.2, "zorder": 4}
    elif member.kept:
        style = {"color": GREY, "linewidth": 1.6, "zorder": 3}
    left = x0 + (0.17 if x0 == 0 else 0.58)  # behind the parent's words
    axes.plot([left, bend, x1 - 0.13, x1], [y0, y0, y1, y1], gid=f"trail-{member.number}", **style)


def _label(axes: Any, scene: Scene, member: Member, x: float, y: float) -> None:
    """Number and score beside the marker."""
    score = "" if member.score is None or member.surgery == START else f" {member.score:.3f}".replace("-", "−")
    axes.annotate(
        f"{member.number}{score}",
        (x, y),
        xytext=(10 if member.number == scene.history.result else 6.5, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=SMALL - 0.5,
        fontweight="bold" if member.kept else "normal",
        color=INK,
        alpha=1.0 if member.kept or member.at(TRAINED) else 0.6,
        zorder=9,
        gid=f"trail-{member.number}",
    )
