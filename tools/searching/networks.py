"""The rows every search works on, and dense networks as plain arrays: what is counted, measured and kept of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxsurgeon import Dataset, Split

Array = npt.NDArray[Any]
# Weight (n_in, n_out) and bias (n_out,) of each dense layer in turn, Relu between them.
Layers = list[tuple[Array, Array]]


@dataclass(frozen=True)
class Rows:
    """Features (rows, n) float32 and classes (rows,) int64."""

    features: Array
    labels: Array

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True)
class Scale:
    """What brings the training rows to mean 0 and standard deviation 1, all features together."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, split: Split) -> Scale:
        """By the rows of ``split``."""
        values = np.asarray(split.inputs)
        return cls(float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))

    def rows(self, split: Split) -> Rows:
        """Scaled and flattened."""
        values = (np.asarray(split.inputs, np.float32) - np.float32(self.mean)) / np.float32(self.deviation)
        return Rows(values.reshape(split.rows, -1), split.labels)


def chosen_rows(dataset: Dataset) -> tuple[Rows, Rows]:
    """To train on, and to choose by."""
    train, validation = dataset.hold_out()
    scale = Scale.of(train)
    return scale.rows(train), scale.rows(validation)


def held_back_rows(dataset: Dataset) -> Rows:
    """Scaled as the training rows are."""
    return Scale.of(dataset.hold_out()[0]).rows(dataset.test)


def count(sizes: Sequence[int]) -> int:
    """Parameters of dense layers of these widths, from the input to the classes."""
    return sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))


def accuracy(layers: Layers, rows: Rows) -> float:
    """Share of the rows whose class has the largest output."""
    values = rows.features
    for weight, bias in layers[:-1]:
        values = np.maximum(values @ weight + bias, 0)
    weight, bias = layers[-1]
    return float(np.mean((values @ weight + bias).argmax(1) == rows.labels))


@dataclass(frozen=True)
class Candidate:
    """A trained network.

    Attributes:
        parameters: how many it has.
        topology: such as 784-64-10.
        validation: its accuracy there.
        how: hyperparameters it was trained with, or the file it is from.
        network: what the method measures on the test rows.
    """

    parameters: int
    topology: str
    validation: float
    how: dict[str, Any]
    network: Any


@dataclass(frozen=True)
class Search:
    """What one search found, and what it did for that.

    Attributes:
        candidates: the networks to choose from.
        trials: topologies or settings that were trained.
        epochs: passes over the training rows, those of all trials together.
        seconds: searched, without what was loaded before.
    """

    candidates: list[Candidate]
    trials: int
    epochs: float
    seconds: float


def within(candidates: Iterable[Candidate], budget: int) -> Candidate | None:
    """The one with the best validation accuracy among those with at most ``budget`` parameters: the first of equals."""
    fitting = [candidate for candidate in candidates if candidate.parameters <= budget]
    return max(fitting, key=lambda candidate: candidate.validation, default=None)


def record(candidate: Candidate, test: float) -> dict[str, Any]:
    """What is written down of it."""
    entry = asdict(candidate)
    del entry["network"]
    return {**entry, "test": test}
