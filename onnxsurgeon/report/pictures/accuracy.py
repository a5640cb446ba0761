"""Accuracy by epoch (paper, Fig. 3 left), and against the number of parameters."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from onnxsurgeon.report.pictures.axes import panels, scale_sizes
from onnxsurgeon.report.pictures.style import (
    DASHED,
    DOTTED,
    GREY,
    INK,
    SMALL,
    UNNAMED,
    Scene,
    add_key,
    along_epochs,
    mark,
    name,
    styles,
)
from onnxsurgeon.runs.branch import TRAINED
from onnxsurgeon.runs.family import Member

_PLAIN = styles()["identity"][1]


def accuracy_picture(scene: Scene) -> Figure:
    """Every measured branch.

    The result's lineage is thick; plain training, the given model and the paper's are lines.
    """
    history = scene.history
    members = history.measured
    lineage = [member for member in history.lineage() if member.points]
    figure, found = panels(_scale(scene) + ([float(scene.paper.surgeon)] if scene.paper else []))
    plain = [member for member in history.plain() if member.points]
    for axes in found:
        for member in members:
            if member.kept and member not in lineage:
                _path(axes, scene, member, color=GREY, linewidth=0.9, alpha=0.6, zorder=2)
        for member in plain[1:]:
            _path(axes, scene, member, color=_PLAIN, linewidth=2.6, zorder=3)
        for member in lineage:
            _path(axes, scene, member, color=INK, linewidth=1.8, zorder=4)
        for member in members:
            _mark(axes, scene, member, member.points[-1].epoch)
        for member in lineage:
            if member.operation not in UNNAMED or member.number == history.result:
                name(axes, scene, member, member.points[-1].epoch, member.points[-1].accuracy)
    _reference_lines(found, scene)
    _say_what_is_outside(found, members)
    along_epochs(found[-1])
    lines = [Line2D([], [], color=INK, linewidth=1.8, label="the result's lineage")]
    if len(plain) > 1:
        lines.append(Line2D([], [], color=_PLAIN, linewidth=2.6, label="plain training, while it was kept"))
    figure.legend(handles=lines, loc="outside upper left", ncols=2, frameon=False, fontsize=SMALL)
    found[0].set_ylabel(scene.accuracy_name)
    add_key(figure, scene, members)
    return figure


def size_picture(scene: Scene) -> Figure | None:
    """Every measured branch, and the front of those that no other one beats in both."""
    sized = {member: member.parameters for member in scene.history.measured if member.parameters}
    if not sized:
        return None
    front = scene.history.front()
    figure, found = panels(_scale(scene) + [member.points[-1].accuracy for member in front])
    for axes in found:
        corners = [(member.parameters, member.points[-1].accuracy) for member in front]
        axes.plot(*zip(*corners, strict=True), drawstyle="steps-post", color=INK, linewidth=1.2, alpha=0.7, zorder=3)
        for member, parameters in sized.items():
            _mark(axes, scene, member, parameters)
        _name_apart(axes, scene, {member: sized[member] for member in front if member in sized})
    _say_what_is_outside(found, list(sized))
    scale_sizes(found[-1], list(sized.values()))
    found[0].set_ylabel(scene.accuracy_name)
    add_key(figure, scene, list(sized))
    return figure


def _name_apart(axes: Any, scene: Scene, front: dict[Member, int]) -> None:
    """Number the front's branches, except those so near to another that their numbers would overlap."""
    axes.figure.draw_without_rendering()
    written: list[Any] = []
    for member in sorted(front, key=lambda each: each.number != scene.history.result):
        x, y = front[member], member.points[-1].accuracy
        place = axes.transData.transform((x, y))
        if all(abs(place[0] - other[0]) > 26 or abs(place[1] - other[1]) > 16 for other in written):
            name(axes, scene, member, x, y, (0, 7))
            written.append(place)


def _scale(scene: Scene) -> list[float]:
    """Accuracies that the axis has to show.

    Branches that were dropped soon after their surgery can lie far below all that is kept, so they do not set the
    scale.
    """
    points = [point for member in scene.history.measured for point in member.points]
    return [point.accuracy for point in points if point.stage == TRAINED] or [point.accuracy for point in points]


def _mark(axes: Any, scene: Scene, member: Member, x: float) -> None:
    """Draw a branch's marker at its latest accuracy, in the part of a broken axis that shows it."""
    if _shows(axes, member.points[-1].accuracy):
        mark(axes, scene, member, x, member.points[-1].accuracy)


def _path(axes: Any, scene: Scene, member: Member, **options: Any) -> None:
    """Draw a line from the parent's latest accuracy to the branch's own, without the dip right after a surgery."""
    parent = scene.history.members.get(member.parent) if member.parent is not None else None
    points = [*(parent.points[-1:] if parent else ()), member.points[-1]]
    places = [point.epoch for point in points], [point.accuracy for point in points]
    axes.plot(*places, gid=f"trail-{member.number}", **options)


def _reference_lines(found: list[Any], scene: Scene) -> None:
    """Draw the lines with which accuracies are compared, each with its name at its end."""
    given = scene.history.members.get(0)
    if given is not None and given.points:
        _reference(found, given.points[0].accuracy, "given", f"{given.points[0].accuracy:.4f}", DASHED)
    if scene.paper is not None:
        _reference(found, float(scene.paper.surgeon), "paper", scene.paper.surgeon, DOTTED)


def _reference(found: list[Any], accuracy: float, whose: str, figure: str, dashes: Any) -> None:
    for axes in found:
        axes.axhline(accuracy, color=INK, linestyle=dashes, linewidth=1.1, zorder=1)
    axes = next((axes for axes in found if _shows(axes, accuracy)), found[-1])
    place = {"xy": (1, accuracy), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    words = f"{whose}\n{figure}".replace("-", "−")
    axes.annotate(words, xytext=(4, 0), verticalalignment="center", fontsize=SMALL, **place)


def _say_what_is_outside(found: list[Any], members: list[Member]) -> None:
    hidden = sum(not any(_shows(axes, member.points[-1].accuracy) for axes in found) for member in members)
    if hidden:
        words = f"{hidden} dropped {'branch lies' if hidden == 1 else 'branches lie'} outside"
        place = {"transform": found[0].transAxes, "horizontalalignment": "right", "verticalalignment": "bottom"}
        found[0].text(1, 0.01, words, fontsize=SMALL, zorder=9, **place)


def _shows(axes: Any, value: float) -> bool:
    low, high = axes.get_ylim()
    return bool(low <= value <= high)
