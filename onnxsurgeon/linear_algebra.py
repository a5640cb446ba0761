"""Singular values and matrix products whose bytes do not depend on the number of BLAS threads.

BLAS rounds differently with another number of threads, and a run must end in the same bytes on every
machine of one kind. Everything here computes in float64 on one thread.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from onnxsurgeon.buffers import byte_chunks

Array = npt.NDArray[Any]

# Elements from which on a matrix is not copied to float64 as a whole where that can be avoided: 32 MB of it.
LARGE = 2**22
_ELONGATED = 8

# threadpoolctl's limits belong to the process, not to the thread that sets them: without the lock, one thread
# could restore the old number of threads while another still computes.
_LOCK = threading.RLock()
_CACHE_SIZE = 256
_spectra: dict[bytes, Array] = {}


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Hold BLAS to one thread for the duration of the block."""
    with _LOCK, _controller().limit(limits=1):
        yield


class SVD(NamedTuple):
    """W = U diag(s) Vᵀ, with s descending and every column of V signed so that its sum is ≥ 0."""

    u: Array
    s: Array
    vt: Array


def svd(weight: Array) -> SVD:
    """Singular value decomposition of ``weight`` (n_in, n_out) in float64.

    The sign of a singular vector is arbitrary, yet through a Relu it decides how much of a layer survives
    ``narrow``; fixing the column sums of V to be non-negative makes the result unique, and milder.
    """
    with single_threaded():
        u, s, vt = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    signs = np.where(vt.sum(axis=1) < 0, -1.0, 1.0)
    return SVD(u * signs, s, vt * signs[:, None])


def singular_values(weight: Array) -> Array:
    """Singular values of ``weight`` in float64, descending; remembered by the content of the matrix."""
    key = _digest(weight)
    with _LOCK:
        if key not in _spectra:
            while len(_spectra) >= _CACHE_SIZE:
                del _spectra[next(iter(_spectra))]
            with single_threaded():
                _spectra[key] = np.linalg.svd(_condensed(weight), compute_uv=False)
        return _spectra[key]


def _digest(weight: Array) -> bytes:
    digest = hashlib.sha256(repr((weight.shape, weight.dtype.str)).encode())
    for chunk in byte_chunks(weight):
        digest.update(chunk)
    return digest.digest()


def _condensed(weight: Array) -> Array:
    """A matrix in float64 with the singular values of ``weight``: itself, or R of its QR where it is long and large.

    With A = [A₁; A₂; …], the R of [R of [A₁; …; Aₖ]; Aₖ₊₁] is that of A up to signs, and A = QR has R's singular
    values: one block of rows at a time is held in float64.
    """
    if weight.size <= LARGE or max(weight.shape) < _ELONGATED * min(weight.shape):
        return weight.astype(np.float64)
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    rows = _rows(tall)
    condensed: Array = np.empty((0, tall.shape[1]))
    for start in range(0, len(tall), rows):
        block = tall[start : start + rows].astype(np.float64)
        condensed = np.asarray(np.linalg.qr(np.concatenate((condensed, block)), mode="r"))
    return condensed


def _rows(matrix: Array) -> int:
    """Rows of a block that is worth a call of BLAS and small beside a large matrix."""
    return max(2 * int(matrix.shape[1]), LARGE // int(matrix.shape[1]))


def matmul(*factors: Array) -> Array:
    """Product of the factors from left to right in float64 on one thread.

    Of a large factor, a block of rows or columns at a time is held in float64.
    """
    with single_threaded():
        product = factors[0]
        for factor in factors[1:]:
            product = _product(product, factor)
        return product.astype(np.float64)


def _product(a: Array, b: Array) -> Array:
    if max(a.size, b.size) <= LARGE:
        return a.astype(np.float64) @ b.astype(np.float64)
    inner = len(b)
    rows = len(a) if a.ndim == 2 else 1
    columns = b.shape[1] if b.ndim == 2 else 1
    result = np.zeros((rows, columns))
    left, right = a.reshape(rows, inner), b.reshape(inner, columns)
    step = max(1, LARGE // sorted((rows, inner, columns))[1])
    if inner >= max(rows, columns):
        for start in range(0, inner, step):
            part = slice(start, start + step)
            result += left[:, part].astype(np.float64) @ right[part].astype(np.float64)
    elif rows >= columns:
        whole = right.astype(np.float64)
        for start in range(0, rows, step):
            np.matmul(left[start : start + step].astype(np.float64), whole, out=result[start : start + step])
    else:
        whole = left.astype(np.float64)
        for start in range(0, columns, step):
            result[:, start : start + step] = whole @ right[:, start : start + step].astype(np.float64)
    return result.reshape(*a.shape[:-1], *b.shape[1:])


def rank(weight: Array) -> int:
    """Numerical rank of ``weight`` at the precision of its own type (numpy's and MATLAB's threshold)."""
    values = singular_values(weight)
    if values.size == 0:
        return 0
    return int(np.count_nonzero(values > values[0] * max(weight.shape) * np.finfo(weight.dtype).eps))
