"""From the values in a user's file to what is predicted: classes, or targets of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxsurgeon.data.dataset import unlabelled
from onnxsurgeon.data.distinct import distinct
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

# A column of integers in a table names classes if it takes at most this many values, each on several rows.
_MOST_CLASSES = 100
_ROWS_A_CLASS = 2


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels and the names of their classes; see ``Dataset``.

    Attributes:
        labels: (rows,) or (rows, k), as in ``Split``.
        classes: number of classes; 0 where the labels are not one column of classes.
        class_labels: names of the classes, where they are not 0 to C − 1.
    """

    labels: Array
    classes: int = 0
    class_labels: tuple[int, ...] | tuple[str, ...] = ()


def from_arrays(where: str, arrays: Sequence[Array]) -> tuple[Targets, list[Array]]:
    """Read the targets of a set that came as arrays, one for each split; return them and the labels of each split.

    Texts and integers are classes; so are floats that are all whole numbers of 64 bits, as Keras' users write them.
    Other floats, and floats in several columns, are targets of a regression. Integers in several columns are 0 or 1 for
    each of several labels, or a class for each of several heads.

    Raises:
        DataError: the splits' labels are of different kinds, or numbers of several columns are no classes.
    """
    if all(labels.shape[1:] == (0,) for labels in arrays):
        return Targets(unlabelled(sum(map(len, arrays)))), list(arrays)
    kinds = {"texts" if labels.dtype.kind == "U" else "numbers" for labels in arrays}
    columns = {labels.shape[1:] for labels in arrays}
    if len(kinds) > 1 or len(columns) > 1:
        found = " and ".join(sorted({f"{labels.dtype} {labels.shape}" for labels in arrays}))
        raise DataError(f"{where}: the labels of its splits must be of one kind and width; found {found}", "label-form")
    labels = np.concatenate(arrays)
    if labels.ndim == 1:
        whole = labels.dtype.kind != "f" or _are_integers(labels)
        targets = classes(labels if labels.dtype.kind == "U" else _integers(where, labels)) if whole else None
        targets = targets or Targets(_floats(labels))
    else:
        targets = _columns(where, labels)
    ends = np.cumsum([len(split) for split in arrays])[:-1]
    return targets, np.split(targets.labels, ends)


def from_columns(where: str, columns: dict[str, Array]) -> Targets:
    """Read the targets of a table, from one column or several.

    In one column, texts and booleans are classes, and so are integers of at most 100 different values that have two
    rows each on average; other integers and all floats are targets of a regression. Several columns are classes, or 0
    and 1, if all are integers that count from 0; else they are targets of a regression.

    Raises:
        DataError: one of several columns holds texts.
    """
    values = list(columns.values())
    if len(values) == 1:
        (column,) = values
        if column.dtype.kind in "Ub":
            return classes(column if column.dtype.kind == "U" else column.astype(np.int64))
        if column.dtype.kind == "i" and _few(column):
            return classes(column)
        return Targets(_floats(column))
    for name, column in columns.items():
        if column.dtype.kind == "U":
            raise DataError(f"{where}: target '{name}' holds texts; several targets must all be numbers", "label-form")
    if all(column.dtype.kind in "ib" and column.min() >= 0 and _few(column) for column in values):
        return Targets(np.stack([column.astype(np.int64) for column in values], axis=1))
    return Targets(np.stack([_floats(column) for column in values], axis=1))


def classes(labels: Array) -> Targets:
    """Number one column of classes, int64 or texts, in ascending order; 0 to C − 1 stay as they are."""
    names, _ = distinct(labels)
    if labels.dtype.kind == "i" and np.array_equal(names, np.arange(len(names))):
        return Targets(labels.astype(np.int64, copy=False), len(names))
    return Targets(np.searchsorted(names, labels).astype(np.int64, copy=False), len(names), tuple(names.tolist()))


def _are_integers(labels: Array) -> bool:
    """Whether floats are whole numbers that integers can hold; beyond 64 bits all floats are whole."""
    return float(np.abs(labels).max(initial=0)) < 2**63 and bool(np.array_equal(labels, labels.round()))


def _few(column: Array) -> bool:
    if column.dtype.kind == "b":
        return True
    values = distinct(column, _MOST_CLASSES)[0]
    return len(values) <= _MOST_CLASSES and len(values) * _ROWS_A_CLASS <= len(column)


def _columns(where: str, labels: Array) -> Targets:
    if labels.dtype.kind == "U":
        raise DataError(f"{where}: labels in several columns must be numbers; found texts", "label-form")
    if labels.dtype.kind == "f":
        return Targets(_floats(labels))
    integers = _integers(where, labels)
    if integers.min() < 0:
        raise DataError(
            f"{where}: labels in several columns count from 0; found {integers.min()} (write a regression's as floats)",
            "label-form",
        )
    return Targets(integers)


def _integers(where: str, labels: Array) -> Array:
    info = np.iinfo(np.int64)
    if labels.dtype.kind != "b" and (labels.min() < info.min or labels.max() >= 2**63):
        raise DataError(f"{where}: label {labels.max()} is beyond the integers of 64 bits", "label-form")
    return labels.astype(np.int64)


def _floats(values: Array) -> Array:
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
