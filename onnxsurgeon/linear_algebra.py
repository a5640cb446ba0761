"""Singular values and matrix products whose bytes do not depend on the number of BLAS threads.

BLAS rounds differently with another number of threads, and with factors stored column by column; a run must end in
the same bytes on every machine of one kind, whether a network has just been trained or was read from its file.
Everything here computes in float64 on one thread, from matrices stored row by row.
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

# A matrix of this many elements or more (32 MB in float64) is not copied to float64 as a whole if that can be avoided.
LARGE = 2**22
_ELONGATED = 8
# From this side on, the singular values of a large matrix come from its Gram matrix; below, from a QR and a small SVD.
GRAM_SIDE = 1024
# Singular values from a Gram matrix cannot be told from 0 below this fraction of the largest. They are off by about ε
# σ_max² / 2σ and at most √ε σ_max, where ε, a few times 2⁻⁵², is the rounding of the Gram matrix.
RESOLUTION = 1e-6

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


class Truncated(NamedTuple):
    """The leading part of W = U Σ Vᵀ: ``projected`` = U_r Σ_r = W V_r, (n_in, r) in W's type, and ``vt`` = V_rᵀ."""

    projected: Array
    vt: Array


def svd(weight: Array) -> SVD:
    """Singular value decomposition of ``weight`` (n_in, n_out) in float64.

    The sign of a singular vector is arbitrary, yet through a Relu it decides how much of a layer survives
    ``narrow``; fixing the column sums of V to be non-negative makes the result unique, and milder.
    """
    with single_threaded():
        u, s, vt = np.linalg.svd(in_float64(weight), full_matrices=False)
    signs = _signs(vt)
    return SVD(u * signs, s, vt * signs[:, None])


def truncated_svd(weight: Array, rank: int) -> Truncated:
    """The ``rank`` leading singular values of ``weight`` (n_in, n_out) with their vectors, signed as in ``svd``.

    For large matrices V comes from WᵀW = V Σ² Vᵀ, and U_r Σ_r = W V_r needs no U.
    """
    if not has_gram(weight):
        u, s, vt = svd(weight)
        return Truncated((u[:, :rank] * s[:rank]).astype(weight.dtype), vt[:rank])
    with single_threaded():
        vt = np.linalg.eigh(gram(weight)).eigenvectors.T[: -rank - 1 : -1].copy()
        if weight.shape[0] < weight.shape[1]:
            # These are the vectors U of WWᵀ. The columns of WᵀU = VΣ are orthogonal, and Q of their QR is V up to
            # signs, with orthonormal columns even where Σ has zeros.
            vt = in_float64(np.linalg.qr(matmul(weight.T, vt.T)).Q.T)
        vt *= _signs(vt)[:, None]
        return Truncated(matmul(weight, vt.T, dtype=weight.dtype), vt)


class Eigen(NamedTuple):
    """A = V diag(λ) Vᵀ of a symmetric matrix, with λ descending and every column of V signed so that its sum is ≥ 0."""

    values: Array
    vt: Array


def eigen(symmetric: Array) -> Eigen:
    """Eigendecomposition of a symmetric matrix (n, n) in float64."""
    with single_threaded():
        values, vectors = np.linalg.eigh(in_float64(symmetric))
    vt = vectors.T[::-1].copy()
    return Eigen(values[::-1].copy(), vt * _signs(vt)[:, None])


def _signs(vt: Array) -> Array:
    return np.where(vt.sum(axis=1) < 0, -1.0, 1.0)


def in_float64(values: Array) -> Array:
    """Return the values in float64, stored row by row; they are copied only where they are not so already."""
    return np.ascontiguousarray(values, np.float64)


def singular_values(weight: Array, *, by_gram: bool = True) -> Array:
    """Singular values of ``weight`` in float64, descending; read-only, and remembered by the content of the matrix.

    Those of a large matrix are exact to ``RESOLUTION``, see ``has_gram``, unless ``by_gram`` is false.
    """
    by_gram = by_gram and has_gram(weight)
    key = _digest(weight) + (b"gram" if by_gram else b"")
    with _LOCK:
        if key not in _spectra:
            while len(_spectra) >= _CACHE_SIZE:
                del _spectra[next(iter(_spectra))]
            _spectra[key] = _spectrum(weight, by_gram=by_gram)
            _spectra[key].setflags(write=False)
        return _spectra[key]


def _spectrum(weight: Array, *, by_gram: bool) -> Array:
    with single_threaded():
        if not by_gram:
            return np.linalg.svd(_condensed(weight), compute_uv=False)
        return np.sqrt(np.maximum(np.linalg.eigvalsh(gram(weight))[::-1], 0))


def count_below(weight: Array, relative: float, absolute: float = 0.0) -> int:
    """Number of singular values of ``weight`` that are below ``relative`` · σ_max or below ``absolute``.

    A full decomposition is made where this threshold is smaller than a Gram matrix can tell from 0.
    """
    values = singular_values(weight)
    largest = values.max(initial=0.0)
    threshold = max(relative * largest, absolute)
    if 0 < threshold < RESOLUTION * largest:
        values = singular_values(weight, by_gram=False)
    return int(np.count_nonzero(values < threshold))


def has_gram(weight: Array) -> bool:
    """Whether the singular values of ``weight`` are taken from its Gram matrix instead of an SVD of itself.

    Squaring loses half of float64's digits: see ``RESOLUTION``. In a matrix of float32 the rounding of its own values
    hides as much, and the usual thresholds lie far above: the numerical rank's is max(n_in, n_out) · 2⁻²³ σ_max, which
    is at least 1e-4 σ_max here, and eq. 13's is 0.005 σ_max. A matrix of float64 is decomposed itself.
    """
    return weight.size > LARGE and min(weight.shape) >= GRAM_SIDE and np.finfo(weight.dtype).eps > 1e-8


def gram(weight: Array) -> Array:
    """Return WᵀW or WWᵀ, the smaller of the two, in float64; a block of rows or columns at a time is copied."""
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    total = np.zeros((tall.shape[1], tall.shape[1]))
    rows = max(1, LARGE // tall.shape[1])
    for start in range(0, len(tall), rows):
        block = in_float64(tall[start : start + rows])
        total += block.T @ block
    return total


def _digest(weight: Array) -> bytes:
    digest = hashlib.sha256(repr((weight.shape, weight.dtype.str)).encode())
    for chunk in byte_chunks(weight):
        digest.update(chunk)
    return digest.digest()


def _condensed(weight: Array) -> Array:
    """Return a matrix in float64 with the singular values of ``weight``: itself, or, if it is long and large, its R.

    With A = [A₁; A₂; …], the R of [R of [A₁; …; Aₖ]; Aₖ₊₁] is that of A up to signs, and A = QR has R's singular
    values: one block of rows at a time is held in float64.
    """
    if weight.size <= LARGE or max(weight.shape) < _ELONGATED * min(weight.shape):
        return in_float64(weight)
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    rows = _rows(tall)
    condensed: Array = np.empty((0, tall.shape[1]))
    for start in range(0, len(tall), rows):
        block = in_float64(tall[start : start + rows])
        condensed = np.asarray(np.linalg.qr(np.concatenate((condensed, block)), mode="r"))
    return condensed


def _rows(matrix: Array) -> int:
    """Number of rows of a block that is worth a call of BLAS and still small beside a large matrix."""
    return max(2 * int(matrix.shape[1]), LARGE // int(matrix.shape[1]))


def matmul(a: Array, b: Array, dtype: npt.DTypeLike = np.float64) -> Array:
    """Product of two vectors or matrices, computed in float64 on one thread and rounded to ``dtype``.

    Of a large factor, one block of rows or columns at a time is held in float64. So is a large result, unless it is a
    sum over blocks.
    """
    with single_threaded():
        if max(a.size, b.size) <= LARGE:
            return (in_float64(a) @ in_float64(b)).astype(dtype, copy=False)
        return _blockwise(a, b, np.dtype(dtype))


def _blockwise(a: Array, b: Array, dtype: np.dtype[Any]) -> Array:
    inner = len(b)
    rows = len(a) if a.ndim == 2 else 1
    columns = b.shape[1] if b.ndim == 2 else 1
    left, right = a.reshape(rows, inner), b.reshape(inner, columns)
    step = max(1, LARGE // sorted((rows, inner, columns))[1])
    if inner >= max(rows, columns):
        total = np.zeros((rows, columns))
        for start in range(0, inner, step):
            part = slice(start, start + step)
            total += in_float64(left[:, part]) @ in_float64(right[part])
        result = total.astype(dtype, copy=False)
    elif rows >= columns:
        result = np.empty((rows, columns), dtype)
        whole = in_float64(right)
        for start in range(0, rows, step):
            result[start : start + step] = in_float64(left[start : start + step]) @ whole
    else:
        result = np.empty((rows, columns), dtype)
        whole = in_float64(left)
        for start in range(0, columns, step):
            result[:, start : start + step] = whole @ in_float64(right[:, start : start + step])
    return result.reshape(*a.shape[:-1], *b.shape[1:])


def rank(weight: Array) -> int:
    """Numerical rank of ``weight`` at the precision of its own type (numpy's and MATLAB's threshold)."""
    values = singular_values(weight)
    if values.size == 0:
        return 0
    return int(np.count_nonzero(values > values[0] * max(weight.shape) * np.finfo(weight.dtype).eps))
