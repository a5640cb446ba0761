"""Glue as ONNX nodes: its forward pass, and its vector-Jacobian products, one function for each operator.

Given g = ∂L/∂y, a rule returns for each input the name of ∂L/∂x, of x's shape, or "" where it is not wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxsurgeon.graph.activation_gradients import Point, erf
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.training import glue_space, masks, normalisations
from onnxsurgeon.training.activations import apply
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.glue_rule import At, Rule, fit
from onnxsurgeon.training.gradients import activation_gradients

Forward = Callable[[GraphBuilder, Glue, Sequence[str]], str]


def forward(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """Append the node or nodes of ``glue`` on the inputs ``x``; return the output's name."""
    known = FORWARD.get(glue.op) or glue_space.FORWARD.get(glue.op)
    return build.add(glue.op, *x) if known is None else known(build, glue, x)


def _activated(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    return apply(build, glue.attributes["activation"], x[0], x[1] if len(x) > 1 else "")


def _scaled(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    given = glue.attributes
    return build.add("Add", build.add("Mul", x[0], build.array(given["scale"])), build.array(given["shift"]))


def _multiplied(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    if glue.attributes.get("is_matmul"):  # ONNX Runtime's training build has a gradient for MatMul
        return build.add("MatMul", *x)
    return build.add("Einsum", *x, equation=glue.attributes["equation"])


def _cut(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    return _slice(build, x[0], *(glue.attributes[name] for name in ("axis", "begin", "end")))


def _summed(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    given = glue.attributes
    return build.add("ReduceSum", x[0], build.integers(*given["axes"]), keepdims=int(given["keepdims"]))


def _averaged(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    given = glue.attributes
    return build.add("ReduceMean", x[0], axes=list(given["axes"]), keepdims=int(given["keepdims"]))


def _extreme(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    given = glue.attributes
    return build.add(glue.op, x[0], axes=list(given["axes"]), keepdims=int(given["keepdims"]))


def _laid_out(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    return build.add("Reshape", x[0], build.integers(-1, *(int(size or 0) for size in glue.shape[1:])))


FORWARD: dict[str, Forward] = {
    "Activation": _activated,
    "Affine": _scaled,
    "Pow": lambda build, glue, x: build.add("Pow", x[0], build.scalar(glue.attributes["exponent"])),
    "Reshape": _laid_out,
    "Transpose": lambda build, glue, x: build.add("Transpose", x[0], perm=glue.attributes["order"]),
    "Concat": lambda build, glue, x: build.add("Concat", *x, axis=glue.attributes["axis"]),
    "Einsum": _multiplied,
    "Slice": _cut,
    "ReduceSum": _summed,
    "ReduceMean": _averaged,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "Softmax": lambda build, _, x: build.add("Softmax", x[0], axis=-1),
    "LayerNormalization": lambda build, glue, x: normalisations.of_layer(build, glue, x[0]),
    "Erf": lambda build, _, x: erf(build, x[0]),
    "Where": masks.chosen,
}


def gradients(build: GraphBuilder, glue: Glue, x: Sequence[str], y: str, g: str, wanted: Sequence[bool]) -> list[str]:
    """Append the vector-Jacobian products of ``glue``; return their names, "" for inputs that are not wanted."""
    at = At(glue, x, y, g, wanted)
    return glue_space.RULES[glue.op](build, at) if glue.op in glue_space.RULES else RULES[glue.op](build, at)


def add(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂a = ∂L/∂b = g."""
    return [fit(build, at, i, at.g) if at.wanted[i] else "" for i in (0, 1)]


def subtract(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂a = g, ∂L/∂b = −g."""
    return [
        fit(build, at, 0, at.g) if at.wanted[0] else "",
        fit(build, at, 1, build.add("Neg", at.g)) if at.wanted[1] else "",
    ]


def multiply(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂a = g b, ∂L/∂b = g a."""
    return [fit(build, at, i, build.add("Mul", at.g, at.x[1 - i])) if at.wanted[i] else "" for i in (0, 1)]


def divide(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂a = g / b, ∂L/∂b = −g y / b."""
    over = build.add("Div", at.g, at.x[1])
    second = build.add("Neg", build.add("Mul", over, at.y)) if at.wanted[1] else ""
    return [fit(build, at, 0, over) if at.wanted[0] else "", fit(build, at, 1, second) if second else ""]


def negative(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = −g."""
    return [build.add("Neg", at.g)]


def absolute(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g sign(x)."""
    return [build.add("Mul", at.g, build.add("Sign", at.x[0]))]


def square_root(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g / (2 y)."""
    return [build.add("Div", build.add("Mul", at.g, build.scalar(0.5)), at.y)]


def exponential(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g y."""
    return [build.add("Mul", at.g, at.y)]


def logarithm(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g / x."""
    return [build.add("Div", at.g, at.x[0])]


def error_function(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g · 2/√π · exp(−x²)."""
    bell = build.add("Exp", build.add("Neg", build.add("Mul", at.x[0], at.x[0])))
    return [build.add("Mul", at.g, build.add("Mul", bell, build.scalar(float(2 / np.sqrt(np.pi)))))]


def reciprocal(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = −g y²."""
    return [build.add("Neg", build.add("Mul", at.g, build.add("Mul", at.y, at.y)))]


def power(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g · p x^(p − 1)."""
    exponent = at.glue.attributes["exponent"]
    slope = build.add("Mul", build.add("Pow", at.x[0], build.scalar(exponent - 1)), build.scalar(exponent))
    return [build.add("Mul", at.g, slope)]


def identity(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g."""
    return [at.g]


def activation(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g φ'(x)."""
    slope = at.x[1] if len(at.x) > 1 else ""
    point, is_large = Point(at.x[0], at.y, at.g, slope), len(at.glue.shape) > 3
    found = activation_gradients(build, at.glue.attributes["activation"], point, is_large=is_large)
    return [found.x, ""][: len(at.x)]


def affine(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g · scale."""
    return [build.add("Mul", at.g, build.array(at.glue.attributes["scale"]))]


def reshape(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g in x's shape."""
    return [build.add("Reshape", at.g, build.integers(-1, *(int(size or 0) for size in at.glue.shapes[0][1:])))]


def transpose(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g with its axes moved back."""
    return [build.add("Transpose", at.g, perm=[int(i) for i in np.argsort(at.glue.attributes["order"])])]


def concat(build: GraphBuilder, at: At) -> list[str]:
    """Each input's gradient is its piece of g."""
    axis, begin, found = at.glue.attributes["axis"], 0, []
    for size, wanted in zip(at.glue.attributes["sizes"], at.wanted, strict=True):
        found.append(_slice(build, at.g, axis, begin, begin + size) if wanted else "")
        begin += size
    return found


def piece(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g with zeros around it."""
    given, rank = at.glue.attributes, len(at.glue.shapes[0])
    before, after = [0] * rank, [0] * rank
    before[given["axis"]] = given["begin"]
    after[given["axis"]] = int(at.glue.shapes[0][given["axis"]] or 0) - given["end"]
    return [build.add("Pad", at.g, build.integers(*before, *after))]


def reduce_sum(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g, spread over the axes that were summed."""
    axes, g = at.glue.attributes["axes"], at.g
    if not at.glue.attributes["keepdims"]:
        g = build.add("Unsqueeze", g, build.integers(*axes))
    shape = at.glue.shapes[0]
    sizes = [shape[axis] for axis in axes]
    if len(shape) > 3 and None not in sizes:  # ONNX Runtime multiplies by ones faster than it expands
        spread = [int(size or 1) if axis in axes else 1 for axis, size in enumerate(shape)]
        return [build.add("Mul", g, build.array(np.ones(spread)))]
    return [build.add("Expand", g, build.add("Shape", at.x[0]))]


def reduce_mean(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g over the number of values, spread over the axes of the mean."""
    (spread,) = reduce_sum(build, at)
    sizes = [at.glue.shapes[0][axis] for axis in at.glue.attributes["axes"]]
    if None not in sizes:
        return [build.add("Mul", spread, build.scalar(1.0 / float(np.prod([int(size or 1) for size in sizes]))))]
    count = build.add("Div", build.add("Size", at.x[0]), build.add("Size", at.y))
    return [build.add("Div", spread, build.add("CastLike", count, spread))]


def reduce_extreme(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g where x is the largest, or the smallest; equal ones share g, as PyTorch's amax has it."""
    axes, g, y = at.glue.attributes["axes"], at.g, at.y
    if not at.glue.attributes["keepdims"]:
        g, y = (build.add("Unsqueeze", each, build.integers(*axes)) for each in (g, y))
    found = build.add("CastLike", build.add("Equal", at.x[0], y), at.g)
    count = build.add("ReduceSum", found, build.integers(*axes), keepdims=1)
    return [build.add("Mul", found, build.add("Div", g, count))]


def contraction(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂a = Σ g b and ∂L/∂b = Σ g a, over the indices of the other factor and the result that this one lacks."""
    terms, _, result = at.glue.attributes["equation"].partition("->")
    a, b = terms.split(",")
    return [
        build.add("Einsum", at.g, at.x[1], equation=f"{result},{b}->{a}") if at.wanted[0] else "",
        build.add("Einsum", at.g, at.x[0], equation=f"{result},{a}->{b}") if at.wanted[1] else "",
    ]


def softmax(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = y (g − Σ g y)."""
    inner = build.add("ReduceSum", build.add("Mul", at.g, at.y), build.integers(-1), keepdims=1)
    return [build.add("Mul", at.y, build.add("Sub", at.g, inner))]


def _slice(build: GraphBuilder, x: str, axis: int, begin: int, end: int) -> str:
    return build.add("Slice", x, build.integers(begin), build.integers(end), build.integers(axis))


RULES: dict[str, Rule] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Where": masks.through_choice,
    "Neg": negative,
    "Abs": absolute,
    "Sqrt": square_root,
    "Exp": exponential,
    "Log": logarithm,
    "Erf": error_function,
    "Reciprocal": reciprocal,
    "Pow": power,
    "Identity": identity,
    "Activation": activation,
    "Affine": affine,
    "Reshape": reshape,
    "Transpose": transpose,
    "Concat": concat,
    "Slice": piece,
    "ReduceSum": reduce_sum,
    "ReduceMean": reduce_mean,
    "ReduceMax": reduce_extreme,
    "ReduceMin": reduce_extreme,
    "Einsum": contraction,
    "Softmax": softmax,
    "LayerNormalization": normalisations.through_layer,
}
