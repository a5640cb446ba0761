"""How the topology evolved from the given model to the result (paper, Fig. 3 right and Fig. 5)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from onnxsurgeon.recommend.candidates import IDENTITY
from onnxsurgeon.report.layers import Stage, stages
from onnxsurgeon.report.pictures.style import (
    GREY,
    INK,
    SMALL,
    WIDTH,
    Scene,
    add_key,
    along_epochs,
    known,
    name,
    style_of,
)
from onnxsurgeon.runs.branch import START

_ACROSS = 2  # drawings of networks beside each other
_TALLEST = 40  # units: a layer with more is drawn as high as one with this many
_PLAIN = (START, IDENTITY)


def widths_picture(scene: Scene) -> Figure | None:
    """A band for each hidden layer over the epochs of the result's lineage, as thick as the layer is wide."""
    found = stages(scene.history.lineage())
    if not found or not any(stage.layers for stage in found):
        return None
    rows = _rows(found)
    widest = max(width for stage in found for width in stage.layers.values())
    height = 1.3 + 0.62 * len(rows) + (0.3 if scene.standalone else 0)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    end = max(found[-1].end, found[0].start + 1)
    for stage in found:
        color = style_of(stage.member)[1]
        for layer, width in stage.layers.items():
            thickness = 0.86 * math.sqrt(width / widest)
            low, length = rows[layer] - thickness / 2, max(stage.end - stage.start, 0.01 * end)
            changed = layer in stage.changed and stage.number > 0
            paint: dict[str, Any] = {"color": color, "alpha": 0.75} if changed else {"color": GREY, "alpha": 0.4}
            axes.add_patch(Rectangle((stage.start, low), length, thickness, linewidth=0, **paint))
            if changed or stage.number == 0:
                axes.annotate(
                    str(width),
                    (stage.start, rows[layer]),
                    xytext=(4, 0),
                    textcoords="offset points",
                    verticalalignment="center",
                    zorder=5,
                )
        if stage.member.operation not in _PLAIN:
            axes.axvline(stage.start, color=GREY, linewidth=0.8, alpha=0.6)
            name(axes, scene, stage.member, stage.start, len(rows) - 0.45, (0, 1))
    axes.set_ylim(-0.6, len(rows) - 0.25)
    axes.set_xlim(found[0].start, end)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("input  →  output", fontsize=SMALL)
    axes.grid(visible=False)
    along_epochs(axes)
    add_key(figure, scene, [stage.member for stage in found if stage.number])
    return figure


def networks_picture(scene: Scene) -> Figure | None:
    """The given network, and the result of each surgery of the result's lineage."""
    found = stages(scene.history.lineage())
    if not found:
        return None
    across = min(_ACROSS, len(found))
    down = -(-len(found) // across)
    figure = Figure(figsize=(WIDTH, 1.75 * down))
    grid = figure.subplots(down, across, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99, 0.06, 0.06)
    for axes in grid.flat:
        axes.set_axis_off()
    most = max(len(stage.widths) for stage in found)
    for axes, stage in zip(grid.flat, found, strict=False):
        _network(axes, scene, stage, most)
    return figure


def _network(axes: Any, scene: Scene, stage: Stage, most: int) -> None:
    """Draw layers as bars from left to right, the input first.

    Layers that the surgery made or changed have its colour.
    """
    axes.set_xlim(-0.5, max(most, 5) - 0.5)
    axes.set_ylim(-1.05, 1.0)
    color = style_of(stage.member)[1]
    heights = [0.62 * math.sqrt(min(width, _TALLEST) / _TALLEST) for width in stage.widths]
    for x, (left, right) in enumerate(pairwise(heights)):
        corners = [(x, -left), (x, left), (x + 1, right), (x + 1, -right)]
        axes.add_patch(Polygon(corners, color=GREY, alpha=0.18, linewidth=0))
    order = list(stage.layers)
    for x, (height, width) in enumerate(zip(heights, stage.widths, strict=True)):
        inner = 0 < x <= len(order)
        taken_in = stage.into_output and x == len(heights) - 1
        changed = taken_in or (stage.number > 0 and inner and order[x - 1] in stage.changed)
        paint = color if changed else INK
        axes.plot([x, x], [-height, height], color=paint, linewidth=5 if changed else 2.4, solid_capstyle="round")
        centred = {"horizontalalignment": "center", "verticalalignment": "bottom"}
        axes.text(x, height + 0.1, str(width), fontsize=SMALL, **centred)
    member = stage.member
    heading = "given" if stage.number == 0 else f"{member.number}: {known(member).replace('_', ' ')}"
    if member.number == scene.history.result or stage.last:
        heading += ", the result" if scene.history.finish else ", best so far"
    axes.text(-0.3, -0.78, heading, fontsize=SMALL + 1)
    details = [f"epoch {stage.start:g}"]
    if member.parameters is not None:
        details.append(f"{member.parameters:,} parameters")
    axes.text(-0.3, -1.02, ", ".join(details), fontsize=SMALL - 0.5, color=INK, alpha=0.75)


def _rows(found: list[Stage]) -> dict[int, int]:
    """A row for each layer that ever existed, in the order from the input to the output."""
    order: list[int] = []
    for stage in found:
        before = -1
        for layer in stage.layers:
            if layer in order:
                before = order.index(layer)
            else:
                before += 1
                order.insert(before, layer)
    return {layer: row for row, layer in enumerate(order)}
