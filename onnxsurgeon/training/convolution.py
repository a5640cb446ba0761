"""Segments of convolutions as nodes: forward, and backward to the inputs; see ``convolution_weight`` for the weights.

An input's gradient is a ConvTranspose. Where the input has no fewer channels than the output, it is a convolution with
the kernel turned round, which is a little slower on one thread, but shared by several. A pointwise layer's is a
convolution with Wᵀ. tools/convolution_forms.py measures the forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from onnxsurgeon.graph.activation_gradients import Point
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.training import blocks
from onnxsurgeon.training.activations import activated
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.convolution_weight import weight_gradient
from onnxsurgeon.training.gradients import activation_gradients
from onnxsurgeon.training.optimizers import DeferredGradient, Gradient, StoredGradient
from onnxsurgeon.training.taps import geometry_of, reach
from onnxsurgeon.training.trace import LayerTrace, Space

LEAST_TURNED = 64  # positions from which an input's gradient is a convolution, if channels are no fewer than units


def layers(
    build: GraphBuilder,
    segment: DenseChain,
    x: str,
    names: Sequence[str],
    *,
    by_unit: bool,
    prelu_in_parts: bool,
) -> list[LayerTrace]:
    """Append the nodes of every layer of a segment, the first reading x (rows, channels, space…)."""
    remaining = iter(names)
    traces = []
    spaces = [segment.space, *segment.spaces()]
    for layer, space in zip(segment.layers, spaces, strict=False):
        geometry = geometry_of(layer)
        weight = next(remaining)
        bias = next(remaining) if layer.bias is not None else ""
        has_slope = layer.activation is not None and layer.activation.slope is not None
        slope = next(remaining) if has_slope else ""
        own = weight if by_unit else build.add("Transpose", weight, perm=[1, 0])
        behind = geometry.sizes_behind(space)
        positions, shape = math.prod(size or 0 for size in behind), (layer.units, layer.inputs // geometry.taps)
        is_relu = layer.activation is not None and layer.activation.op_type == "Relu"
        kernel = kernel_of(build, layer, own)
        known = tuple(size for size in space if size is not None)
        has_space = known if len(known) == geometry.rank else None
        if blocks.fits(build, geometry, shape[1], shape[0], positions):
            z = blocks.forward(build, geometry, x, kernel, bias, shape, "Relu" if is_relu else "")
            if is_relu:  # Relu's gradient reads only y
                traces.append(LayerTrace(x, z, z, weight, bias, slope, space=has_space))
                x = z
                continue
        else:
            z = convolved(build, geometry, x, kernel, bias)
        if slope and not by_unit:
            slope = build.add("Reshape", slope, build.integers(1, -1, *[1] * geometry.rank))
        y = activated(build, layer.activation, z, slope, prelu_in_parts=prelu_in_parts)
        traces.append(LayerTrace(x, z, y, weight, bias, slope, space=has_space))
        x = y
    return traces


def back_through(
    build: GraphBuilder,
    segment: DenseChain,
    traces: Sequence[LayerTrace],
    delta: str,
    update: Callable[[str, Gradient], None],
    deltas: dict[str, str],
    *,
    wanted: bool,
) -> str:
    """Append the backward pass through a segment from the gradient at its output; return the one at its input.

    The result is "" unless ``wanted``. ``deltas`` takes the name of ∂L/∂z of each layer, by its weight's.
    """
    for layer, at in zip(reversed(segment.layers), reversed(traces), strict=True):
        geometry = geometry_of(layer)
        over = (0, *range(2, geometry.rank + 2))
        if layer.activation is not None:
            point = Point(at.z, at.y, delta, at.slope, over)
            gradients = activation_gradients(build, layer.activation, point, is_large=True)
            delta = gradients.x
            if at.slope:
                update(at.slope, StoredGradient(gradients.slope))
        deltas[at.weight] = delta
        update(at.weight, DeferredGradient(partial(weight_gradient, build, layer, at.x, delta, at.space)))
        if at.bias:
            update(at.bias, DeferredGradient(partial(_bias_gradient, build, delta, geometry)))
        if at is traces[0] and not wanted:
            return ""
        kernel = kernel_of(build, layer, at.weight)
        if is_better_turned(build, layer, at.space):
            delta = by_turned_kernel(build, layer, kernel, delta, at.space)
        else:
            delta = input_gradient(build, geometry, kernel, delta, at.x, at.space)
    return delta


def attributes(geometry: Geometry) -> dict[str, Any]:
    """The attributes of Conv and ConvTranspose."""
    return {
        "kernel_shape": list(geometry.kernel),
        "strides": list(geometry.strides),
        "dilations": list(geometry.dilations),
        "pads": list(geometry.pads),
        "group": geometry.groups,
    }


def convolved(build: GraphBuilder, geometry: Geometry, x: str, kernel: str, bias: str = "") -> str:
    """Append the convolution of x with a weight (units, channels / groups, kernel…); return its name."""
    return build.add("Conv", x, kernel, *([bias] if bias else []), **attributes(geometry))


def kernel_of(build: GraphBuilder, layer: DenseLayer, weight: str) -> str:
    """The weight (units, channels / groups · taps) in Conv's shape: a view."""
    geometry = geometry_of(layer)
    return build.add("Reshape", weight, build.integers(layer.units, layer.inputs // geometry.taps, *geometry.kernel))


def input_gradient(build: GraphBuilder, geometry: Geometry, kernel: str, delta: str, x: str, space: Space) -> str:
    """∂L/∂x of a convolution from δ = ∂L/∂z: a transposed convolution with the same weight."""
    if geometry.is_pointwise:
        turned = build.add("Transpose", kernel, perm=[1, 0, *range(2, geometry.rank + 2)])
        return build.add("Conv", delta, turned)
    given = attributes(geometry)
    if space is not None:
        given["output_padding"] = _unread(geometry, space)
        return build.add("ConvTranspose", delta, kernel, **given)
    if set(geometry.strides) == {1}:
        return build.add("ConvTranspose", delta, kernel, **given)
    # The reach of the last position is only known at run time: the gradient is made up to it, and cut or padded there.
    given["pads"] = [*geometry.pads[: geometry.rank], *[0] * geometry.rank]
    found = build.add("ConvTranspose", delta, kernel, **given)
    missing = build.add("Sub", build.add("Shape", x), build.add("Shape", found))
    zeros = build.integers(*[0] * (geometry.rank + 2))
    return build.add("Pad", found, build.add("Concat", zeros, missing, axis=0))


def is_better_turned(build: GraphBuilder, layer: DenseLayer, space: Space) -> bool:
    """Whether a convolution with the kernel turned round is little slower on one thread, and much faster on several.

    ONNX Runtime shares out a convolution's positions between threads; of a transposed one, it shares only the products.
    """
    geometry = geometry_of(layer)
    if space is None or set(geometry.strides) != {1} or geometry.groups != 1 or geometry.taps == 1:
        return False
    rest = [reach - pad for reach, pad in zip(reach(geometry) * 2, geometry.pads, strict=True)]
    channels, positions = layer.inputs // geometry.taps, math.prod(space)
    is_better = positions >= LEAST_TURNED and channels >= layer.units
    return min(rest) >= 0 and (is_better or blocks.fits(build, geometry, channels, layer.units, positions))


def by_turned_kernel(build: GraphBuilder, layer: DenseLayer, kernel: str, delta: str, space: Space) -> str:
    """∂L/∂x of a convolution in one group with stride 1: δ convolved with Wᵀ, its taps in reverse order."""
    geometry = geometry_of(layer)
    channels = layer.inputs // geometry.taps
    pads = [reach - pad for reach, pad in zip(reach(geometry) * 2, geometry.pads, strict=True)]
    if space is not None and blocks.fits(build, geometry, channels, layer.units, math.prod(space)):
        return blocks.backward(build, geometry, delta, kernel, (layer.units, channels), pads)
    flat = build.add("Reshape", kernel, build.integers(layer.units, channels, geometry.taps))
    backwards = blocks.reversed_taps(build, flat, 2, geometry.taps)
    turned = build.add("Transpose", backwards, perm=[1, 0, 2])
    turned = build.add("Reshape", turned, build.integers(channels, layer.units, *geometry.kernel))
    return build.add("Conv", delta, turned, pads=pads, dilations=list(geometry.dilations))


def _unread(geometry: Geometry, space: tuple[int, ...]) -> list[int]:
    """For each axis, the number of last values that no position of the kernel reads."""
    rank = geometry.rank
    return [
        (size + geometry.pads[i] + geometry.pads[rank + i] - geometry.dilations[i] * (geometry.kernel[i] - 1) - 1)
        % geometry.strides[i]
        for i, size in enumerate(space)
    ]


def _bias_gradient(build: GraphBuilder, delta: str, geometry: Geometry) -> Gradient:
    """Σ δ over rows and positions, in two steps: ONNX Runtime sums neighbouring axes four times as fast."""
    by_row = build.add("ReduceSum", delta, build.axes(*range(2, geometry.rank + 2)), keepdims=0)
    return StoredGradient(build.add("ReduceSum", by_row, build.axes(0), keepdims=0))
