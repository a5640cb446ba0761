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

Array = npt.NDArray[Any]

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
    key = hashlib.sha256(repr((weight.shape, weight.dtype.str)).encode() + weight.tobytes()).digest()
    with _LOCK:
        if key not in _spectra:
            while len(_spectra) >= _CACHE_SIZE:
                del _spectra[next(iter(_spectra))]
            with single_threaded():
                _spectra[key] = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
        return _spectra[key]


def matmul(*factors: Array) -> Array:
    """Product of the factors from left to right in float64 on one thread."""
    with single_threaded():
        product = factors[0].astype(np.float64)
        for factor in factors[1:]:
            product = product @ factor.astype(np.float64)
    return product


def rank(weight: Array) -> int:
    """Numerical rank of ``weight`` at the precision of its own type (numpy's and MATLAB's threshold)."""
    values = singular_values(weight)
    if values.size == 0:
        return 0
    return int(np.count_nonzero(values > values[0] * max(weight.shape) * np.finfo(weight.dtype).eps))
