"""How many inputs and outputs a new network needs for a data set, and whether it ends in classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.data.sheet import matrix
from onnxsurgeon.errors import DataError


@dataclass(frozen=True)
class Widths:
    """What a network for a data set takes and puts out.

    Attributes:
        row: shape of one input row; (n,) for a table, its columns of texts one-hot.
        outputs: one for each class, or for each target.
        has_classes: whether these are classes, of which a row has one.
    """

    row: tuple[int, ...]
    outputs: int
    has_classes: bool

    @property
    def inputs(self) -> int:
        """How many values a row has."""
        return math.prod(self.row)


def widths_of(dataset: Dataset) -> Widths:
    """What a network for these rows takes and puts out.

    Raises:
        DataError: the rows have no labels, or are several arrays that no single input takes.
    """
    if not dataset.is_labelled:
        raise DataError(
            f"{dataset.name}: its rows have no labels, which say how many outputs there are: --target, or y in an .npz",
            "no-labels",
        )
    labels = dataset.train.labels
    if dataset.classes:
        return Widths(_row(dataset), max(dataset.classes, 2), True)
    return Widths(_row(dataset), 1 if labels.ndim == 1 else labels.shape[-1], False)


def _row(dataset: Dataset) -> tuple[int, ...]:
    """Shape of a row as one input takes it."""
    split = dataset.train
    if split.table is not None:
        return (len(split.table[1]),)
    stored = split.stored
    if isinstance(stored, Rows):
        return stored.shape[1:] or (1,)
    if any(len(column.shape) != 1 for column in stored.values()):
        listed = ", ".join(f"'{name}'" for name in stored)
        raise DataError(f"{dataset.name}: a new network has one input; found the arrays {listed}", "names-of-inputs")
    few = {name: column.take(slice(0, 1)) for name, column in stored.items()}
    return (len(matrix(few, dataset.categories)[1]),)
