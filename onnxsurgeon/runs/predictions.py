"""What the result predicts on the test split, as the journal's last event tells it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.runs.checked import entries, integer, table, texts
from onnxsurgeon.runs.journal import Event


@dataclass(frozen=True)
class Classes:
    """How often a class was taken for another.

    Attributes:
        count: number of classes.
        names: of the classes; () where they are numbers from 0 on.
        cells: (true class, predicted class, rows); where there are very many classes, only the most frequent mistakes.
    """

    count: int
    names: tuple[str, ...]
    cells: tuple[tuple[int, int, int], ...]

    def name(self, number: int) -> str:
        """What a class is called."""
        return self.names[number] if number < len(self.names) else str(number)

    @property
    def mistakes(self) -> list[tuple[int, int, int]]:
        """Cells off the diagonal, the most frequent first."""
        return sorted((cell for cell in self.cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell))


@dataclass(frozen=True)
class Labels:
    """For each of several labels: rows (rightly told to have it, wrongly, wrongly told to lack it, rightly)."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Values:
    """For each target of a regression: (true, predicted) of some rows."""

    targets: tuple[tuple[tuple[float, ...], ...], ...]


Predictions = Classes | Labels | Values


def read_predictions(event: Event) -> tuple[Predictions, ...]:
    """Of each head; () where the run is from before they were written.

    Raises:
        KeyError, TypeError, ValueError: they are damaged.
    """
    return tuple(_read(each) for each in entries(event, "predictions") if each) if "predictions" in event else ()


def _read(record: Event) -> Predictions:
    kind = record["kind"]
    if kind == "classes":
        count = integer(record, "classes")
        cells = tuple((int(true), int(told), int(rows)) for true, told, rows in table(record, "cells", 3))
        if not all(0 <= true < count and 0 <= told < count and rows > 0 for true, told, rows in cells):
            raise ValueError("a class that there is not")
        return Classes(count, texts(record, "names"), cells)
    if kind == "labels":
        counts = tuple(tuple(map(int, row)) for row in table(record, "counts", 4))
        return Labels(texts(record, "names"), counts)
    if kind == "values":
        columns = record["targets"]
        return Values(tuple(tuple(table({"rows": column}, "rows", 2)) for column in columns))
    raise ValueError(f"unknown kind of predictions: {kind}")
