"""Two runs on one page: their results, courses and fronts, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxsurgeon.printable import without_controls
from onnxsurgeon.quantities import spell_count, spell_latency, spell_size
from onnxsurgeon.report.choice import points
from onnxsurgeon.report.headline import Headline, headline
from onnxsurgeon.report.invocation import Invocation, read_invocation
from onnxsurgeon.report.page import environment, fixed, status
from onnxsurgeon.report.pictures.axes import panels, scale_sizes
from onnxsurgeon.report.pictures.change import change_picture
from onnxsurgeon.report.pictures.style import BLUE, ORANGE, SMALL, Scene, along_epochs, style
from onnxsurgeon.report.pictures.svg import page_svg
from onnxsurgeon.report.scene import make_scene
from onnxsurgeon.runs.family import History
from onnxsurgeon.runs.history import read_history
from onnxsurgeon.runs.journal import RunDirectory

_COLORS, _MARKS, _LETTERS = (BLUE, ORANGE), ("o", "s"), ("A", "B")
_NOTHING = "–"


@dataclass(frozen=True)
class Side:
    """A run, as the page shows it.

    Attributes:
        letter: its name on the page.
        name: name of its folder.
        invocation: how it was started.
        history: its history.
        scene: what pictures need of it.
        status: its state, in words.
        headline: its wish, and its three numbers.
        picture: the given network beside the result; "" where there is none.
    """

    letter: str
    name: str
    invocation: Invocation
    history: History
    scene: Scene
    status: str
    headline: Headline
    picture: Markup


def render_side_by_side(first: RunDirectory, second: RunDirectory) -> str:
    """The page, complete in itself.

    Raises:
        RunError: a settings.json is damaged.
    """
    sides = [_side(letter, run) for letter, run in zip(_LETTERS, (first, second), strict=True)]
    with style():
        drawn = {"course": _course(sides), "fronts": _fronts(sides)}
        pictures = {name: Markup(page_svg(each, name, {}, _LABELS[name])) for name, each in drawn.items() if each}
    page = environment().get_template("side_by_side.html.jinja")
    return without_controls(
        page.render(
            sides=sides,
            pictures=pictures,
            rows=_rows(sides),
            remarks=_remarks(sides),
            settings=_settings(sides),
        )
    )


_LABELS = {"course": "The best so far of both runs by epoch", "fronts": "The fronts of both runs by parameters"}


def _side(letter: str, run: RunDirectory) -> Side:
    invocation, history = read_invocation(run), read_history(run)
    scene = make_scene(history, invocation)
    picture = ""
    with style():
        figure = change_picture(scene) if history.measured else None
        if figure is not None:
            picture = page_svg(figure, f"change-{letter}", {}, f"The given network and the result of run {letter}")
    found = headline(history, invocation, scene.accuracy_name)
    name = run.path.resolve().name
    return Side(
        letter, name, invocation, history, scene, status(run, history, invocation), found, Markup(picture)
    )  # fmt: skip


def _course(sides: Sequence[Side]) -> Figure | None:
    """The best of each run at its decision points."""
    told = [side.history.decisions for side in sides]
    if not any(told):
        return None
    figure, found = panels([each.best_accuracy for decisions in told for each in decisions])
    for axes in found:
        for side, color, mark in zip(sides, _COLORS, _MARKS, strict=True):
            epochs = [each.epoch for each in side.history.decisions]
            values = [each.best_accuracy for each in side.history.decisions]
            label = f"run {side.letter}"
            axes.plot(epochs, values, marker=mark, markersize=5, color=color, linewidth=1.8, label=label)
    return _finished(figure, found, sides, along_epochs)


def _fronts(sides: Sequence[Side]) -> Figure | None:
    """The front of each run."""
    fronts = [points(side.history) for side in sides]
    sizes = [point.parameters for front in fronts for point in front]
    if not sizes:
        return None
    figure, found = panels([point.accuracy for front in fronts for point in front])
    for axes in found:
        for side, front, color, mark in zip(sides, fronts, _COLORS, _MARKS, strict=True):
            places = [point.parameters for point in front], [point.accuracy for point in front]
            look = {"marker": mark, "markersize": 7, "color": color, "linewidth": 1.4}
            axes.plot(*places, drawstyle="steps-post", label=f"run {side.letter}", **look)
    return _finished(figure, found, sides, lambda axes: scale_sizes(axes, sizes))


def _finished(figure: Figure, found: list[Axes], sides: Sequence[Side], along: Callable[[Axes], None]) -> Figure:
    along(found[-1])
    handles, labels = found[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=SMALL)
    found[0].set_ylabel(sides[0].scene.accuracy_name)
    return figure


def _rows(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """The rows of the comparison; rows that neither run has are left out."""
    columns = [_figures(side) for side in sides]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return [(name, [column.get(name, _NOTHING) for column in columns]) for name in names]


def _figures(side: Side) -> dict[str, str]:
    history, metric = side.history, side.invocation.metric
    found = {"given model": side.invocation.model, "data": side.invocation.data}
    best = None if history.result is None else history.members.get(history.result)
    if best is not None:
        found["topology"] = best.topology
        if best.parameters is not None:
            found["parameters"] = spell_count(best.parameters)
    finish = history.finish
    if finish is not None and finish.costs is not None:
        found["file"] = spell_size(finish.costs[1].size)
        found["a row takes"] = spell_latency(finish.costs[1].latency) if finish.costs[1].latency else _NOTHING
    if history.decisions:
        last = history.decisions[-1]
        found[side.scene.accuracy_name] = fixed(last.best_accuracy)
        if finish is not None:
            found[f"test {metric}"] = fixed(finish.test_accuracy)
        found |= {"epochs": f"{last.epoch:g}", "branches": f"{len(history.members):,}"}
        found |= {"training steps": f"{last.steps:,}", "seconds": fixed(last.seconds, 1)}
    return found


def _remarks(sides: Sequence[Side]) -> list[str]:
    """Reasons why the figures of the two may not be comparable."""
    first, second = (side.invocation for side in sides)
    said = []
    if first.recorded.get("digest of the data set") != second.recorded.get("digest of the data set"):
        said.append("The runs saw different data: their figures cannot be compared.")
    if first.metric != second.metric or sides[0].scene.accuracy_name != sides[1].scene.accuracy_name:
        names = " and ".join(side.scene.accuracy_name for side in sides)
        said.append(f"The runs were judged by different measures, {names}: those cannot be compared.")
    if first.recorded.get("SHA-256 of the model") != second.recorded.get("SHA-256 of the model"):
        said.append("The given models are different.")
    return said


def _settings(sides: Sequence[Side]) -> list[tuple[str, list[object], str]]:
    """The settings in which the runs differ, with their meaning."""
    first, second = ({each.name: each for each in side.invocation.settings} for side in sides)
    found: list[tuple[str, list[object], str]] = []
    for name in dict.fromkeys([*first, *second]):
        values = [known[name].value if name in known else None for known in (first, second)]
        if values[0] != values[1]:
            found.append((name, values, (first.get(name) or second[name]).meaning))
    return found
