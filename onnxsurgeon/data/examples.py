"""Rows of a data set as the trained part of a network takes them, with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from onnxsurgeon.data.rows import Rows, number_type
from onnxsurgeon.data.soft import mapped, prediction, soft_targets
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CROSS_ENTROPY, SQUARED, Task

ONE_HOT_BYTES = 2**24
_PIECE = 2**16  # rows that are put in order at a time


class Examples:
    """Rows of a data set as the trained part of a network takes them, with their targets.

    Attributes:
        stored: for each tensor that enters the trained part its rows (rows, …), behind the prefix, as they lie in
            memory or in a file.
        labels: the measure, one array for each head: classes (rows, …) for cross-entropy, in the smallest type that
            holds them, else targets (rows, …, outputs). Where a task imitates, they are the teacher's softened
            distributions, probabilities or values (rows, …, outputs). () where there are none.
        tasks: the task of each head; () where there are no labels.
        taught: a teacher's outputs before its squash, (rows, …, outputs) for each head, where it gives a share of the
            targets beside the labels; None where it gives none.
        centres: for each head the values that are subtracted from its targets, (outputs,), or None; () where nothing
            is. They shift the targets of training, not the measure.
    """

    def __init__(
        self,
        features: Sequence[Rows | Array],
        labels: tuple[Array, ...],
        tasks: tuple[Task, ...],
        taught: tuple[Array, ...] | None = None,
        centres: tuple[Array | None, ...] = (),
    ) -> None:
        self.stored = _of_one_selection([Rows.of(values).resident() for values in features])
        self.labels = tuple(map(narrow, labels, tasks))
        self.tasks, self.taught, self.centres = tasks, taught, centres

    def __getstate__(self) -> dict[str, Any]:
        """The state that is sent to another process, which computes the targets for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "targets"}

    @property
    def numbers(self) -> Array | None:
        """Numbers of the rows, (rows,) integers, in sources that hold more rows than these.

        The result is None where the sources hold no more.
        """
        return next((rows.numbers for rows in self.stored if rows.numbers is not None), None)

    @classmethod
    def classification(cls, features: Array, labels: Array, classes: int) -> Examples:
        """Make examples for a plain classifier: features (rows, n_in), labels (rows,) of 0 to ``classes`` − 1."""
        return cls((features,), (labels,), (Task(CROSS_ENTROPY, classes, "Softmax"),))

    @property
    def features(self) -> tuple[Array, ...]:
        """The rows' values, one array for each tensor; they are copies unless they are stored in that form."""
        return tuple(rows.take() for rows in self.stored)

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(self.stored[0])

    @property
    def classes(self) -> int:
        """Number of classes of the first head; 0 where it has none."""
        return self.tasks[0].outputs if self.tasks[0].loss == CROSS_ENTROPY else 0

    @property
    def metric(self) -> str:
        """The metric of the heads: accuracy, R², agreement, fidelity, or several of them."""
        return " and ".join(dict.fromkeys(task.metric for task in self.tasks))

    @cached_property
    def targets(self) -> tuple[Array, ...]:
        """The targets of each head, in the features' type: one-hot rows for classes, else values.

        Where one-hot rows would take more than ``ONE_HOT_BYTES``, they are the classes (rows,) themselves. With a
        teacher's share w, they are (1 − w) · labels + w · teacher's; or both side by side, see ``Task.is_mixed``.
        """
        dtype = np.result_type(*(rows.dtype for rows in self.stored))
        taught, centres = self.taught or [None] * len(self.tasks), self.centres or [None] * len(self.tasks)
        return tuple(
            _target(labels, task, dtype, centre) if outputs is None else _mixed(labels, outputs, task, dtype, centre)
            for labels, task, outputs, centre in zip(self.labels, self.tasks, taught, centres, strict=True)
        )

    def forget_targets(self) -> None:
        """Free what ``targets`` has computed; it is computed anew when it is asked for."""
        self.__dict__.pop("targets", None)

    def with_stored(self, stored: Sequence[Rows | Array], centres: tuple[Array | None, ...] = ()) -> Examples:
        """The same labels and tasks with other features, and with ``centres`` subtracted from the targets."""
        return Examples(stored, self.labels, self.tasks, self.taught, centres)

    def first(self, count: int) -> Examples:
        """The first ``count`` examples, where they lie."""
        if count >= self.rows:
            return self
        stored = [rows.select(np.arange(count)) for rows in self.stored]
        taught = None if self.taught is None else tuple(values[:count] for values in self.taught)
        return Examples(stored, tuple(values[:count] for values in self.labels), self.tasks, taught, self.centres)

    def imitating(self, outputs: tuple[Array, ...], tasks: tuple[Task, ...]) -> Examples:
        """The same rows, with the teacher's ``outputs`` before its squash as the only measure.

        Args:
            outputs: (rows, …, width) for each head.
            tasks: the task of each head; see ``heads.imitation_tasks``.

        Raises:
            DataError: an output has not one row for each row.
        """
        _require_rows(outputs, self.rows)
        labels = tuple(
            prediction(values, task) if task.loss == SQUARED else soft_targets(values, task, task.temperature)
            for values, task in zip(outputs, tasks, strict=True)
        )
        return Examples(self.stored, labels, tasks)

    def with_teacher(self, outputs: tuple[Array, ...], weight: float = 0.5, temperature: float = 1.0) -> Examples:
        """The same labelled rows, with targets (1 − w) · labels + w · teacher's; the labels stay the measure.

        Args:
            outputs: the teacher's outputs before its squash, (rows, …, width) for each head.
            weight: w, the teacher's share, 0 to 1.
            temperature: softens the teacher's part of a cross-entropy; see ``Task``.

        Raises:
            DataError: an output has not one row for each row.
        """
        if not weight:
            return self
        if any(task.class_weights for task in self.tasks):
            raise DataError(
                "class-weight: balanced is for labels alone; where a teacher is followed, leave it out", "classes-only"
            )
        _require_rows(outputs, self.rows)
        tasks = tuple(
            replace(task, teacher_weight=weight, temperature=1.0 if task.loss == SQUARED else temperature)
            for task in self.tasks
        )
        return Examples(self.stored, self.labels, tasks, outputs)


def together(first: Examples, second: Examples) -> Examples:
    """The rows of both; two selections of the same arrays become one selection, in the arrays' order."""
    pairs = list(zip(first.stored, second.stored, strict=True))
    both = first.taught is not None and second.taught is not None
    taught = (first.taught or (), second.taught or ()) if both else None
    if first.numbers is None or second.numbers is None or not all(_are_of_one_source(*pair) for pair in pairs):
        stored = [np.concatenate([one.take(), two.take()]) for one, two in pairs]
        joined = _joined(first.labels, second.labels)
        return Examples(stored, joined, first.tasks, None if taught is None else _joined(*taught))
    first, second = _ascending(first), _ascending(second)
    assert first.numbers is not None
    assert second.numbers is not None
    is_second = np.zeros(first.rows + second.rows, bool)
    is_second[np.searchsorted(first.numbers, second.numbers, "right") + np.arange(second.rows)] = True
    (numbers,) = _joined((first.numbers,), (second.numbers,), is_second)
    selected = [replace(one, numbers=numbers) for one, _ in pairs]
    labels = _joined(first.labels, second.labels, is_second)
    return Examples(selected, labels, first.tasks, None if taught is None else _joined(*taught, is_second))


def _ascending(examples: Examples) -> Examples:
    """The same rows in the order in which they lie in their sources; splits already have them so."""
    numbers = examples.numbers
    if numbers is None or bool((numbers[1:] >= numbers[:-1]).all()):
        return examples
    order = np.argsort(numbers, kind="stable").astype(number_type(len(numbers)))
    numbers = numbers[order]
    stored = [replace(rows, numbers=numbers) for rows in examples.stored]
    taught = None if examples.taught is None else tuple(values[order] for values in examples.taught)
    labels = tuple(values[order] for values in examples.labels)
    return Examples(stored, labels, examples.tasks, taught, examples.centres)


def _joined(first: tuple[Array, ...], second: tuple[Array, ...], is_second: Array | None = None) -> tuple[Array, ...]:
    """The rows of both, those of the second where ``is_second`` says so, (rows,), or else behind the first's."""
    if is_second is None:
        return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))
    return tuple(_merged(*pair, is_second) for pair in zip(first, second, strict=True))


def _merged(first: Array, second: Array, is_second: Array) -> Array:
    """The rows of both in one array, some at a time: no copy of them is made beside it."""
    found = np.empty((len(is_second), *first.shape[1:]), np.result_type(first, second))
    begun = 0  # rows of the second that have been taken
    for start in range(0, len(is_second), _PIECE):
        piece = is_second[start : start + _PIECE]
        part, count = found[start : start + _PIECE], int(np.count_nonzero(piece))
        part[piece] = second[begun : begun + count]
        part[~piece] = first[start - begun : start - begun + len(piece) - count]
        begun += count
    return found


def narrow(labels: Array, task: Task) -> Array:
    """Classes in the smallest type, a good part of a narrow table's memory; other labels as they are."""
    if task.loss != CROSS_ENTROPY or task.imitates:
        return labels
    return labels.astype(np.min_scalar_type(max(0, task.outputs - 1)), copy=False)


def _require_rows(outputs: Sequence[Array], rows: int) -> None:
    for values in outputs:
        if len(values) != rows:
            raise DataError(f"a teacher's outputs for {len(values)} rows do not fit {rows}", "unlike-teacher")


def _are_of_one_source(one: Rows, two: Rows) -> bool:
    same = np.array_equal(one.scale, two.scale) and np.array_equal(one.offset, two.offset)
    return same and one.numbers is not None and two.numbers is not None and one.memory == two.memory


def _target(labels: Array, task: Task, dtype: np.dtype[Any], centre: Array | None) -> Array:
    if task.loss != CROSS_ENTROPY or task.imitates:
        if task.scale or centre is not None:
            units, shift = np.array(task.scale or 1.0), 0.0 if centre is None else centre
            return mapped(lambda values: ((values - shift) / units).astype(dtype), labels)
        return labels.astype(dtype, copy=False)
    if labels.size * task.outputs * dtype.itemsize > ONE_HOT_BYTES and labels.ndim == 1:
        return labels
    return _one_hot(labels, task, dtype)


def _one_hot(labels: Array, task: Task, dtype: np.dtype[Any]) -> Array:
    targets = np.zeros((*labels.shape, task.outputs), dtype)
    np.put_along_axis(targets, labels[..., None], 1, axis=-1)
    return targets


def _mixed(labels: Array, taught: Array, task: Task, dtype: np.dtype[Any], centre: Array | None) -> Array:
    """Targets with a share from the teacher, computed a piece at a time where they are large."""
    weight = task.teacher_weight

    def mix(own: Array, outputs: Array) -> Array:
        if task.loss == SQUARED:
            mean = (1 - weight) * own + weight * prediction(outputs, task).astype(np.float64)
            in_units: Array = (mean if centre is None else mean - centre) / np.array(task.scale or 1.0)
            return in_units.astype(dtype)
        hard = _one_hot(own, task, dtype) if task.loss == CROSS_ENTROPY else own.astype(dtype)
        soft = soft_targets(outputs, task, task.temperature).astype(dtype)
        if task.is_mixed:
            return np.concatenate([hard, soft], axis=-1)
        both: Array = (1 - weight) * hard + weight * soft
        return both.astype(dtype)

    return mapped(mix, labels, taught)


def _of_one_selection(stored: list[Rows]) -> tuple[Rows, ...]:
    """The same rows; selections that differ from the first one are copied."""
    numbers = next((rows.numbers for rows in stored if rows.numbers is not None), None)
    return tuple(
        rows if rows.numbers is None or rows.numbers is numbers else Rows.of(rows.take()).resident() for rows in stored
    )
