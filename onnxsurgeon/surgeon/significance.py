"""Whether one network is really better than another on the rows that decide, or only by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.soft import sigmoid
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, Task
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.predictions import Watcher

PIECE = 2**16  # rows that are looked at together
LEVEL = 0.05  # how often a difference that is only chance may be taken for one
COUNTED = 1000  # rows that differ by one size, up to which signs are counted; of more, the sum is as good as normal
TRIED = 12  # rows that differ by several sizes, up to which all signs are tried


class RowScores:
    """Each row's contribution to the metric: whether it is right, the share of its labels that are, or −squared error.

    For a balanced accuracy, it is whether the row is right over the share of its class in the rows, times the number of
    classes.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._parts: list[Array] = []
        self._classes: list[Array] = []

    def add(self, output: Array, labels: Array) -> None:
        """Add the head's outputs (rows, …, width) and labels of some rows, which come in order."""
        task, z = self._task, output.astype(np.float64)
        if task.loss == CROSS_ENTROPY:
            scores = z.argmax(axis=-1) == (labels.argmax(axis=-1) if task.imitates else labels)
        elif task.loss == BINARY:
            scores = (z > 0) == (labels > 0.5)
        else:
            told = sigmoid(z) if task.squash == "Sigmoid" else z
            scores = -(((told - labels) / np.array(task.scale or 1.0)) ** 2)
        scores = scores.reshape(len(scores), -1)
        if task.is_balanced:
            self._classes.append(labels.reshape(scores.shape).astype(np.int64))
            self._parts.append(scores)
        else:  # right or wrong takes a byte
            self._parts.append(scores[:, 0] if scores.shape[1] == 1 else scores.mean(axis=1))

    def record(self) -> dict[str, Array]:
        """The scores (rows,), as float64; 0 and 1 alone as int8, since of many rows float64 is as large as a column."""
        scores = np.concatenate(self._parts)
        if scores.dtype == np.bool_:
            scores = scores.view(np.int8)
        if self._task.is_balanced:
            classes = np.concatenate(self._classes)
            counts = np.bincount(classes.reshape(-1))
            scores = (scores * (classes.size / (np.count_nonzero(counts) * counts[classes]))).mean(axis=1)
        return {"scores": scores}


class Both:
    """Two watchers of one head's outputs; its record is the first one's."""

    def __init__(self, first: Watcher, second: Watcher) -> None:
        self._first, self._second = first, second

    def add(self, output: Array, labels: Array) -> None:
        """Let both add the head's outputs and labels of some rows."""
        self._first.add(output, labels)
        self._second.add(output, labels)

    def record(self) -> Mapping[str, object]:
        """The record of the first one."""
        return self._first.record()


def row_scores(network: Network, engine: Engine, examples: Examples) -> Array:
    """Each row's contribution to the metric, summed over the heads, (rows,)."""
    return with_row_scores(network, engine, examples)[1]


def with_row_scores(
    network: Network, engine: Engine, examples: Examples, watch: Sequence[Watcher] = ()
) -> tuple[Metrics, Array]:
    """A network's metrics, and each row's contribution to its metric (rows,); ``watch`` sees its outputs as well."""
    scores = [RowScores(task) for task in examples.tasks]
    both = [Both(*pair) for pair in zip(watch, scores, strict=True)] if watch else scores
    metrics = engine.evaluate(network, examples, both)
    return metrics, _summed(scores)


def _summed(heads: Sequence[RowScores]) -> Array:
    """The scores of all heads together; those of one as they are."""
    total: Array = heads[0].record()["scores"]
    for each in heads[1:]:
        total = np.add(total, each.record()["scores"], dtype=np.float64)
    return total


def chance_scores(examples: Examples) -> Array:
    """The contributions of a guess without inputs, the most frequent label or the mean of all targets, (rows,)."""
    heads = []
    for labels, task in zip(examples.labels, examples.tasks, strict=True):
        found, width = RowScores(task), task.outputs
        if task.loss == CROSS_ENTROPY:
            classes = labels.argmax(axis=-1) if task.imitates else labels
            output = np.bincount(classes.reshape(-1), minlength=width).astype(np.float64)
        else:
            output = labels.reshape(-1, width).mean(axis=0, dtype=np.float64)
            if task.loss == BINARY:
                output = output - 0.5
            elif task.squash == "Sigmoid":
                output = np.log(np.clip(output, 1e-12, 1) / np.clip(1 - output, 1e-12, 1))
        for start in range(0, len(labels), PIECE):
            part = labels[start : start + PIECE]
            shape = (*part.shape, width) if task.loss == CROSS_ENTROPY and not task.imitates else part.shape
            found.add(np.broadcast_to(output, shape), part)
        heads.append(found)
    return _summed(heads)


def chance_loss(examples: Examples) -> float:
    """The loss of a guess without inputs, the classes' frequencies or the targets' means; summed over the heads."""
    total = 0.0
    for labels, task in zip(examples.labels, examples.tasks, strict=True):
        if task.loss == CROSS_ENTROPY:
            shares = labels.reshape(-1, task.outputs).mean(axis=0) if task.imitates else np.bincount(labels.reshape(-1))
            total += _least_loss(shares, task)
            continue
        values = labels.reshape(-1, task.outputs).astype(np.float64)
        if task.loss == BINARY and task.class_weights:
            total += _least_loss(np.array([(values == 0).sum(), (values > 0).sum()]), task)
        elif task.loss == BINARY:
            p = np.clip(values.mean(axis=0), 1e-12, 1 - 1e-12)
            total += float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())
        else:
            total += float((values.var(axis=0) / np.array(task.scale or 1.0) ** 2).mean())
    return total


def _least_loss(counts: Array, task: Task) -> float:
    """The least mean cross-entropy of one guess for every row, for these numbers of rows of each class."""
    weights = np.array(task.class_weights)[: len(counts)] if task.class_weights else np.ones(len(counts))
    mass = counts * weights / counts.sum()
    mass = mass[mass > 0]
    return float(-(mass * np.log(mass / mass.sum())).sum())


def is_better(scores: Array, others: Array) -> bool:
    """Whether the mean of ``scores`` (rows,) is above that of ``others`` by more than chance: one-sided, 5 %.

    The difference is taken row by row: that both find the same rows hard cancels. Where rows differ by any number, as
    squared errors do, this is Student's test. Where they are right or wrong, most do not differ at all, and by chance
    those that do are as likely of the other sign: their signs are counted (McNemar's exact test), or, where few differ
    by several sizes, all signs are tried (Fisher's randomisation test).
    """
    difference = scores - others
    rows = len(difference)
    if rows < 2 or difference.mean() <= 0:
        return False
    sizes = np.abs(difference[difference != 0])
    if len(sizes) <= COUNTED and np.all(sizes == sizes[0]):
        right = int(np.count_nonzero(difference > 0))
        return bool(sum(math.comb(len(sizes), k) for k in range(right, len(sizes) + 1)) <= LEVEL * 2 ** len(sizes))
    if len(sizes) <= TRIED and len(sizes) < rows:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate((sums + size, sums - size))
        return bool(np.mean(sums >= difference.sum() * (1 - 1e-9)) <= LEVEL)
    return bool(difference.mean() >= _student(rows - 1) * difference.std(ddof=1) / np.sqrt(rows))


def unseen_loss(rows: int) -> float:
    """The loss that a network may have all the same, 19 times of 20, which loses nothing on so many rows.

    It is the share p of wrong rows with (1 − p)^rows = ``LEVEL`` (Clopper and Pearson, "The use of confidence or
    fiducial limits", Biometrika 26, 1934, for none of the rows).
    """
    return float(1 - LEVEL ** (1 / max(1, rows)))


def _student(freedom: int) -> float:
    """Standard errors that LEVEL of differences exceed by chance, by degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5, the first four terms.
    """
    z = 1.6448536
    return float(
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def is_within_an_error(scores: Array, others: Array) -> bool:
    """Whether the mean of ``scores`` (rows,) is below that of ``others`` by at most a standard error, paired by row."""
    difference = others - scores
    if difference.mean() <= 0:
        return True
    return bool(len(difference) > 1 and difference.mean() <= difference.std(ddof=1) / np.sqrt(len(difference)))
