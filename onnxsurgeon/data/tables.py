"""The user's own data set as a table: columns of a CSV or Parquet file, or of a folder with one for each split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxsurgeon.data.columns import Table, named
from onnxsurgeon.data.dataset import TEST_FRACTION, Dataset, Split, deciding_share, draw, unlabelled
from onnxsurgeon.data.delimited import read_csv
from onnxsurgeon.data.missing import IMPUTATIONS, filled, require_imputation
from onnxsurgeon.data.parquet import read_parquet
from onnxsurgeon.data.targets import Targets, from_columns
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

READERS = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet, ".pq": read_parquet}


def read_tables(
    name: str,
    files: dict[str, Path],
    target: Sequence[str],
    impute: str | None = None,
    validation_fraction: float | None = None,
) -> Dataset:
    """Read a data set from one file for each split: "train", and if there are any "test" and "validation".

    The inputs are all columns but the targets, by name, in the order of the training file. Without targets the rows are
    without labels. Without a test split, a fifth of the rows becomes one. What fills missing values is computed from
    those rows alone that are trained on.

    Args:
        name: of the data set.
        files: of each split.
        target: names of the columns to predict; one text may hold several, separated by commas; none: no labels.
        impute: what fills missing values: "mean", "median", "most-frequent"; None: they are errors.
        validation_fraction: share of the training rows that ``Dataset.hold_out`` will take.

    Raises:
        DataError: a file cannot be read, lacks a column or a value, or holds no numbers where it should.
    """
    require_imputation(impute)
    tables = {part: READERS[path.suffix.lower()](path) for part, path in files.items()}
    train = tables["train"]
    columns = _joined(tables)
    targets = _target_names(train, target) if target else []
    _check_values(tables, targets, impute)
    if targets:
        found = from_columns(name, {column: columns[column] for column in targets})
    else:
        found = Targets(unlabelled(len(next(iter(columns.values())))))
    parts = _parts(name, tables, found.labels)
    inputs = {column: columns[column] for column in columns if column not in targets}
    if impute is not None:
        known = _trained_on(parts, found.labels, name, validation_fraction)
        for column in inputs:
            missing = np.concatenate([table.missing[column] for table in tables.values()])
            if missing.any():
                inputs[column] = filled(f"{train.path}: column '{column}'", inputs[column], missing, known, impute)
    inputs = {column: own.astype(np.int64) if own.dtype.kind == "b" else own for column, own in inputs.items()}
    splits = {part: Split(inputs, found.labels).take(rows) for part, rows in parts.items()}
    return Dataset(
        name,
        splits["train"],
        splits["test"],
        found.classes,
        validation=splits.get("validation"),
        class_labels=found.class_labels,
        validation_fraction=validation_fraction,
        categories=categories(inputs),
    )


def categories(columns: dict[str, Array]) -> dict[str, tuple[str, ...]]:
    """All different texts of every column of texts, ascending."""
    return {name: tuple(np.unique(column).tolist()) for name, column in columns.items() if column.dtype.kind == "U"}


def matrix(columns: dict[str, Array], categories: dict[str, tuple[str, ...]]) -> tuple[Array, list[str]]:
    """Columns (rows,) as one matrix (rows, n) and the name of each of its columns.

    A column of numbers is taken as it is; one of texts becomes a column for each of its ``categories``, in their order,
    "NAME=TEXT": 1 where the text is that one, else 0. The matrix is float32 where no numbers need more, else float64.

    Raises:
        DataError: a text is none of its column's categories, or a column is no column.
    """
    for name, column in columns.items():
        if column.ndim != 1:
            raise DataError(f"'{name}' has shape {column.shape}; expected a column, one value a row")
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
            f"column '{name}' holds '{column[unknown[0]]}' in row {unknown[0] + 1}; known are {named(list(texts))}"
        )
    return np.asarray(positions)


def _joined(tables: dict[str, Table]) -> dict[str, Array]:
    """The rows of all files, one after another, in columns."""
    train = tables["train"]
    for table in tables.values():
        for missing, present in ((table, train), (train, table)):
            lacking = [name for name in present.columns if name not in missing.columns]
            if lacking:
                raise DataError(f"{missing.path}: lacks the column '{lacking[0]}' that {present.path} has")
    columns = {}
    for name in train.columns:
        pieces = [table.columns[name] for table in tables.values() if not table.missing[name].all()]
        kinds = {piece.dtype.kind == "U" for piece in pieces}
        if len(kinds) > 1:
            found = " and ".join(
                f"{'texts' if table.columns[name].dtype.kind == 'U' else 'numbers'} in {table.path}"
                for table in tables.values()
            )
            raise DataError(f"{train.path}: column '{name}' must be of one kind in all splits; found {found}")
        texts = True in kinds
        # A column without any value was read as one of integers; it takes the kind that it has in the other files.
        empty = "" if texts else 0
        columns[name] = np.concatenate(
            [
                np.full(table.rows, empty) if table.missing[name].all() else table.columns[name]
                for table in tables.values()
            ]
        )
    return columns


def _target_names(table: Table, target: Sequence[str]) -> list[str]:
    names = []
    for text in target:
        names += [text] if text in table.columns else [part.strip() for part in text.split(",")]
    for position, name in enumerate(names):
        if name not in table.columns:
            raise DataError(f"{table.path}: no column '{name}' to predict; it has {named(list(table.columns))}")
        if name in names[:position]:
            raise DataError(f"{table.path}: target '{name}' is given twice")
    if len(names) == len(table.columns):
        raise DataError(f"{table.path}: has no column beside the target; expected inputs as well")
    return names


def _check_values(tables: dict[str, Table], targets: list[str], impute: str | None) -> None:
    """Raise DataError where a value is missing that nothing fills, or is not finite; the first such row is named."""
    for table in tables.values():
        for name, column in table.columns.items():
            texts, missing = column.dtype.kind == "U", table.missing[name]
            if missing.any() and (name in targets or impute is None):
                expected = "target" if name in targets else "text" if texts else "number"
                advice = "" if name in targets else f"; --impute {'|'.join(IMPUTATIONS)} fills them"
                place = table.place(int(np.argmax(missing)))
                raise DataError(f"{place}, column '{name}': expected a {expected}, found nothing{advice}")
            if column.dtype.kind == "f" and not np.isfinite(column[~missing]).all():
                row = int(np.argmax(~np.isfinite(column) & ~missing))
                raise DataError(f"{table.place(row)}, column '{name}': expected a finite number, found {column[row]}")


def _parts(name: str, tables: dict[str, Table], labels: Array) -> dict[str, Array]:
    """Numbers of every split's rows; without a file for it, the test split is drawn from the training rows."""
    ends = np.cumsum([table.rows for table in tables.values()])
    parts = {part: np.arange(end - table.rows, end) for (part, table), end in zip(tables.items(), ends, strict=True)}
    if "test" not in parts:
        held, rest = draw(labels[parts["train"]], TEST_FRACTION, name)
        parts["test"], parts["train"] = parts["train"][held], parts["train"][rest]
    return parts


def _trained_on(parts: dict[str, Array], labels: Array, name: str, fraction: float | None) -> Array:
    """The training rows without those that ``Dataset.hold_out`` will take to choose by."""
    train = parts["train"]
    return train if "validation" in parts else train[draw(labels[train], deciding_share(len(train), fraction), name)[1]]
