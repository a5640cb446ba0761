"""A convolution's taps: the part of its input that each of them reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.training.builder import GraphBuilder

_END = 2**31 - 1


def geometry_of(layer: DenseLayer) -> Geometry:
    """The geometry of a layer that has one."""
    assert layer.geometry is not None
    return layer.geometry


def reach(geometry: Geometry) -> list[int]:
    """The distance of the last tap from the first along each axis."""
    return [step * (size - 1) for step, size in zip(geometry.dilations, geometry.kernel, strict=True)]


def shifted(build: GraphBuilder, geometry: Geometry, x: str, first: int = 2) -> Iterator[str]:
    """Yield for each tap, in order, x as that tap reads it.

    The axes of space, from ``first`` on, are positions then.
    """
    rank = geometry.rank
    if geometry.is_padded:
        before, after = geometry.pads[:rank], geometry.pads[rank:]
        ahead, behind = [0] * first, [0] * (2 - first)
        x = build.add("Pad", x, build.integers(*ahead, *before, *behind, *ahead, *after, *behind))
    wholes = reach(geometry)
    if not any(wholes) and set(geometry.strides) == {1}:
        yield x
        return
    for tap in product(*(range(size) for size in geometry.kernel)):
        begins = [step * place for step, place in zip(geometry.dilations, tap, strict=True)]
        ends = [begin - whole or _END for begin, whole in zip(begins, wholes, strict=True)]
        moved = [i for i in range(rank) if begins[i] or ends[i] != _END or geometry.strides[i] != 1]
        yield build.add(
            "Slice",
            x,
            build.integers(*(begins[i] for i in moved)),
            build.integers(*(ends[i] for i in moved)),
            build.integers(*(i + first for i in moved)),
            *([build.integers(*(geometry.strides[i] for i in moved))] if set(geometry.strides) != {1} else []),
        )


def channels_last(build: GraphBuilder, layer: DenseLayer, x: str) -> Iterator[str]:
    """Yield for each tap x as that tap reads it, (rows, positions in space…, channels), in long pieces of memory."""
    geometry = geometry_of(layer)
    turned = build.add("Transpose", x, perm=[0, *range(2, geometry.rank + 2), 1])
    return shifted(build, geometry, turned, first=1)
