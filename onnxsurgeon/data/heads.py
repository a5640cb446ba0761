"""From a data set's labels to the targets of a network's heads, and to what each head is trained for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.inputs import LARGEST
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.outputs import NO_TARGETS
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task


def resolve_tasks(
    network: Network, dataset: Dataset, loss: str = "auto", *, class_weight: str = "none", metric: str = "auto"
) -> tuple[Task, ...]:
    """What each head of ``network`` is trained for, from its suffix and the training labels, or as ``loss`` says.

    Args:
        network: whose heads they are.
        dataset: whose training labels tell.
        loss: one of ``task.LOSSES``, or "auto".
        class_weight: one of ``task.CLASS_WEIGHTS``: balanced weighs a class by n / (C n_c), n_c its n training rows.
        metric: one of ``task.METRICS``.

    Raises:
        DataError: the labels have another number of columns than the heads need, or do not fit the loss; or no head has
            classes that could be weighed or balanced.
    """
    with _obstacle_told(network, dataset):
        columns = _columns(network, dataset, dataset.train.labels)
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
    """For each class n / (C n_c), n_c its share of the n ``labels``, C how many classes have any; 1 for one without."""
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


@contextmanager
def _obstacle_told(network: Network, dataset: Dataset) -> Iterator[None]:
    """Where labels do not fit, and heads are not all of the outputs, why targets are not those of the outputs."""
    try:
        yield
    except DataError as error:
        obstacle = next((head.obstacle for head in network.heads if head.obstacle), "")
        if obstacle and dataset.is_labelled:
            raise DataError(f"{error}; '{network.name}': {obstacle}", error.kind) from error
        untold = [note for note in network.frame.notes if NO_TARGETS in note]
        if untold and dataset.is_labelled:
            raise DataError(f"{error}; {'; '.join(untold)}", error.kind) from error
        raise


def imitation_tasks(
    network: Network,
    outputs: Sequence[Array],
    loss: str = "auto",
    temperature: float = 1.0,
    squashes: Sequence[str] = (),
) -> tuple[Task, ...]:
    """What each head of ``network`` is trained for where a teacher's outputs are all there is to learn from.

    Args:
        network: the student.
        outputs: what the teacher puts out before its squash for rows to train on, (rows, …, width) for each head.
        loss: as in ``InputOptions``; "auto": cross-entropy where the head or the teacher ends in a Softmax or the model
            names classes, binary cross-entropy where the head ends in a Sigmoid, else squared error.
        temperature: that softens cross-entropies.
        squashes: what the teacher applies to each output, "Softmax", "Sigmoid" or ""; none where that is not known.

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
    """What is worth knowing of how heads are imitated: which may be logits of classes, and are not taken for them."""
    return [
        f"head '{head.tensor}' has no Softmax: imitated as values; --loss cross-entropy if these are classes' logits"
        for head, task in zip(network.heads, tasks, strict=True)
        if task.imitates and task.loss == SQUARED and head.width > 1 and not head.squash and _is_linear(network, head)
    ]


def _is_linear(network: Network, head: Head) -> bool:
    """Whether the head is what a layer without an activation puts out."""
    last = [segment.layers[-1] for segment in network.segments if head.tensor in segment.ends]
    return bool(last) and last[0].activation is None


def imitated_loss(head: Head, squash: str) -> str:
    """The loss that a head is imitated by, the teacher applying ``squash``, where nothing else is said."""
    names_classes = bool(head.labels) or "ArgMax" in head.readers
    if head.width > 1 and ("Softmax" in (head.squash, squash) or names_classes):
        return CROSS_ENTROPY
    return BINARY if head.squash == "Sigmoid" or head.labels else SQUARED


def encode(network: Network, dataset: Dataset, split: Split, tasks: tuple[Task, ...]) -> tuple[Array, ...]:
    """The labels of ``split`` as each head's targets: classes (rows, …) int64, or values (rows, …, outputs).

    Raises:
        DataError: a label is not among a head's classes; names the row.
    """
    found = []
    with _obstacle_told(network, dataset):
        for head, task, column in zip(network.heads, tasks, _columns(network, dataset, split.labels), strict=True):
            y = _by_position(network, dataset, head, column)
            is_class = task.loss == CROSS_ENTROPY
            found.append(_classes(network, dataset, head, y) if is_class else _values(network, dataset, head, task, y))
    return tuple(found)


def class_names(network: Network, dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """What the classes of each head are called, in the order of its columns; () where they are numbers from 0 on."""
    known = dataset.class_labels if len(network.heads) == 1 else ()
    return tuple(tuple(map(str, head.labels or _in_order(known, head.width))) for head in network.heads)


def _in_order(names: tuple[int, ...] | tuple[str, ...], width: int) -> tuple[int, ...] | tuple[str, ...]:
    """Names that stand for the head's columns in ascending order, as ``_by_number`` takes them."""
    numbers = all(isinstance(name, int) and 0 <= name < width for name in names)
    return () if numbers or len(names) != max(width, 2) else names


def _columns(network: Network, dataset: Dataset, labels: Array) -> list[Array]:
    """The part of the labels that belongs to each head: (rows,) for one column, else (rows, k)."""
    if labels.shape[1:] == (0,):
        raise DataError(
            f"{dataset.name}: its rows have no labels, which this needs: give them (--target, or y in an .npz), or let "
            "a teacher give the targets (evolve; evaluate --teacher MODEL)",
            "no-labels",
        )
    heads = network.heads
    labels = _without_single_axes(labels, max(head.rank for head in heads))
    _require_representable(network, dataset, labels)
    if len(heads) == 1:
        return [labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and heads[0].rank == 2 else labels]
    if labels.ndim > 2 or any(head.rank > 2 for head in heads):
        raise DataError(
            f"{dataset.name}: '{network.name}' has {len(heads)} heads; labels of 3 axes are for one alone",
            "label-columns",
        )
    count = 1 if labels.ndim == 1 else labels.shape[1]
    widths = [head.width for head in heads]
    if count == len(heads):
        return [_for_head(head, labels[:, i]) for i, head in enumerate(heads)]
    if count == sum(widths):
        return [part[:, 0] if part.shape[1] == 1 else part for part in np.split(labels, np.cumsum(widths)[:-1], axis=1)]
    names = ", ".join(f"'{head.tensor}' ({head.width})" for head in heads)
    columns = "1 column" if count == 1 else f"{count} columns"
    raise DataError(
        f"{dataset.name}: {columns} of labels for the {len(heads)} heads of '{network.name}', {names}: expected "
        f"one column a head, {len(heads)}, or one an output, {sum(widths)}, in this order",
        "label-columns",
    )


def _for_head(head: Head, column: Array) -> Array:
    """A head's own column; whole numbers for several outputs are classes, which another head's values made floats."""
    if column.dtype.kind != "f" or head.width == 1 or head.rank > 2:
        return column
    is_whole = bool((np.isfinite(column) & (column >= 0) & (column % 1 == 0)).all())
    return column.astype(np.int64) if is_whole else column


def _without_single_axes(labels: Array, rank: int) -> Array:
    """Labels with more axes than a head, without the axes of 1 among them: (rows, 1, k) is (rows, k) for a head of two.

    Such are the outputs of a model without a batch axis, stacked.
    """
    sizes = [size for size in labels.shape[1:] if size != 1] or [1]
    return labels.reshape(len(labels), *sizes) if labels.ndim > rank == len(sizes) + 1 else labels


def _require_representable(network: Network, dataset: Dataset, labels: Array) -> None:
    """Raise DataError where a target is beyond the numbers that the network computes with."""
    most = min(float(np.finfo(network.dtype).max), LARGEST)
    if labels.dtype.kind != "f" or not labels.size or float(np.abs(labels).max()) <= most:
        return
    row, *place = (int(i) for i in np.argwhere(~(np.abs(labels) <= most))[0])
    raise DataError(
        f"{dataset.name}: target {labels[(row, *place)]:g} in row {row} is too large for '{network.name}', which "
        f"computes in {network.dtype}",
        "value-too-large",
    )


def _task(network: Network, dataset: Dataset, head: Head, y: Array, loss: str) -> Task:
    y = _by_position(network, dataset, head, y)
    chosen = _suggested(network, dataset, head, y) if loss == "auto" else loss
    _require_fit(network, head, chosen)
    if dataset.class_labels and not isinstance(dataset.class_labels[0], str):
        y = np.array(dataset.class_labels)[y]
    positions = math.prod(y.shape[1 : head.rank - 1])
    return Task(chosen, head.width, head.squash, _scale(network, head, chosen, y), positions=positions)


def _by_position(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """Labels of a head of more than two axes: classes (rows, …) or values (rows, …, width); of others as they are.

    Raises:
        DataError: they have other axes than the head.
    """
    if head.rank == 2:
        if y.ndim > 2:
            raise DataError(
                f"{dataset.name}: labels of shape {y.shape[1:]} a row; the head '{head.tensor}' of '{network.name}' "
                f"has {head.width} outputs a row",
                "label-columns",
            )
        return y
    if head.width == 1 and y.ndim == head.rank - 1:
        y = y[..., None]
    classes = y.ndim == head.rank - 1 and y.dtype.kind in "iub"
    if not classes and (y.ndim != head.rank or y.shape[-1] != head.width):
        raise DataError(
            f"{dataset.name}: the head '{head.tensor}' of '{network.name}' has {head.rank} axes, the last of them "
            f"{head.width} wide: expected labels of that shape, or a class for each position; found {y.shape[1:]} a "
            "row",
            "label-columns",
        )
    return y


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
    """The units that a regression's outputs are trained in, where the head is a layer's own output."""
    is_scaled = loss == SQUARED and not head.squash and _is_direct(network, head)
    return _units(y, head.width) if is_scaled else ()


def _is_direct(network: Network, head: Head) -> bool:
    """Whether a head is what a dense layer puts out, with nothing between, and nothing else is computed from it."""
    return head.tensor in network.direct_heads


def _units(y: Array, width: int) -> tuple[float, ...]:
    """Powers of two near the targets' standard deviations; () where all are 1."""
    columns = y.reshape(-1, y.shape[-1]) if y.ndim > 2 else y.reshape(len(y), -1)
    deviations = np.atleast_1d(np.std(columns.astype(np.float64), axis=0))
    usable = np.isfinite(deviations) & (deviations > 0)
    units = 2.0 ** np.round(np.log2(np.where(usable, deviations, 1.0)))
    return () if len(units) != width or bool((units == 1).all()) else tuple(units.tolist())


def _suggested(network: Network, dataset: Dataset, head: Head, y: Array) -> str:
    """The loss that fits the head and its labels."""
    classes = y.ndim == head.rank - 1 and y.dtype.kind in "iub"
    if head.squash == "Softmax":
        if not classes:
            several = len(network.heads) > 1
            what = f"the head '{head.tensor}' of '{network.name}'" if several else f"'{network.name}'"
            wanted = "a class for each position" if head.rank > 2 else "one column of classes"
            raise DataError(
                f"{dataset.name}: {what} ends in a Softmax; expected {wanted}{' for it' * several}", "unlike-targets"
            )
        return CROSS_ENTROPY
    if classes and head.width > 1:
        return CROSS_ENTROPY
    if classes and len(_names(dataset, y)) <= 2:
        return BINARY
    if head.width == 1 and head.labels and bool(np.isin(y, _numbers(head)).all()):
        return BINARY
    if classes and (head.squash == "Sigmoid" or head.labels):
        count, of = len(_names(dataset, y)), "" if len(network.heads) == 1 else f"head '{head.tensor}' of "
        raise DataError(
            f"{dataset.name}: {count} classes in the data, {of}the model '{network.name}' has one output (2 classes)",
            "other-classes",
        )
    between = bool(((y == 0) | (y == 1)).all())
    if between and (head.squash == "Sigmoid" or y.dtype.kind in "iub"):
        return BINARY
    return SQUARED


def _of(network: Network, head: Head) -> str:
    return f"'{network.name}'" if len(network.heads) == 1 else f"the head '{head.tensor}' of '{network.name}'"


def _numbers(head: Head) -> list[float]:
    """The head's class labels that are numbers; NaN for others."""
    return [float(label) if str(label).lstrip("-").isdigit() else np.nan for label in head.labels]


def _names(dataset: Dataset, y: Array) -> tuple[int, ...] | tuple[str, ...]:
    """What the classes 0, 1, … are called."""
    if dataset.class_labels:
        return dataset.class_labels
    return tuple(range(max(dataset.classes, int(y.max(initial=0)) + 1)))


def _classes(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """Labels (rows,) as the head's columns, by the names that the model gives its classes, where it does."""
    if y.ndim != head.rank - 1 or y.dtype.kind not in "iub":
        raise DataError(
            f"{dataset.name}: '{network.name}' takes one column of classes; found {y.dtype} {y.shape}", "label-form"
        )
    if y.ndim > 1:
        return _at_positions(network, dataset, head, y)
    if not head.labels:
        return _by_number(network, dataset, head, y)
    names = _names(dataset, y)
    known = {str(label): column for column, label in enumerate(head.labels)}
    table = np.array([known.get(str(name), -1) for name in names], np.int64)
    encoded: Array = table[y]
    if (encoded < 0).any():
        row = int(np.argmax(encoded < 0))
        expected = ", ".join(map(str, head.labels[:12])) + (", …" if len(head.labels) > 12 else "")
        raise DataError(
            f"{dataset.name}: label {names[int(y[row])]!r} in row {row} is not among the classes of '{network.name}': "
            f"{expected}",
            "other-classes",
        )
    return encoded


def _at_positions(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """A class for each position (rows, …), which are numbers of the head's columns."""
    wrong = (y < 0) | (y >= head.width)
    if wrong.any():
        place = np.argwhere(wrong)[0]
        raise DataError(
            f"{dataset.name}: label {y[tuple(place)]} in row {place[0]} is outside the {head.width} classes of "
            f"'{network.name}' (0 to {head.width - 1})",
            "other-classes",
        )
    return y.astype(np.int64, copy=False)


def _by_number(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """Labels as the head's columns where the model gives its classes no names.

    Integers are numbers of columns where all of them can be; texts and other integers are the columns in ascending
    order where there are as many.
    """
    names = _names(dataset, y)
    numbers = [name if isinstance(name, int) and 0 <= name < head.width else -1 for name in names]
    if min(numbers) < 0 and dataset.class_labels and len(names) == head.width:
        return y.astype(np.int64, copy=False)
    if isinstance(names[0], str):
        raise DataError(
            f"{dataset.name}: {len(names)} classes, from {names[0]!r} to {names[-1]!r}; '{network.name}' has "
            f"{head.width}, and gives them no names",
            "other-classes",
        )
    if numbers == list(range(len(numbers))):
        return y.astype(np.int64, copy=False)
    encoded: Array = np.array(numbers, np.int64)[y]
    if (encoded < 0).any():
        row = int(np.argmax(encoded < 0))
        raise DataError(
            f"{dataset.name}: label {names[int(y[row])]!r} in row {row} is outside the {head.width} classes of "
            f"'{network.name}' (0 to {head.width - 1})",
            "other-classes",
        )
    return encoded


def _values(network: Network, dataset: Dataset, head: Head, task: Task, y: Array) -> Array:
    """Targets (rows, outputs) in float64 for the losses on single outputs."""
    if y.ndim == 1 and y.dtype.kind in "iub" and head.width == 1:
        if task.loss == BINARY:
            two = Head(head.tensor, 2, head.squash, head.readers, head.labels)
            return _classes(network, dataset, two, y).astype(np.float64)[:, None]
        names = _names(dataset, y)
        if any(isinstance(name, str) for name in names):
            raise DataError(f"{dataset.name}: its labels are texts; {task.loss} needs numbers", "label-form")
        return np.array(names, np.float64)[y][:, None]
    if task.loss == BINARY and head.width == 1 and head.labels:  # floats that are 0 and 1 are names of classes here too
        known = _numbers(head)
        unknown = ~np.isin(y, known)
        if unknown.any():
            row, expected = int(np.argmax(unknown.reshape(-1))), ", ".join(map(str, head.labels))
            raise DataError(
                f"{dataset.name}: label {y.reshape(-1)[row]:g} in row {row} is not among the classes of "
                f"'{network.name}': {expected}",
                "other-classes",
            )
        second: Array = y.reshape(-1, 1) == known[1]
        return second.astype(np.float64)
    values = y.astype(np.float64).reshape(*y.shape[: head.rank - 1], -1)
    if values.shape[-1] != head.width:
        raise DataError(
            f"{dataset.name}: expected {head.width} targets a row, one for each output of {_of(network, head)}; found "
            f"{values.shape[-1]}",
            "label-columns",
        )
    if task.loss == BINARY and ((values != 0) & (values != 1)).any():
        row, *column = (int(i) for i in np.argwhere((values != 0) & (values != 1))[0])
        raise DataError(
            f"{dataset.name}: target {values[(row, *column)]:g} in row {row}, column {', '.join(map(str, column))}; "
            "expected 0 or 1",
            "label-form",
        )
    return values
