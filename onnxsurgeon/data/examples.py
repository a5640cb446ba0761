"""What the trained part of a network sees of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from onnxsurgeon.data.rows import Rows
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CROSS_ENTROPY, Task

ONE_HOT_BYTES = 2**24


class Examples:
    """What the trained part of a network sees of a data set.

    Attributes:
        stored: for each tensor that enters it its rows (rows, …), the prefix applied; as they lie in memory or in a
            file, each a row of ``labels``.
        labels: one array for each head: classes (rows,) int64 for cross-entropy, else targets (rows, outputs).
        tasks: what each head is trained for.
    """

    def __init__(self, features: Sequence[Rows | Array], labels: tuple[Array, ...], tasks: tuple[Task, ...]) -> None:
        self.stored = _of_one_selection([Rows.of(values).resident() for values in features])
        self.labels, self.tasks = labels, tasks

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to another process: not the targets, which it computes for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "targets"}

    @property
    def numbers(self) -> Array | None:
        """Where the examples lie in the sources that hold more rows than these, (rows,) int64; None: there are none."""
        return next((rows.numbers for rows in self.stored if rows.numbers is not None), None)

    @classmethod
    def classification(cls, features: Array, labels: Array, classes: int) -> Examples:
        """Examples of a plain classifier: features (rows, n_in), labels (rows,) of 0 to ``classes`` − 1."""
        return cls((features,), (labels,), (Task(CROSS_ENTROPY, classes, "Softmax"),))

    @property
    def features(self) -> tuple[Array, ...]:
        """The rows' values, one array for each tensor: copies, except of what is stored as it is used."""
        return tuple(rows.take() for rows in self.stored)

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(self.labels[0])

    @property
    def classes(self) -> int:
        """Number of classes of the first head; 0 where it has none."""
        return self.tasks[0].outputs if self.tasks[0].loss == CROSS_ENTROPY else 0

    @property
    def metric(self) -> str:
        """What the heads are judged by: accuracy, R², or both."""
        return " and ".join(dict.fromkeys(task.metric for task in self.tasks))

    @cached_property
    def targets(self) -> tuple[Array, ...]:
        """For each head what it is trained towards, of the features' type: one-hot rows for classes, else values.

        Where one-hot rows would take more than ``ONE_HOT_BYTES``, the classes (rows,) themselves.
        """
        dtype = np.result_type(*(rows.dtype for rows in self.stored))
        return tuple(_target(labels, task, dtype) for labels, task in zip(self.labels, self.tasks, strict=True))


def together(first: Examples, second: Examples) -> Examples:
    """The rows of both: where both are selections of the same arrays another selection, in those arrays' order."""
    pairs = list(zip(first.stored, second.stored, strict=True))
    labels = [np.concatenate(pair) for pair in zip(first.labels, second.labels, strict=True)]
    if first.numbers is None or second.numbers is None or not all(_are_of_one_source(*pair) for pair in pairs):
        return Examples([np.concatenate([one.take(), two.take()]) for one, two in pairs], tuple(labels), first.tasks)
    numbers = np.concatenate([first.numbers, second.numbers])
    order = np.argsort(numbers, kind="stable")
    stored = [replace(one, numbers=numbers[order]) for one, _ in pairs]
    return Examples(stored, tuple(values[order] for values in labels), first.tasks)


def _are_of_one_source(one: Rows, two: Rows) -> bool:
    same = np.array_equal(one.scale, two.scale) and np.array_equal(one.offset, two.offset)
    return same and one.numbers is not None and two.numbers is not None and one.memory == two.memory


def _target(labels: Array, task: Task, dtype: np.dtype[Any]) -> Array:
    if task.loss != CROSS_ENTROPY:
        scaled: Array = labels / np.array(task.scale) if task.scale else labels
        return scaled.astype(dtype)
    if len(labels) * task.outputs * dtype.itemsize > ONE_HOT_BYTES:
        return labels
    targets = np.zeros((len(labels), task.outputs), dtype)
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _of_one_selection(stored: list[Rows]) -> tuple[Rows, ...]:
    """The same rows; where some are other selections than the first one, those are copied."""
    numbers = next((rows.numbers for rows in stored if rows.numbers is not None), None)
    return tuple(
        rows if rows.numbers is None or rows.numbers is numbers else Rows.of(rows.take()).resident() for rows in stored
    )
