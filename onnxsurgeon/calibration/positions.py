"""Inputs and outputs of convolutions at some positions of each row: patches as rows (positions, channels · taps).

All positions of a calibration sample would be millions of patches. The positions are drawn once for each row of a tile,
so that together they are everywhere, and the borders, where padding is read, have their share.
"""

from __future__ import annotations

import hashlib
import math
from itertools import product

import numpy as np

from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.evaluation import ROWS

PATCHES = 2**14  # of all rows together, roughly: enough for covariances of hundreds of channels times taps


def drawn(rows: int, behind: tuple[int, ...]) -> Array:
    """Draw the positions (``ROWS``, a few) of an output (…, ``behind``) that are read in each row of a tile."""
    count, whole = min(math.prod(behind), max(1, -(-PATCHES // rows))), math.prod(behind)
    rng = generator(0, "positions", whole)
    return np.stack([np.sort(rng.permutation(whole)[:count]) for _ in range(ROWS)])


def patches(build: GraphBuilder, x: str, geometry: Geometry, channels: int, space: tuple[int, ...], at: Array) -> str:
    """Append the patches that a convolution of all ``channels`` reads there, (rows · positions, channels · taps)."""
    rank, count = geometry.rank, at.shape[1]
    before, after = geometry.pads[:rank], geometry.pads[rank:]
    padded = tuple(size + a + b for size, a, b in zip(space, before, after, strict=True))
    if geometry.is_padded:
        x = build.add("Pad", x, build.integers(0, 0, *before, 0, 0, *after))
    behind = tuple(size or 0 for size in geometry.sizes_behind(space))
    begins = np.unravel_index(at, behind)
    taps = [
        np.ravel_multi_index(
            tuple(
                begin * stride + place * step
                for begin, stride, place, step in zip(begins, geometry.strides, tap, geometry.dilations, strict=True)
            ),
            padded,
        )
        for tap in product(*map(range, geometry.kernel))
    ]
    # (rows, channels, taps · positions) → (rows, positions, channels, taps)
    found = _taken(build, x, channels, np.concatenate(taps, axis=1))
    parts = build.add("Reshape", found, build.integers(-1, channels, geometry.taps, count))
    turned = build.add("Transpose", parts, perm=[0, 3, 1, 2])
    return build.add("Reshape", turned, build.integers(-1, channels * geometry.taps))


def values(build: GraphBuilder, y: str, units: int, at: Array) -> str:
    """Append the values of y there, (rows · positions, units)."""
    turned = build.add("Transpose", _taken(build, y, units, at), perm=[0, 2, 1])
    return build.add("Reshape", turned, build.integers(-1, units))


def _taken(build: GraphBuilder, x: str, channels: int, at: Array) -> str:
    """Take (rows, channels, numbers) of x (rows, channels, space…), with numbers that count through space."""
    name = hashlib.sha256(at.tobytes()).hexdigest()[:16]
    table = build.constant(f"positions_{name}", at[:, None].astype(np.int64))
    flat = build.add("Reshape", x, build.integers(0, channels, -1))
    rows = build.add("Shape", x, end=1)
    own = build.add("Slice", table, build.integers(0), rows, build.integers(0))
    wide = build.add("Concat", rows, build.integers(channels, at.shape[1]), axis=0)
    return build.add("GatherElements", flat, build.add("Expand", own, wide), axis=2)
