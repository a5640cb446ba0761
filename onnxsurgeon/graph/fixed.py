"""Constant matrices and filters on a model's input that are no trained layers.

They are conversions of colours, filter banks, transforms, scales, and filters that all channels have.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import geometry_of
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.linear_algebra import Array, matmul

FEWEST = 4  # bands, and inputs, of a filter bank
EMPTY = 0.5  # share of a filter bank's entries that are exactly 0
TOLERANCE = 1e-3  # of the sums of a colour matrix, which is written with three digits or more
ORTHOGONAL = 1e-5


def fixed_matrix(node: gs.Node, *, is_linear: bool) -> str:
    """Say what a dense node on the model's input is where its values show no trained layer; "" where it may be one.

    Training leaves no matrix like these: exact zeros around bands of one sign; columns that weigh three colours to sums
    of exactly 0 or one common value; exact zeros everywhere but on the diagonal; and, without a bias, orthogonal
    columns of one length, as many as rows. Nor does it leave a depthwise convolution that scales each channel alone,
    as images are normalised, or whose filters are the same for all channels, as those of blurs and edges are.
    ``is_linear`` says that no activation follows the node: behind an activation, only the first kind is looked for.
    """
    geometry = geometry_of(node)
    if geometry is not None and (geometry.taps > 1 or geometry.is_grouped):
        return _fixed_filters(np.asarray(node.inputs[1].values), geometry) if is_linear else ""
    weight = np.asarray(node.inputs[1].values)
    if weight.size > 2**24 or not np.isfinite(weight).all():
        return ""
    weight = weight.astype(np.float64)
    if _is_filter_bank(weight):
        return "a filter bank: its columns are bands of one sign, and 0 all around"
    if is_linear and _is_colour_matrix(weight):
        return "a conversion of colours: its columns add up to 0 or to one value"
    if is_linear and _is_diagonal(weight):
        return "a scale of each input: it is 0 everywhere but on its diagonal"
    if is_linear and len(node.inputs) < 3 and _is_transform(weight):
        return "an orthogonal transform: its columns are orthogonal, and of one length"
    return ""


def _fixed_filters(weight: Array, geometry: Geometry) -> str:
    """Say of a depthwise convolution's weight (taps, units) why no training made it; "" where it may have."""
    groups, (rows, units) = geometry.groups, weight.shape
    if rows != geometry.taps or groups < 2 or units % groups:
        return ""
    if geometry.taps == 1:
        return "a scale of each channel, as images are normalised" if units == groups else ""
    filters = weight.reshape(rows, groups, units // groups)
    if np.array_equal(filters, np.broadcast_to(filters[:, :1], filters.shape)) and np.ptp(weight) > 0:
        return "a filter: it is the same for every channel"
    return ""


def _is_diagonal(weight: Array) -> bool:
    """Whether a matrix multiplies each input by one number, and not all by the same, as an identity does."""
    if len(weight) < 2 or weight.shape[0] != weight.shape[1]:
        return False
    scales = np.diagonal(weight)
    return bool(scales.all() and np.count_nonzero(weight) == len(weight) and np.ptp(scales) > 0)


def _is_filter_bank(weight: Array) -> bool:
    there = weight != 0
    if min(weight.shape) < FEWEST or there.mean() > 1 - EMPTY or not ((weight >= 0).all() or (weight <= 0).all()):
        return False
    # A band begins once, and the rest of its column is empty. A band narrower than a bin is empty altogether.
    begins = there[0].astype(int) + (there[1:] & ~there[:-1]).sum(axis=0)
    return bool((begins <= 1).all() and (begins == 1).mean() >= EMPTY and np.ptp(there.argmax(axis=0)) > 0)


def _is_colour_matrix(weight: Array) -> bool:
    if weight.shape[0] != 3 or weight.shape[1] not in (1, 3):
        return False
    sums, largest = weight.sum(axis=0), np.abs(weight).max()
    if weight.shape[1] == 1:  # a luminance: three positive shares that add up to 1 before any scaling
        return bool((weight > 0).all() and (abs(sums[0] - 1) < TOLERANCE or abs(sums[0] * 255 - 1) < TOLERANCE))
    zero = np.abs(sums) < TOLERANCE * largest
    common = np.abs(sums - sums[~zero].mean()) < TOLERANCE * largest if not zero.all() else zero
    return bool((zero | common).all() and not zero.all())


def _is_transform(weight: Array) -> bool:
    # A thin matrix may be the first half of a layer that was factorized.
    if len(weight) < 2 or weight.shape[0] != weight.shape[1]:
        return False
    gram = matmul(weight.T, weight)
    length = float(np.trace(gram)) / len(gram)
    return length > 0 and float(np.abs(gram - length * np.eye(len(gram))).max()) < ORTHOGONAL * length
