"""A table's rows as the one matrix that a model takes, so that memory holds them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxsurgeon.data.columns import Told, named
from onnxsurgeon.data.dataset import Split, chunks
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

_PIECE_BYTES = 1 << 20  # of a column, or of the labels, that are copied at a time


def part_names(columns: dict[str, Told]) -> list[str]:
    """The names of a matrix's columns: a column of texts has one for each of its texts, "NAME=TEXT"."""
    return [
        part
        for name, told in columns.items()
        for part in ([f"{name}={text}" for text in told.texts] if told.is_text else [name])
    ]


@dataclass(frozen=True, eq=False)
class Sheet:
    """All rows of a table as a matrix.

    A column of texts has one column for each text: 1 where the row has that text, else 0.

    Attributes:
        columns: what they hold, in order; texts without the empty one.
        values: (rows, n) float32 where no column needs more, else float64.
    """

    columns: dict[str, Told]
    values: Array

    @classmethod
    def of(cls, columns: dict[str, Told], rows: int) -> Sheet:
        """Make a sheet of that many rows of zeros."""
        return cls(columns, np.zeros((rows, len(part_names(columns))), matrix_type(columns)))

    @cached_property
    def places(self) -> dict[str, slice]:
        """The columns of ``values`` that belong to each column of the table."""
        found, first = {}, 0
        for name, told in self.columns.items():
            width = len(told.texts) if told.is_text else 1
            found[name] = slice(first, first + width)
            first += width
        return found

    def fill(self, name: str, start: int, piece: Array) -> None:
        """Set the values of a column for the rows from ``start`` on; texts are given as positions, −1 for none."""
        place = self.places[name]
        if not self.columns[name].is_text:
            self.values[start : start + len(piece), place.start] = piece
            return
        present = np.flatnonzero(piece >= 0)
        self.values[start + present, place.start + piece[present]] = 1

    def column(self, name: str, rows: Array) -> Array:
        """Copy the values of a column, in the form that the table has them, for some rows."""
        told, place = self.columns[name], self.places[name]
        if told.is_text:
            texts: Array = np.array(told.texts, told.dtype)[self.values[rows, place].argmax(axis=1)]
            return texts
        return np.asarray(self.values[rows, place.start].astype(told.dtype, copy=False))


def matrix_type(columns: dict[str, Told]) -> np.dtype[Any]:
    """The type of the matrix: float32 where no numbers need more."""
    narrow = all(told.is_text or told.dtype == np.float32 for told in columns.values())
    return np.dtype(np.float32 if narrow else np.float64)


def narrow_labels(labels: Array) -> Array:
    """Classes in a byte each, or as many as they need; other labels as they are.

    In 64 bits, labels of a table of five columns would be a fifth of its size, and there is more than one split.
    """
    if labels.ndim != 1 or labels.dtype != np.int64 or not len(labels):
        return labels
    kind = np.promote_types(np.min_scalar_type(labels.min()), np.min_scalar_type(labels.max()))
    return labels.astype(kind) if kind.kind in "iu" else labels


def wide_labels(labels: Array) -> Array:
    """The same labels in 64 bits, as ``Split`` has them."""
    return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else labels


class SheetRows(Split):
    """Some rows of a sheet. Only ``inputs`` and ``stored`` copy them, and ``labels`` the narrower ones it holds."""

    sheet: Sheet
    numbers: Array
    _labels: Array

    def __init__(self, sheet: Sheet, numbers: Array, labels: Array) -> None:
        """Row i is row ``numbers[i]`` of the sheet, with ``labels[i]``."""
        for name, value in (("sheet", sheet), ("numbers", numbers), ("_labels", narrow_labels(labels))):
            object.__setattr__(self, name, value)

    @property
    def labels(self) -> Array:
        """The labels, copied."""
        return wide_labels(self._labels)

    @property
    def label_block(self) -> tuple[str, tuple[int, ...], np.dtype[Any], Iterator[Array]]:
        """The labels in chunks."""
        held = self._labels
        pieces = (wide_labels(held[start:stop]) for start, stop in chunks(held, size=_PIECE_BYTES))
        return "", held.shape, wide_labels(held[:0]).dtype, pieces

    @property
    def strata(self) -> Array:
        """The labels as they are held."""
        return self._labels

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.numbers)

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """The columns, copied."""
        return {name: self.sheet.column(name, self.numbers) for name in self.sheet.columns}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.sheet.columns)

    @property
    def table(self) -> tuple[Rows, list[str]]:
        """The rows as a matrix, where they lie, and the names of its columns."""
        return Rows(self.sheet.values, self.sheet.values.dtype, self.numbers), part_names(self.sheet.columns)

    def take(self, rows: Array) -> Split:
        """The given rows, where they lie."""
        return SheetRows(self.sheet, self.numbers[rows], self.strata[rows])

    def with_labels(self, labels: Array) -> Split:
        """The same inputs with other labels."""
        return SheetRows(self.sheet, self.numbers, labels)

    def joined(self, others: Sequence[Split]) -> Split:
        """The rows of all: where they lie, where that is one sheet; else copied."""
        same = [each for each in others if isinstance(each, SheetRows) and each.sheet is self.sheet]
        if len(same) < len(others):
            return super().joined(others)
        labels = np.concatenate([self.strata, *(each.strata for each in same)])
        return SheetRows(self.sheet, np.concatenate([self.numbers, *(each.numbers for each in same)]), labels)

    def blocks(self) -> Iterator[tuple[str, tuple[int, ...], np.dtype[Any], Iterator[Array]]]:
        """The columns in chunks of rows."""
        for name, told in self.sheet.columns.items():
            yield name, (self.rows,), told.dtype, self._pieces(name)

    def _pieces(self, name: str) -> Iterator[Array]:
        # By what one column takes: by all of them, few rows were read at a time, column after column.
        for start, stop in chunks(self.sheet.values[:, self.sheet.places[name]], self.rows, _PIECE_BYTES):
            yield self.sheet.column(name, self.numbers[start:stop])


def matrix(columns: dict[str, Array], categories: dict[str, tuple[str, ...]]) -> tuple[Array, list[str]]:
    """Columns (rows,) as one matrix (rows, n) and the name of each of its columns.

    A column of numbers stays as it is. A column of texts becomes one column for each of its ``categories``, in their
    order, "NAME=TEXT": 1 where the row has that text, else 0. The matrix is float32 where no numbers need more, else
    float64.

    Raises:
        DataError: a text is none of its column's categories, or a column has another shape than (rows,).
    """
    for name, column in columns.items():
        if column.ndim != 1:
            raise DataError(f"'{name}' has shape {column.shape}; expected a column, one value a row", "not-numbers")
    names = [
        part
        for name, column in columns.items()
        for part in ([f"{name}={text}" for text in categories[name]] if column.dtype.kind == "U" else [name])
    ]
    narrow = all(column.dtype.kind == "U" or column.dtype == np.float32 for column in columns.values())
    rows = len(next(iter(columns.values())))
    values = np.zeros((rows, len(names)), np.float32 if narrow else np.float64)
    first = 0
    for name, column in columns.items():
        if column.dtype.kind != "U":
            values[:, first] = column
            first += 1
            continue
        values[np.arange(rows), first + _positions(name, column, categories[name])] = 1
        first += len(categories[name])
    return values, names


def _positions(name: str, column: Array, texts: Sequence[str]) -> Array:
    known = np.array(texts, np.str_)
    positions = np.minimum(np.searchsorted(known, column), len(known) - 1)
    unknown = np.flatnonzero(known[positions] != column)
    if len(unknown):
        raise DataError(
            f"column '{name}' holds '{column[unknown[0]]}' in row {unknown[0] + 1}; known are {named(list(texts))}",
            "text-column",
        )
    return np.asarray(positions)
