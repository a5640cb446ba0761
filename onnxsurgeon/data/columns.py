"""A table file as typed columns, some rows at a time; CSV and Parquet have this in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

_MOST_TEXTS = 1000
_LONGEST_TEXT = 1000
_NAMES_SHOWN = 20
_LONGEST_NAME = 1000  # characters; a longer text is no name, and would be shown as it is
# Integers up to this size are exact in float64.
EXACT = 2**53
# Gets the names of a file's columns, and whether each is of texts where that is known; raises the reason for which the
# file is not to be read.
Expect = Callable[[Sequence[str], Sequence[bool] | None], None]
# Values of a column for some rows, with texts as indices into the column's ``texts``, and where they are missing.
Piece = tuple[Array, Array]


@dataclass(frozen=True)
class Told:
    """What a column holds, known before its values are kept.

    Attributes:
        dtype: bool, int64, float32, float64, or texts (U) as long as the longest.
        missing: number of missing values; a value of the type stands in their place.
        texts: all different texts, ascending; the empty text stands for a missing one.
        is_exact: whether float64 holds the integers exactly.
    """

    dtype: np.dtype[Any]
    missing: int = 0
    texts: tuple[str, ...] = ()
    is_exact: bool = True

    @property
    def is_text(self) -> bool:
        """Whether it is a column of texts."""
        return self.dtype.kind == "U"


class TableFile(ABC):
    """A file of columns, read twice: once to learn what they hold, and again into arrays that have room for it.

    Attributes:
        path: the file.
        rows: number of rows.
        columns: by name, in the file's order.
    """

    path: Path
    rows: int
    columns: dict[str, Told]

    @abstractmethod
    def pieces(self, names: Collection[str]) -> Iterator[dict[str, Piece]]:
        """The values of these columns, some rows at a time, in order.

        Raises:
            DataError: the file cannot be read.
        """

    def line(self, row: int) -> int | None:
        """Line of the file on which a row, counted from 0, begins; None where the file has no lines."""
        return None

    def place(self, row: int) -> str:
        """File and row, for an error; rows are counted from 1, as a reader of the table counts them."""
        line = self.line(row)
        return f"{self.path}: row {row + 1}" + ("" if line is None else f" (line {line})")


class Texts:
    """The different texts of a column, gathered piece by piece."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether there are more texts than one-hot columns make sense for."""
        return len(self.found) > _MOST_TEXTS

    def add(self, cells: Any) -> None:
        """Gather the texts of an Arrow array of texts, or of a dictionary array."""
        if not self.is_full:
            self.found.update(text or "" for text in _encoded(cells).dictionary.to_pylist())
            if cells.null_count:
                self.found.add("")

    def told(self, path: Path, name: str, missing: int) -> Told:
        """Return what the column holds.

        Raises:
            DataError: there are more different texts than one-hot columns make sense for, or one is very long.
        """
        if self.is_full:
            raise DataError(
                f"{path}: column '{name}' holds {len(self.found)} different texts; leave it out or encode it",
                "text-column",
            )
        longest = max((len(text) for text in self.found), default=0)
        if longest > _LONGEST_TEXT:
            raise DataError(
                f"{path}: column '{name}' holds a text of {longest} characters; leave it out or encode it",
                "text-column",
            )
        return Told(np.dtype(f"<U{max(1, longest)}"), missing, tuple(sorted(self.found)))


def _encoded(cells: Any) -> Any:
    import pyarrow

    return cells if pyarrow.types.is_dictionary(cells.type) else cells.dictionary_encode()


def codes(cells: Any, texts: dict[str, int]) -> Array:
    """An Arrow array of texts, or a dictionary array, as positions in ``texts``; null is at the position of ""."""
    encoded = _encoded(cells)
    table = np.array([texts[text or ""] for text in encoded.dictionary.to_pylist()] or [0], np.int64)
    positions: Array = table[values(encoded.indices, 0)]
    if encoded.null_count:
        positions[values(encoded.is_null(), False)] = texts[""]
    return positions


def is_exact(cells: Any) -> bool:
    """Whether float64 holds an Arrow array's integers as they are."""
    import pyarrow.compute as compute

    ends = compute.min_max(cells).as_py()
    return ends["min"] is None or (ends["min"] >= -EXACT and ends["max"] <= EXACT)


def require_names(path: Path, names: list[str]) -> None:
    """Raise DataError unless every column has a name of its own."""
    if not names:
        raise DataError(f"{path}: has no columns", "no-rows")
    found: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name:
            raise DataError(
                f"{path}: column {position} has no name (of pandas' index? write with index=False)", "table-form"
            )
        if len(name) > _LONGEST_NAME:
            raise DataError(f"{path}: column {position} has a name of {len(name):,} characters", "table-form")
        if name in found:
            raise DataError(f"{path}: column '{name}' is there twice, as {found[name]} and {position}", "table-form")
        found[name] = position


def named(names: list[str] | dict[str, Any]) -> str:
    """Columns' names for an error, at most as many as one can read."""
    shown = [f"'{name}'" for name in names]
    more = len(shown) - _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def values(cells: Any, fill: Any) -> Array:
    """An Arrow array as a numpy array, ``fill`` where it is null."""
    array: Array = cells.fill_null(fill).to_numpy(zero_copy_only=False)
    return array


@contextmanager
def arrow(path: Path, what: str) -> Iterator[Any]:
    """Import the package pyarrow; its errors become a DataError.

    Raises:
        DataError: pyarrow is not installed, or cannot read the file.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(f"{path}: reading {what} files needs pip install 'onnxsurgeon[data]'", "no-package") from error
    try:
        yield pyarrow
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: not a readable {what} file: {reason}", "unreadable-data") from error
    finally:
        pyarrow.default_memory_pool().release_unused()  # it keeps what it may need again, which is much here
