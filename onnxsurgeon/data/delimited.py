"""CSV files as typed columns."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.data.columns import Table, arrow, place, require_names, texts, values
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

_PROBE = 64
_DELIMITERS = ",;\t"
_BLOCK_BYTES = 1 << 24  # a row must fit into one
# In a column of numbers; in a column of texts only an empty cell is missing: "NA" may be a country.
_MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DECIMAL_COMMA = r"^[+-]?\d+,\d+$"


def read_csv(path: Path) -> Table:
    """Read a table of text in UTF-8: a line of names, then rows; separated by commas, semicolons or tabs.

    A column is of integers, floats or booleans (true, false) where all of its cells are, else of texts.

    Raises:
        DataError: what cannot be read, with the line; a row with more or fewer cells than there are names; a column of
            numbers with a text among them.
    """
    names, delimiter = _header(path)
    line = functools.partial(_line, path, delimiter)
    with arrow(path, "CSV") as pyarrow:
        cells = _cells(pyarrow, path, delimiter, len(names))
        if cells.num_rows < 2:
            raise DataError(f"{path}: has no rows below its names")
        columns, missing = {}, {}
        for position, name in enumerate(names):
            column = cells.column(f"{position}").slice(1).combine_chunks()
            columns[name], missing[name] = _typed(path, name, column, line)
            cells = cells.drop_columns([f"{position}"])  # one copy of the table in memory, not two
    return Table(path, columns, missing, line)


def _header(path: Path) -> tuple[list[str], str]:
    """Names of the columns and the delimiter: the one that makes most of the first line."""
    headers = {delimiter: next((record for _, record in _records(path, delimiter)), []) for delimiter in _DELIMITERS}
    delimiter = max(headers, key=lambda delimiter: len(headers[delimiter]))
    names = [name.strip() for name in headers[delimiter]]
    if not names:
        raise DataError(f"{path}: the file is empty")
    if all(_is_number(name) for name in names):
        raise DataError(f"{path}: line 1 holds numbers only; expected the columns' names")
    require_names(path, names)
    return names, delimiter


def _cells(pyarrow: Any, path: Path, delimiter: str, count: int) -> Any:
    """All cells as texts, the names among them as the first row; columns are called "0", "1" and so on."""
    from pyarrow import csv as reader

    names = [str(position) for position in range(count)]
    try:
        return reader.read_csv(
            path,
            reader.ReadOptions(block_size=_BLOCK_BYTES, column_names=names),
            reader.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            reader.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.large_string()), strings_can_be_null=False),
        )
    except pyarrow.ArrowInvalid:
        _explain(path, delimiter, count)
        raise


def _typed(path: Path, name: str, cells: Any, line: Any) -> tuple[Array, Array]:
    import pyarrow
    import pyarrow.compute as compute

    trimmed = compute.utf8_trim_whitespace(cells)
    missing = compute.is_in(trimmed, pyarrow.array(_MISSING, pyarrow.large_string()))
    present = compute.if_else(missing, pyarrow.scalar(None, pyarrow.large_string()), trimmed)
    unsigned = present
    if compute.any(compute.starts_with(present, "+")).as_py():  # Arrow reads no leading plus
        unsigned = compute.replace_substring_regex(present, r"^\+(\d|\.)", r"\1")
    for kind, zero in ((pyarrow.int64(), 0), (pyarrow.float64(), 0.0)):
        try:
            unsigned.slice(0, _PROBE).cast(kind)  # Arrow goes on to the end after a cell that is none, and slowly
            return np.array(values(unsigned.cast(kind), zero)), values(missing, False)
        except pyarrow.ArrowInvalid:
            continue
    lower = compute.utf8_lower(present)
    if compute.all(compute.is_in(lower.drop_null(), pyarrow.array(("true", "false"), pyarrow.large_string()))).as_py():
        return np.array(values(compute.equal(lower, "true"), False)), values(missing, False)
    _require_texts(path, name, present, line)
    column, _ = texts(path, name, cells)
    return column, values(compute.equal(trimmed, ""), False)


def _require_texts(path: Path, name: str, cells: Any, line: Any) -> None:
    """Raise DataError where most cells are numbers: the column then is of numbers, and the other cells are mistakes."""
    import pyarrow.compute as compute

    for pattern, advice in ((_NUMBER, ""), (_DECIMAL_COMMA, " (the decimal sign must be a point)")):
        numbers = values(compute.match_substring_regex(cells, pattern), False)
        present = values(compute.is_valid(cells), False)
        if 2 * numbers.sum() > present.sum():
            wrong = present & (numbers if advice else ~numbers)
            row = int(np.argmax(wrong))
            found = cells[row].as_py()
            raise DataError(
                f"{place(path, row, line)}, column '{name}': expected a number, found '{found[:40]}'{advice}"
            )


def _explain(path: Path, delimiter: str, count: int) -> None:
    """Raise DataError with the line of what Arrow cannot parse, if it can be found."""
    for row, (line, record) in enumerate(_records(path, delimiter)):
        if len(record) != count:
            raise DataError(f"{path}: row {row} (line {line}): expected {count} cells, found {len(record)}")


def _line(path: Path, delimiter: str, row: int) -> int:
    """The line on which row ``row``, counted from 0 below the names, begins: quoted cells may hold line ends."""
    return next(line for number, (line, _) in enumerate(_records(path, delimiter)) if number == row + 1)


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not empty, each with the line it begins on."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            before = 0
            for record in reader:
                if record:
                    yield before + 1, record
                before = reader.line_num
    except UnicodeDecodeError as error:
        _explain_encoding(path)
        raise DataError(f"{path}: not UTF-8 text") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from error


def _explain_encoding(path: Path) -> None:
    """Raise DataError with the first line that cannot be decoded."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise DataError(
                    f"{path}: line {number} is not UTF-8 text (byte 0x{byte:02x}); save the table as UTF-8"
                ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
