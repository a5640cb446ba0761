"""Missing values of a table, filled by what the training rows hold."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

IMPUTATIONS = ("mean", "median", "most-frequent")


def require_imputation(impute: str | None) -> None:
    """Raise DataError unless ``impute`` is None or one of ``IMPUTATIONS``."""
    if impute is not None and impute not in IMPUTATIONS:
        raise DataError(f"impute: '{impute}' is unknown: expected one of {', '.join(IMPUTATIONS)}")


def filled(what: str, column: Array, missing: Array, known: Array, impute: str) -> Array:
    """The column (rows,) with one value in place of all missing ones.

    Args:
        what: file and column, for errors.
        column: numbers or texts (rows,); of texts it is always the most frequent one that stands in.
        missing: where they are missing (rows,).
        known: numbers of the rows to compute from; those that are trained on, so that nothing of a row that is tested
            on reaches the training.
        impute: "mean", "median" or "most-frequent"; of equally frequent values the smallest.

    Returns:
        The column; integers become float64 where their mean or median may be none.

    Raises:
        DataError: all of these rows lack the value.
    """
    present = column[known[~missing[known]]]
    if not len(present):
        raise DataError(f"{what}: no training row has a value; leave the column out")
    if impute == "most-frequent" or column.dtype.kind == "U":
        values, counts = np.unique(present, return_counts=True)
        return np.where(missing, values[np.argmax(counts)], column)
    column = column if column.dtype.kind == "f" else column.astype(np.float64)
    value = np.mean(present, dtype=np.float64) if impute == "mean" else np.median(present.astype(np.float64))
    return np.where(missing, column.dtype.type(value), column)
