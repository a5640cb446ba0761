"""The records of a CSV file one by one: for its names, and for the lines and cells that errors speak of."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, AnyStr

from onnxsurgeon.errors import DataError

LONGEST = 1 << 24  # bytes of a row, and characters of a cell
_LONGEST_LINE = 2 * LONGEST  # characters that are read before it is known whether a line ends


def records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records that are not empty, each with the line it begins on.

    Raises:
        DataError: the file cannot be read, is not UTF-8 or has a line or a cell of more than ``LONGEST`` characters.
    """
    # By a delimiter that the table has not, a line of 20,000 names is one cell: one may be as long as a row.
    limit = csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_lines(file, path), delimiter=delimiter)
            before = 0
            for record in reader:
                if record:
                    yield before + 1, record
                before = reader.line_num
    except UnicodeDecodeError as error:
        _explain_encoding(path)
        raise DataError(f"{path}: not UTF-8 text", "unreadable-data") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file: {error}", "unreadable-data") from error
    finally:
        csv.field_size_limit(limit)


def _lines(file: IO[AnyStr], path: Path) -> Iterator[AnyStr]:
    """The lines of a file, none of which is read whole where it is too long: a gigabyte may have no end of line."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE and line[-1:] not in ("\n", "\r", b"\n"):
            raise DataError(
                f"{path}: line {number} has more than {_LONGEST_LINE:,} characters; expected the rows of a table",
                "table-form",
            )
        yield line


def _explain_encoding(path: Path) -> None:
    """Raise DataError with the first line that cannot be decoded."""
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file, path), 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise DataError(
                    f"{path}: line {number} is not UTF-8 text (byte 0x{byte:02x}); save the table as UTF-8",
                    "unreadable-data",
                ) from error
