"""A run's history drawn by matplotlib: for a page, and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from matplotlib.figure import Figure

from onnxsurgeon.report.pictures.accuracy import accuracy_picture, size_picture
from onnxsurgeon.report.pictures.axes import gap
from onnxsurgeon.report.pictures.change import change_picture
from onnxsurgeon.report.pictures.front import front_picture
from onnxsurgeon.report.pictures.outcome import outcome_picture
from onnxsurgeon.report.pictures.spectra import MOST, lineage_spectra, other_spectra, others
from onnxsurgeon.report.pictures.style import Scene, icon, operations, spoken, style
from onnxsurgeon.report.pictures.svg import file_bytes, page_svg
from onnxsurgeon.report.pictures.topology import networks_picture, widths_picture
from onnxsurgeon.report.pictures.tree import tree_picture

Draw = Callable[[Scene], Figure | None]

# By name: the function that draws it, and its contents in words for those who do not see it.
PICTURES: Mapping[str, tuple[Draw, str]] = {
    "change": (
        change_picture,
        "The given network and the result, layer by layer; the topologies are in the table below",
    ),
    "front": (front_picture, "The networks that no other beats, by parameters; all are in the table beside it"),
    "accuracy": (accuracy_picture, "Accuracy of every branch by epoch; the figures are in the table of the family"),
    "size": (size_picture, "Accuracy of every branch against its parameters; the front is in the table beside it"),
    "widths": (widths_picture, "Widths of the hidden layers by epoch; the topologies are in the table below"),
    "networks": (networks_picture, "The networks from the given model to the result"),
    "tree": (tree_picture, "The family tree; every branch has a row in the table below it"),
    "spectra": (lineage_spectra, "Singular values before and after each surgery of the result's lineage"),
    "other-spectra": (other_spectra, "Singular values before and after the other surgeries"),
    "predictions": (
        outcome_picture,
        "What the result predicts on the test split, against what is true or taught",
    ),
}


def page_pictures(scene: Scene, titles: Mapping[int, str]) -> dict[str, str]:
    """The pictures for which the run has data, as SVG to be placed inside a page; see ``page_svg``.

    They hold no text from outside except the names of classes, which are escaped.
    """
    with style():
        drawn = ((name, draw(scene), label) for name, (draw, label) in _drawable(scene).items())
        return {name: page_svg(figure, name, titles, label) for name, figure, label in drawn if figure is not None}


def page_key(scene: Scene) -> list[tuple[str, str, str]]:
    """For each operation of the run its name, its name in the key, and its marker as SVG."""
    with style():
        found = operations(list(scene.history.members.values()))
        return [(each, spoken(each), page_svg(icon(each), f"key-{each}", {})) for each in found]


def figure_of(scene: Scene, name: str) -> Figure | None:
    """One picture as a figure, on white; None where the run has no data for it."""
    with style(text_as_paths=True):
        return _drawable(scene)[name][0](replace(scene, standalone=True)) if name in _drawable(scene) else None


def picture_files(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """The pictures as files of their own, on white: name and content, each as SVG and as PNG."""
    alone = replace(scene, standalone=True)
    with style(text_as_paths=True):
        for name, (draw, _) in _drawable(scene).items():
            figure = draw(alone)
            if figure is not None:
                for kind in ("svg", "png"):
                    yield f"{name}.{kind}", file_bytes(figure, kind)


def _drawable(scene: Scene) -> Mapping[str, tuple[Draw, str]]:
    """The pictures that can be drawn: none before the first measurement.

    Singular values only where the search used them.
    """
    if not scene.history.measured:
        return {}
    return {name: each for name, each in PICTURES.items() if scene.shows_spectra or "spectra" not in name}


__all__ = ["MOST", "Scene", "gap", "others", "page_key", "page_pictures", "picture_files"]
