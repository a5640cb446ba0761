"""Parquet files as typed columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.data.columns import Table, arrow, require_names, texts, values
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array


def read_parquet(path: Path) -> Table:
    """Read a Parquet file: numbers, booleans, texts and dictionaries of them; null and NaN are missing values.

    Raises:
        DataError: the file cannot be read, has no rows, or holds a column of another type, such as times or lists.
    """
    with arrow(path, "Parquet") as pyarrow:
        from pyarrow import parquet

        # Not parquet.read_table: that would take a folder, and invent columns from the names of its subfolders.
        with parquet.ParquetFile(path) as file:
            table = file.read()
        require_names(path, table.column_names)
        if not table.num_rows:
            raise DataError(f"{path}: has no rows")
        columns, missing = {}, {}
        for name in table.column_names:
            columns[name], missing[name] = _typed(pyarrow, path, name, table.column(name))
            table = table.drop_columns([name])  # one copy of the table in memory, not two
    return Table(path, columns, missing)


def _typed(pyarrow: Any, path: Path, name: str, chunked: Any) -> tuple[Array, Array]:
    import pyarrow.compute as compute

    kind = chunked.type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
        chunked = chunked.cast(kind)
    wanted = _wanted(pyarrow.types, pyarrow, kind)
    if wanted is None:
        raise DataError(f"{path}: column '{name}' holds {kind}; expected numbers or texts")
    cells = chunked.cast(wanted).combine_chunks()
    if wanted == pyarrow.large_string():
        return texts(path, name, cells)
    missing = values(compute.is_null(cells, nan_is_null=True), False)
    return np.array(values(cells, False if wanted == pyarrow.bool_() else 0)), missing


def _wanted(types: Any, pyarrow: Any, kind: Any) -> Any:
    """The type in which a column is used; uint8 too becomes int64, since it does not stand for pixels in a table."""
    if types.is_boolean(kind):
        return pyarrow.bool_()
    if types.is_integer(kind):
        return pyarrow.int64()
    if types.is_float16(kind) or types.is_float32(kind):
        return pyarrow.float32()
    if types.is_float64(kind) or types.is_decimal(kind) or types.is_null(kind):
        return pyarrow.float64()
    if types.is_string(kind) or types.is_large_string(kind):
        return pyarrow.large_string()
    return None
