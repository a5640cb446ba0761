"""A table file as typed columns: what CSV and Parquet have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one file.

    Attributes:
        path: the file.
        columns: by name, in the file's order, each (rows,) of bool, int64, float32, float64 or texts (U); where a value
            is missing, something of the type stands in its place.
        missing: for every column, where its values are missing, (rows,) bool.
        line: line of the file on which a row, counted from 0, begins; None where the file has no lines.
    """

    path: Path
    columns: dict[str, Array]
    missing: dict[str, Array]
    line: Callable[[int], int] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def place(self, row: int) -> str:
        """File and row, for an error; rows are counted from 1, as a reader of the table counts them."""
        return place(self.path, row, self.line)


def place(path: Path, row: int, line: Callable[[int], int] | None) -> str:
    """File, row counted from 1 and line, for an error."""
    return f"{path}: row {row + 1}" + ("" if line is None else f" (line {line(row)})")


def require_names(path: Path, names: list[str]) -> None:
    """Raise DataError unless every column has a name of its own."""
    if not names:
        raise DataError(f"{path}: has no columns")
    for position, name in enumerate(names):
        if not name:
            raise DataError(f"{path}: column {position + 1} has no name (of pandas' index? write with index=False)")
        if name in names[:position]:
            raise DataError(f"{path}: column '{name}' is there twice, as {names.index(name) + 1} and {position + 1}")


def named(names: list[str] | dict[str, Any]) -> str:
    """Columns' names for an error, not more than can be read."""
    shown = [f"'{name}'" for name in names]
    more = len(shown) - _NAMES_SHOWN
    return ", ".join(shown[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def values(cells: Any, fill: Any) -> Array:
    """An Arrow array as a numpy array, ``fill`` where it is null."""
    array: Array = cells.fill_null(fill).to_numpy(zero_copy_only=False)
    return array


def texts(path: Path, name: str, cells: Any) -> tuple[Array, Array]:
    """An Arrow array of texts as (rows,) texts and where they are missing; an empty one is a missing one.

    Raises:
        DataError: there are more different texts than one-hot columns make sense of, or one is very long.
    """
    encoded = cells.fill_null("").dictionary_encode()
    choices = encoded.dictionary.to_pylist()
    if len(choices) > _MOST_TEXTS:
        raise DataError(f"{path}: column '{name}' holds {len(choices)} different texts; leave it out or encode it")
    longest = max((len(text) for text in choices), default=0)
    if longest > _LONGEST_TEXT:
        raise DataError(f"{path}: column '{name}' holds a text of {longest} characters; leave it out or encode it")
    column = np.array(choices, dtype=np.str_)[values(encoded.indices, 0)]
    return column, column == ""


@contextmanager
def arrow(path: Path, what: str) -> Iterator[Any]:
    """The package pyarrow; what it raises becomes a DataError.

    Raises:
        DataError: pyarrow is not installed, or cannot read the file.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(f"{path}: reading {what} files needs pip install 'onnxsurgeon[data]'") from error
    try:
        yield pyarrow
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path}: not a readable {what} file: {reason}") from error
