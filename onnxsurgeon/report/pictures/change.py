"""The given network and the result side by side on one scale, for the beginning of a page."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from onnxsurgeon.report.layers import Stage, stages
from onnxsurgeon.report.pictures.style import BLUE, GREY, INK, ORANGE, SMALL, WIDTH, Scene

_HIGHEST = 0.78  # the widest layer's share of half of a panel
_LEAST = 0.02  # so that a layer of one unit can be seen
_NUMBERED = 7  # the number of widths for which a panel has room


def change_picture(scene: Scene) -> Figure | None:
    """Layers as bars from the input at the left to the output, as high as the root of their widths.

    None where the run has only begun.
    """
    found = stages(scene.history.lineage())
    if not found or (len(found) == 1 and scene.history.finish is None):
        return None
    before, after = found[0], found[-1]
    figure = Figure(figsize=(WIDTH, 2.9))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, 0.1, 0)
    widest = max(*before.widths, *after.widths)
    most = max(len(before.widths), len(after.widths))
    _panel(left, before, widest, most, "given", GREY)
    is_smaller = (after.member.parameters or 0) <= (before.member.parameters or 0)
    words = "result" if scene.history.finish else "best so far"
    _panel(right, after, widest, most, words, BLUE if is_smaller else ORANGE)
    left.annotate(
        "",
        (1.14, 0.5),
        (0.98, 0.5),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.6, "mutation_scale": 14},
        annotation_clip=False,
    )
    return figure


def _panel(axes: Any, stage: Stage, widest: int, most: int, heading: str, color: str) -> None:
    """A network, centred in its panel, with its name and size below."""
    axes.set_axis_off()
    count = len(stage.widths)
    spare = (max(most, 4) - count) / 2
    axes.set_xlim(-0.75 - spare, count - 0.25 + spare)
    axes.set_ylim(-1.3, 1.0)
    heights = [max(_LEAST, _HIGHEST * math.sqrt(width / widest)) for width in stage.widths]
    for x, (low, high) in enumerate(pairwise(heights)):
        corners = [(x, -low), (x, low), (x + 1, high), (x + 1, -high)]
        axes.add_patch(Polygon(corners, color=color, alpha=0.22, linewidth=0))
    step = -(-count // _NUMBERED)
    for x, (height, width) in enumerate(zip(heights, stage.widths, strict=True)):
        box = FancyBboxPatch(
            (x - 0.06, -height),
            0.12,
            2 * height,
            boxstyle="round,pad=0.03,rounding_size=0.03",
            linewidth=0,
            color=color,
        )
        axes.add_patch(box)
        if x == count - 1 or (x % step == 0 and x + step < count):
            axes.text(x, height + 0.09, str(width), fontsize=SMALL, ha="center", va="bottom")
    middle = (count - 1) / 2
    axes.text(middle, -0.93, heading, fontsize=11.5, fontweight="bold", ha="center", va="top")
    if stage.member.parameters is not None:
        words = f"{stage.member.parameters:,} parameters"
        axes.text(middle, -1.12, words, fontsize=SMALL, ha="center", va="top", color=INK)
