"""The user's own data set as a table: columns of a CSV or Parquet file, or of a folder with one file for each split.

One file: a table is read twice, and what the first reading finds is what the second one needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.choices import IMPUTATIONS
from onnxsurgeon.data.columns import Expect, TableFile, Told, named
from onnxsurgeon.data.dataset import TEST_FRACTION, Dataset, Split, chunks, deciding_share, draw, unlabelled
from onnxsurgeon.data.delimited import CsvFile
from onnxsurgeon.data.foreseen import require_room
from onnxsurgeon.data.inputs import require_columns, takes_whole
from onnxsurgeon.data.missing import no_value, require_imputation, stand_in
from onnxsurgeon.data.parquet import ParquetFile
from onnxsurgeon.data.rows import number_type
from onnxsurgeon.data.sheet import Sheet, SheetRows, matrix_type, narrow_labels, part_names, wide_labels
from onnxsurgeon.data.targets import Targets, from_columns
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.suggestions import did_you_mean

READERS: dict[str, Callable[[Path, Expect], TableFile]] = {
    ".csv": CsvFile,
    ".tsv": CsvFile,
    ".parquet": ParquetFile,
    ".pq": ParquetFile,
}


def read_tables(
    name: str,
    files: dict[str, Path],
    target: Sequence[str],
    impute: str | None = None,
    validation_fraction: float | None = None,
    networks: Sequence[Network] = (),
) -> Dataset:
    """Read a data set from one file for each split: "train", and if there are any "test" and "validation".

    The inputs are all columns but the targets, by name, in the order of the training file. Without targets the rows are
    without labels. Without a test split, a fifth of the rows becomes one. Values that stand in for missing ones are
    computed from the training rows alone.

    Files are read twice, some rows at a time: what the columns hold is compared with the models, and bounded, before
    there is any room for it; then values go to where they stay. Where all ``networks`` take the table as one matrix,
    memory holds that matrix; see ``Sheet``.

    Args:
        name: name of the data set.
        files: the file of each split.
        target: names of the columns to predict; one text may hold several, separated by commas; none: no labels.
        impute: what fills missing values: "mean", "median", "most-frequent"; None: they are errors.
        validation_fraction: share of the training rows that ``Dataset.hold_out`` will take.
        networks: the networks whose inputs the rows are to fit.

    Raises:
        DataError: a file cannot be read, lacks a column or a value, or holds no numbers where it should; the columns do
            not fit a network, or take far more room than the files.
    """
    require_imputation(impute)

    def expect(names: Sequence[str], texts: Sequence[bool] | None) -> None:
        """Compare the number of columns with the models, as far as the names tell."""
        spelled = _spelled(target, names)
        for column in sorted(spelled - set(names)):
            raise _no_target(files["train"], column, names)
        inputs = [column for column in names if column not in spelled]
        for network in networks:
            if inputs and takes_whole(network, names):
                is_least = texts is None or any(texts)
                require_columns(network, name, inputs, is_labelled=bool(target), is_least=is_least)

    tables = {part: READERS[path.suffix.lower()](path, expect) for part, path in files.items()}
    columns = _joined(tables)
    targets = _target_names(tables["train"], target) if target else []
    columns |= {
        column: replace(told, dtype=np.dtype(np.int64))
        for column, told in columns.items()
        if told.dtype.kind == "b" and column not in targets
    }
    inputs = {column: told for column, told in columns.items() if column not in targets}
    whole = _is_whole(networks, inputs, list(columns))
    if whole:
        for network in networks:
            require_columns(network, name, part_names(inputs), is_labelled=bool(target))
    rows = sum(table.rows for table in tables.values())
    separate = {column: told for column, told in columns.items() if column in targets or not whole}
    wanted = rows * sum(told.dtype.itemsize for told in separate.values())
    wanted += rows * len(part_names(inputs)) * matrix_type(inputs).itemsize if whole else 0
    require_room(name, wanted, sum(table.path.stat().st_size for table in tables.values()))
    held = _Held(Sheet.of(inputs, rows) if whole else None, separate, rows)
    held.read(tables, columns, targets, impute)
    if targets:
        found = from_columns(name, {column: held.columns[column] for column in targets})
    else:
        found = Targets(unlabelled(rows))
    labels = narrow_labels(found.labels)
    found = replace(found, labels=labels)  # the wide ones are let go of, here and among the columns
    for column in targets:
        del held.columns[column]
    parts = _parts(name, tables, labels)
    if impute is not None and held.missing:
        known = _trained_on(parts, labels, name, validation_fraction)
        for column in held.missing:
            held.impute(f"{tables['train'].path}: column '{column}'", column, known, impute)
    splits = {part: held.split(inputs, labels, numbers) for part, numbers in parts.items()}
    return Dataset(
        name,
        splits["train"],
        splits["test"],
        found.classes,
        validation=splits.get("validation"),
        class_labels=found.class_labels,
        validation_fraction=validation_fraction,
        categories={column: told.texts for column, told in inputs.items() if told.is_text},
    )


def _spelled(target: Sequence[str], names: Sequence[str]) -> set[str]:
    """The columns that ``target`` names: one text may hold several, separated by commas."""
    return {part for text in target for part in ([text] if text in names else map(str.strip, text.split(",")))}


def _is_whole(networks: Sequence[Network], inputs: dict[str, Told], names: list[str]) -> bool:
    """Whether a matrix is the only form in which the table is used, and holds its numbers exactly."""
    wanted = all(takes_whole(network, names) for network in networks)
    alone = bool(networks) or not any(told.is_text for told in inputs.values())
    return bool(inputs) and wanted and alone and all(told.is_exact for told in inputs.values())


class _Held:
    """The values of a table: in a sheet or in columns, all rows of all files."""

    def __init__(self, sheet: Sheet | None, separate: dict[str, Told], rows: int) -> None:
        self.sheet = sheet
        self.columns: dict[str, Array] = {name: np.zeros(rows, told.dtype) for name, told in separate.items()}
        self.missing: dict[str, Array] = {}  # of columns that lack any, (rows,)
        self.rows = rows

    def read(
        self, tables: dict[str, TableFile], columns: dict[str, Told], targets: list[str], impute: str | None
    ) -> None:
        """Read all files; see ``_require_values``."""
        start = 0
        for table in tables.values():
            first: dict[str, tuple[int, Any]] = {}
            begun = start
            for pieces in table.pieces(columns):
                count = len(next(iter(pieces.values()))[0])
                if start - begun + count > table.rows:
                    raise DataError(f"{table.path}: was changed while it was read", "changed-while-read")
                for name, (values, missing) in pieces.items():
                    self._put(name, columns[name], table.columns[name], start, values, missing)
                    _note_first(first, name, values, missing, start - begun, name in targets or impute is None)
                start += count
            if start - begun != table.rows:
                raise DataError(f"{table.path}: was changed while it was read", "changed-while-read")
            _require_values(table, first, columns, targets)

    def _put(self, name: str, told: Told, own: Told, start: int, values: Array, missing: Array) -> None:
        """Store some rows of a column; ``own`` describes the column in the file from which these values come."""
        stop = start + len(values)
        if missing.any():
            self.missing.setdefault(name, np.zeros(self.rows, bool))[start:stop] = missing
        is_sheet = self.sheet is not None and name in self.sheet.columns
        if told.is_text:
            texts = own.texts if own.is_text else ("",)  # a column without any value was read as one of numbers
            values = values if own.is_text else np.zeros(len(values), np.int64)
            if is_sheet:
                known = {text: position for position, text in enumerate(told.texts)}
                values = np.array([known.get(text, -1) for text in texts] or [-1])[values]
            else:
                values = np.array(texts, told.dtype)[values]
        elif own.is_text:  # likewise, of a file of texts
            values = np.zeros(len(values), told.dtype)
        if is_sheet:
            assert self.sheet is not None
            self.sheet.fill(name, start, values)
        else:
            self.columns[name][start:stop] = values

    def impute(self, what: str, name: str, known: Array, impute: str) -> None:
        """Fill the missing values of a column from the rows ``known``."""
        missing = self.missing[name]
        rows = known[~missing[known]]
        if self.sheet is None or name not in self.sheet.columns:
            column = self.columns[name]
            chosen = "most-frequent" if column.dtype.kind == "U" else impute
            value, dtype = stand_in(what, column[rows], chosen)
            column = column.astype(dtype, copy=False)
            column[missing] = value
            self.columns[name] = column
            return
        told, place = self.sheet.columns[name], self.sheet.places[name]
        if told.is_text:
            counts = sum(
                (self.sheet.values[rows[start:stop], place].sum(axis=0, dtype=np.float64))
                for start, stop in chunks(self.sheet.values, len(rows))
            )
            if not len(rows):
                raise no_value(what)
            self.sheet.values[missing, place.start + int(np.argmax(counts))] = 1
            return
        value, dtype = stand_in(what, self.sheet.column(name, rows), impute)
        self.sheet.values[missing, place.start] = value
        self.sheet.columns[name] = replace(told, dtype=dtype)

    def split(self, inputs: dict[str, Told], labels: Array, numbers: Array) -> Split:
        """Make a split of some rows."""
        if self.sheet is not None:
            return SheetRows(self.sheet, numbers, labels[numbers])
        return Split({name: self.columns[name] for name in inputs}, wide_labels(labels)).take(numbers)


def _joined(tables: dict[str, TableFile]) -> dict[str, Told]:
    """What the columns hold over all files."""
    train = tables["train"]
    for table in tables.values():
        for missing, present in ((table, train), (train, table)):
            lacking = [name for name in present.columns if name not in missing.columns]
            if lacking:
                raise DataError(
                    f"{missing.path}: lacks the column '{lacking[0]}' that {present.path} has", "table-form"
                )
    columns = {}
    for name in train.columns:
        every = [table.columns[name] for table in tables.values()]
        # A column without any value takes the kind that it has in the other files.
        some = [table.columns[name] for table in tables.values() if table.columns[name].missing < table.rows] or every
        if len({told.is_text for told in some}) > 1:
            found = " and ".join(
                f"{'texts' if table.columns[name].is_text else 'numbers'} in {table.path}" for table in tables.values()
            )
            raise DataError(
                f"{train.path}: column '{name}' must be of one kind in all splits; found {found}", "table-form"
            )
        dtype = np.result_type(*(told.dtype for told in some))
        if len(some) < len(every) and not some[0].is_text:
            dtype = np.result_type(dtype, np.int64)  # for the zeros that stand for missing values
        texts = sorted({text for told in some for text in told.texts} - {""})
        missing_values = sum(told.missing for told in every)
        columns[name] = Told(dtype, missing_values, tuple(texts), all(told.is_exact for told in some))
    return columns


def _no_target(path: Path, name: str, columns: Sequence[str]) -> DataError:
    text = f"{path}: no column '{name}' to predict; it has {named(list(columns))}"
    return DataError(f"{text}{did_you_mean(name, columns)}", "target-column")


def _target_names(table: TableFile, target: Sequence[str]) -> list[str]:
    names = []
    for text in target:
        names += [text] if text in table.columns else [part.strip() for part in text.split(",")]
    for position, name in enumerate(names):
        if name not in table.columns:
            raise _no_target(table.path, name, list(table.columns))
        if name in names[:position]:
            raise DataError(f"{table.path}: target '{name}' is given twice", "target-column")
    if len(names) == len(table.columns):
        raise DataError(f"{table.path}: has no column beside the target; expected inputs as well", "target-column")
    return names


def _note_first(
    first: dict[str, tuple[int, Any]], name: str, values: Array, missing: Array, start: int, is_needed: bool
) -> None:
    """Remember the first row where a column lacks a needed value, or holds one that is not finite."""
    wrong = missing if is_needed else np.zeros(len(missing), bool)
    if values.dtype.kind == "f":
        wrong = wrong | ~(np.isfinite(values) | missing)
    if name not in first and wrong.any():
        row = int(np.argmax(wrong))
        first[name] = start + row, None if missing[row] else values[row]


def _require_values(
    table: TableFile, first: dict[str, tuple[int, Any]], columns: dict[str, Told], targets: list[str]
) -> None:
    """Raise DataError where a value is missing that nothing fills, or is not finite; the first such row is named."""
    for name in table.columns:
        if name not in first:
            continue
        row, value = first[name]
        if value is not None:
            raise DataError(
                f"{table.place(row)}, column '{name}': expected a finite number, found {value}", "missing-value"
            )
        expected = "target" if name in targets else "text" if table.columns[name].is_text else "number"
        advice = "" if name in targets else f"; --impute {'|'.join(IMPUTATIONS)} fills them"
        raise DataError(
            f"{table.place(row)}, column '{name}': expected a {expected}, found nothing{advice}", "missing-value"
        )


def _parts(name: str, tables: dict[str, TableFile], labels: Array) -> dict[str, Array]:
    """Numbers of every split's rows; without a file for it, the test split is drawn from the training rows."""
    ends = np.cumsum([table.rows for table in tables.values()])
    kind = number_type(len(labels))
    parts = {
        part: np.arange(end - table.rows, end, dtype=kind)
        for (part, table), end in zip(tables.items(), ends, strict=True)
    }
    if "test" not in parts:
        train = slice(int(parts["train"][0]), int(parts["train"][-1]) + 1)
        del parts["train"]  # one copy less while the rows are drawn
        parts["test"], parts["train"] = (
            found.astype(kind, copy=False) for found in draw(labels[train], TEST_FRACTION, name)
        )
        for numbers in (parts["test"], parts["train"]):
            numbers += train.start
    return parts


def _trained_on(parts: dict[str, Array], labels: Array, name: str, fraction: float | None) -> Array:
    """The training rows without those that ``Dataset.hold_out`` will take to choose by."""
    train = parts["train"]
    return train if "validation" in parts else train[draw(labels[train], deciding_share(len(train), fraction), name)[1]]
