"""Different values are counted a piece at a time as they would be at once."""

import numpy as np
import pytest

from onnxsurgeon.data import distinct as module
from onnxsurgeon.data.distinct import distinct

RNG = np.random.default_rng(4)


@pytest.mark.parametrize(
    "values",
    [
        RNG.integers(-3, 9, 500),
        np.sort(RNG.integers(0, 400, 500)),
        np.array(["b", "", "ccc", "a"])[RNG.integers(0, 4, 300)],
        RNG.integers(0, 2, 100).astype(bool),
        np.array([], np.int64),
    ],
    ids=["integers", "ascending", "texts", "truth values", "none"],
)
def test_pieces_make_no_difference(values, monkeypatch):
    monkeypatch.setattr(module, "_PIECE_BYTES", 7 * max(1, values.dtype.itemsize))
    for found, expected in zip(distinct(values), np.unique(values, return_counts=True), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_once_there_are_too_many_the_rest_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(module, "_PIECE_BYTES", 80)
    assert len(distinct(np.arange(10_000), 15)[0]) == 20
    assert len(distinct(np.arange(10_000) % 12, 15)[0]) == 12
