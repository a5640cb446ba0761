"""The different values of an array and their counts, a piece at a time, since sorting it all would copy it."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.linear_algebra import Array

_PIECE_BYTES = 1 << 22


def distinct(values: Array, most: int | None = None) -> tuple[Array, Array]:
    """The different values (n,) in ascending order, and the count of each.

    Args:
        values: (rows,) integers, truth values or texts.
        most: once more values than this are found, the remaining rows are skipped.
    """
    step = max(1, _PIECE_BYTES // max(1, values.dtype.itemsize))
    found, counts = np.unique(values[:step], return_counts=True)
    for start in range(step, len(values), step):
        if most is not None and len(found) > most:
            break
        more, added = np.unique(values[start : start + step], return_counts=True)
        if len(more) == len(found) and np.array_equal(more, found):
            counts = counts + added
            continue
        both = np.concatenate([found, more])
        found, places = np.unique(both, return_inverse=True)
        counts = np.bincount(places.reshape(-1), np.concatenate([counts, added])).astype(np.int64)
    return found, counts
