"""Parquet files as typed columns, some rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
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
from onnxsurgeon.data.foreseen import require_room
from onnxsurgeon.errors import DataError

_BATCH_BYTES = 1 << 24
# Each column of a batch takes some calls, however few rows it has: of many columns, batches are larger, up to a size.
_LEAST_ROWS, _MOST_BYTES = 128, 1 << 26


class ParquetFile(TableFile):
    """Numbers, booleans, texts and dictionaries of them; null and NaN are missing values."""

    def __init__(self, path: Path, expect: Expect) -> None:
        """Read the file once to learn what its columns hold; ``expect`` gets their names and kinds before.

        Raises:
            DataError: the file cannot be read, has no rows, holds a column of another type, such as times or lists, or
                says of itself that it is far larger than it is on the disk.
        """
        self.path = path
        with arrow(path, "Parquet") as pyarrow:
            from pyarrow import parquet

            # Not parquet.read_table, which would take a folder and make columns of the names of its subfolders.
            with parquet.ParquetFile(path) as file:
                schema, self.rows = file.schema_arrow, file.metadata.num_rows
                # Not the sizes of their columns: for a damaged column pyarrow ends the process instead of raising.
                groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
                pages = sum(group.total_byte_size for group in groups)
            require_names(path, schema.names)
            if not self.rows:
                raise DataError(f"{path}: has no rows", "no-rows")
            self._kinds = {field.name: _wanted(pyarrow, path, field) for field in schema}
            is_text = [kind == pyarrow.large_string() for kind in self._kinds.values()]
            expect(schema.names, is_text)
            sizes = (
                1 if text else max(1, k.bit_width // 8) for k, text in zip(self._kinds.values(), is_text, strict=True)
            )
            require_room(str(path), max(pages, self.rows * sum(sizes)), path.stat().st_size)
            self._batch = _batch_rows(len(schema))
            self.columns = self._told()

    def _told(self) -> dict[str, Told]:
        import pyarrow
        import pyarrow.compute as compute

        missing, texts, exact = dict.fromkeys(self._kinds, 0), {name: Texts() for name in self._kinds}, set(self._kinds)
        rows = 0
        for batch in self._batches(list(self._kinds)):
            rows += batch.num_rows
            for name, kind in self._kinds.items():
                cells = batch.column(name)
                if kind == pyarrow.large_string():
                    texts[name].add(cells)
                    missing[name] += _empty(cells)
                    continue
                if kind == pyarrow.int64() and _is_beyond_int64(cells):
                    kind = self._kinds[name] = pyarrow.float64()  # as a CSV file's integers of that size
                    exact.add(name)
                cells = _cast(cells, kind)
                missing[name] += compute.sum(compute.is_null(cells, nan_is_null=True)).as_py() or 0
                if kind == pyarrow.int64() and not is_exact(cells):
                    exact.discard(name)
        if rows != self.rows:
            raise DataError(
                f"{self.path}: not a readable Parquet file: {rows} rows, and not {self.rows} as it says",
                "unreadable-data",
            )
        return {
            name: texts[name].told(self.path, name, missing[name])
            if kind == pyarrow.large_string()
            else Told(np.dtype(kind.to_pandas_dtype()), missing[name], is_exact=name in exact)
            for name, kind in self._kinds.items()
        }

    def pieces(self, names: Collection[str]) -> Iterator[dict[str, Piece]]:
        """The values of these columns, some rows at a time."""
        wanted = [name for name in self._kinds if name in names]
        texts = {name: {text: i for i, text in enumerate(self.columns[name].texts)} for name in wanted}
        with arrow(self.path, "Parquet"):
            for batch in self._batches(wanted):
                yield {name: self._piece(name, batch.column(name), texts[name]) for name in wanted}

    def _piece(self, name: str, cells: Any, texts: dict[str, int]) -> Piece:
        import pyarrow
        import pyarrow.compute as compute

        kind = self._kinds[name]
        if kind == pyarrow.large_string():
            found = codes(cells, texts)
            return found, found == texts.get("", -1)
        cells = _cast(cells, kind)
        missing = values(compute.is_null(cells, nan_is_null=True), False)
        return values(cells, False if kind == pyarrow.bool_() else 0), missing

    def _batches(self, names: list[str]) -> Iterator[Any]:
        """Record batches of these columns, with texts as dictionaries, so that a text in many rows is stored once."""
        import pyarrow
        from pyarrow import parquet

        encoded = [name for name in names if self._kinds[name] == pyarrow.large_string()]
        with parquet.ParquetFile(self.path, read_dictionary=encoded) as file:
            for batch in file.iter_batches(self._batch, columns=names, use_threads=False):
                batch.validate(full=True)  # a damaged file's indices may point outside of its dictionary
                yield batch


def _batch_rows(columns: int) -> int:
    """How many rows are decoded at a time."""
    row = 16 * columns
    return max(1, _BATCH_BYTES // row, min(_LEAST_ROWS, _MOST_BYTES // row))


def _is_beyond_int64(cells: Any) -> bool:
    """Whether some of a column's numbers, which are integers, are so large that only uint64 holds them."""
    import pyarrow
    import pyarrow.compute as compute

    kind = cells.type.value_type if pyarrow.types.is_dictionary(cells.type) else cells.type
    largest = compute.max(cells.cast(kind)).as_py() if pyarrow.types.is_uint64(kind) else None
    return largest is not None and largest > np.iinfo(np.int64).max


def _cast(cells: Any, kind: Any) -> Any:
    """A column's numbers in the type in which they are used; integers become floats rounded, and are never refused."""
    import pyarrow

    is_rounded = kind == pyarrow.float64() and pyarrow.types.is_integer(getattr(cells.type, "value_type", cells.type))
    return cells.cast(kind, safe=not is_rounded)


def _empty(cells: Any) -> int:
    """How many cells of a column of texts are null or the empty text."""
    import pyarrow
    import pyarrow.compute as compute

    encoded = cells if pyarrow.types.is_dictionary(cells.type) else cells.dictionary_encode()
    empty = [position for position, text in enumerate(encoded.dictionary.to_pylist()) if not text]
    found = compute.sum(compute.is_in(encoded.indices, pyarrow.array(empty, encoded.indices.type))).as_py() or 0
    return int(found + encoded.indices.null_count)


def _wanted(pyarrow: Any, path: Path, field: Any) -> Any:
    """The type in which a column is used; uint8 becomes int64, since it does not stand for pixels in a table."""
    types = pyarrow.types
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
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
    raise DataError(f"{path}: column '{field.name}' holds {kind}; expected numbers or texts", "not-numbers")
