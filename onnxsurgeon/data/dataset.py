"""A data set as arrays, with labels or without, its splits, and its digest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxsurgeon.data.distinct import distinct
from onnxsurgeon.data.rows import Rows, number_type
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

# Splits have a seed of their own: changing --seed must not change the rows for validation or test.
SPLIT_SEED = 144_384  # volume and page of the paper
VALIDATION_FRACTION = 0.1
# Of few rows, more decide: this number of them, or this share if that is less.
DECIDING_ROWS, MOST_DECIDING = 100, 0.25
TEST_FRACTION = 0.2
_CHUNK_BYTES = 1 << 24
_LOOKED_AT = 1 << 18  # rows whose numbers are found at a time
# Name (none for an array alone), shape, type, and the values in chunks of rows.
_Block = tuple[str, tuple[int, ...], np.dtype, Iterator[Array]]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows, with labels or without.

    Attributes:
        inputs: images (rows, height, width, channels) or (rows, height, width), feature vectors (rows, n), or named
            columns or model inputs, each (rows, …); only these may hold texts (dtype U).
        labels: class of each row, (rows,) int64, 0 to C − 1; or targets of a regression, floats (rows,) or (rows, k);
            or int64 (rows, k): 0 or 1 for each of k labels, or the class for each of k heads; or floats (rows, …, k):
            targets for each of several positions. (rows, 0) float32 stands for no labels: see ``unlabelled``.
    """

    inputs: Array | dict[str, Array]
    labels: Array

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def strata(self) -> Array:
        """The labels, perhaps of a narrower type: what rows are drawn by."""
        return self.labels

    @property
    def stored(self) -> Rows | dict[str, Rows]:
        """The inputs as they are stored."""
        if isinstance(self.inputs, dict):
            return {name: Rows.of(column) for name, column in self.inputs.items()}
        return Rows.of(self.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns or model inputs; () for an array alone."""
        return tuple(self.inputs) if isinstance(self.inputs, dict) else ()

    @property
    def table(self) -> tuple[Rows, list[str]] | None:
        """The columns as a matrix, where they are stored as one, and their names; None otherwise."""
        return None

    @property
    def label_block(self) -> _Block:
        """The labels in chunks."""
        return "", self.labels.shape, self.labels.dtype, iter((self.labels,))

    def take(self, rows: Array) -> Split:
        """The given rows: copied from columns, but not from a single array."""
        if isinstance(self.inputs, dict):
            return Split({name: column[rows] for name, column in self.inputs.items()}, self.labels[rows])
        return Selection(self.inputs, rows, self.labels[rows])

    def with_labels(self, labels: Array) -> Split:
        """The same inputs with other labels."""
        return Split(self.inputs, labels)

    def joined(self, others: Sequence[Split]) -> Split:
        """These rows and behind them those of other splits of the same set, copied."""
        labels = np.concatenate([self.labels, *(other.labels for other in others)])
        if isinstance(self.inputs, dict):
            columns = [self.inputs, *(other.inputs for other in others if isinstance(other.inputs, dict))]
            return Split({name: np.concatenate([each[name] for each in columns]) for name in self.inputs}, labels)
        arrays = [self.inputs, *(other.inputs for other in others if not isinstance(other.inputs, dict))]
        return Split(np.concatenate(arrays), labels)

    def blocks(self) -> Iterator[_Block]:
        """The inputs' arrays in chunks."""
        arrays = self.inputs if isinstance(self.inputs, dict) else {"": self.inputs}
        for name, array in arrays.items():
            yield name, array.shape, array.dtype, _pieces(array)


class Selection(Split):
    """Some rows of an array that is shared with other splits, or mapped from a file.

    Only ``inputs`` copies them; training and evaluation read them where they lie.
    """

    source: Array
    numbers: Array

    def __init__(self, source: Array, numbers: Array, labels: Array) -> None:
        """Row i is ``source[numbers[i]]`` with ``labels[i]``."""
        for name, value in (("source", source), ("numbers", numbers), ("labels", labels)):
            object.__setattr__(self, name, value)

    @cached_property
    def inputs(self) -> Array:
        """The rows, copied."""
        return np.asarray(self.source[self.numbers])

    @property
    def stored(self) -> Rows:
        """The inputs where they lie."""
        return Rows(self.source, self.source.dtype, self.numbers)

    def take(self, rows: Array) -> Split:
        """The given rows, where they lie."""
        return Selection(self.source, self.numbers[rows], self.labels[rows])

    def with_labels(self, labels: Array) -> Split:
        """The same inputs with other labels."""
        return Selection(self.source, self.numbers, labels)

    def joined(self, others: Sequence[Split]) -> Split:
        """The rows of all: where they lie, where that is one array; else copied."""
        same = [each for each in others if isinstance(each, Selection) and each.source is self.source]
        if len(same) < len(others):
            return super().joined(others)
        labels = np.concatenate([self.labels, *(each.labels for each in same)])
        return Selection(self.source, np.concatenate([self.numbers, *(each.numbers for each in same)]), labels)

    def blocks(self) -> Iterator[_Block]:
        """The rows in chunks."""
        pieces = (self.source[self.numbers[start:stop]] for start, stop in chunks(self.source, self.rows))
        yield "", (self.rows, *self.source.shape[1:]), self.source.dtype, pieces


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
        name: as on the command line.
        train: rows to train on.
        test: rows held back; never trained on or chosen by, except in preset paper, which validates on them.
        classes: number of distinct classes; 0 where the labels are not one column of classes.
        maximum: the value that stands for full intensity in integer inputs, which are divided by it.
        validation: rows to choose by, where the set brings its own.
        class_labels: the user's names of class 0, 1, …, ascending, where they are not 0 to C − 1; labels are stored as
            positions in it.
        validation_fraction: share of the training rows that ``hold_out`` takes; None: see ``deciding_share``.
        categories: every text that a table's columns of texts hold, ascending, by the column's name.
        remarks: sentences on what was found with the rows and left out.
    """

    name: str
    train: Split
    test: Split
    classes: int
    maximum: float = 255.0
    validation: Split | None = None
    class_labels: tuple[int, ...] | tuple[str, ...] = ()
    validation_fraction: float | None = None
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        """Whether the rows have labels."""
        return self.train.strata.shape[1:] != (0,)  # not the labels, which may be copied

    @property
    def splits(self) -> tuple[Split, ...]:
        """Training, validation (where the set brings one) and test rows."""
        return tuple(split for split in (self.train, self.validation, self.test) if split is not None)

    @property
    def every_row(self) -> Split:
        """The rows of all splits together: training, validation, test."""
        first, *others = self.splits
        return first.joined(others)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all splits' names, shapes, types and values, and the names of the classes."""
        digest = hashlib.sha256()
        for split in self.splits:
            for name, shape, dtype, pieces in (*split.blocks(), split.label_block):
                digest.update(repr((name, shape, dtype.str) if name else (shape, dtype.str)).encode())
                for piece in pieces:
                    digest.update(np.ascontiguousarray(piece).view(np.uint8).data if piece.size else b"")
        if self.class_labels:
            digest.update(repr(self.class_labels).encode())
        return digest.hexdigest()

    def but_test_rows(self) -> Dataset:
        """The same set with its test rows alone: labels and numbers of rows are much of a narrow table's memory."""
        return replace(self, train=self.train.take(np.zeros(0, np.int64)), validation=None)

    def hold_out(self) -> tuple[Split, Split]:
        """Training and validation rows: the set's own validation split, or a share of the training rows."""
        if self.validation is not None:
            return self.train, self.validation
        share = deciding_share(self.train.rows, self.validation_fraction)
        held, rest = draw(self.train.strata, share, self.name)
        return self.train.take(rest), self.train.take(held)


def unlabelled(rows: int) -> Array:
    """Labels for rows that have none."""
    return np.zeros((rows, 0), np.float32)


def deciding_share(rows: int, share: float | None = None) -> float:
    """The share of the training rows that decide.

    The given one, or else a tenth, at least 100 rows, at most a quarter.
    """
    return min(max(VALIDATION_FRACTION, DECIDING_ROWS / rows), MOST_DECIDING) if share is None else share


def with_test_split(name: str, whole: Split, classes: int, maximum: float = 255.0) -> Dataset:
    """Make a data set of rows that come without a test split: a stratified fifth becomes one."""
    held, rest = draw(whole.labels, TEST_FRACTION, name)
    return Dataset(name, whole.take(rest), whole.take(held), classes, maximum)


def draw(labels: Array, fraction: float, name: str) -> tuple[Array, Array]:
    """Draw row numbers (held out, the rest): stratified where the labels are one column of classes, else at random.

    Raises:
        DataError: there are too few rows to hold any out.
    """
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return stratified(labels, fraction, name)
    return stratified(np.zeros(len(labels), np.int64), fraction, name)


def stratified(labels: Array, fraction: float, name: str) -> tuple[Array, Array]:
    """Draw row numbers (held out, the rest), each ascending; each class gives its share, rounded by largest remainder.

    Raises:
        DataError: there are too few rows to hold any out.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    values, counts = distinct(labels)
    total = math.ceil(fraction * len(labels))
    if total == 0 or total == len(labels):
        few = "1 row is" if len(labels) == 1 else f"{len(labels)} rows are"
        raise DataError(f"{name}: {few} too few to hold out {fraction:.0%} of them", "too-few-rows")
    shares = counts * fraction
    wanted = np.floor(shares).astype(np.int64)
    for position in np.argsort(-(shares - wanted), kind="stable")[: max(0, total - int(wanted.sum()))]:
        wanted[position] += 1
    held = np.zeros(len(labels), bool)
    for value, count in zip(values, wanted, strict=True):
        rows = np.flatnonzero(labels == value)
        rng.shuffle(rows)
        held[rows[:count]] = True
    return _numbers(held, True), _numbers(held, False)


def _numbers(which: Array, value: bool) -> Array:
    """The numbers of the rows where ``which`` is ``value``; a piece at a time, since numpy finds them in 64 bits."""
    found = np.empty(np.count_nonzero(which == value), number_type(len(which)))
    first = 0
    for start, stop in chunks(which, size=_LOOKED_AT):
        piece = np.flatnonzero(which[start:stop] == value)
        found[first : first + len(piece)] = piece + start
        first += len(piece)
    return found


def _pieces(array: Array) -> Iterator[Array]:
    for start, stop in chunks(array):
        yield array[start:stop]


def chunks(array: Array, rows: int | None = None, size: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the first row and the row behind the last of pieces of some 16 MB, or of ``size`` bytes."""
    rows = len(array) if rows is None else rows
    step = max(1, (size or _CHUNK_BYTES) // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
