"""Images that are read otherwise than in a network's training: by them it knows nothing, and read so it knows much.

A trained network whose pixels were shifted and scaled in its training, outside of the model, looks untrained where
they are read in another way, and would be trained anew on what it will never be given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.inputs import declared_inputs
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError, OnnxSurgeonError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgeon.significance import chance_scores, with_row_scores
from onnxsurgeon.task import SQUARED
from onnxsurgeon.training.engine import Engine

ROWS = 256  # of the training rows, that are looked at
FAR = 0.5  # of the way from chance to a perfect metric, that random weights do not go
# Means and deviations of the photographs of ImageNet, which most networks for photographs were trained with.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Reading:
    """A way to read rows by which a network knows much.

    Attributes:
        options: as the command line has them.
        metric: what was measured.
        score: its value, read so.
        before: its value as the rows were read.
        rows: how many it was measured on.
    """

    options: str
    metric: str
    score: float
    before: float
    rows: int


def require_reading(network: Network, engine: Engine, dataset: Dataset, options: InputOptions) -> None:
    """Raise DataError where a network that knows nothing of the rows as they are read knows much, read otherwise.

    Raises:
        DataError: it does; names the options that read them so.
    """
    found = other_reading(network, engine, dataset, options)
    if found is not None:
        raise DataError(
            f"{dataset.name}: read as it is, '{network.name}' has {found.metric} {found.before:.4f} on {found.rows:,} "
            f"training rows; with {found.options} it has {found.score:.4f}, so it was trained: give these, or those of "
            "its training; --start untrained trains it anew as it is",
            "misread-rows",
        )


def reading_note(network: Network, engine: Engine, dataset: Dataset, options: InputOptions) -> tuple[str, ...]:
    """The same as a sentence, for what measures a network and changes nothing; () where there is nothing to say."""
    found = other_reading(network, engine, dataset, options)
    return () if found is None else (f"with {found.options} its {found.metric} is {found.score:.4f}",)


def other_reading(network: Network, engine: Engine, dataset: Dataset, options: InputOptions) -> Reading | None:
    """The best of the usual ways to read images, where it goes far from chance, and the given one does not.

    None where rows are no images, or have no labels, or no way does.
    """
    if not dataset.is_labelled or dataset.train.table is not None:  # a table's columns would be copied
        return None
    stored = dataset.train.stored
    if not isinstance(stored, Rows) or len(stored.shape) not in (3, 4):
        return None
    rows = dataset.train.take(np.unique(np.linspace(0, dataset.train.rows - 1, ROWS).astype(np.int64)))
    before = _score(network, engine, dataset, rows, options)
    if before is None or before[0] >= FAR:
        return None
    found: Reading | None = None
    most = FAR
    for spelled, other in _readings(network, rows, stored, dataset, options):
        measured = _score(network, engine, dataset, rows, other)
        if measured is not None and measured[0] >= most:
            most = np.nextafter(measured[0], np.inf)
            found = Reading(spelled, measured[2], measured[1], before[1], rows.rows)
    return found


def _readings(
    network: Network, rows: Split, stored: Rows, dataset: Dataset, options: InputOptions
) -> Iterator[tuple[str, InputOptions]]:
    """The usual ways, as options and as the command line has them."""
    values = rows.stored.take() if isinstance(rows.stored, Rows) else np.zeros(1)
    pixels = values.astype(np.float64) * (1 / dataset.maximum if stored.dtype == np.uint8 else 1.0)
    own = (round(float(pixels.mean()), 3),), (round(float(pixels.std()), 3) or 1.0,)
    shifts: list[tuple[float | None, tuple[float, ...], tuple[float, ...]]] = [
        (None, (), ()),
        *([(1.0, (), ())] if stored.dtype == np.uint8 else []),
        (None, (0.5,), (0.5,)),
        (None, *IMAGENET),
        (None, *own),
    ]
    is_flat = any(len(value.type.tensor_type.shape.dim) == 2 for value in declared_inputs(network))
    other = ["chw" if options.layout == "hwc" else "hwc"] if is_flat else []  # others tell by their channel axis
    for layout in (options.layout, *other):
        for scale, mean, std in shifts:
            words = [
                *([f"--layout {layout}"] if layout != options.layout else []),
                *([f"--scale {scale:g}"] if scale is not None else []),
                *([f"--mean {_listed(mean)} --std {_listed(std)}"] if mean else []),
            ]
            if words:
                yield " ".join(words), replace(options, layout=layout, scale=scale, mean=mean, std=std)


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _score(
    network: Network, engine: Engine, dataset: Dataset, rows: Split, options: InputOptions
) -> tuple[float, float, str] | None:
    """How far of the way from chance to a perfect metric the network is, its metric, and what that is called.

    None where rows that are read so do not fit, or something puts out what is not finite.
    """
    try:
        examples = prepare(network, dataset, rows, options)
        metrics, scores = with_row_scores(network, engine, examples)
        chance = chance_scores(examples)
    except OnnxSurgeonError:
        return None
    best = sum(0.0 if task.loss == SQUARED else 1.0 for task in examples.tasks)
    missing = best - float(chance.mean())
    gain = float(scores.mean() - chance.mean())
    return (gain / missing if missing > 0 else 0.0), metrics.accuracy, examples.metric
