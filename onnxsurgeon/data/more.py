"""Rows made from given ones for a teacher to label: as many as are wanted where few were recorded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxsurgeon.data.dataset import Split, chunks, unlabelled
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

NOISE = 8  # the noise of a made row is a random sum of this many rows' deviations from the mean
SAMPLE = 4096  # this many rows decide whether a column holds whole numbers only


class _Recipe(NamedTuple):
    """How each row is made; the recipe is the same for all of its inputs, so that these fit one another.

    Attributes:
        first: the row x that it begins with, (count,).
        second: the row x' that is mixed in.
        share: a, the share of the first.
        noisy: numbers of the rows whose deviations are added, (count, NOISE).
        weights: normal weights of these deviations.
    """

    first: Array
    second: Array
    share: Array
    noisy: Array
    weights: Array


def more_rows(split: Split, count: int, rng: np.random.Generator, name: str = "data") -> Split:
    """``count`` rows without labels: a x + (1 − a) x' + √(2 a (1 − a)) · noise, a uniform in [0, 1).

    The noise has the rows' own covariance, so the made rows have it too, and the rows' mean. Each value is kept within
    its range. Pixels (uint8) are mixed without noise; whole numbers, truth values and texts come from x or x'.

    Raises:
        DataError: nothing in the rows can be mixed.
    """
    arrays = {"": split.stored} if isinstance(split.stored, Rows) else split.stored
    if not any(_is_mixed(rows.source) for rows in arrays.values()):
        raise DataError(
            f"{name}: no more rows can be made: all inputs are integers or texts, which cannot be mixed", "no-mixing"
        )
    recipe = _Recipe(
        rng.integers(split.rows, size=count),
        rng.integers(split.rows, size=count),
        rng.random(count),
        rng.integers(split.rows, size=(count, NOISE)),
        rng.standard_normal((count, NOISE)),
    )
    made = {key: _made(rows, recipe) for key, rows in arrays.items()}
    return Split(made if isinstance(split.inputs, dict) else made[""], unlabelled(count))


def _is_mixed(values: Array) -> bool:
    return values.dtype.kind == "f" or values.dtype == np.uint8


def _made(rows: Rows, recipe: _Recipe) -> Array:
    source, count = rows.source, len(recipe.first)
    made = np.empty((count, *source.shape[1:]), source.dtype)
    pixels = source.dtype == np.uint8
    whole = _whole_columns(rows) if source.dtype.kind == "f" else np.True_
    mean, least, most = _statistics(rows) if source.dtype.kind == "f" else (0.0, 0.0, 255.0)
    for start, stop in chunks(made):
        first, second, share, noisy, weights = (each[start:stop] for each in recipe)
        x, other = _at(rows, first), _at(rows, second)
        a = share.reshape(-1, *[1] * (x.ndim - 1))
        picked = np.where(a >= 0.5, x, other)
        if not _is_mixed(source):
            made[start:stop] = picked
            continue
        mixed = a * x + (1 - a) * other
        if pixels:
            made[start:stop] = np.rint(mixed)
            continue
        noise = np.zeros_like(mixed)
        for each, weight in zip(noisy.T, weights.T, strict=True):
            noise += weight.reshape(a.shape) * (_at(rows, each) - mean)
        mixed = np.clip(mixed + np.sqrt(2 * a * (1 - a) / NOISE) * noise, least, most)
        made[start:stop] = np.where(whole, picked, mixed)
    return made


def _at(rows: Rows, numbers: Array) -> Array:
    """Stored values of some rows; floats in float64."""
    values = rows.source[numbers if rows.numbers is None else rows.numbers[numbers]]
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def _whole_columns(rows: Rows) -> Array:
    """Where all values are whole numbers, by the first rows: classes and counts written as floats."""
    values = _at(rows, np.arange(min(SAMPLE, len(rows))))
    return np.asarray((values == np.rint(values)).all(axis=0))


def _statistics(rows: Rows) -> tuple[Array, Array, Array]:
    """Mean, smallest and largest of every value of a row."""
    first = _at(rows, np.arange(1))[0]
    total, least, most = np.zeros_like(first), first, first
    for start, stop in chunks(rows.source, len(rows)):
        values = _at(rows, np.arange(start, stop))
        total += values.sum(axis=0)
        least, most = np.minimum(least, values.min(axis=0)), np.maximum(most, values.max(axis=0))
    return total / len(rows), least, most
