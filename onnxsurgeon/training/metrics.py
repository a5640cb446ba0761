"""The measures of a network on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

import numpy as np

from onnxsurgeon.data.soft import sigmoid
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import ACCURACY, BINARY, CROSS_ENTROPY, Task


class HeadRecord(TypedDict):
    """One of several heads' measures, as plain values; see ``HeadMetrics``."""

    head: str
    accuracy: float
    loss: float
    metric: str


class MetricsRecord(TypedDict):
    """A network's measures, as plain values; see ``Metrics``."""

    accuracy: float
    loss: float
    rows: int
    metric: str
    heads: NotRequired[list[HeadRecord]]


@dataclass(frozen=True)
class HeadMetrics:
    """Measures of one of several heads on one split.

    Attributes:
        head: the name of the output that it becomes, or of the head's tensor.
        accuracy: the value of ``metric``.
        loss: mean over the rows.
        metric: as of ``Metrics``.
    """

    head: str
    accuracy: float
    loss: float
    metric: str = ACCURACY

    def record(self) -> HeadRecord:
        """The same as plain values, for JSON."""
        return HeadRecord(head=self.head, accuracy=self.accuracy, loss=self.loss, metric=self.metric)


@dataclass(frozen=True)
class Metrics:
    """Measures of a network on one split.

    Attributes:
        accuracy: the value of ``metric``. Accuracy is the fraction of rows whose largest logit is the label's, or of
            binary labels predicted right; balanced accuracy is the mean of that over the classes that the rows have; R²
            is the mean over the targets of 1 − Σ (t − p)² / Σ (t − mean t)². Where a teacher is the measure, accuracy
            and R² are called agreement and fidelity. With several heads it is the mean over them; where a row has
            several positions, it is over all positions.
        loss: mean over the rows of the heads' losses, added up; cross-entropies in nats, times the class's weight where
            classes are weighed.
        rows: number of rows.
        metric: "accuracy", "balanced accuracy", "R²", "agreement" or "fidelity"; "accuracy and R²" where heads differ.
        heads: each head's own, in the order of the heads; () where there is one alone.
    """

    accuracy: float
    loss: float
    rows: int
    metric: str = ACCURACY
    heads: tuple[HeadMetrics, ...] = ()

    def record(self) -> MetricsRecord:
        """The same as plain values, for JSON; "heads" are there where they are several."""
        found = MetricsRecord(accuracy=self.accuracy, loss=self.loss, rows=self.rows, metric=self.metric)
        if self.heads:
            found["heads"] = [each.record() for each in self.heads]
        return found


class Tally(Protocol):
    """Collects one head's metric part by part."""

    def add(self, output: Array, labels: Array) -> None:
        """Add the head's outputs and labels of some rows."""

    def result(self) -> tuple[float, float]:
        """The metric, and the loss summed over all rows."""


class ClassTally:
    """Accuracy and cross-entropy of logits (rows, …, C) against classes (rows, …), or a teacher's distributions."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.correct, self.rows, self.loss = 0, 0, 0.0

    def add(self, output: Array, labels: Array) -> None:
        """Count what is right, and add up the cross-entropies."""
        logits = output.reshape(-1, output.shape[-1])
        if self.task.imitates:
            correct, loss = _agreeing_and_loss(logits, labels.reshape(logits.shape), self.task.temperature)
        else:
            correct, loss = correct_and_loss(logits, labels.reshape(-1))
        self.correct, self.loss, self.rows = self.correct + correct, self.loss + loss, self.rows + len(logits)

    def result(self) -> tuple[float, float]:
        """Accuracy, and the summed cross-entropy."""
        return self.correct / self.rows, self.loss / self.task.positions


class ByClassTally:
    """Accuracy, by class or of all rows, and cross-entropies times the weight of the row's class.

    It is for logits (rows, …, C) against classes (rows, …), or for one logit a row against 0 and 1.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        classes = max(2, task.outputs)
        self.weights = np.array(task.class_weights or (1.0,) * classes)
        self.right, self.rows, self.loss = np.zeros(classes), np.zeros(classes), 0.0

    def add(self, output: Array, labels: Array) -> None:
        """Count what is right of each class, and add up the weighed cross-entropies."""
        z = output.reshape(-1, output.shape[-1]).astype(np.float64)
        if self.task.loss == BINARY:
            z = np.concatenate([np.zeros_like(z), z], axis=1)  # σ(z) is the softmax of 0 and z
        classes = (labels.reshape(-1) > 0.5 if self.task.loss == BINARY else labels.reshape(-1)).astype(np.int64)
        z -= z.max(axis=1, keepdims=True)
        losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), classes]
        self.loss += float((losses * self.weights[classes]).sum())
        self.rows += np.bincount(classes, minlength=len(self.rows))
        self.right += np.bincount(classes[z.argmax(axis=1) == classes], minlength=len(self.rows))

    def result(self) -> tuple[float, float]:
        """Accuracy, balanced where the task asks for it, and the summed loss."""
        there = self.rows > 0
        shares = self.right[there] / self.rows[there]
        metric = shares.mean() if self.task.is_balanced else self.right.sum() / self.rows.sum()
        return float(metric), self.loss / self.task.positions


class BinaryTally:
    """Accuracy and binary cross-entropy of logits (rows, …, k) against 0 and 1, or a teacher's probabilities."""

    def __init__(self, task: Task) -> None:
        self.temperature = task.temperature if task.imitates else 1.0
        self.correct, self.count, self.loss = 0, 0, 0.0

    def add(self, output: Array, labels: Array) -> None:
        """Count what is right, label by label, and add up the cross-entropies."""
        z = output.astype(np.float64) / self.temperature
        loss = np.maximum(z, 0) - labels * z + np.log1p(np.exp(-np.abs(z)))
        self.correct += int(np.count_nonzero((z > 0) == (labels > 0.5)))
        self.count += labels.size
        self.loss += self.temperature**2 * float(loss.reshape(len(loss), -1).mean(axis=1).sum())

    def result(self) -> tuple[float, float]:
        """Accuracy, and the summed cross-entropy."""
        return self.correct / self.count, self.loss


class RegressionTally:
    """R² and squared error, in the task's units, of predictions (rows, …, k)."""

    def __init__(self, task: Task) -> None:
        self.squash, self.loss = task.squash, 0.0
        self.units: Array = np.array(task.scale or 1.0)
        self.error: Array | float = 0.0
        self.labels: list[Array] = []

    def add(self, output: Array, labels: Array) -> None:
        """Add up the squared errors of each target."""
        p = output.astype(np.float64)
        if self.squash == "Sigmoid":
            p = sigmoid(p)
        square = (p - labels) ** 2
        self.error = self.error + square.sum(axis=tuple(range(square.ndim - 1)))
        self.loss += float((square / self.units**2).reshape(len(square), -1).mean(axis=1).sum())
        self.labels.append(labels.reshape(-1, labels.shape[-1]).astype(np.float64, copy=False))

    def result(self) -> tuple[float, float]:
        """R², and the summed squared error.

        For a target that never varies, R² is 1 where every prediction is right, else 0, as in scikit-learn.
        """
        labels = np.concatenate(self.labels)
        spread = ((labels - labels.mean(axis=0)) ** 2).sum(axis=0)
        varied = np.ptp(labels, axis=0) > 0  # the standard deviation is not quite 0 where the mean is rounded
        error = np.asarray(self.error)
        constant = np.where(error > 0, 0.0, 1.0)
        shares = np.where(varied, 1 - error / np.where(varied, spread, 1.0), constant)
        return float(shares.mean()), self.loss


def tally(task: Task) -> Tally:
    """The tally for the metric of ``task``."""
    if task.class_weights or task.is_balanced:
        return ByClassTally(task)
    if task.loss == CROSS_ENTROPY:
        return ClassTally(task)
    return BinaryTally(task) if task.loss == BINARY else RegressionTally(task)


def combined(tasks: tuple[Task, ...], tallies: list[Tally], rows: int, names: Sequence[str]) -> Metrics:
    """The metrics of a network with these heads, called ``names``."""
    results = [each.result() for each in tallies]
    value = sum(metric for metric, _ in results) / len(results)
    metric = " and ".join(dict.fromkeys(task.metric for task in tasks))
    parts = [
        HeadMetrics(name, own, loss / rows, task.metric)
        for name, task, (own, loss) in zip(names, tasks, results, strict=True)
    ]
    loss = sum(loss for _, loss in results) / rows
    return Metrics(value, loss, rows, metric, tuple(parts) if len(parts) > 1 else ())


def correct_and_loss(logits: Array, labels: Array) -> tuple[int, float]:
    """Number of rows (rows, C) classified right, and the sum of their cross-entropies, in float64."""
    z = np.array(logits.T, np.float64, order="C")  # (C, rows): numpy is twice as fast along the longer axis
    right, top = z[labels, np.arange(len(labels))], z.max(axis=0)
    z -= top
    loss = np.log(np.exp(z, out=z).sum(axis=0)) + top - right
    return int(np.count_nonzero(logits.argmax(axis=1) == labels)), float(loss.sum())


def _agreeing_and_loss(logits: Array, taught: Array, temperature: float) -> tuple[int, float]:
    """Rows (rows, C) whose largest logit is the teacher's largest, and Σ T² · CE(taught, softmax(z/T)), in float64."""
    z = logits.astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    likelihoods = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    agreeing = int(np.count_nonzero(logits.argmax(axis=1) == taught.argmax(axis=1)))
    return agreeing, -(temperature**2) * float((taught * likelihoods).sum())
