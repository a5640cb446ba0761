"""The networks that no other beats, to pick one from: the metric against the parameters, with large marks."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from onnxsurgeon.report.choice import points
from onnxsurgeon.report.pictures.axes import scale_sizes
from onnxsurgeon.report.pictures.style import BLUE, GREY, INK, ORANGE, WIDTH, Scene


def front_picture(scene: Scene) -> Figure | None:
    """A mark for each network of the front; None where there is only one."""
    found = points(scene.history)
    if len(found) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    sizes, heights = [point.parameters for point in found], [point.accuracy for point in found]
    axes.plot(sizes, heights, drawstyle="steps-post", color=GREY, linewidth=1.4, zorder=2)
    for point in found:
        look: dict[str, Any] = {"markerfacecolor": BLUE, "markeredgecolor": INK, "markeredgewidth": 0.8}
        if point.branch == scene.history.result:
            look |= {"markerfacecolor": ORANGE}
            words = "result" if scene.history.finish else "best"
            axes.annotate(
                words,
                (point.parameters, point.accuracy),
                xytext=(0, -16),
                textcoords="offset points",
                ha="center",
                zorder=9,
            )
        axes.plot([point.parameters], [point.accuracy], "o", markersize=9, gid=f"mark-{point.branch}", zorder=5, **look)
    spread = max(heights) - min(heights) or 0.01
    axes.set_ylim(min(heights) - 0.18 * spread, max(heights) + 0.1 * spread)
    scale_sizes(axes, sizes)
    axes.set_ylabel(scene.accuracy_name)
    return figure
