"""What the trained part of a network sees of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CROSS_ENTROPY, Task


@dataclass(frozen=True, eq=False)
class Examples:
    """What the trained part of a network sees of a data set.

    Attributes:
        features: one array for each tensor that enters it, shape (rows, …), the prefix applied.
        labels: one array for each head: classes (rows,) int64 for cross-entropy, else targets (rows, outputs).
        tasks: what each head is trained for.
    """

    features: tuple[Array, ...]
    labels: tuple[Array, ...]
    tasks: tuple[Task, ...]

    @classmethod
    def classification(cls, features: Array, labels: Array, classes: int) -> Examples:
        """Examples of a plain classifier: features (rows, n_in), labels (rows,) of 0 to ``classes`` − 1."""
        return cls((features,), (labels,), (Task(CROSS_ENTROPY, classes, "Softmax"),))

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
        """For each head what it is trained towards, of the features' type: one-hot rows for classes, else values."""
        dtype = np.result_type(*self.features)
        return tuple(
            _one_hot(labels, task.outputs, dtype) if task.loss == CROSS_ENTROPY else _scaled(labels, task).astype(dtype)
            for labels, task in zip(self.labels, self.tasks, strict=True)
        )


def _scaled(labels: Array, task: Task) -> Array:
    return labels / np.array(task.scale) if task.scale else labels


def _one_hot(labels: Array, classes: int, dtype: np.dtype[Any]) -> Array:
    targets = np.zeros((len(labels), classes), dtype)
    targets[np.arange(len(labels)), labels] = 1
    return targets
