"""A teacher's outputs as targets: softened distributions, probabilities, values; large ones a piece at a time."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable

import numpy as np

from onnxsurgeon.data.dataset import chunks
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CROSS_ENTROPY, Task

MAPPED_BYTES = 2**26  # from this size on, targets lie in a file without a name, and are read from it in parts


def soft_targets(outputs: Array, task: Task, temperature: float) -> Array:
    """softmax(t/T) over the last axis for classes, else σ(t/T), float32, for a teacher's ``outputs`` t."""

    def soften(values: Array) -> Array:
        t = values.astype(np.float64) / temperature
        if task.loss != CROSS_ENTROPY:
            return sigmoid(t).astype(np.float32)
        exponentials = np.exp(t - t.max(axis=-1, keepdims=True))
        shares: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return shares.astype(np.float32)

    return mapped(soften, outputs)


def prediction(outputs: Array, task: Task) -> Array:
    """A regression head's prediction from a teacher's ``outputs``.

    The outputs, or σ of them where a Sigmoid follows.
    """
    if task.squash == "Sigmoid":
        return mapped(lambda values: sigmoid(values.astype(np.float64)).astype(np.float32), outputs)
    return outputs


def mapped(change: Callable[..., Array], *arrays: Array) -> Array:
    """Apply ``change`` to the arrays, which have the same first axis; a large result lies in a file."""
    rows, pieces = len(arrays[0]), chunks(max(arrays, key=lambda values: values.nbytes))
    result: Array | None = None
    for start, stop in pieces:
        piece = change(*(values[start:stop] for values in arrays))
        if stop - start == rows:
            return piece
        if result is None:
            result = space((rows, *piece.shape[1:]), piece.dtype)
        result[start:stop] = piece
    return change(*arrays) if result is None else result


def space(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Return an array to be filled; a large one lies in a temporary file, which goes when nothing uses it any more.

    Raises:
        DataError: there is no room for the file.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if size <= MAPPED_BYTES:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="onnxsurgeon-") as file:
            if hasattr(os, "posix_fallocate"):  # without it, a disk that fills up later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape)
    except OSError as error:
        place = tempfile.gettempdir()
        raise DataError(
            f"targets of {size / 2**20:,.0f} MB find no room in {place}: {error.strerror}", "too-much-data"
        ) from error


def require_finite(values: Array, first_row: int, what: str) -> None:
    """Check that the outputs ``values`` of rows from ``first_row`` on are finite.

    Raises:
        DataError: those of a row are not; the text starts with ``what``.
    """
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise DataError(f"{what} is not finite in row {first_row + int(np.argmin(finite))}", "outputs-not-finite")


def sigmoid(values: Array) -> Array:
    """σ(z) of any size of z, without overflow, in its type."""
    result: Array = np.exp(-np.logaddexp(0, -values))
    return result
