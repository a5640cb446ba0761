"""Rows with their axes in the order that a model's input wants, and scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

Sizes = tuple[int | None, ...]


def arranged_as(rows: Rows, shape: Sequence[int | None], model: str, dataset: str, layout: str) -> Rows:
    """Rows (rows, h, w[, c]) or (rows, n) with their axes in the order that the input of ``shape`` wants.

    The same goes for signals (rows, n, c) and volumes (rows, d, h, w, c). Channels move to the front where the input
    wants them first; no reshape mixes channels with places.
    """
    source = rows.source
    wanted = tuple(shape[1:])
    for candidate in _spatial(source, wanted) or _images(source, wanted, layout):
        if _fits(candidate.shape[1:], wanted):
            return replace(rows, source=candidate)
    raise DataError(
        f"{dataset}: rows of shape {source.shape[1:]} do not fit the input of '{model}', which takes "
        f"({', '.join('?' if size is None else str(size) for size in wanted)})",
        "unlike-inputs",
    )


def _spatial(source: Array, wanted: Sizes) -> list[Array]:
    """Signals and volumes as they are, and with their channels first.

    An empty list if rows or input are of another kind.
    """
    axes = source.ndim - 1
    if axes not in (2, 4) or len(wanted) != axes or (axes == 2 and 1 in wanted):
        return []
    return [source, source.transpose(0, axes, *range(1, axes))]


def _images(source: Array, wanted: Sizes, layout: str) -> list[Array]:
    """Images with their channels last, and with their channels first; rows of other kinds as they are."""
    images = source[..., None] if source.ndim == 3 else source
    if images.ndim != 4:
        return [images]
    first = images.transpose(0, 3, 1, 2)
    # The channel axis of a 4-D input tells the layout; for a flat input, only the option does.
    return [images, first] if len(wanted) >= 3 or layout == "hwc" else [first, images]


def _fits(have: Sequence[int], wanted: Sequence[int | None]) -> bool:
    if len(wanted) == len(have) > 1 and not (len(wanted) == 2 and 1 in wanted):
        return all(size is None or size == own for size, own in zip(wanted, have, strict=True))
    known = [size for size in wanted if size is not None]
    product, total = int(np.prod(known)), int(np.prod(have))
    return product == total if len(known) == len(wanted) else product > 0 and total % product == 0


def row_shape(have: Sequence[int], shape: Sequence[int | None]) -> tuple[int, ...]:
    """The input's row shape, with its one unknown size filled in."""
    wanted = tuple(shape[1:])
    if len(wanted) == len(have) - 1:
        return tuple(have[1:])
    if sum(size is None for size in wanted) > 1:
        raise DataError("the model's input has more than one unknown size beside the batch", "open-shape")
    rest = math.prod(have[1:]) // max(1, math.prod(size for size in wanted if size is not None))
    return tuple(rest if size is None else size for size in wanted)


def scaled(arranged: Rows, rows: Rows, dataset: Dataset, options: InputOptions) -> Rows:
    """Floats: values × scale, minus mean, over std; the latter two along the channel axis."""
    pixels = rows.dtype == np.uint8
    scale = (1.0 / dataset.maximum if pixels else 1.0) if options.scale is None else options.scale
    shape = rows.source.shape
    channels_last = arranged.shape[-1] == (shape[-1] if len(shape) == 4 else 1)
    mean, std = (
        _along_channels(values, arranged.shape, channels_last=channels_last) if values else default
        for values, default in ((options.mean, np.float64(0)), (options.std, np.float64(1)))
    )
    return replace(arranged, scale=scale / std, offset=-mean / std)


def _along_channels(values: tuple[float, ...], shape: tuple[int, ...], *, channels_last: bool) -> Array:
    """One value for each channel, shaped to broadcast to a row of ``shape`` (rows, …)."""
    array = np.array(values, np.float64)
    if len(values) == 1:
        return array.reshape(())
    last, first = len(shape) - 1, 1
    for axis in (last, first) if channels_last or len(shape) != 4 else (first, last):
        if shape[axis] == len(values):
            break
    else:
        raise DataError(f"{len(values)} values of mean or std fit no channel axis of rows {shape[1:]}", "unlike-inputs")
    return array.reshape([-1 if position == axis else 1 for position in range(1, len(shape))])
