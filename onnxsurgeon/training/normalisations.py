"""Layer and group normalisation as nodes: n = (x − mean x) / σ over the last axis, and back through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.glue_rule import At


class Normalised(NamedTuple):
    """Names of n and σ."""

    n: str
    deviation: str


def normalised(build: GraphBuilder, x: str, epsilon: float) -> Normalised:
    """Append n and σ = √(var x + ε), over the last axis of x."""
    centred = build.add("Sub", x, build.add("ReduceMean", x, axes=[-1], keepdims=1))
    variance = build.add("ReduceMean", build.add("Mul", centred, centred), axes=[-1], keepdims=1)
    deviation = build.add("Sqrt", build.add("Add", variance, build.scalar(epsilon)))
    return Normalised(build.add("Div", centred, deviation), deviation)


def through(build: GraphBuilder, h: str, at: Normalised) -> str:
    """∂L/∂x = (h − mean h − n mean(h n)) / σ for h = ∂L/∂n (Ba, Kiros, Hinton, "Layer normalization", 2016)."""
    mean = build.add("ReduceMean", h, axes=[-1], keepdims=1)
    along = build.add("Mul", at.n, build.add("ReduceMean", build.add("Mul", h, at.n), axes=[-1], keepdims=1))
    return build.add("Div", build.add("Sub", build.add("Sub", h, mean), along), at.deviation)


def of_layer(build: GraphBuilder, glue: Glue, x: str) -> str:
    """Append y = n · scale + shift."""
    return _affine(build, glue, normalised(build, x, glue.attributes["epsilon"]).n)


def through_layer(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x with h = g · scale."""
    given = at.glue.attributes
    h = build.add("Mul", at.g, build.array(given["scale"]))
    return [through(build, h, normalised(build, at.x[0], given["epsilon"]))]


def of_groups(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """Append y = n · scale + shift, n over the channels and positions of each group."""
    found = normalised(build, _by_group(build, glue, x[0]), glue.attributes["epsilon"])
    return _affine(build, glue, build.add("Reshape", found.n, build.add("Shape", x[0])))


def through_groups(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x with h = g · scale."""
    given = at.glue.attributes
    found = normalised(build, _by_group(build, at.glue, at.x[0]), given["epsilon"])
    h = build.add("Mul", at.g, build.array(given["scale"]))
    back = through(build, _by_group(build, at.glue, h), found)
    return [build.add("Reshape", back, build.add("Shape", at.x[0]))]


def _by_group(build: GraphBuilder, glue: Glue, x: str) -> str:
    return build.add("Reshape", x, build.integers(0, glue.attributes["groups"], -1))


def _affine(build: GraphBuilder, glue: Glue, n: str) -> str:
    y = build.add("Mul", n, build.array(glue.attributes["scale"]))
    shift = glue.attributes["shift"]
    return y if shift is None else build.add("Add", y, build.array(shift))
