"""The cells of a CSV file's columns: what they hold, found out block by block, and their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxsurgeon.data.columns import EXACT, Piece, Texts, Told, codes, is_exact, values
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

_PROBE = 64  # cells that are tried before all are
# Missing values in a column of numbers. In a column of texts only an empty cell is missing: "NA" may be a country.
_MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
KINDS = (np.dtype(np.int64), np.dtype(np.float64))
_BUNDLE = 1 << 17  # cells of columns that are read together, since each call of Arrow takes its time
_TRUTH = ("true", "false")
_POINT = " (the decimal sign must be a point)"
_DECIMAL_COMMA = r"^[+-]?\d+,\d+$"


class Source(Protocol):
    """The file of a column, for errors."""

    path: Path

    def place(self, row: int) -> str:
        """File, row and line."""

    def cell(self, row: int, name: str) -> str:
        """The text in a cell."""


def bundles(which: Sequence[Any], rows: int) -> Iterator[Sequence[Any]]:
    """Some columns at a time, of so many rows."""
    width = max(1, _BUNDLE // max(1, rows))
    return (which[first : first + width] for first in range(0, len(which), width))


def look(known: list[Column], cells: list[Any], start: int) -> None:
    """Take in some rows of all columns, whose first has the number ``start``."""
    taken: set[int] = set()
    for some in bundles([position for position, column in enumerate(known) if column.kinds], len(cells[0])):
        found = _look_at_numbers([known[position] for position in some], [cells[position] for position in some])
        taken.update(some[each] for each in found)
    for position, column in enumerate(known):
        if position not in taken:
            column.look(cells[position], start)


def _look_at_numbers(columns: Sequence[Column], cells: Sequence[Any]) -> Iterator[int]:
    """Take in some rows of columns together; the positions of those that hold numbers, and need no other look.

    With a point in any cell a column is of no integers, which need not be tried.
    """
    import pyarrow
    import pyarrow.compute as compute

    rows = len(cells[0])
    trimmed, missing, present = trimmed_cells(pyarrow.concat_arrays(cells))
    absent, empty, points = (
        values(which, False).reshape(-1, rows).sum(axis=1)
        for which in (missing, compute.equal(trimmed, ""), compute.match_substring(present, "."))
    )
    for kind in KINDS:
        group = [each for each, column in enumerate(columns) if column.kinds[-1 if points[each] else 0] == kind]
        if not group:
            continue
        numbers = numbers_of(pyarrow.concat_arrays([present.slice(each * rows, rows) for each in group]), kind, rows)
        if numbers is None:  # one of them, or some
            continue
        exact: Array = np.ones(len(group), bool)
        if kind.kind == "i":
            found = values(numbers, 0).reshape(-1, rows)
            exact = (found.min(axis=1) >= -EXACT) & (found.max(axis=1) <= EXACT)
        for place, each in enumerate(group):
            column = columns[each]
            column.kinds = column.kinds[column.kinds.index(kind) :]
            column.count(rows, int(absent[each]), int(empty[each]))
            column.take_numbers(rows - int(absent[each]), is_exact=bool(exact[place]))
            yield each


class Column:
    """What is known of a column's cells, block by block."""

    def __init__(self) -> None:
        self.kinds = list(KINDS)  # the types that fit all cells so far
        self.is_bool = self.is_exact = self.has_all_texts = True
        self.present = self.missing = self.empty = 0
        self.texts = Texts()
        # Counts of cells that look like numbers, and like numbers with a decimal comma; the first of another kind.
        self.counts, self.first = [0, 0], [-1, -1]

    @property
    def is_text(self) -> bool:
        """Whether it is a column of texts, as far as it has been seen."""
        return not self.kinds and not (self.is_bool and self.present)

    def look(self, cells: Any, start: int) -> None:
        """Take in some rows, whose first has the number ``start``."""
        import pyarrow
        import pyarrow.compute as compute

        trimmed, missing, present = trimmed_cells(cells)
        absent = int(values(missing, False).sum())
        self.count(len(cells), absent, int(values(compute.equal(trimmed, ""), False).sum()))
        count = len(cells) - absent
        numbers = None
        while self.kinds and numbers is None:
            numbers = numbers_of(present, self.kinds[0])
            if numbers is None:
                self.kinds.pop(0)
        if numbers is not None:
            self.take_numbers(count, is_exact=not pyarrow.types.is_integer(numbers.type) or is_exact(numbers))
            return
        if self.is_bool:
            lower = compute.utf8_lower(present).drop_null()
            self.is_bool = bool(
                compute.all(compute.is_in(lower, pyarrow.array(_TRUTH, pyarrow.large_string()))).as_py()
            )
        self.texts.add(cells)
        for which, pattern in enumerate((_NUMBER, _DECIMAL_COMMA)):
            matches = values(compute.match_substring_regex(present, pattern), False)
            self.counts[which] += int(matches.sum())
            wrong = matches if which else values(compute.is_valid(present), False) & ~matches
            if self.first[which] < 0 and wrong.any():
                self.first[which] = start + int(np.argmax(wrong))

    def count(self, rows: int, missing: int, empty: int) -> None:
        """Count cells: of how many rows, how many of them missing if they are numbers, how many empty."""
        self.missing += missing
        self.present += rows - missing
        self.empty += empty

    def take_numbers(self, count: int, *, is_exact: bool) -> None:
        """Take note of so many cells that are numbers of the first of ``kinds``."""
        self.is_exact = self.is_exact and is_exact
        self.is_bool = self.is_bool and not count
        self.has_all_texts = False  # they are gathered later if the column turns out to be of texts
        self.counts[0] += count

    def require_texts(self, file: Source, name: str) -> None:
        """Raise DataError where most cells are numbers: the column is of numbers then, and the others are mistakes."""
        for count, row, advice in zip(self.counts, self.first, ("", _POINT), strict=True):
            if 2 * count > self.present:
                found = file.cell(row, name).strip()[:40]
                raise DataError(
                    f"{file.place(row)}, column '{name}': expected a number, found '{found}'{advice}", "missing-value"
                )

    def told(self, file: Source, name: str) -> Told:
        """Return what the column holds.

        Raises:
            DataError: most cells are numbers, and others not; or there are too many texts.
        """
        if self.kinds:
            return Told(self.kinds[0], self.missing, is_exact=self.is_exact or self.kinds[0].kind == "f")
        if not self.is_text:
            return Told(np.dtype(bool), self.missing)
        self.require_texts(file, name)
        return self.texts.told(file.path, name, self.empty)


def trimmed_cells(cells: Any) -> tuple[Any, Any, Any]:
    """Cells without space around them; which are missing in a column of numbers; the cells with null in their place."""
    import pyarrow
    import pyarrow.compute as compute

    trimmed = compute.utf8_trim_whitespace(cells)
    missing = compute.is_in(trimmed, pyarrow.array(_MISSING, pyarrow.large_string()))
    return trimmed, missing, compute.if_else(missing, pyarrow.scalar(None, pyarrow.large_string()), trimmed)


def numbers_of(present: Any, dtype: np.dtype[Any], step: int = 1) -> Any:
    """Cells as an Arrow array of integers or floats; None where one of them is no such number.

    Each ``step``-th is tried first: Arrow goes on to the end after a cell that is no number, and slowly.
    """
    import pyarrow
    import pyarrow.compute as compute

    if compute.any(compute.starts_with(present, "+")).as_py():  # Arrow reads no leading plus
        present = compute.replace_substring_regex(present, r"^\+(\d|\.)", r"\1")
    kind = pyarrow.from_numpy_dtype(dtype)
    try:
        (present.slice(0, _PROBE) if step == 1 else present.take(np.arange(0, len(present), step))).cast(kind)
        return present.cast(kind)
    except pyarrow.ArrowInvalid:
        return None


def other_values(cells: Any, dtype: np.dtype[Any], texts: dict[str, int]) -> Piece:
    """The values of a column of texts or booleans."""
    import pyarrow.compute as compute

    trimmed, missing, present = trimmed_cells(cells)
    if dtype.kind == "U":
        return codes(cells, texts), values(compute.equal(trimmed, ""), False)
    return values(compute.equal(compute.utf8_lower(present), "true"), False), values(missing, False)
