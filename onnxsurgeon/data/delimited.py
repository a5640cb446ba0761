"""CSV files as typed columns, some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.data.cells import KINDS, Column, bundles, look, numbers_of, other_values, trimmed_cells
from onnxsurgeon.data.columns import (
    Expect,
    Piece,
    TableFile,
    arrow,
    require_names,
    values,
)
from onnxsurgeon.data.records import LONGEST, records
from onnxsurgeon.errors import DataError

_DELIMITERS = ",;\t"
# A row must fit into a block; for small files, small blocks take less memory.
_BLOCK_BYTES = (1 << 20, LONGEST)
# Each column of a block takes some calls, however few rows it has: blocks grow with the columns from this number on,
# so that they hold a hundred rows or so, up to a size.
_FEW_COLUMNS, _LARGEST_BLOCK = 1 << 10, 1 << 25


class CsvFile(TableFile):
    """A table of text in UTF-8: a line of names, then rows; separated by commas, semicolons or tabs.

    A column is of integers, floats or booleans (true, false) if all its cells are, and else of texts.
    """

    def __init__(self, path: Path, expect: Expect) -> None:
        """Read the file once to learn what its columns hold; ``expect`` gets their names before.

        Raises:
            DataError: the file cannot be read, with the line; a row has more or fewer cells than there are names; or a
                column of numbers holds a text.
        """
        self.path = path
        self._names, self._delimiter = _header(path)
        expect(self._names, None)
        with arrow(path, "CSV") as pyarrow:
            sizes = _block_sizes(len(self._names))
            for self._block in sizes:
                try:
                    known = self._known()
                    break
                except pyarrow.ArrowInvalid as error:
                    if self._block == sizes[-1] or "block" not in str(error):
                        _explain(path, self._delimiter, len(self._names))
                        raise
            self.columns = {name: column.told(self, name) for name, column in zip(self._names, known, strict=True)}

    def _known(self) -> list[Column]:
        """What each column holds, known once all rows have been seen."""
        known = [Column() for _ in self._names]
        self.rows = 0
        for cells in self._blocks(range(len(known))):
            look(known, cells, self.rows)
            self.rows += len(cells[0])
        if not self.rows:
            raise DataError(f"{self.path}: has no rows below its names", "no-rows")
        again = [position for position, column in enumerate(known) if column.is_text and not column.has_all_texts]
        for position in again:
            known[position].require_texts(self, self._names[position])
        for cells in self._blocks(again) if again else ():
            for position, block in zip(again, cells, strict=True):
                known[position].texts.add(block)
        return known

    def pieces(self, names: Collection[str]) -> Iterator[dict[str, Piece]]:
        """The values of these columns, some rows at a time."""
        wanted = [position for position, name in enumerate(self._names) if name in names]
        texts = {name: {text: i for i, text in enumerate(told.texts)} for name, told in self.columns.items()}
        with arrow(self.path, "CSV"):
            for cells in self._blocks(wanted):
                blocks = {self._names[position]: block for position, block in zip(wanted, cells, strict=True)}
                found: dict[str, Piece] = {}
                for kind in KINDS:
                    of_kind = [name for name in blocks if self.columns[name].dtype == kind]
                    for some in bundles(of_kind, len(cells[0]) if cells else 0):
                        found |= zip(some, self._numbers([blocks[name] for name in some], kind), strict=True)
                yield {
                    name: found[name] if name in found else other_values(block, self.columns[name].dtype, texts[name])
                    for name, block in blocks.items()
                }

    def _numbers(self, blocks: Sequence[Any], kind: np.dtype[Any]) -> Iterator[Piece]:
        """The values of some columns of one kind, column by column."""
        import pyarrow

        rows = len(blocks[0])
        _, missing, present = trimmed_cells(pyarrow.concat_arrays(blocks))
        numbers = numbers_of(present, kind)
        if numbers is None:
            raise DataError(f"{self.path}: was changed while it was read", "changed-while-read")
        return zip(
            values(numbers, kind.type(0)).reshape(-1, rows), values(missing, False).reshape(-1, rows), strict=True
        )

    def line(self, row: int) -> int:
        """The line on which a row begins, which is not its number where quoted cells hold line ends."""
        found = enumerate(records(self.path, self._delimiter))
        return next(line for number, (line, _) in found if number == row + 1)

    def cell(self, row: int, name: str) -> str:
        """The text in a cell."""
        found = enumerate(records(self.path, self._delimiter))
        return next(record for number, (_, record) in found if number == row + 1)[self._names.index(name)]

    def _blocks(self, wanted: Sequence[int]) -> Iterator[list[Any]]:
        """The cells of some columns as Arrow arrays of texts, some rows at a time."""
        import pyarrow
        from pyarrow import csv as reader

        names = [str(position) for position in range(len(self._names))]
        taken = [names[position] for position in wanted]
        with reader.open_csv(
            self.path,
            # One thread: more would read ahead, which costs more memory than it saves time.
            reader.ReadOptions(use_threads=False, block_size=self._block, column_names=names),
            reader.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            reader.ConvertOptions(
                column_types=dict.fromkeys(taken, pyarrow.large_string()),
                strings_can_be_null=False,
                # Not asked for here, and Arrow would make tables of them for each column, of ten kilobytes.
                null_values=[],
                true_values=[],
                false_values=[],
                include_columns=taken,
            ),
        ) as batches:
            skip = 1  # the line of names
            for batch in batches:
                if batch.num_rows > skip:
                    yield [batch.column(name).slice(skip) for name in taken]
                skip = max(0, skip - batch.num_rows)


def _block_sizes(columns: int) -> tuple[int, ...]:
    """Bytes of a block, and of one that is tried where a row does not fit into it."""
    small, large = _BLOCK_BYTES
    first = min(small * max(1, columns // _FEW_COLUMNS), _LARGEST_BLOCK)
    return (first, large) if first < large else (first,)


def _header(path: Path) -> tuple[list[str], str]:
    """Names of the columns and the delimiter, which is the one that splits the first line into the most names."""
    headers = {delimiter: next((record for _, record in records(path, delimiter)), []) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda delimiter: len(headers[delimiter]))
    names = [name.strip() for name in headers[delimiter]]
    if not names:
        raise DataError(f"{path}: the file is empty", "no-rows")
    if all(_is_number(name) for name in names):
        raise DataError(f"{path}: line 1 holds numbers only; expected the columns' names", "table-form")
    require_names(path, names)
    return names, delimiter


def _explain(path: Path, delimiter: str, count: int) -> None:
    """Raise DataError with the line that Arrow cannot parse, if it can be found."""
    for row, (line, record) in enumerate(records(path, delimiter)):
        if len(record) != count:
            raise DataError(
                f"{path}: row {row} (line {line}): expected {count} cells, found {len(record)}", "table-form"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
