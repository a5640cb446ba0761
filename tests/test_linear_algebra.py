"""Products and spectra of large matrices: block by block, and yet what numpy says."""

import hashlib
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from onnxsurgeon import linear_algebra
from onnxsurgeon.buffers import CHUNK, byte_chunks
from onnxsurgeon.linear_algebra import LARGE, eigen, matmul, rank, singular_values, svd, truncated_svd

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(70_000, 64), (64, 70_000), (3000, 2000)], ids=["tall", "wide", "not elongated"])
def test_singular_values_of_large_matrices(shape):
    weight = RNG.standard_normal(shape).astype("f") * np.geomspace(1, 1e-3, shape[1], dtype="f")
    if shape == (3000, 2000):
        weight[:] = 0  # LAPACK takes seconds for a full one
        np.fill_diagonal(weight, np.arange(2000, 0, -1))
    assert weight.size > LARGE
    values = singular_values(weight)
    small = min(shape)
    expected = np.sqrt(np.linalg.eigvalsh(_gram(weight))[::-1][:small]) if small == 64 else np.arange(2000.0, 0, -1)
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def _gram(weight):
    wide = weight.astype(np.float64)
    return wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T


def test_the_block_wise_spectrum_is_numpys(monkeypatch):
    weight = RNG.standard_normal((4000, 30)).astype("f") @ np.diag(np.geomspace(1, 1e-6, 30)).astype("f")
    expected = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    monkeypatch.setattr(linear_algebra, "LARGE", 10_000)
    monkeypatch.setattr(linear_algebra, "_spectra", {})
    for matrix in (weight, weight.T, np.asfortranarray(weight)):
        np.testing.assert_allclose(singular_values(matrix), expected, rtol=1e-9)
        assert np.array_equal(singular_values(matrix), linear_algebra._spectra[linear_algebra._digest(matrix)])


def test_rank_of_a_large_matrix_that_lacks_some():
    weight = (RNG.standard_normal((140_000, 20)) @ RNG.standard_normal((20, 40))).astype("f")
    assert weight.size > LARGE
    assert rank(weight) == 20


@pytest.mark.usefixtures("two_blas_threads")
def test_small_spectra_are_bit_identical_to_numpys():
    weight = RNG.standard_normal((300, 20)).astype("f")
    with linear_algebra.single_threaded():
        expected = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    assert np.array_equal(singular_values(weight), expected)


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize(
    ("a", "b"), [((900, 20), (20, 30)), ((20, 900), (900, 30)), ((20, 30), (30, 900)), ((30,), (30, 900))]
)
def test_blocks_of_products(a, b, monkeypatch):
    left, right = RNG.standard_normal(a).astype("f"), RNG.standard_normal(b).astype("f")
    plain = matmul(left, right)
    with linear_algebra.single_threaded():
        assert np.array_equal(plain, left.astype(np.float64) @ right.astype(np.float64))
    monkeypatch.setattr(linear_algebra, "LARGE", 1000)
    np.testing.assert_allclose(matmul(left, right), plain, rtol=1e-12, atol=1e-12)
    assert matmul(left, right).shape == plain.shape


def test_no_bit_depends_on_the_number_of_blas_threads(monkeypatch):
    weight = RNG.standard_normal((700, 900))
    other, symmetric = weight.astype("f"), weight @ weight.T
    monkeypatch.setattr(linear_algebra, "LARGE", 10_000)
    monkeypatch.setattr(linear_algebra, "GRAM_SIDE", 100)
    blas, results = ThreadpoolController().select(user_api="blas"), []
    for count in (1, 2):
        monkeypatch.setattr(linear_algebra, "_spectra", {})
        with blas.limit(limits=count):
            assert {library["num_threads"] for library in blas.info()} == {count}
            found = [singular_values(weight), singular_values(other), *svd(weight), *truncated_svd(other, 7)]
            found += [*eigen(symmetric), matmul(weight, weight.T), matmul(other[0], other[0])]
            results.append([rank(other), *(array.tobytes() for array in found)])
    assert results[0] == results[1]


def test_large_products_and_spectra_are_not_copied_whole():
    weight = RNG.standard_normal((1_000_000, 8)).astype("f")  # 32 MB, 64 MB in float64
    tracemalloc.start()
    singular_values(weight[:900_000])
    _, spectrum = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    assert matmul(weight, np.ones((8, 1), "f")).shape == (1_000_000, 1)
    _, product = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spectrum < 160e6
    assert product < 64e6


@pytest.mark.parametrize("order", ["C", "F"])
def test_chunks_are_the_bytes(order):
    array = np.asarray(RNG.standard_normal((3, 1_700_000)), dtype="f4", order=order)
    assert array.nbytes > CHUNK
    chunks = list(byte_chunks(array))
    assert len(chunks) > 1
    assert max(len(chunk) for chunk in chunks) <= CHUNK
    assert hashlib.sha256(b"".join(chunks)).digest() == hashlib.sha256(array.tobytes()).digest()
