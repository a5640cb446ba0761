"""A labelled data set as arrays, its splits, and its digest."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

# Splits are drawn with a seed of their own: changing --seed must not change what is validated or tested on.
SPLIT_SEED = 144_384  # volume and page of the paper
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class Split:
    """Rows with labels.

    Attributes:
        inputs: images (rows, height, width, channels) or (rows, height, width), or feature vectors (rows, n).
        labels: class of each row, int64, 0 to C − 1.
    """

    inputs: Array | dict[str, Array]
    labels: Array

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def take(self, rows: Array) -> Split:
        """The given rows, copied."""
        return Split(self.inputs[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
        name: as on the command line.
        train: rows to train on.
        test: rows held back; never trained on or chosen by, except in preset paper, which validates on them.
        classes: number of classes.
        maximum: the value that stands for full intensity in integer inputs, which are divided by it.
        validation: rows to choose by, where the set brings its own.
    """

    name: str
    train: Split
    test: Split
    classes: int
    maximum: float = 255.0
    validation: Split | None = None
    class_labels: tuple[int, ...] | tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = None

    @property
    def digest(self) -> str:
        """SHA-256 over all splits' shapes, types and values."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in () if split is None else (split.inputs, split.labels):
                digest.update(repr((array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def hold_out(self) -> tuple[Split, Split]:
        """Training and validation rows: the set's own validation split, or a stratified tenth of the training rows."""
        if self.validation is not None:
            return self.train, self.validation
        held, rest = stratified(self.train.labels, VALIDATION_FRACTION, self.name)
        return self.train.take(rest), self.train.take(held)


def with_test_split(name: str, whole: Split, classes: int, maximum: float = 255.0) -> Dataset:
    """A data set that comes without a test split: a stratified fifth becomes one."""
    held, rest = stratified(whole.labels, TEST_FRACTION, name)
    return Dataset(name, whole.take(rest), whole.take(held), classes, maximum)


def stratified(labels: Array, fraction: float, name: str) -> tuple[Array, Array]:
    """Row numbers (held out, the rest), each ascending; every class gives its share, rounded by largest remainder.

    Raises:
        DataError: there are too few rows to hold any out.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    values, counts = np.unique(labels, return_counts=True)
    total = math.ceil(fraction * len(labels))
    if total == 0 or total == len(labels):
        raise DataError(f"{name}: {len(labels)} rows are too few to hold out {fraction:.0%} of them")
    shares = counts * fraction
    wanted = np.floor(shares).astype(np.int64)
    for position in np.argsort(-(shares - wanted), kind="stable")[: max(0, total - int(wanted.sum()))]:
        wanted[position] += 1
    held = np.zeros(len(labels), bool)
    for value, count in zip(values, wanted, strict=True):
        rows = np.flatnonzero(labels == value)
        held[rng.permutation(rows)[:count]] = True
    return np.flatnonzero(held), np.flatnonzero(~held)
