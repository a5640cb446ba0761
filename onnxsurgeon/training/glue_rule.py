"""The arguments of a gradient rule of glue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from onnxsurgeon.graph.glue import Glue, Shape
from onnxsurgeon.training.builder import GraphBuilder


class At(NamedTuple):
    """The place where a rule is applied.

    The glue, names of its inputs x, of y and of g, and which inputs are wanted.
    """

    glue: Glue
    x: Sequence[str]
    y: str
    g: str
    wanted: Sequence[bool]


Rule = Callable[[GraphBuilder, At], list[str]]
Forward = Callable[[GraphBuilder, Glue, Sequence[str]], str]


def fit(build: GraphBuilder, at: At, position: int, gradient: str) -> str:
    """Sum a gradient over the axes along which the input was broadcast."""
    shape, out = at.glue.shapes[position], at.glue.shape
    axes = list(range(len(out) - len(shape)))
    axes += [i + len(out) - len(shape) for i, size in enumerate(shape) if size == 1 and _wider(out, shape, i)]
    if axes:
        gradient = build.add("ReduceSum", gradient, build.integers(*axes), keepdims=1)
    if len(shape) < len(out):
        gradient = build.add("Squeeze", gradient, build.integers(*range(len(out) - len(shape))))
    return gradient


def _wider(out: Shape, shape: Shape, axis: int) -> bool:
    return out[axis + len(out) - len(shape)] != 1
