"""A teacher's outputs as targets: softened distributions, probabilities, values; of large ones a piece at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import numpy as np

from onnxsurgeon.data.dataset import chunks
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CROSS_ENTROPY, Task

MAPPED_BYTES = 2**26  # from which on targets lie in a file without a name, and memory holds what is read of them


def soft_targets(outputs: Array, task: Task, temperature: float) -> Array:
    """softmax(t/T) over the last axis for classes, else σ(t/T), float32, for a teacher's ``outputs`` t."""

    def soften(values: Array) -> Array:
        t = values.astype(np.float64) / temperature
        if task.loss != CROSS_ENTROPY:
            return _sigmoid(t).astype(np.float32)
        exponentials = np.exp(t - t.max(axis=-1, keepdims=True))
        shares: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return shares.astype(np.float32)

    return mapped(soften, outputs)


def prediction(outputs: Array, task: Task) -> Array:
    """What a regression's head makes of a teacher's ``outputs``: the same, or σ of them where that follows."""
    if task.squash == "Sigmoid":
        return mapped(lambda values: _sigmoid(values.astype(np.float64)).astype(np.float32), outputs)
    return outputs


def mapped(change: Callable[..., Array], *arrays: Array) -> Array:
    """``change`` of the arrays, which have their first axis alike; where the result is large it lies in a file."""
    rows, pieces = len(arrays[0]), chunks(arrays[0])
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
    """An array to be filled; a large one in a temporary file, which goes when nothing holds it any more."""
    if np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64)) <= MAPPED_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="onnxsurgeon-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _sigmoid(values: Array) -> Array:
    result: Array = np.exp(-np.logaddexp(0, -values))
    return result
