"""Large matrices without a decomposition of themselves: how exact that is, and where it is not done."""

import numpy as np
import pytest

from onnxsurgeon import linear_algebra
from onnxsurgeon.linear_algebra import (
    GRAM_SIDE,
    LARGE,
    RESOLUTION,
    count_below,
    has_gram,
    matmul,
    rank,
    singular_values,
    svd,
    truncated_svd,
)
from onnxsurgeon.recommend import Thresholds, removable_neurons

RNG = np.random.default_rng(0)
SHAPES = [(300, 200), (200, 300), (250, 250)]


def normal(shape):
    return RNG.standard_normal(shape)


def lacking(shape):
    return normal((shape[0], 40)) @ normal((40, shape[1]))


def doubled(shape):
    values = normal(shape).astype("f")  # copies are equal to the bit
    values[:, shape[1] // 2 :] = values[:, : shape[1] - shape[1] // 2]
    return values


def unevenly_scaled(shape):
    return normal(shape) * np.geomspace(1, 1e-12, shape[1])


MATRICES = {
    "full": normal,
    "lacking": lacking,
    "doubled": doubled,
    "unevenly scaled": unevenly_scaled,
    "zero": np.zeros,
    "tiny": lambda shape: 1e-35 * normal(shape),
    "huge": lambda shape: 1e35 * lacking(shape),
    "half precision": lambda shape: (100 * normal(shape)).astype(np.float16),
}


@pytest.fixture(autouse=True)
def _many_are_large(monkeypatch):
    monkeypatch.setattr(linear_algebra, "LARGE", 10_000)
    monkeypatch.setattr(linear_algebra, "GRAM_SIDE", 100)
    monkeypatch.setattr(linear_algebra, "_spectra", {})


@pytest.fixture(params=[(shape, name) for shape in SHAPES for name in MATRICES], ids=str)
def matrix(request):
    shape, name = request.param
    made = MATRICES[name](shape)
    return made if made.dtype == np.float16 else made.astype(np.float32)


def test_singular_values_are_as_exact_as_is_said(matrix):
    assert has_gram(matrix)
    values, expected = singular_values(matrix), np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    largest = expected[0]
    assert (np.diff(values) <= 0).all()
    error = np.abs(values - expected)
    assert (error <= 1e-14 * largest * (largest / np.maximum(expected, 1e-7 * largest or 1))).all()
    assert (error <= 0.1 * RESOLUTION * largest).all()


def test_ranks_and_removable_neurons_are_those_of_the_full_decomposition(matrix, monkeypatch):
    def found():
        counts = [removable_neurons(matrix, Thresholds(*pair)) for pair in ((0.005, 0.3), (1e-4, 0), (1e-9, 0), (0, 0))]
        return rank(matrix), counts

    by_gram = found()
    monkeypatch.setattr(linear_algebra, "GRAM_SIDE", 1000)
    assert not has_gram(matrix)
    assert by_gram == found()


def test_a_threshold_below_the_resolution_takes_the_full_decomposition():
    matrix = doubled((300, 200))
    assert count_below(matrix, 1e-10) == 100
    assert np.count_nonzero(singular_values(matrix) < 1e-10 * singular_values(matrix)[0]) != 100
    assert count_below(matrix, 0.0, 1e-9) == 100
    assert count_below(matrix, 0.0) == 0


def test_the_best_approximation_of_every_rank(matrix):
    wide = matrix.astype(np.float64)
    values = np.linalg.svd(wide, compute_uv=False)
    ulp = np.finfo(matrix.dtype).eps
    for r in (1, 30, 60, 200):
        projected, vt = truncated_svd(matrix, r)
        assert (projected.shape, projected.dtype, vt.shape) == ((len(matrix), r), matrix.dtype, (r, matrix.shape[1]))
        np.testing.assert_allclose(vt @ vt.T, np.eye(r), atol=1e-12)
        assert (vt.sum(axis=1) >= 0).all()
        lost = np.linalg.norm(wide - projected.astype(np.float64) @ vt)
        best = np.sqrt((values[r:] ** 2).sum())
        assert lost <= best + ulp * np.linalg.norm(wide)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_vectors_are_those_of_the_full_decomposition(shape):
    u, s, vt = svd(normal(shape))
    matrix = (u * np.geomspace(1, 1e-3, len(s))) @ vt
    matrix = matrix.astype(np.float32)
    full, thin = svd(matrix), truncated_svd(matrix, 20)
    np.testing.assert_allclose(thin.vt, full.vt[:20], atol=1e-9)
    np.testing.assert_allclose(thin.projected, full.u[:, :20] * full.s[:20], rtol=0, atol=1e-7)


def test_what_is_large(monkeypatch):
    monkeypatch.undo()
    assert GRAM_SIDE**2 < LARGE
    below, above = np.zeros((LARGE // 2048, 2048), np.float32), np.zeros((LARGE // 2048 + 1, 2048), np.float32)
    assert not has_gram(below)
    assert has_gram(above)
    assert has_gram(above.T)
    assert has_gram(above.astype(np.float16))
    assert not has_gram(above.astype(np.float64))  # as exact as its own values are, which a Gram matrix is not
    assert not has_gram(np.zeros((LARGE, GRAM_SIDE - 1), np.float32))


def test_a_matrix_just_over_the_limits(monkeypatch):
    monkeypatch.undo()
    expected = np.zeros(2048)
    expected[:1500] = np.arange(1500, 0, -1)
    matrix = np.zeros((LARGE // 2048 + 1, 2048), np.float32)
    np.fill_diagonal(matrix, expected)
    matrix = matrix[RNG.permutation(len(matrix))][:, RNG.permutation(2048)]
    assert has_gram(matrix)
    np.testing.assert_allclose(singular_values(matrix), expected, rtol=1e-12, atol=RESOLUTION)
    assert rank(matrix) == 1500


def variants(matrix):
    """The same matrix in other orders of storage."""
    spread = np.zeros((2 * matrix.shape[0], 3 * matrix.shape[1]), matrix.dtype)
    spread[::2, ::3] = matrix
    backwards = matrix[::-1, ::-1].copy()
    return [np.asfortranarray(matrix), spread[::2, ::3], backwards[::-1, ::-1]]


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (120, 90), (2000, 70), (70, 2000)], ids=str)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_order_of_storage_does_not_change_a_bit(shape, dtype, monkeypatch):
    matrix = normal(shape).astype(dtype)
    other = normal((shape[1], 50)).astype(dtype)
    row = normal(shape[0]).astype(dtype)

    def results(matrix, other):
        monkeypatch.setattr(linear_algebra, "_spectra", {})
        yield from (singular_values(matrix), singular_values(matrix, by_gram=False))
        yield from (*svd(matrix), *truncated_svd(matrix, 7))
        yield from (matmul(matrix, other), matmul(other.T, matrix.T), matmul(row, matrix))

    expected = list(results(matrix, other))
    for stored, factor in zip(variants(matrix), variants(other), strict=True):
        assert np.array_equal(stored, matrix)
        assert all(np.array_equal(a, b) for a, b in zip(results(stored, factor), expected, strict=True))


def test_spectra_are_remembered_by_content_and_cannot_be_changed(monkeypatch):
    matrix = doubled((300, 200))
    values = singular_values(matrix)
    exact = singular_values(matrix, by_gram=False)
    monkeypatch.setattr(linear_algebra, "_spectrum", lambda *_, **__: pytest.fail("computed again"))
    for stored in (matrix.copy(), *variants(matrix)):
        assert singular_values(stored) is values
        assert singular_values(stored, by_gram=False) is exact
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0
