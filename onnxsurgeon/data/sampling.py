"""Samples of a data set's rows, where looking at all of them would take too long."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.data.dataset import Split
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import number_type
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator

SAMPLE = 4096


def sample_rows(
    examples: Examples | Split,
    count: int = SAMPLE,
    seed: int = 0,
    purpose: str = "calibration",
    among: int | None = None,
) -> Array:
    """Draw at most ``count`` row numbers, ascending, from the first ``among`` rows (all).

    Seed and purpose decide which.

    Raises:
        DataError: there are none.
    """
    if examples.rows < 1 or count < 1:
        raise DataError("calibration needs at least one row", "no-rows")
    rows = among or examples.rows
    numbers = np.arange(rows, dtype=number_type(rows))
    generator(seed, purpose).shuffle(numbers)
    return np.sort(numbers[:count]).astype(np.int64)
