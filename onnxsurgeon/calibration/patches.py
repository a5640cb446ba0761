"""What convolutions read and write as rows of a matrix, as if each position were an example of its own.

All positions of a large map are more than moments need, and their patches more than fits into memory: of those, as many
are drawn as keep a tile's patches small, the same for every example.
"""

from __future__ import annotations

import math

import numpy as np

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.convolution import shifted
from onnxsurgeon.training.evaluation import ROWS
from onnxsurgeon.training.trace import Space

ENTRIES = 2**22  # values in the patches of a tile
FEWEST = 4  # positions of an example


def positions_of(layer: DenseLayer, space: Space) -> int | None:
    """How many positions the layer has for one example; None where that is not known."""
    if layer.geometry is None or space is None:
        return None
    return math.prod(size or 0 for size in layer.geometry.sizes_behind(space))


def why_none(layer: DenseLayer, space: Space, widest: int) -> str:
    """Why no moments are made of what a convolution reads; "" where they are."""
    if layer.geometry is not None and layer.geometry.is_grouped:
        return "it reads its channels in groups"
    if layer.inputs > widest:
        return f"its {layer.inputs:,} inputs are more than the {widest:,} that covariances are made of"
    return "" if positions_of(layer, space) else "the size of what it reads is not known"


def drawn(count: int, width: int) -> Array | None:
    """Which of so many positions are drawn for rows of so many values, in order; None: all."""
    wanted = max(FEWEST, ENTRIES // (ROWS * width))
    if count <= wanted:
        return None
    return np.sort(generator(0, "positions", count, width).choice(count, wanted, replace=False))


def patches_of(build: GraphBuilder, layer: DenseLayer, x: str, space: Space) -> str:
    """Append what each position reads: (examples · positions drawn, channels · taps)."""
    assert layer.geometry is not None
    places = drawn(positions_of(layer, space) or 0, layer.inputs)
    taps = [_at(build, tap, places) for tap in shifted(build, layer.geometry, x)]
    if len(taps) > 1:
        taps = [build.add("Unsqueeze", tap, build.integers(2)) for tap in taps]
        taps = [build.add("Concat", *taps, axis=2)]
    by_channel = build.add("Reshape", taps[0], build.integers(0, layer.inputs, -1))
    return _as_rows(build, by_channel, layer.inputs)


def units_of(build: GraphBuilder, layer: DenseLayer, y: str, space: Space) -> str:
    """Append what the layer writes, or its gradient: (examples · positions drawn, units)."""
    return _as_rows(build, _at(build, y, drawn(positions_of(layer, space) or 0, layer.units)), layer.units)


def _at(build: GraphBuilder, tensor: str, places: Array | None) -> str:
    """A tensor (examples, channels, space…) at some positions: (examples, channels, positions)."""
    flat = build.add("Reshape", tensor, build.integers(0, 0, -1))
    return flat if places is None else build.add("Gather", flat, build.integers(*places.tolist()), axis=2)


def _as_rows(build: GraphBuilder, tensor: str, width: int) -> str:
    return build.add("Reshape", build.add("Transpose", tensor, perm=[0, 2, 1]), build.integers(-1, width))
