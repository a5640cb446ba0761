"""The result's predictions on the test split, as the journal's last event tells them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from onnxsurgeon.task import Predicted

T = TypeVar("T")


@dataclass(frozen=True)
class Classes:
    """How often each class was taken for another.

    Attributes:
        count: number of classes.
        names: names of the classes; () where they are numbers from 0 on.
        cells: (true class, predicted class, rows); where there are very many classes, only the most frequent mistakes.
    """

    count: int
    names: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]

    def name(self, number: int) -> str:
        """The name of a class."""
        return self.names[number] if number < len(self.names) else str(number)

    @property
    def mistakes(self) -> list[tuple[int, int, int]]:
        """Cells off the diagonal, the most frequent first."""
        return sorted((cell for cell in self.cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell))


@dataclass(frozen=True)
class Labels:
    """Counts for each of several labels: rows of (true positives, false positives, false negatives, true negatives)."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Values:
    """Some pairs of (true, predicted) for each target of a regression."""

    targets: tuple[tuple[tuple[float, ...], ...], ...]


Predictions = Classes | Labels | Values


def read_predictions(heads: Iterable[Predicted]) -> tuple[Predictions, ...]:
    """Read the predictions of each head.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    return tuple(map(_read, heads))


def _read(head: Predicted) -> Predictions:
    if head["kind"] == "classes":
        count = head["classes"]
        cells = tuple((true, told, rows) for true, told, rows in _of_width(head["cells"], 3))
        if not all(true < count and told < count and rows > 0 for true, told, rows in cells):
            raise ValueError("a class that there is not")
        return Classes(count, tuple(head["names"]), cells)
    if head["kind"] == "labels":
        return Labels(tuple(head["names"]), tuple(_of_width(head["counts"], 4)))
    return Values(tuple(tuple(_of_width(column, 2)) for column in head["targets"]))


def _of_width(rows: Iterable[list[T]], width: int) -> list[tuple[T, ...]]:
    found = [tuple(row) for row in rows]
    if any(len(row) != width for row in found):
        raise ValueError(f"expected rows of {width} numbers")
    return found
