"""The size of data once they are decoded, read from their headers, so that it is compared and bounded before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxsurgeon.bounds import ADVICE, MAX_DATA_BYTES, MAX_DATA_EXPANSION, bound
from onnxsurgeon.data.inputs import require_shapes
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array

_MOST_TOLD = 2**63


def require_room(where: str, wanted: int, stored: int) -> None:
    """Raise DataError where ``wanted`` bytes are more than a file of ``stored`` bytes may become in memory."""
    limit = most_bytes(stored)
    if wanted > limit:
        raise DataError(
            f"{where}: {_megabytes(stored)} on the disk would take {_megabytes(wanted)} of memory; at most "
            f"{_megabytes(limit)} are allowed, {MAX_DATA_EXPANSION} times as much or {_megabytes(MAX_DATA_BYTES)} "
            f"({ADVICE})",
            "too-much-data",
        )


def most_bytes(stored: int) -> int:
    """The number of bytes that a file of ``stored`` bytes may become in memory."""
    return bound(max(MAX_DATA_BYTES, MAX_DATA_EXPANSION * stored))


def hollow(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """An array of zeros of that shape and type that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def size_of(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    """Bytes of such an array; for values of no bytes their number, since working with them takes as much."""
    return math.prod(shape) * max(1, dtype.itemsize)


def require_fit(networks: Sequence[Network], name: str, inputs: Array | dict[str, Array]) -> None:
    """Raise DataError where rows, given as ``hollow`` arrays, do not fit the inputs of one of these models."""
    for network in networks:
        require_shapes(network, name, inputs)


def _megabytes(count: int) -> str:
    if count > _MOST_TOLD:  # the product of a header's sizes may have hundreds of digits
        return f"more than {_MOST_TOLD // 2**20:,} MB"
    return f"{count / 2**20:,.1f} MB" if count < 100 * 2**20 else f"{count / 2**20:,.0f} MB"
