"""A data set's labels as the targets of a network's heads: the columns of each head, and the numbers of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from onnxsurgeon.data.as_outputs import as_head
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.inputs import LARGEST
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.outputs import NO_TARGETS
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.quantities import whole
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, Task


@contextmanager
def obstacle_told(network: Network, dataset: Dataset) -> Iterator[None]:
    """Let an error about labels also say why targets are not those of the outputs, where heads are not all outputs."""
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


def encode(network: Network, dataset: Dataset, split: Split, tasks: tuple[Task, ...]) -> tuple[Array, ...]:
    """The labels of ``split`` as each head's targets: classes (rows, …) int64, or values (rows, …, outputs).

    Raises:
        DataError: a label is not among a head's classes; names the row.
    """
    found = []
    with obstacle_told(network, dataset):
        for head, task, column in zip(network.heads, tasks, columns_of(network, dataset, split.labels), strict=True):
            y = by_position(network, dataset, head, column)
            is_class = task.loss == CROSS_ENTROPY
            found.append(_classes(network, dataset, head, y) if is_class else _values(network, dataset, head, task, y))
    return tuple(found)


def columns_of(network: Network, dataset: Dataset, labels: Array) -> list[Array]:
    """The part of the labels that belongs to each head: (rows,) for one column, else (rows, k)."""
    if labels.shape[1:] == (0,):
        raise DataError(
            f"{dataset.name}: its rows have no labels, which this needs: give them (--target, or y in an .npz), or let "
            "a teacher give the targets (evolve; evaluate --teacher MODEL)",
            "no-labels",
        )
    heads = network.heads
    labels = _without_single_axes(as_head(network, labels), max(head.rank for head in heads))
    _require_representable(network, dataset, labels)
    if len(heads) == 1:
        column = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and heads[0].rank == 2 else labels
        return [_for_head(heads[0], column) if column.ndim == 1 else column]
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
    """A head's own column of the labels.

    Whole numbers for several outputs are classes that another head's values, or a missing value somewhere, turned into
    floats.
    """
    if column.dtype.kind != "f" or head.width == 1 or head.rank > 2:
        return column
    is_whole = bool((np.isfinite(column) & (column >= 0) & (column % 1 == 0)).all())
    return column.astype(np.int64) if is_whole else column


def _without_single_axes(labels: Array, rank: int) -> Array:
    """Labels with more axes than a head, without axes of 1 among them.

    (rows, 1, k) is (rows, k) for a head of two axes. The stacked outputs of a model without a batch axis have such
    axes.
    """
    sizes = [size for size in labels.shape[1:] if size != 1] or [1]
    return labels.reshape(len(labels), *sizes) if labels.ndim > rank == len(sizes) + 1 else labels


def _require_representable(network: Network, dataset: Dataset, labels: Array) -> None:
    """Raise DataError where a target is too large for the type in which the network computes."""
    most = min(float(np.finfo(network.dtype).max), LARGEST)
    if labels.dtype.kind != "f" or not labels.size or float(np.abs(labels).max()) <= most:
        return
    row, *place = (int(i) for i in np.argwhere(~(np.abs(labels) <= most))[0])
    raise DataError(
        f"{dataset.name}: target {labels[(row, *place)]:g} in row {row} is too large for '{network.name}', which "
        f"computes in {network.dtype}",
        "value-too-large",
    )


def by_position(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """Labels of a head of more than two axes, as classes (rows, …) or values (rows, …, width); others as they are.

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


def _of(network: Network, head: Head) -> str:
    return f"'{network.name}'" if len(network.heads) == 1 else f"the head '{head.tensor}' of '{network.name}'"


def numeric_labels(head: Head) -> list[float]:
    """The head's class labels that are numbers, and NaN for those that are not."""
    numbers = [whole(str(label).removeprefix("-")) for label in head.labels]
    return [np.nan if number is None else float(str(label)) for label, number in zip(head.labels, numbers, strict=True)]


def names_of(dataset: Dataset, y: Array) -> tuple[int, ...] | tuple[str, ...]:
    """The names of the classes 0, 1, …."""
    if dataset.class_labels:
        return dataset.class_labels
    return tuple(range(max(dataset.classes, int(y.max(initial=0)) + 1)))


def _classes(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """Labels (rows,) as the head's columns, by the names that the model gives its classes, if it does."""
    if y.ndim != head.rank - 1 or y.dtype.kind not in "iub":
        raise DataError(
            f"{dataset.name}: '{network.name}' takes one column of classes; found {y.dtype} {y.shape}", "label-form"
        )
    if y.ndim > 1:
        return _at_positions(network, dataset, head, y)
    if not head.labels:
        return _by_number(network, dataset, head, y)
    names = names_of(dataset, y)
    known = {str(label): column for column, label in enumerate(head.labels)}
    table = np.array([known.get(str(name), -1) for name in names], np.int64)
    encoded: Array = table[y]
    if (encoded < 0).any():
        row = int(np.argmax(encoded < 0))
        expected = ", ".join(map(str, head.labels[:12])) + (", …" if len(head.labels) > 12 else "")
        raise DataError(
            f"{dataset.name}: label {names[int(y[row])]!r} in row {row} is not among the classes of '{network.name}': "
            f"{expected}{new_head(network, len(names))}",
            "other-classes",
        )
    return encoded


def _counted(names: Sequence[int | str]) -> str:
    if len(names) == 1:
        return f"a single class, {names[0]!r}"
    return f"{len(names)} classes, from {names[0]!r} to {names[-1]!r}"


def new_head(network: Network, classes: int) -> str:
    """What to do where labels are other classes than those of a network of one head; "" of several."""
    if len(network.heads) > 1 or classes < 2:
        return ""
    return f"; for {classes} classes, put a new head on it: onnxsurgeon head MODEL --classes {classes} -o FILE"


def _largest(names: Sequence[int | str]) -> int:
    """The largest number among the names."""
    return max((name for name in names if isinstance(name, int)), default=0)


def _at_positions(network: Network, dataset: Dataset, head: Head, y: Array) -> Array:
    """A class for each position (rows, …), as numbers of the head's columns."""
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
    """Labels as the head's columns, for a model that gives its classes no names.

    Integers are numbers of columns if all of them can be. Texts and other integers are the columns in ascending order,
    if there are as many as columns.
    """
    names = names_of(dataset, y)
    numbers = [name if isinstance(name, int) and 0 <= name < head.width else -1 for name in names]
    if min(numbers) < 0 and dataset.class_labels and len(names) == head.width:
        return y.astype(np.int64, copy=False)
    if isinstance(names[0], str):
        raise DataError(
            f"{dataset.name}: {_counted(names)}; '{network.name}' has "
            f"{head.width}, and gives them no names{new_head(network, len(names))}",
            "other-classes",
        )
    if numbers == list(range(len(numbers))):
        return y.astype(np.int64, copy=False)
    encoded: Array = np.array(numbers, np.int64)[y]
    if (encoded < 0).any():
        row = int(np.argmax(encoded < 0))
        raise DataError(
            f"{dataset.name}: label {names[int(y[row])]!r} in row {row} is outside the {head.width} classes of "
            f"'{network.name}' (0 to {head.width - 1}){new_head(network, max(len(names), _largest(names) + 1))}",
            "other-classes",
        )
    return encoded


def _values(network: Network, dataset: Dataset, head: Head, task: Task, y: Array) -> Array:
    """Targets (rows, outputs) in float64 for the losses on single outputs."""
    if y.ndim == 1 and y.dtype.kind in "iub" and head.width == 1:
        if task.loss == BINARY:
            two = Head(head.tensor, 2, head.squash, head.readers, head.labels)
            return _classes(network, dataset, two, y).astype(np.float64)[:, None]
        names = names_of(dataset, y)
        if any(isinstance(name, str) for name in names):
            raise DataError(f"{dataset.name}: its labels are texts; {task.loss} needs numbers", "label-form")
        return np.array(names, np.float64)[y][:, None]
    if task.loss == BINARY and head.width == 1 and head.labels:  # floats 0 and 1 are names of classes here too
        known = numeric_labels(head)
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
