"""Where(mask, a, b) as ONNX nodes: its forward pass, and its gradients; the mask has none."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.glue_rule import At, fit


def chosen(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """The mask comes as numbers: constants and features have the type of the weights."""
    return build.add("Where", _mask(build, x[0]), x[1], x[2])


def through_choice(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂a = g where a was taken and 0 elsewhere, ∂L/∂b the rest of g."""
    mask, zero = _mask(build, at.x[0]), build.scalar(0.0)
    return [
        "",
        fit(build, at, 1, build.add("Where", mask, at.g, zero)) if at.wanted[1] else "",
        fit(build, at, 2, build.add("Where", mask, zero, at.g)) if at.wanted[2] else "",
    ]


def _mask(build: GraphBuilder, x: str) -> str:
    return build.add("Cast", x, to=int(TensorProto.BOOL))
