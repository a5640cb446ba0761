"""Draw each surgery on a small network, before and after: docs/surgeries/NAME-light.svg and NAME-dark.svg.

    python tools/draw_surgeries.py [FOLDER]

The networks are real ones, and the surgeries are performed on them: a line is a weight, its width the weight's size.
Where there are convolutions, a square is a channel, and a line all weights between two channels.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from onnx import TensorProto, helper

from onnxsurgeon import DenseLayer, Examples, Network, create, create_convolutional, operate, parse
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.operating.perform import moments_for

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "surgeries"
UNIT_RADIUS = 0.17
ROWS = 512  # of data, for surgeries that go by them


@dataclass(frozen=True)
class Theme:
    """Colours that are legible on one background; signs are told apart by colour-blind readers too (Okabe, Ito)."""

    text: str
    kept: str
    positive: str
    negative: str
    background: str


THEMES = {
    "light": Theme("#222222", "#a9a9a9", "#0072b2", "#d55e00", "#ffffff"),
    "dark": Theme("#e4e4e4", "#6c6c6c", "#56b4e9", "#e69f00", "#14151a"),
}


class Drawing(NamedTuple):
    """A surgery, the sizes and the seed of the network it is performed on, and another that is performed first.

    With ``is_residual``, what its first layer writes is added to what its third does. A text in place of sizes stands
    for a network with convolutions (``create_convolutional``).
    """

    surgery: str
    sizes: tuple[int, ...] | str
    seed: int = 5
    first: str = ""
    is_residual: bool = False


DRAWINGS = (
    Drawing("widen:1:2", (4, 3, 2)),
    Drawing("insert_identity:1", (4, 3, 2)),
    Drawing("insert_behind_pool:1", "8x2-c3-p-2"),
    Drawing("narrow:1:2", (4, 4, 2)),
    Drawing("factorize:1:2", (5, 4, 2)),
    Drawing("merge:1", (4, 3, 3, 2)),
    Drawing("grow:1:2", (4, 3, 2)),
    Drawing("prune:1:3", (4, 5, 2), seed=7),  # in which the last two units go: the others keep their places
    Drawing("factorize_data:1:2", (5, 4, 2)),
    Drawing("merge_data:1", (4, 3, 3, 2)),
    Drawing("merge_duplicates:1", (4, 3, 2), first="widen:1:2"),
    Drawing("insert_block:1", (4, 3, 4, 3, 2), is_residual=True),
    Drawing("remove_block:1", (4, 3, 4, 3, 2), is_residual=True),
    Drawing("remove_block_data:1", (4, 3, 4, 3, 2), is_residual=True),
)


def main(folder: Path = FOLDER) -> list[Path]:
    """Draw them all; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    # The same bytes at every run; text stays text, in the reader's own font.
    with mpl.rc_context({"svg.hashsalt": "onnxsurgeon", "svg.fonttype": "none", "font.family": "sans-serif"}):
        for drawing in DRAWINGS:
            for theme_name, theme in THEMES.items():
                path = folder / f"{drawing.surgery.partition(':')[0]}-{theme_name}.svg"
                draw(drawing, theme).savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
                path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
                written.append(path)
    return written


def draw(drawing: Drawing, theme: Theme) -> Figure:
    """The network before and after, and what the surgery did to its outputs, or on the data."""
    surgery = drawing.surgery
    before = _given(drawing)
    if drawing.first:
        before, _ = operate(before, parse(drawing.first), np.random.default_rng(0))
    has_maps = isinstance(drawing.sizes, str)
    moments = None if has_maps else moments_for(parse(surgery), before, rows(before), np.arange(ROWS))
    after, record = operate(before, parse(surgery), np.random.default_rng(0), moments=moments)
    figure = Figure(figsize=(5.8, 2.8))
    axes = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.89, bottom=0.25, wspace=0.12)
    for panel, network, other, title in zip(axes, (before, after), (after, before), ("before", surgery), strict=True):
        (_maps if has_maps else _network)(panel, network, other, theme)
        panel.set_title(title, color=theme.text, fontsize=11, family="monospace" if network is after else None)
        text = f"{network.topology}, {network.parameter_count} parameters"
        panel.text(0.5, -0.1, text, transform=panel.transAxes, ha="center", va="top", color=theme.text, fontsize=10)
    if record.exact:
        verdict = "exact"
    elif record.predicted is None:
        verdict = f"approximate: outputs move by {record.deviation:.0%} of their scale"
    else:
        verdict = f"approximate: predicted error {record.predicted:.0%}"
    figure.text(0.5, 0.015, verdict, ha="center", color=theme.text, fontsize=10)
    figure.text(0.5, 0.53, "→", ha="center", va="center", color=theme.text, fontsize=18)
    return figure


def _given(drawing: Drawing) -> Network:
    """The network before the surgeries."""
    sizes = drawing.sizes
    if isinstance(sizes, str):
        return create_convolutional(sizes, seed=drawing.seed)
    return residual(sizes, drawing.seed) if drawing.is_residual else create(sizes, seed=drawing.seed)


def residual(sizes: tuple[int, ...], seed: int) -> Network:
    """A residual perceptron of five widths."""
    rng, parts = np.random.default_rng(seed), []
    for i, size in enumerate(pairwise(sizes)):
        weight = rng.standard_normal(size) / np.sqrt(size[0])
        parts += [helper.make_tensor(f"w{i}", TensorProto.FLOAT, size, weight.ravel())]
        parts += [helper.make_tensor(f"b{i}", TensorProto.FLOAT, size[1:], rng.standard_normal(size[1]) / 4)]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["stem"]),
        helper.make_node("Gemm", ["stem", "w1", "b1"], ["inside"]),
        helper.make_node("Relu", ["inside"], ["relu"]),
        helper.make_node("Gemm", ["relu", "w2", "b2"], ["branch"]),
        helper.make_node("Add", ["stem", "branch"], ["sum"]),
        helper.make_node("Gemm", ["sum", "w3", "b3"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], parts)
    return from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def rows(network: Network) -> Examples:
    """Inputs that depend on one another, as those of real data do: all but a little of them lies in a plane."""
    rng, inputs = np.random.default_rng(1), network.layers[0].inputs
    plane = rng.standard_normal((ROWS, 2)) @ rng.standard_normal((2, inputs))
    x = 1 + plane + 0.2 * rng.standard_normal((ROWS, inputs))
    return Examples.classification(x.astype(np.float32), np.arange(ROWS) % 2, network.layers[-1].units)


def _network(panel: Any, network: Network, other: Network, theme: Theme) -> None:
    """One network: a column of units a layer; weights that ``other`` has too are grey."""
    panel.set_axis_off()
    panel.set_aspect("equal")
    columns = [network.layers[0].inputs, *(layer.units for layer in network.layers)]
    tallest, step = 5, 4.0 / (len(columns) - 1)
    panel.set_xlim(-0.4, 4.4)
    panel.set_ylim(-0.55, 0.75 * (tallest - 1) + 0.4)
    places = [
        [(step * column, 0.75 * (row + (tallest - count) / 2)) for row in reversed(range(count))]
        for column, count in enumerate(columns)
    ]
    for column, layer in enumerate(network.layers):
        _weights(panel, layer, other, (places[column], places[column + 1]), theme)
    for column, units in enumerate(places):
        for x, y in units:
            panel.add_patch(
                mpl.patches.Circle((x, y), UNIT_RADIUS, facecolor=theme.background, edgecolor=theme.text, zorder=3)
            )
        name = _label(network, column)
        if name == "sum":
            bend = mpl.patches.FancyArrowPatch(
                (step * (column - 2), places[column - 2][0][1] + 0.25),
                (step * column, units[0][1] + 0.25),
                connectionstyle="arc3,rad=-0.35",
                arrowstyle="-|>",
                mutation_scale=9,
                color=theme.text,
                linewidth=0.9,
            )
            panel.add_patch(bend)
        panel.text(step * column, -0.35, name, ha="center", va="top", color=theme.text, fontsize=9)


def _maps(panel: Any, network: Network, other: Network, theme: Theme) -> None:
    """A network with convolutions: a column of channels for each layer and each pool, smaller on smaller maps."""
    panel.set_axis_off()
    panel.set_aspect("equal")
    known = {layer.names.weight for layer in other.layers}
    columns, links, label = [(network.segments[0].layers[0].channels, 1.0)], [], ["input"]
    for step in network.frame.trunk.steps:
        for layer in network.segments[step].layers if isinstance(step, int) else ():
            weight = layer.weight.reshape(columns[-1][0], -1, layer.units).astype(float)
            links.append((np.sign(weight.sum(axis=1)) * np.sqrt((weight**2).sum(axis=1)), layer.names.weight in known))
            columns.append((layer.units, columns[-1][1] if layer.geometry else 0.0))
            label.append("convolution" if layer.geometry else "output")
        if not isinstance(step, int) and step.op == "MaxPool":
            links.append((np.eye(columns[-1][0]), True))
            columns.append((columns[-1][0], 0.65 * columns[-1][1]))
            label.append("pool")
    before: list[float] = []
    tallest, step_size = 5, 4.0 / (len(columns) - 1)
    panel.set_xlim(-0.4, 4.4)
    panel.set_ylim(-0.55, 0.75 * (tallest - 1) + 0.4)
    for column, (count, size) in enumerate(columns):
        x, heights = step_size * column, [0.75 * (row + (tallest - count) / 2) for row in reversed(range(count))]
        if column:
            weights, is_kept = links[column - 1]
            largest = np.abs(weights).max()
            for (i, j), weight in np.ndenumerate(weights):
                if weight:
                    color = theme.kept if is_kept else theme.positive if weight > 0 else theme.negative
                    width = 0.4 + 2.4 * abs(weight) / largest
                    ends = [x - step_size, x], [before[i], heights[j]]
                    panel.plot(*ends, color=color, linewidth=width, solid_capstyle="round", zorder=1)
        for y in heights:
            side = 2 * UNIT_RADIUS * size
            colours: dict[str, Any] = {"facecolor": theme.background, "edgecolor": theme.text, "zorder": 3}
            square = mpl.patches.Rectangle((x - side / 2, y - side / 2), side, side, **colours)
            panel.add_patch(square if size else mpl.patches.Circle((x, y), UNIT_RADIUS, **colours))
        lower = -0.35 - 0.3 * (column % 2)
        panel.text(x, lower, label[column], ha="center", va="top", color=theme.text, fontsize=9)
        before = heights


def _weights(panel: Any, layer: DenseLayer, other: Network, places: tuple[Any, Any], theme: Theme) -> None:
    largest = float(np.abs(layer.weight).max())
    for (i, j), weight in np.ndenumerate(layer.weight):
        if weight:
            colour = theme.kept if _has(other, i, j, weight) else theme.positive if weight > 0 else theme.negative
            xs, ys = zip(places[0][i], places[1][j], strict=True)
            panel.plot(xs, ys, color=colour, linewidth=0.4 + 2.4 * abs(weight) / largest, solid_capstyle="round")


def _label(network: Network, column: int) -> str:
    if column == 0:
        return "input"
    if column == len(network.layers):
        return "output"
    sums = [network.segments[block.segments[-1]].layers[-1] for block in network.blocks]
    if any(layer is network.layers[column - 1] for layer in sums):
        return "sum"
    return str(network.layers[column - 1].activation or "linear")


def _has(network: Network, i: int, j: int, weight: float) -> bool:
    """Whether one of its layers has this weight in this place."""
    weights = [layer.weight for layer in network.layers]
    return any(i < len(values) and j < values.shape[1] and values[i, j] == weight for values in weights)


if __name__ == "__main__":
    for file in main(*map(Path, sys.argv[1:])):
        print(file)
