"""Glue along axes of space as ONNX nodes: pools, padding, resampling, normalisation, convolutions that stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.training import convolution, normalisations
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.glue_rule import At, Forward, Rule

_END = 2**31 - 1


def max_pool(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """Append the node itself, with the additions of ``ceil_mode`` and ``auto_pad`` as padding."""
    return build.add("MaxPool", x[0], **_window(glue.attributes["geometry"]))


def through_max_pool(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g where x is the window's maximum.

    Where windows tile the input, equal maxima share g: three nodes do this several times as fast as the node's own
    indices would. (PyTorch gives all of g to the first of them.) For other windows the indices are used.
    """
    geometry = at.glue.attributes["geometry"]
    if not _tiles(geometry):
        return [_scattered(build, at, geometry)]
    space, behind = _sizes(at.glue)
    x, y = _covered(build, at.x[0], geometry, space, behind), _repeated(build, at.y, geometry.kernel, behind)
    is_maximum = build.add("CastLike", build.add("Equal", x, y), at.g)
    mean = build.add("AveragePool", is_maximum, kernel_shape=list(geometry.kernel), strides=list(geometry.kernel))
    shared = build.add("Div", at.g, build.add("Mul", mean, build.scalar(float(geometry.taps))))
    g = build.add("Mul", is_maximum, _repeated(build, shared, geometry.kernel, behind))
    return [_uncovered(build, g, geometry, space, behind)]


def _scattered(build: GraphBuilder, at: At, geometry: Geometry) -> str:
    name = f"indices_{len(build.nodes)}"
    node = helper.make_node("MaxPool", [at.x[0]], [f"{name}_of", name], name=name, **_window(geometry))
    build.append(node)
    size = build.add("Reshape", build.add("Size", at.x[0]), build.integers(1))
    kind = helper.np_dtype_to_tensor_dtype(build.dtype)
    zeros = build.add("ConstantOfShape", size, value=helper.make_tensor("zero", kind, [1], [0.0]))
    flat, g = (build.add("Reshape", each, build.integers(-1)) for each in (name, at.g))
    found = build.add("ScatterElements", zeros, flat, g, axis=0, reduction="add")
    return build.add("Reshape", found, build.add("Shape", at.x[0]))


def average_pool(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """Append the mean over whole windows, times taps over those that count."""
    y = build.add("AveragePool", x[0], count_include_pad=1, **_window(glue.attributes["geometry"], dilated=False))
    share = glue.attributes["share"]
    return y if share is None else build.add("Mul", y, build.array(share))


def through_average_pool(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = Σ g / (number of taps that count), over the windows that contain x."""
    geometry, share = at.glue.attributes["geometry"], at.glue.attributes["share"]
    g = build.add("Mul", at.g, build.array((np.ones(1) if share is None else share) / geometry.taps))
    space, behind = _sizes(at.glue)
    if _tiles(geometry):
        return [_uncovered(build, _repeated(build, g, geometry.kernel, behind), geometry, space, behind)]
    ones = build.array(np.ones((1, 1, *geometry.kernel)))
    each = build.add("Reshape", g, build.integers(-1, 1, *behind))
    found = convolution.input_gradient(build, geometry, ones, each, "", space)
    return [build.add("Reshape", found, build.integers(-1, int(at.glue.shape[1] or 0), *space))]


def pad(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """The node itself."""
    return build.add("Pad", x[0], build.integers(*glue.attributes["pads"]), build.scalar(glue.attributes["value"]))


def through_pad(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = g without the padding."""
    pads = at.glue.attributes["pads"]
    rank = len(pads) // 2
    axes = [i for i in range(rank) if pads[i] or pads[rank + i]]
    if not axes:
        return [at.g]
    begins, ends = [pads[i] for i in axes], [-pads[rank + i] or _END for i in axes]
    return [build.add("Slice", at.g, build.integers(*begins), build.integers(*ends), build.integers(*axes))]


def repeat(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """Repeat each value as often as ``factors`` say."""
    space, _ = _sizes(glue)
    return _repeated(build, x[0], glue.attributes["factors"], space)


def through_repeat(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = Σ g over its copies."""
    factors = list(at.glue.attributes["factors"])
    mean = build.add("AveragePool", at.g, kernel_shape=factors, strides=factors)
    return [build.add("Mul", mean, build.scalar(float(math.prod(factors))))]


def resample(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """Multiply each axis of space by its matrix."""
    return _along_axes(build, x[0], glue.attributes["matrices"])


def through_resample(build: GraphBuilder, at: At) -> list[str]:
    """Multiply each axis of g by the transposed matrix."""
    return [_along_axes(build, at.g, [matrix.T for matrix in at.glue.attributes["matrices"]])]


def _along_axes(build: GraphBuilder, x: str, matrices: Sequence[Any]) -> str:
    rank = len(matrices) + 2
    for axis, matrix in enumerate(matrices, start=2):
        if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))):
            continue
        order = [*(i for i in range(rank) if i != axis), axis]
        if axis == rank - 1:
            x = build.add("MatMul", x, build.array(matrix.T))
        elif axis == rank - 2:
            x = build.add("MatMul", build.array(matrix), x)
        else:
            turned = build.add("MatMul", build.add("Transpose", x, perm=order), build.array(matrix.T))
            x = build.add("Transpose", turned, perm=[int(i) for i in np.argsort(order)])
    return x


def fixed_convolution(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """The node itself."""
    return build.add("Conv", *x, **convolution.attributes(glue.attributes["geometry"]))


def through_fixed_convolution(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x as for a layer."""
    space, _ = _sizes(at.glue)
    geometry = at.glue.attributes["geometry"]
    return [convolution.input_gradient(build, geometry, at.x[1], at.g, at.x[0], space), "", ""][: len(at.x)]


def transposed_convolution(build: GraphBuilder, glue: Glue, x: Sequence[str]) -> str:
    """The node itself."""
    given = convolution.attributes(glue.attributes["geometry"])
    return build.add("ConvTranspose", *x, output_padding=list(glue.attributes["rest"]), **given)


def through_transposed_convolution(build: GraphBuilder, at: At) -> list[str]:
    """∂L/∂x = the convolution of g whose transpose the node is."""
    return [convolution.convolved(build, at.glue.attributes["geometry"], at.g, at.x[1]), "", ""][: len(at.x)]


def _window(geometry: Geometry, *, dilated: bool = True) -> dict[str, Any]:
    """A pool's attributes."""
    given = convolution.attributes(geometry)
    del given["group"]
    if not dilated:
        del given["dilations"]
    return given


def _tiles(geometry: Geometry) -> bool:
    """Whether windows lie side by side."""
    return geometry.strides == geometry.kernel and set(geometry.dilations) == {1} and not geometry.is_padded


def _sizes(glue: Glue) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes of the axes of space of its input and of its output."""
    before, behind = (tuple(int(size or 0) for size in shape[2:]) for shape in (glue.shapes[0], glue.shape))
    return before, behind


def _repeated(build: GraphBuilder, x: str, factors: Sequence[int], space: Sequence[int]) -> str:
    """Repeat each value of x (…, space) along the axes of space.

    A single value is multiplied by ones, which is faster.
    """
    if all(size == 1 for size in space):
        return build.add("Mul", x, build.array(np.ones((1, 1, *factors))))
    scales = build.constant("scales_" + "_".join(map(str, factors)), np.array([1, 1, *factors], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return build.add("Resize", x, "", scales, **how)


def _covered(build: GraphBuilder, x: str, geometry: Geometry, space: Sequence[int], behind: Sequence[int]) -> str:
    """x without the values that no window reads."""
    ends = [size * step for size, step in zip(behind, geometry.kernel, strict=True)]
    axes = [i for i, end in enumerate(ends) if end < space[i]]
    if not axes:
        return x
    begins = build.integers(*[0] * len(axes))
    return build.add(
        "Slice", x, begins, build.integers(*(ends[i] for i in axes)), build.integers(*(i + 2 for i in axes))
    )


def _uncovered(build: GraphBuilder, g: str, geometry: Geometry, space: Sequence[int], behind: Sequence[int]) -> str:
    """The inverse of ``_covered`` for gradients."""
    rest = [whole - size * step for whole, size, step in zip(space, behind, geometry.kernel, strict=True)]
    if not any(rest):
        return g
    return build.add("Pad", g, build.integers(*[0] * (len(rest) + 4), *rest))


FORWARD: dict[str, Forward] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "Pad": pad,
    "Repeat": repeat,
    "Resample": resample,
    "GroupNormalization": normalisations.of_groups,
    "Conv": fixed_convolution,
    "ConvTranspose": transposed_convolution,
}
RULES: dict[str, Rule] = {
    "MaxPool": through_max_pool,
    "AveragePool": through_average_pool,
    "Pad": through_pad,
    "Repeat": through_repeat,
    "Resample": through_resample,
    "GroupNormalization": normalisations.through_groups,
    "Conv": through_fixed_convolution,
    "ConvTranspose": through_transposed_convolution,
}
