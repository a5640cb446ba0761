"""Rows as they lie in memory or in a file; the values for which they stand are computed where they are used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxsurgeon.linear_algebra import Array

# The types that ONNX Runtime's Cast reads; any other is converted once, here.
_READABLE = frozenset(
    np.dtype(code) for code in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
)


def number_type(rows: int) -> np.dtype[Any]:
    """The smallest type for row numbers, which are a good part of a narrow table's memory."""
    return np.dtype(np.int32 if rows <= np.iinfo(np.int32).max else np.int64)


@dataclass(frozen=True, eq=False)
class Rows:
    """An array of rows that is stored in one type and read in another: row i is source[numbers[i]] · scale + offset.

    Images stay bytes, the rows of a split stay where the whole set lies, and rows of a memory-mapped file stay in the
    file: any number of splits and branches share one copy.

    Attributes:
        source: (m, …) of any type; may be mapped from a file.
        dtype: type of the values.
        numbers: which rows of ``source``, (rows,) integers; None: all of them in order.
        scale: factor, of shape () or one that broadcasts to a row's.
        offset: added after that, likewise.
    """

    source: Array
    dtype: np.dtype[Any]
    numbers: Array | None = None
    scale: Array | float = 1.0
    offset: Array | float = 0.0

    @classmethod
    def of(cls, values: Rows | Array) -> Rows:
        """The argument, if it is Rows; an array becomes rows of its own type."""
        return values if isinstance(values, Rows) else cls(values, values.dtype)

    def __len__(self) -> int:
        return len(self.source) if self.numbers is None else len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows, (rows, …)."""
        return (len(self), *self.source.shape[1:])

    @property
    def memory(self) -> tuple[object, ...]:
        """A key that is equal for sources that are the same memory, read alike."""
        source = self.source
        return source.__array_interface__["data"], source.shape, source.strides, source.dtype

    @property
    def is_scaled(self) -> bool:
        """Whether a row is anything other than its stored values in another type."""
        return bool(np.any(np.not_equal(self.scale, 1.0)) or np.any(self.offset))

    def take(self, rows: slice | Array = slice(None)) -> Array:
        """The values of some rows, (len(rows), …), of ``dtype``."""
        stored = self.source[rows if self.numbers is None else self.numbers[rows]]
        if not self.is_scaled:
            return stored.astype(self.dtype, copy=False)
        wide = np.promote_types(self.dtype, np.float32)  # 16-bit inputs are rounded once, in the end
        values = stored.astype(wide)
        values *= np.asarray(self.scale, wide)
        if np.any(self.offset):
            values += np.asarray(self.offset, wide)
        return values.astype(self.dtype, copy=False)

    def select(self, numbers: Array) -> Rows:
        """Some of these rows; nothing is copied."""
        return replace(self, numbers=numbers if self.numbers is None else self.numbers[numbers])

    def reshaped(self, *shape: int) -> Rows:
        """Each row with another shape; if the source is not contiguous, only the rows in use are copied."""
        rows, row = self, self.source.shape[1:]
        if not self.source.flags.c_contiguous and tuple(shape) != row:
            rows = replace(self, source=self.source[self.numbers] if self.numbers is not None else self.source)
            rows = replace(rows, source=np.ascontiguousarray(rows.source), numbers=None)
        scale, offset = (
            np.broadcast_to(value, row).reshape(shape) if np.ndim(value) else value
            for value in (self.scale, self.offset)
        )
        return replace(rows, source=rows.source.reshape(len(rows.source), *shape), scale=scale, offset=offset)

    @property
    def order(self) -> tuple[int, ...]:
        """The axes of ``source`` in their order in memory.

        Images whose channels were moved first still have them last.
        """
        axes = range(self.source.ndim)
        if self.source.flags.c_contiguous:
            return tuple(axes)
        return (0, *sorted(axes[1:], key=lambda axis: -abs(self.source.strides[axis])))

    def resident(self) -> Rows:
        """The same rows with a source that ONNX Runtime reads without a copy.

        Such a source is of a type that it has, and contiguous with its axes in the ``order`` in which they lie.
        """
        source = self.source
        if source.dtype not in _READABLE:
            native = source.dtype.newbyteorder("=")
            source = source.astype(native if native in _READABLE else np.float64)
        if source is self.source and source.transpose(self.order).flags.c_contiguous:
            return self
        if self.numbers is not None:
            return replace(self, source=np.ascontiguousarray(source[self.numbers]), numbers=None)
        return replace(self, source=np.ascontiguousarray(source))
