"""Rows in any form that a caller has: a name, a path, a Dataset, arrays in memory, or a table of pandas."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from onnxsurgeon.data.arrays import from_memory
from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.foreseen import require_fit
from onnxsurgeon.data.load import ProgressBar, load_dataset
from onnxsurgeon.data.tables import read_tables
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.typed import kind_of


class Table(Protocol):
    """A pandas DataFrame; pandas is not imported unless its caller has imported it."""

    @property
    def columns(self) -> Any:
        """Names of its columns."""

    def assign(self, **columns: Any) -> Any:
        """The table with more columns."""


DataSource = str | os.PathLike[str] | Dataset | tuple[Any, Any] | Mapping[str, Any] | Table
KINDS = (
    "the name of a data set, a path, a Dataset, a pair (X, y), arrays by name such as {'x_train': …, 'y_train': …}, or "
    "a pandas DataFrame"
)
IN_MEMORY = ("arrays", "DataFrame")  # the names of sets that are in no file
_TARGET = "target"


def as_dataset(
    given: DataSource,
    *,
    target: str | Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    folder: Path | None = None,
    progress: ProgressBar | None = None,
    networks: Sequence[Network] = (),
) -> Dataset:
    """Read the rows as a ``Dataset``; for the options see ``load_dataset``.

    Args:
        given: what ``load_dataset`` takes; a ``Dataset``; a pair (X, y) of arrays, or lists, or a table and a column of
            pandas; a mapping of arrays with the names that an .npz file has for them; or a DataFrame, where ``target``
            names its columns to predict. If it comes without test rows, a fifth becomes these.
        target: columns to predict, of tables.
        impute: what fills a table's missing values.
        validation_fraction: share of the training rows to choose by.
        folder: where a named set's files lie.
        progress: see ``load_dataset``.
        networks: the networks whose inputs the rows are to fit.

    Raises:
        DataError: it is of another type, or cannot be used.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    if isinstance(given, str | os.PathLike):
        return load_dataset(
            str(given),
            target=names,
            impute=impute,
            validation_fraction=validation_fraction,
            folder=folder,
            progress=progress,
            networks=networks,
        )
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise DataError(f"validation-fraction: {validation_fraction:g} does not lie between 0 and 1", "senseless-value")
    pair = given if isinstance(given, tuple) and len(given) == 2 else None
    if _is_table(given) or (pair is not None and _is_table(pair[0])):
        table, names = (given, names) if pair is None else _with_target(*pair, names)
        return _of_table(table, names, impute, validation_fraction, networks)
    for option, value in (("target", names), ("impute", impute)):
        if value:
            raise DataError(f"{option}: is for tables; found {kind_of(given)}", "tables-only")
    if isinstance(given, Dataset):
        dataset = given
    elif isinstance(given, Mapping) or (isinstance(given, tuple) and len(given) == 2):
        arrays = given if isinstance(given, Mapping) else _of_pair(*given)
        dataset = from_memory({str(key): _array(values, str(key)) for key, values in arrays.items()}, IN_MEMORY[0])
    else:
        raise DataError(f"data: expected {KINDS}; found {kind_of(given)}", "wrong-type")
    require_fit(networks, dataset.name, dataset.train.inputs)
    if validation_fraction is None:
        return dataset
    if dataset.validation is not None:
        raise DataError(
            f"{dataset.name}: brings validation rows of its own; validation_fraction holds out none", "own-validation"
        )
    return replace(dataset, validation_fraction=validation_fraction)


def _of_pair(x: Any, y: Any) -> dict[str, Any]:
    """The arrays of a pair; X may be several arrays, by the names of a model's inputs."""
    return {**(x if isinstance(x, Mapping) else {"x": x}), "y": y}


def _array(values: Any, name: str) -> Array:
    """Read an array of numbers or texts in numpy's way.

    Raises:
        DataError: it is none.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # for rows of several lengths, and tensors on other devices
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"data: '{name}' is no array: {kind_of(values)}: {reason}", "not-numbers") from error
    if array.dtype.kind == "O" and array.size and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)  # a column of texts of pandas
    if array.dtype.kind not in "fiubU":
        raise DataError(f"data: '{name}' must hold numbers or texts; found {kind_of(values)}", "not-numbers")
    return array


def _is_table(given: Any) -> bool:
    """Whether it is a DataFrame; it cannot be one where nobody has imported pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(given, pandas.DataFrame)


def _with_target(table: Any, y: Any, names: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """The table with y as one column or several, and their names.

    Raises:
        DataError: y has another number of rows, or the target is named as well.
    """
    if names:
        raise DataError(
            "target: names columns of the table; the pair's second part is the target already", "target-column"
        )
    columns = y if _is_table(y) else None
    values = [y] if columns is None else [columns[name] for name in columns]
    found = {}
    for position, column in enumerate(values):
        own = str(getattr(column, "name", None) or _TARGET)
        while own in table.columns or own in found:
            own += "_"
        array = np.asarray(column)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.shape != (len(table),):
            raise DataError(f"data: {len(table)} rows in the table; y is {kind_of(y)}", "unlike-rows")
        found[own] = (array, position)
    return table.assign(**{name: array for name, (array, _) in found.items()}), tuple(found)


def _of_table(
    table: Any, names: tuple[str, ...], impute: str | None, fraction: float | None, networks: Sequence[Network]
) -> Dataset:
    """Read a table of pandas as the Parquet file that it makes: with the same types, texts and missing values.

    Raises:
        DataError: pyarrow is not installed, or the table cannot be used.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("data: a DataFrame needs pip install 'onnxsurgeon[data]'", "no-package") from error
    name = IN_MEMORY[1]
    unnamed = [column for column in table.columns if not isinstance(column, str)]
    if unnamed:
        raise DataError(
            f"{name}: its columns must have names that are texts; found {kind_of(unnamed[0])}", "table-form"
        )
    with TemporaryDirectory(prefix="onnxsurgeon-") as folder:
        path = Path(folder) / f"{name}.parquet"
        try:
            parquet.write_table(pyarrow.Table.from_pandas(table, preserve_index=False), path)
        except (pyarrow.ArrowException, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(f"{name}: cannot be read: {reason}", "not-numbers") from error
        try:
            dataset = read_tables(name, {"train": path}, names, impute, fraction, networks)
        except DataError as error:
            raise DataError(str(error).replace(str(path), name), error.kind) from error
    return dataset
