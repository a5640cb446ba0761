"""The result's predictions: a confusion matrix, or predicted values against true ones, or against a teacher's."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from onnxsurgeon.printable import without_controls
from onnxsurgeon.report.pictures.style import BLUE, DASHED, GREY, INK, ORANGE, SMALL, WIDTH, Scene
from onnxsurgeon.runs.predictions import Classes, Predictions, Values

NUMBERED = 12  # up to this many classes, the cells hold numbers
DRAWN = 64  # up to this many classes, there is a matrix


def outcome_picture(scene: Scene) -> Figure | None:
    """The first head's predictions on the test split."""
    for predictions in scene.predictions:
        return _draw(predictions, scene.truth)
    return None


def _draw(predictions: Predictions, truth: str) -> Figure | None:
    if isinstance(predictions, Classes) and 1 < predictions.count <= DRAWN:
        return _confusion(predictions, truth)
    return _scatter(predictions, truth) if isinstance(predictions, Values) and predictions.targets else None


def _confusion(classes: Classes, truth: str) -> Figure:
    """Draw a matrix whose cells are as dark as their share of the row.

    Of the true class's rows, those predicted as the column's.
    """
    count = classes.count
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    totals = [0] * count
    for true, _, rows in classes.cells:
        totals[true] += rows
    size = 10.5 if count <= 8 else SMALL
    for true, told, rows in classes.cells:
        share = rows / totals[true]
        # Half transparent, so that words in the page's colour stay legible on it, light or dark.
        paint = {"color": BLUE if true == told else ORANGE, "alpha": 0.6 * share**0.5}
        axes.add_patch(Rectangle((told - 0.5, true - 0.5), 1, 1, linewidth=0, **paint))
        if count <= NUMBERED:
            axes.text(
                told, true, f"{rows}", horizontalalignment="center", verticalalignment="center", fontsize=size,
                fontweight="bold" if true == told else "normal",
            )  # fmt: skip
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    step = 1 if count <= 20 else -(-count // 16)
    ticks = list(range(0, count, step))
    names = [_short(without_controls(classes.name(number))) for number in ticks]
    longest = max(len(each) for each in names)
    axes.set_xticks(ticks, names, rotation=90 if longest > 3 else 0, fontsize=SMALL)
    axes.set_yticks(ticks, names, fontsize=SMALL)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel(truth)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _scatter(values: Values, truth: str) -> Figure:
    """A panel for each target, with the line on which predictions are right."""
    across = 1 if len(values.targets) == 1 else 2
    down = -(-len(values.targets) // across)
    figure = Figure(figsize=(WIDTH, 4.2 if across == 1 else 2.6 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(values.targets) :]:
        axes.set_axis_off()
    for number, (axes, points) in enumerate(zip(grid.flat, values.targets, strict=False), start=1):
        axes.grid(visible=True, axis="both")
        true, told = [point[0] for point in points], [point[1] for point in points]
        ends = [min(true, default=0.0), max(true, default=1.0)]
        axes.plot(ends, ends, color=INK, linestyle=DASHED, linewidth=1.1, zorder=1)
        axes.plot(true, told, "o", color=BLUE, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.set_xlabel(truth if across == 1 else f"target {number}, {truth}")
        axes.set_ylabel("predicted")
        axes.spines[["left", "bottom"]].set_color(GREY)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
