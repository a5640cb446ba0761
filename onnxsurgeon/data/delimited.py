"""CSV files as typed columns, some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.data.columns import (
    Expect,
    Piece,
    TableFile,
    Texts,
    Told,
    arrow,
    codes,
    is_exact,
    require_names,
    values,
)
from onnxsurgeon.data.records import LONGEST, records
from onnxsurgeon.errors import DataError

_PROBE = 64
_DELIMITERS = ",;\t"
# A row must fit into a block; for small files, small blocks take less memory.
_BLOCK_BYTES = (1 << 20, LONGEST)
# Missing values in a column of numbers. In a column of texts only an empty cell is missing: "NA" may be a country.
_MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_TRUTH = ("true", "false")
_POINT = " (the decimal sign must be a point)"
_DECIMAL_COMMA = r"^[+-]?\d+,\d+$"


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
            for self._block in _BLOCK_BYTES:
                try:
                    known = self._known()
                    break
                except pyarrow.ArrowInvalid as error:
                    if self._block == _BLOCK_BYTES[-1] or "block" not in str(error):
                        _explain(path, self._delimiter, len(self._names))
                        raise
            self.columns = {name: column.told(self, name) for name, column in zip(self._names, known, strict=True)}

    def _known(self) -> list[_Column]:
        """What each column holds, known once all rows have been seen."""
        known = [_Column() for _ in self._names]
        self.rows = 0
        for cells in self._blocks(range(len(known))):
            for position, column in enumerate(known):
                column.look(cells[position], self.rows)
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
                found = {}
                for position, block in zip(wanted, cells, strict=True):
                    name = self._names[position]
                    told = self.columns[name]
                    found[name] = _values(block, told.dtype, texts[name])
                yield found

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
                include_columns=taken,
            ),
        ) as batches:
            skip = 1  # the line of names
            for batch in batches:
                if batch.num_rows > skip:
                    yield [batch.column(name).slice(skip) for name in taken]
                skip = max(0, skip - batch.num_rows)


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


class _Column:
    """What is known of a column's cells, block by block."""

    def __init__(self) -> None:
        self.kinds = [np.dtype(np.int64), np.dtype(np.float64)]  # the types that fit all cells so far
        self.is_bool = self.is_exact = self.has_all_texts = True
        self.present = self.missing = self.empty = 0
        self.texts = Texts()
        # Counts of cells that look like numbers, and like numbers with a decimal comma; the first of another kind.
        self.counts, self.first = [0, 0], [-1, -1]

    @property
    def is_text(self) -> bool:
        return not self.kinds and not (self.is_bool and self.present)

    def look(self, cells: Any, start: int) -> None:
        """Take in some rows, whose first has the number ``start``."""
        import pyarrow
        import pyarrow.compute as compute

        trimmed, missing, present = _trimmed(cells)
        absent = int(values(missing, False).sum())
        self.missing += absent
        count = len(cells) - absent
        self.present += count
        self.empty += int(values(compute.equal(trimmed, ""), False).sum())
        numbers = None
        while self.kinds and numbers is None:
            numbers = _numbers(present, self.kinds[0])
            if numbers is None:
                self.kinds.pop(0)
        if numbers is not None:
            if pyarrow.types.is_integer(numbers.type):
                self.is_exact = self.is_exact and is_exact(numbers)
            self.is_bool = self.is_bool and not count
            self.has_all_texts = False  # they are gathered later if the column turns out to be of texts
            self.counts[0] += count
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

    def require_texts(self, file: CsvFile, name: str) -> None:
        """Raise DataError where most cells are numbers: the column is of numbers then, and the others are mistakes."""
        for count, row, advice in zip(self.counts, self.first, ("", _POINT), strict=True):
            if 2 * count > self.present:
                found = file.cell(row, name).strip()[:40]
                raise DataError(
                    f"{file.place(row)}, column '{name}': expected a number, found '{found}'{advice}", "missing-value"
                )

    def told(self, file: CsvFile, name: str) -> Told:
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


def _trimmed(cells: Any) -> tuple[Any, Any, Any]:
    """Cells without space around them; which are missing in a column of numbers; the cells with null in their place."""
    import pyarrow
    import pyarrow.compute as compute

    trimmed = compute.utf8_trim_whitespace(cells)
    missing = compute.is_in(trimmed, pyarrow.array(_MISSING, pyarrow.large_string()))
    return trimmed, missing, compute.if_else(missing, pyarrow.scalar(None, pyarrow.large_string()), trimmed)


def _numbers(present: Any, dtype: np.dtype[Any]) -> Any:
    """Cells as an Arrow array of integers or floats; None where one of them is no such number."""
    import pyarrow
    import pyarrow.compute as compute

    if compute.any(compute.starts_with(present, "+")).as_py():  # Arrow reads no leading plus
        present = compute.replace_substring_regex(present, r"^\+(\d|\.)", r"\1")
    kind = pyarrow.from_numpy_dtype(dtype)
    try:
        present.slice(0, _PROBE).cast(kind)  # Arrow goes on to the end after a cell that is no number, and slowly
        return present.cast(kind)
    except pyarrow.ArrowInvalid:
        return None


def _values(cells: Any, dtype: np.dtype[Any], texts: dict[str, int]) -> Piece:
    import pyarrow.compute as compute

    trimmed, missing, present = _trimmed(cells)
    if dtype.kind == "U":
        return codes(cells, texts), values(compute.equal(trimmed, ""), False)
    if dtype.kind == "b":
        return values(compute.equal(compute.utf8_lower(present), "true"), False), values(missing, False)
    return values(_numbers(present, dtype), dtype.type(0)), values(missing, False)


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
