"""Notes on what is easily overlooked in data.

What was left out, how classes are numbered, how pixels are scaled, which classes are rare.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxsurgeon.data.catalogue import CATALOGUE
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.encoding import encode
from onnxsurgeon.data.heads import resolve_tasks, with_class_names
from onnxsurgeon.data.inputs import declared_inputs
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import numpy_type
from onnxsurgeon.task import Task

FAR_BELOW = 4.0  # pixels whose maximum is this many times below their divisor
IMBALANCED = 3.0  # this many times as many rows of one class as of another
SHOWN = 12  # up to this many classes are listed one by one


def data_notes(network: Network, dataset: Dataset, options: InputOptions) -> tuple[str, ...]:
    """Sentences on what one should know about these data before one believes a number that they led to."""
    named = with_class_names(network, options.classes)
    found = [*dataset.remarks, *_pixels(network, dataset, options)]
    if dataset.is_labelled and len(network.heads) == 1:
        tasks = resolve_tasks(named, dataset, options.loss)
        if tasks[0].has_classes:
            found += _order(named, dataset, tasks[0])
            found += _counts(named, dataset, tasks, options)
    return tuple(found)


def _pixels(network: Network, dataset: Dataset, options: InputOptions) -> Iterator[str]:
    """Note integers that are divided by far more than the largest of them."""
    if options.scale is not None:
        return
    floats = {
        value.name: value.type.HasField("tensor_type") and numpy_type(value.type.tensor_type.elem_type).kind == "f"
        for value in declared_inputs(network)
    }
    for name, largest in _largest(dataset).items():
        if not (floats.get(name, False) if name else all(floats.values())):
            continue
        if largest * FAR_BELOW < dataset.maximum:
            what = f"'{name}' is" if name else "the inputs are"
            advice = f"--scale {1 / largest:.6g} makes them 0..1, --scale 1 leaves them as they are" if largest else ""
            yield f"{what} uint8 0..{largest} divided by {dataset.maximum:g}{'; ' if advice else ''}{advice}"


def _largest(dataset: Dataset) -> dict[str, int]:
    """The largest value of every array of uint8, over all rows."""
    found: dict[str, int] = {}
    for split in dataset.splits:
        for name, _, dtype, pieces in split.blocks():
            if dtype == np.uint8:
                found[name] = max(found.get(name, 0), *(int(piece.max(initial=0)) for piece in pieces))
    return found


def _order(network: Network, dataset: Dataset, task: Task) -> Iterator[str]:
    """Note which class is which of the model's outputs, where neither says so and the labels' order decides."""
    names = dataset.class_labels
    if network.heads[0].labels or not names:
        return
    if not isinstance(names[0], str) and all(0 <= int(name) < max(2, task.outputs) for name in names):
        return  # numbers of the outputs themselves
    listed = ", ".join(f"{position} '{name}'" for position, name in enumerate(names[:SHOWN]))
    more = f", … {len(names) - 1} '{names[-1]}'" if len(names) > SHOWN else ""
    yield (
        f"the model names no classes, so the labels are its outputs in ascending order: {listed}{more}; --classes "
        "gives another order"
    )


def _counts(network: Network, dataset: Dataset, tasks: tuple[Task, ...], options: InputOptions) -> Iterator[str]:
    """Note how many rows each class has, how uneven that is, and which classes are not trained on."""
    width = max(2, tasks[0].outputs)
    names = _class_names(network, dataset, width)
    train = _per_class(network, dataset, tasks, dataset.train, width)
    there = np.flatnonzero(train)
    known = dataset.name.partition(":")[0] in CATALOGUE
    is_uneven = len(there) > 1 and train[there].max() >= IMBALANCED * train[there].min()
    missing = np.flatnonzero(train == 0)
    if not known or is_uneven or len(missing):
        each = ", ".join(f"'{names[i]}' {train[i]:,}" for i in range(min(width, SHOWN)))
        if width > SHOWN:
            each = f"{width} classes of {train.min():,} ('{names[int(train.argmin())]}') to {train.max():,} "
            each += f"('{names[int(train.argmax())]}')"
        yield f"training rows by class: {each}"
    if is_uneven and (options.class_weight, options.metric) == ("none", "auto"):
        share = train.max() / train.sum()
        yield (
            f"the classes are uneven: who always says '{names[int(train.argmax())]}' is right in {share:.1%} of the "
            "training rows; --class-weight balanced weighs them alike, --metric balanced-accuracy judges them alike"
        )
    for part, split in (("validation", dataset.validation), ("test", dataset.test)):
        if split is None:
            continue
        counts = _per_class(network, dataset, tasks, split, width)
        unseen = [i for i in missing if counts[i]]
        if unseen:
            listed = ", ".join(f"'{names[i]}'" for i in unseen[:SHOWN]) + (", …" if len(unseen) > SHOWN else "")
            yield (
                f"{counts[unseen].sum():,} of the {split.rows:,} {part} rows are of classes without a training row, "
                f"which nothing can learn: {listed}"
            )


def _class_names(network: Network, dataset: Dataset, width: int) -> list[str]:
    labels = network.heads[0].labels
    if not labels and dataset.class_labels and len(dataset.class_labels) == width:
        numbers = all(isinstance(name, int) and 0 <= name < width for name in dataset.class_labels)
        labels = () if numbers else dataset.class_labels
    return [str(name) for name in labels or range(width)]


def _per_class(network: Network, dataset: Dataset, tasks: tuple[Task, ...], split: Split, width: int) -> Array:
    """How many rows, or positions, of a split each class has."""
    (encoded,) = encode(network, dataset, split, tasks)
    return np.bincount(encoded.reshape(-1).astype(np.int64, copy=False), minlength=width)
