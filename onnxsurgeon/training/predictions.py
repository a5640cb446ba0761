"""The predictions of a network on a split in few numbers: enough for a confusion matrix or a scatter plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from onnxsurgeon.data.soft import sigmoid
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, ClassCounts, LabelCounts, Predicted, TargetValues, Task

CLASSES = 64  # up to this many classes, a confusion matrix is kept whole
CONFUSIONS = 50  # of more classes, only this many confusions are kept, the most frequent ones
POINTS = 300  # rows of a regression that are kept
TARGETS = 6  # and this many of its targets


class Watcher(Protocol):
    """Looks at one head's outputs part by part, while an engine evaluates a network."""

    def add(self, output: Array, labels: Array) -> None:
        """Add the head's outputs (rows, …, width) and labels of some rows; the rows come in order."""

    def record(self) -> Mapping[str, object]:
        """Return what was seen."""


class PredictionWatcher(Watcher, Protocol):
    """Counts predictions, for the journal."""

    def record(self) -> Predicted:
        """Return what was seen, as plain values."""


def watchers(tasks: tuple[Task, ...], rows: int, names: tuple[tuple[str, ...], ...] = ()) -> list[PredictionWatcher]:
    """One watcher for each head, for a split of ``rows`` rows; ``names`` are the names of its classes, () for none."""
    found: list[PredictionWatcher] = []
    for position, task in enumerate(tasks):
        called = names[position] if names else ()
        if task.loss == CROSS_ENTROPY:
            found.append(_Confusion(task.outputs, called, is_taught=task.imitates))
        elif task.loss == BINARY:
            found.append(_Confusion(2, called) if task.outputs == 1 else _Labels(task.outputs, called))
        else:
            found.append(_Points(task, rows))
    return found


class _Confusion:
    """Counts of (true class, predicted class).

    With ``is_taught``, the teacher's most probable class is the true one.
    """

    def __init__(self, classes: int, names: tuple[str, ...], *, is_taught: bool = False) -> None:
        self._classes, self._names, self._is_taught = classes, names, is_taught
        self._pairs: list[Array] = []  # for each part, the pairs that occur, and how often
        self._counts: list[Array] = []

    def add(self, output: Array, labels: Array) -> None:
        told = output.reshape(-1, output.shape[-1])
        predicted = told.argmax(axis=1) if told.shape[1] > 1 else (told[:, 0] > 0).astype(np.int64)
        if self._is_taught:
            true = labels.reshape(told.shape).argmax(axis=1)
        elif told.shape[1] > 1:
            true = labels.reshape(-1).astype(np.int64)
        else:
            true = (labels.reshape(-1) > 0.5).astype(np.int64)
        pairs, counts = np.unique(true * self._classes + predicted, return_counts=True)
        self._pairs.append(pairs)
        self._counts.append(counts)

    def record(self) -> ClassCounts:
        pairs, places = np.unique(np.concatenate(self._pairs), return_inverse=True)
        counts = np.bincount(places.reshape(-1), np.concatenate(self._counts)).astype(np.int64)
        true, predicted = pairs // self._classes, pairs % self._classes
        if self._classes > CLASSES:
            wrong = np.flatnonzero(true != predicted)
            chosen = wrong[np.argsort(-counts[wrong], kind="stable")][:CONFUSIONS]
            true, predicted, counts = true[chosen], predicted[chosen], counts[chosen]
        return {
            "kind": "classes",
            "classes": self._classes,
            "names": list(self._names),
            "cells": np.stack((true, predicted, counts), axis=1).tolist(),
        }


class _Labels:
    """For each of several labels, how often it was rightly and wrongly predicted that a row has it or lacks it."""

    def __init__(self, labels: int, names: tuple[str, ...]) -> None:
        self._counts, self._names = np.zeros((labels, 4), np.int64), names

    def add(self, output: Array, labels: Array) -> None:
        told, true = (values.reshape(-1, values.shape[-1]) for values in (output > 0, labels > 0.5))
        for column, hit in enumerate((told & true, told & ~true, ~told & true, ~told & ~true)):
            self._counts[:, column] += hit.sum(axis=0)

    def record(self) -> LabelCounts:
        return {"kind": "labels", "names": list(self._names), "counts": self._counts.tolist()}


class _Points:
    """Every n-th row's targets and predictions."""

    def __init__(self, task: Task, rows: int) -> None:
        self._squash, self._step, self._seen = task.squash, -(-rows // POINTS), 0
        self._points: list[Array] = []

    def add(self, output: Array, labels: Array) -> None:
        chosen = np.arange(-self._seen % self._step, len(labels), self._step)
        self._seen += len(labels)
        told, true = (values.reshape(len(values), -1) for values in (output[chosen].astype(np.float64), labels[chosen]))
        if self._squash == "Sigmoid":
            told = sigmoid(told)
        self._points.append(np.stack((true, told), axis=-1)[:, :TARGETS])

    def record(self) -> TargetValues:
        points = np.concatenate(self._points)  # (rows, targets, 2)
        targets = [[[float(f"{value:.6g}") for value in pair] for pair in points[:, k]] for k in range(points.shape[1])]
        return {"kind": "values", "targets": targets}
