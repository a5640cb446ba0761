"""Which rows of a data set are looked at where all would be too many."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.data.dataset import Split
from onnxsurgeon.data.examples import Examples
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
    """At most ``count`` row numbers, ascending, of the first ``among`` rows (all); which depends on seed and purpose.

    Raises:
        DataError: there are none.
    """
    if examples.rows < 1 or count < 1:
        raise DataError("calibration needs at least one row", "no-rows")
    return np.sort(generator(seed, purpose).permutation(among or examples.rows)[:count])
