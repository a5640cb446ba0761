"""Large arrays a piece at a time: their bytes, their columns, and the pages of those that are mapped from a file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 16 * 2**20


def byte_chunks(array: npt.NDArray[np.generic]) -> Iterator[memoryview]:
    """Yield pieces of at most ``CHUNK`` bytes that, joined, are ``array.tobytes()``.

    A contiguous array is not copied; any other, such as a transposed memory map, is copied one piece at a time.
    """
    if array.nbytes <= CHUNK or array.flags.c_contiguous:
        # As uint8, since types such as bfloat16 do not offer their memory to others.
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, array.nbytes, CHUNK):
            yield content[start : start + CHUNK]
        return
    rows = CHUNK // array[0].nbytes
    if rows == 0:
        for row in array:
            yield from byte_chunks(row)
    else:
        for start in range(0, len(array), rows):
            yield from byte_chunks(array[start : start + rows])


def release(array: npt.NDArray[np.generic]) -> None:
    """Give back the memory of an array that is mapped from a file for reading; later reads take it from the file."""
    if array.flags.writeable or not hasattr(mmap, "MADV_DONTNEED"):
        return
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and memoryview(owner).readonly:  # else what was changed in memory would be lost
        owner.madvise(mmap.MADV_DONTNEED)


def take_columns(array: npt.NDArray[Any], columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``array[:, columns]``.

    Of a large array that is mapped from a file, only some rows at a time are in memory besides the result.
    """
    if array.nbytes <= CHUNK:
        return array[:, columns]
    taken = np.empty((len(array), len(columns)), array.dtype)
    rows = max(1, 8 * CHUNK // array[0].nbytes)
    for start in range(0, len(array), rows):
        taken[start : start + rows] = array[start : start + rows, columns]
        release(array)
    return taken
