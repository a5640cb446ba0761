"""The task of each head of a network, from labels or a teacher's outputs, and the names of its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.encoding import by_position, columns_of, encode, names_of, new_head, numeric_labels, obstacle_told
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task


def resolve_tasks(
    network: Network, dataset: Dataset, loss: str = "auto", *, class_weight: str = "none", metric: str = "auto"
) -> tuple[Task, ...]:
    """Choose the task of each head of ``network``, by its suffix and the training labels, or by ``loss``.

    Args:
        network: the network.
        dataset: its training labels decide.
        loss: one of ``task.LOSSES``, or "auto".
        class_weight: one of ``task.CLASS_WEIGHTS``: balanced weighs a class by n / (C n_c), n_c its n training rows.
        metric: one of ``task.METRICS``.

    Raises:
        DataError: the labels have another number of columns than the heads need, or do not fit the loss; or no head has
            classes that could be weighed or balanced.
    """
    with obstacle_told(network, dataset):
        columns = columns_of(network, dataset, dataset.train.labels)
        tasks = tuple(_task(network, dataset, head, y, loss) for head, y in zip(network.heads, columns, strict=True))
    for option, value in (("class-weight", class_weight), ("metric", metric)):
        if value.startswith("balanced") and not any(task.has_classes for task in tasks):
            raise DataError(
                f"{option}: {value} is for classes, one a row; '{network.name}' is trained for none", "classes-only"
            )
    if class_weight == "balanced":
        labels = encode(network, dataset, dataset.train, tasks)
        tasks = tuple(
            replace(task, class_weights=balanced_weights(y, task)) if task.has_classes else task
            for task, y in zip(tasks, labels, strict=True)
        )
    if metric == "balanced-accuracy":
        tasks = tuple(replace(task, is_balanced=task.has_classes) for task in tasks)
    return tasks


def balanced_weights(labels: Array, task: Task) -> tuple[float, ...]:
    """For each class n / (C n_c), where n_c of the n ``labels`` are of it and C classes have any.

    1 for a class without.
    """
    counts = np.bincount(labels.reshape(-1).astype(np.int64), minlength=max(2, task.outputs))
    there = counts > 0
    return tuple(np.where(there, labels.size / (there.sum() * np.maximum(counts, 1)), 1.0).tolist())


def with_class_names(network: Network, names: Sequence[str]) -> Network:
    """The network with ``names`` for its classes, in the order of its columns, where it gives them none.

    Raises:
        DataError: it has several heads, names its classes itself, or has another number of them.
    """
    if not names:
        return network
    if len(network.heads) > 1:
        raise DataError(
            f"classes: '{network.name}' has {len(network.heads)} heads; names are for one alone", "class-names"
        )
    (head,) = network.heads
    if head.labels:
        raise DataError(
            f"classes: '{network.name}' names its classes itself: {', '.join(map(str, head.labels))}", "class-names"
        )
    if len(names) != max(2, head.width):
        raise DataError(
            f"classes: {len(names)} names for the {max(2, head.width)} classes of '{network.name}'", "class-names"
        )
    trunk = replace(network.frame.trunk, heads=(replace(head, labels=tuple(names)),))
    return replace(network, frame=replace(network.frame, trunk=trunk))


def imitation_tasks(
    network: Network,
    outputs: Sequence[Array],
    loss: str = "auto",
    temperature: float = 1.0,
    squashes: Sequence[str] = (),
) -> tuple[Task, ...]:
    """Choose the task of each head of ``network`` that learns from a teacher's outputs alone.

    Args:
        network: the student.
        outputs: the teacher's outputs before its squash for rows to train on, (rows, …, width) for each head.
        loss: as in ``InputOptions``; "auto": cross-entropy where the head or the teacher ends in a Softmax or the model
            names classes, binary cross-entropy where the head ends in a Sigmoid, else squared error.
        temperature: softens cross-entropies.
        squashes: the function that the teacher applies to each output, "Softmax", "Sigmoid" or ""; () where unknown.

    Raises:
        DataError: the loss does not fit a head.
    """
    tasks = []
    for head, values, squash in zip(network.heads, outputs, squashes or [""] * len(network.heads), strict=True):
        chosen = imitated_loss(head, squash) if loss == "auto" else loss
        _require_fit(network, head, chosen)
        scale = _units(values, head.width) if chosen == SQUARED and not head.squash else ()
        is_weighed = bool(scale) and not _is_direct(network, head)
        positions = math.prod(values.shape[1:-1])
        softened = 1.0 if chosen == SQUARED else temperature
        tasks.append(Task(chosen, head.width, head.squash, scale, True, softened, 1.0, positions, is_weighed))
    return tuple(tasks)


def imitation_notes(network: Network, tasks: Sequence[Task]) -> list[str]:
    """Sentences on how heads are imitated: some may be logits of classes, and are not taken for them."""
    return [
        f"head '{head.tensor}' has no Softmax: imitated as values; --loss cross-entropy if these are classes' logits"
        for head, task in zip(network.heads, tasks, strict=True)
        if task.imitates and task.loss == SQUARED and head.width > 1 and not head.squash and _is_linear(network, head)
    ]


def _is_linear(network: Network, head: Head) -> bool:
    """Whether the head is the output of a layer without an activation."""
    last = [segment.layers[-1] for segment in network.segments if head.tensor in segment.ends]
    return bool(last) and last[0].activation is None


def imitated_loss(head: Head, squash: str) -> str:
    """The loss by which a head is imitated where none is chosen; the teacher applies ``squash``."""
    names_classes = bool(head.labels) or "ArgMax" in head.readers
    if head.width > 1 and ("Softmax" in (head.squash, squash) or names_classes):
        return CROSS_ENTROPY
    return BINARY if head.squash == "Sigmoid" or head.labels else SQUARED


def class_names(network: Network, dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """The names of each head's classes, in the order of its columns; () where they are numbers from 0 on."""
    known = dataset.class_labels if len(network.heads) == 1 else ()
    return tuple(tuple(map(str, head.labels or _in_order(known, head.width))) for head in network.heads)


def _in_order(names: tuple[int, ...] | tuple[str, ...], width: int) -> tuple[int, ...] | tuple[str, ...]:
    """Names for the head's columns in ascending order, as ``_by_number`` takes them."""
    numbers = all(isinstance(name, int) and 0 <= name < width for name in names)
    return () if numbers or len(names) != max(width, 2) else names


def _task(network: Network, dataset: Dataset, head: Head, y: Array, loss: str) -> Task:
    y = by_position(network, dataset, head, y)
    chosen = _suggested(network, dataset, head, y) if loss == "auto" else loss
    _require_fit(network, head, chosen)
    if dataset.class_labels and not isinstance(dataset.class_labels[0], str):
        y = np.array(dataset.class_labels)[y]
    positions = math.prod(y.shape[1 : head.rank - 1])
    return Task(chosen, head.width, head.squash, _scale(network, head, chosen, y), positions=positions)


def _require_fit(network: Network, head: Head, loss: str) -> None:
    if loss == CROSS_ENTROPY and head.width < 2:
        raise DataError(
            f"'{network.name}': its head '{head.tensor}' has a single output, which has no {loss}", "unlike-targets"
        )
    if loss != CROSS_ENTROPY and head.squash == "Softmax":
        raise DataError(
            f"'{network.name}': its head '{head.tensor}' ends in a Softmax, which has no {loss}", "unlike-targets"
        )


def _scale(network: Network, head: Head, loss: str, y: Array) -> tuple[float, ...]:
    """The units in which a regression's outputs are trained, where the head is a layer's own output."""
    is_scaled = loss == SQUARED and not head.squash and _is_direct(network, head)
    return _units(y, head.width) if is_scaled else ()


def _is_direct(network: Network, head: Head) -> bool:
    """Whether a head is the output of a dense layer, with nothing between, and nothing else is computed from it.

    A convolution is not direct: its units lie on the second axis, and units of targets on the last.
    """
    convolved = {name for segment in network.segments if segment.is_convolution for name in segment.ends}
    return head.tensor in network.direct_heads and head.tensor not in convolved


def _units(y: Array, width: int) -> tuple[float, ...]:
    """Powers of two near the targets' standard deviations; () where all are 1."""
    columns = y.reshape(-1, y.shape[-1]) if y.ndim > 2 else y.reshape(len(y), -1)
    deviations = np.atleast_1d(np.std(columns.astype(np.float64), axis=0))
    usable = np.isfinite(deviations) & (deviations > 0)
    units = 2.0 ** np.round(np.log2(np.where(usable, deviations, 1.0)))
    return () if len(units) != width or bool((units == 1).all()) else tuple(units.tolist())


def _told(y: Array) -> str:
    """What labels are that are no classes, and what to do with them where that is plain."""
    if y.ndim == 1:
        return f"numbers such as {y[np.argmax(y % 1 != 0)]:g}"
    if y.ndim > 2:
        return f"{y.dtype} {y.shape[1:]} a row"
    is_one_hot = bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())
    return f"{y.shape[1]} columns" + (", one-hot: give the number of the 1 in each row" if is_one_hot else "")


def _suggested(network: Network, dataset: Dataset, head: Head, y: Array) -> str:
    """The loss that fits the head and its labels."""
    classes = y.ndim == head.rank - 1 and y.dtype.kind in "iub"
    if head.squash == "Softmax":
        if not classes:
            several = len(network.heads) > 1
            what = f"the head '{head.tensor}' of '{network.name}'" if several else f"'{network.name}'"
            wanted = "a class for each position" if head.rank > 2 else "one column of classes"
            raise DataError(
                f"{dataset.name}: {what} ends in a Softmax; expected {wanted}{' for it' * several}; found {_told(y)}",
                "unlike-targets",
            )
        return CROSS_ENTROPY
    if classes and head.width > 1:
        return CROSS_ENTROPY
    if classes and len(names_of(dataset, y)) <= 2:
        return BINARY
    if head.width == 1 and head.labels and bool(np.isin(y, numeric_labels(head)).all()):
        return BINARY
    if classes and (head.squash == "Sigmoid" or head.labels):
        count, of = len(names_of(dataset, y)), "" if len(network.heads) == 1 else f"head '{head.tensor}' of "
        raise DataError(
            f"{dataset.name}: {count} classes in the data, {of}the model '{network.name}' has one output (2 classes)"
            f"{new_head(network, count)}",
            "other-classes",
        )
    between = bool(((y == 0) | (y == 1)).all())
    if between and (head.squash == "Sigmoid" or y.dtype.kind in "iub"):
        return BINARY
    return SQUARED
