"""The bytes of an array, a piece at a time: for hashing and writing without a copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

CHUNK = 16 * 2**20


def byte_chunks(array: npt.NDArray[np.generic]) -> Iterator[memoryview]:
    """Pieces of at most ``CHUNK`` bytes that joined are ``array.tobytes()``.

    A contiguous array is not copied; of any other (a transposed memory map), one piece at a time is.
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
