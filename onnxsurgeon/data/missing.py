"""Missing values of a table, filled by values computed from the training rows."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.choices import IMPUTATIONS
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array


def require_imputation(impute: str | None) -> None:
    """Raise DataError unless ``impute`` is None or one of ``IMPUTATIONS``."""
    if impute is not None and impute not in IMPUTATIONS:
        raise DataError(f"impute: '{impute}' is unknown: expected one of {', '.join(IMPUTATIONS)}", "unknown-choice")


def stand_in(what: str, present: Array, impute: str) -> tuple[Array, np.dtype[np.generic]]:
    """Compute the value that stands in for a column's missing numbers, and the column's type with it.

    Args:
        what: file and column, for errors.
        present: the numbers (n,) of the rows that are trained on only, so that nothing of a test row reaches the
            training.
        impute: "mean", "median" or "most-frequent"; of equally frequent values the smallest.

    Returns:
        A value, (); integers become float64 where their mean or median may be no integer.

    Raises:
        DataError: all of these rows lack the value.
    """
    if not len(present):
        raise no_value(what)
    if impute == "most-frequent":
        values, counts = np.unique(present, return_counts=True)
        return values[np.argmax(counts)], present.dtype
    dtype = present.dtype if present.dtype.kind == "f" else np.dtype(np.float64)
    with np.errstate(over="ignore"):
        value = np.mean(present, dtype=np.float64) if impute == "mean" else np.median(present.astype(np.float64))
    if not np.isfinite(value):
        raise DataError(f"{what}: its values are too large for their {impute}", "value-too-large")
    return np.asarray(value, dtype), dtype


def no_value(what: str) -> DataError:
    """The error that all training rows lack the value."""
    return DataError(f"{what}: no training row has a value; leave the column out", "missing-value")
