"""What all pictures have in common: colours, markers, type, and the names of their parts.

Markers tell the surgery by colour and by shape, and have an outline in the colour of the page's text, so that they can
be told apart on white and on black, in print, and by readers who see fewer colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from onnxsurgeon.recommend import Thresholds
from onnxsurgeon.recommend.candidates import IDENTITY
from onnxsurgeon.report.known import PaperFigure
from onnxsurgeon.runs.branch import START
from onnxsurgeon.runs.family import History, Member
from onnxsurgeon.runs.predictions import Predictions
from onnxsurgeon.surgery import SURGERIES
from onnxsurgeon.surgery.base import example
from onnxsurgeon.surgery.effects import (
    Absorbed,
    BehindPool,
    Effect,
    Followed,
    Kept,
    Multiplied,
    Narrowed,
    Preceded,
    Removed,
    Repeated,
    Widened,
)

# Stands for the page's text colour: matplotlib wants a number, and the page has CSS's currentColor in its place.
INK = "#010203"
GREY = "#808080"  # legible on white and on black
BLUE, ORANGE = "#0072b2", "#d55e00"
# Colours of effects (Okabe and Ito, Color Universal Design), in the order of a picture's key.
_COLORS: dict[type[Effect], str] = {
    Widened: ORANGE,
    Narrowed: BLUE,
    Followed: "#009e73",
    BehindPool: "#44aa99",
    Absorbed: "#cc79a7",
    Preceded: "#e69f00",
    Multiplied: "#f0e442",
    Removed: "#882255",
    Repeated: "#117733",
    Kept: GREY,
}
OTHER = ("X", GREY)
# What searches do to a branch besides surgeries and plain training.
_STEPS = {"standardise": ("H", GREY), "refit": ("H", "#56b4e9")}
_SPOKEN = {
    START: "given model",
    IDENTITY: "identity: only trained",
    "standardise": "standardise: read for standardised inputs",
    "refit": "refit: trained anew on all rows",
}
UNNAMED = (START, IDENTITY)  # their numbers would only crowd a picture
WIDTH = 5.4  # inches: as wide as a phone, so that text keeps its size there
SMALL = 9  # points, of the less important words; the others have 10.5
DASHED, DOTTED = (0, (5, 4)), (0, (1, 2.5))
_RC = {
    "svg.hashsalt": "onnxsurgeon",
    "font.size": 10.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GREY,
    "grid.alpha": 0.2,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Scene:
    """The contents of a picture, and the words on it.

    Attributes:
        history: the run.
        accuracy_name: such as "held-out accuracy".
        thresholds: when a singular value counts as small.
        paper: the paper's figures for the same network and data set.
        predictions: predictions of the result on the test split, each head's.
        standalone: whether the picture is a file of its own, which needs a key; a page has one for all.
        truth: the measure of predictions: "true" labels, or those of a "teacher".
        shows_spectra: whether the search used singular values.
    """

    history: History
    accuracy_name: str
    thresholds: Thresholds
    paper: PaperFigure | None = None
    predictions: tuple[Predictions, ...] = ()
    standalone: bool = False
    truth: str = "true"
    shows_spectra: bool = True
    lineage: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        numbers = frozenset(member.number for member in self.history.lineage())
        object.__setattr__(self, "lineage", numbers)


@contextmanager
def style(*, text_as_paths: bool = False) -> Iterator[None]:
    """Use matplotlib's own defaults and ours, whatever the user's matplotlibrc says.

    Restore the former ones afterwards.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # On a page, text stays text: small, selectable, in the page's font.
        matplotlib.rcParams.update(_RC | {"svg.fonttype": "path" if text_as_paths else "none"})
        yield


def styles() -> dict[str, tuple[str, str]]:
    """Marker and colour of each operation, in the order of a picture's key."""
    found = {START: ("*", INK), IDENTITY: ("o", "#56b4e9")}
    for effect, color in _COLORS.items():
        kinds = sorted(SURGERIES.values(), key=lambda kind: (kind.needs > 0, kind.operation))
        found |= {kind.operation: (kind.marker, color) for kind in kinds if isinstance(example(kind).effect, effect)}
    return found | _STEPS


def style_of(member: Member) -> tuple[str, str]:
    """Marker and colour of a branch."""
    return styles().get(member.operation, OTHER)


def known(member: Member) -> str:
    """The branch's operation, or "other", since no word of the journal may get into a picture."""
    return member.operation if member.operation in styles() else "other"


def operations(members: Sequence[Member]) -> list[str]:
    """The operations of these branches, in the order of the key."""
    found = {known(member) for member in members}
    return [operation for operation in (*styles(), "other") if operation in found]


def mark(axes: Any, scene: Scene, member: Member, x: float, y: float, *, scale: float = 1.0) -> None:
    """Draw a branch's marker: large if it was kept, with the result's lineage on top."""
    size = (7.0 if member.kept else 4.6) * scale * (1.35 if member.operation == START else 1)
    level = 8 if member.number in scene.lineage else 7 if member.kept else 6
    look = _marker(known(member)) | {"markeredgewidth": 0.7 if member.kept else 0.4}
    axes.plot([x], [y], markersize=size, zorder=level, gid=f"mark-{member.number}", **look)


def name(axes: Any, scene: Scene, member: Member, x: float, y: float, offset: tuple[float, float] = (0, 7)) -> None:
    """Write the branch's number at its marker; at the result's, write that it is the result."""
    words = str(member.number)
    if member.number == scene.history.result:
        words += " result" if scene.history.finish else " best"
    axes.annotate(
        words,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        horizontalalignment="center",
        annotation_clip=True,
        zorder=9,
        # The page's own style sheet does this in the page's colour.
        path_effects=[withStroke(linewidth=2.5, foreground="white")] if scene.standalone else None,
        gid=f"trail-{member.number}",
    )


def add_key(figure: Figure, scene: Scene, members: Sequence[Member]) -> None:
    """Explain the markers under a picture that stands alone."""
    if not scene.standalone:
        return
    entries = [
        Line2D([], [], markersize=7, label=spoken(operation), **_marker(operation)) for operation in operations(members)
    ]
    columns = 3 if figure.get_figwidth() < 1.5 * WIDTH else len(entries)
    figure.legend(
        handles=entries, loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.3, fontsize=SMALL
    )


def spoken(operation: str) -> str:
    """The name of an operation in the key."""
    return _SPOKEN.get(operation, operation.replace("_", " "))


def icon(operation: str) -> Figure:
    """A marker alone, for a key beside words."""
    figure = Figure(figsize=(0.2, 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.plot([0], [0], markersize=9, **_marker(operation))
    return figure


def along_epochs(axes: Any) -> None:
    """Put epochs along the x axis."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")


def _marker(operation: str) -> dict[str, Any]:
    shape, color = styles().get(operation, OTHER)
    return {
        "marker": shape,
        "linestyle": "none",
        "markerfacecolor": color,
        "markeredgecolor": INK,
        "markeredgewidth": 0.7,
    }
