"""Segments of convolutions as nodes: forward, and backward in the form that suits each shape.

tools/convolution_forms.py measures the forms.

A weight's gradient is one product for each tap, of δ and what that tap reads. It reads an image whose channels are
last, so in long pieces. The product is taken for each row of the batch by itself; where there are few positions, it is
taken over the whole batch, and δ is transposed too. A pointwise layer needs neither. Where there are few channels, such
products are narrow, and one product over patches, which are copies of the input for each tap, is faster. The
convolution with batch and channels exchanged is never the fastest, since ONNX Runtime computes it at a third of its
usual speed. A depthwise weight's gradient is a sum of products for each tap.

An input's gradient is a ConvTranspose. Where the input has no fewer channels than the output, it is a convolution with
the kernel turned round, which is a little slower on one thread, but shared by several. A pointwise layer's is a
convolution with Wᵀ.

One file: a convolution forward and backward, whose forms in ONNX share patches, pads and the order of axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

from onnxsurgeon.graph.activation_gradients import Point
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.training import blocks
from onnxsurgeon.training.activations import activated
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.gradients import activation_gradients
from onnxsurgeon.training.optimizers import DeferredGradient, GemmGradient, Gradient, StoredGradient
from onnxsurgeon.training.trace import LayerTrace, Space

NARROW = 8  # with fewer channels, one product over patches is faster than one for each tap, except for a single tap
FEW_POSITIONS = 256  # with fewer, products image by image are too small, and one over the whole batch is made
LEAST_TURNED = 64  # positions from which an input's gradient is a convolution, if channels are no fewer than units
_END = 2**31 - 1


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
        at_channels = slope
        if slope and not by_unit:
            at_channels = build.add("Reshape", slope, build.integers(1, -1, *[1] * geometry.rank))
        y = activated(build, layer.activation, z, at_channels, prelu_in_parts=prelu_in_parts)
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


def geometry_of(layer: DenseLayer) -> Geometry:
    """The geometry of a layer that has one."""
    assert layer.geometry is not None
    return layer.geometry


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
    rest = [reach - pad for reach, pad in zip(_reach(geometry) * 2, geometry.pads, strict=True)]
    channels, positions = layer.inputs // geometry.taps, math.prod(space)
    is_better = positions >= LEAST_TURNED and channels >= layer.units
    return min(rest) >= 0 and (is_better or blocks.fits(build, geometry, channels, layer.units, positions))


def by_turned_kernel(build: GraphBuilder, layer: DenseLayer, kernel: str, delta: str, space: Space) -> str:
    """∂L/∂x of a convolution in one group with stride 1: δ convolved with Wᵀ, its taps in reverse order."""
    geometry = geometry_of(layer)
    channels = layer.inputs // geometry.taps
    pads = [reach - pad for reach, pad in zip(_reach(geometry) * 2, geometry.pads, strict=True)]
    if space is not None and blocks.fits(build, geometry, channels, layer.units, math.prod(space)):
        return blocks.backward(build, geometry, delta, kernel, (layer.units, channels), pads)
    flat = build.add("Reshape", kernel, build.integers(layer.units, channels, geometry.taps))
    backwards = blocks.reversed_taps(build, flat, 2, geometry.taps)
    turned = build.add("Transpose", backwards, perm=[1, 0, 2])
    turned = build.add("Reshape", turned, build.integers(channels, layer.units, *geometry.kernel))
    return build.add("Conv", delta, turned, pads=pads, dilations=list(geometry.dilations))


def _reach(geometry: Geometry) -> list[int]:
    """The distance of the last tap from the first along each axis."""
    return [step * (size - 1) for step, size in zip(geometry.dilations, geometry.kernel, strict=True)]


def _unread(geometry: Geometry, space: tuple[int, ...]) -> list[int]:
    """For each axis, the number of last values that no position of the kernel reads."""
    rank = geometry.rank
    return [
        (size + geometry.pads[i] + geometry.pads[rank + i] - geometry.dilations[i] * (geometry.kernel[i] - 1) - 1)
        % geometry.strides[i]
        for i, size in enumerate(space)
    ]


def weight_gradient(build: GraphBuilder, layer: DenseLayer, x: str, delta: str, space: Space) -> Gradient:
    """∂L/∂W (units, channels / groups · taps) of a convolution from δ = ∂L/∂z.

    The module's docstring tells the forms.
    """
    geometry = geometry_of(layer)
    channels = layer.inputs // geometry.taps
    if geometry.groups == layer.units and channels == 1:
        return StoredGradient(of_depthwise(build, layer, x, delta))
    if geometry.groups > 1:
        return StoredGradient((over_patches if channels < NARROW else by_tap)(build, layer, x, delta))
    are_few = space is not None and math.prod(size or 1 for size in geometry.sizes_behind(space)) < FEW_POSITIONS
    if geometry.taps == 1 and not are_few:
        return StoredGradient(by_tap(build, layer, x, delta))
    if geometry.taps > 1 and channels < NARROW:
        return StoredGradient(over_patches(build, layer, x, delta))
    return (over_the_batch if are_few else by_row)(build, layer, x, delta)


def _bias_gradient(build: GraphBuilder, delta: str, geometry: Geometry) -> Gradient:
    """Σ δ over rows and positions, in two steps: ONNX Runtime sums neighbouring axes four times as fast."""
    by_row = build.add("ReduceSum", delta, build.axes(*range(2, geometry.rank + 2)), keepdims=0)
    return StoredGradient(build.add("ReduceSum", by_row, build.axes(0), keepdims=0))


def shifted(build: GraphBuilder, geometry: Geometry, x: str, first: int = 2) -> Iterator[str]:
    """Yield for each tap, in order, x as that tap reads it.

    The axes of space, from ``first`` on, are positions then.
    """
    rank = geometry.rank
    if geometry.is_padded:
        before, after = geometry.pads[:rank], geometry.pads[rank:]
        ahead, behind = [0] * first, [0] * (2 - first)
        x = build.add("Pad", x, build.integers(*ahead, *before, *behind, *ahead, *after, *behind))
    reach = _reach(geometry)
    if not any(reach) and set(geometry.strides) == {1}:
        yield x
        return
    for tap in product(*(range(size) for size in geometry.kernel)):
        begins = [step * place for step, place in zip(geometry.dilations, tap, strict=True)]
        ends = [begin - whole or _END for begin, whole in zip(begins, reach, strict=True)]
        moved = [i for i in range(rank) if begins[i] or ends[i] != _END or geometry.strides[i] != 1]
        yield build.add(
            "Slice",
            x,
            build.integers(*(begins[i] for i in moved)),
            build.integers(*(ends[i] for i in moved)),
            build.integers(*(i + first for i in moved)),
            *([build.integers(*(geometry.strides[i] for i in moved))] if set(geometry.strides) != {1} else []),
        )


def patches(build: GraphBuilder, layer: DenseLayer, x: str) -> str:
    """The values by which each unit's weights are multiplied: (rows, groups, channels / groups · taps, positions)."""
    geometry = geometry_of(layer)
    each = list(shifted(build, geometry, x))
    if len(each) > 1:
        each = [build.add("Unsqueeze", tap, build.integers(2)) for tap in each]
        each = [build.add("Concat", *each, axis=2)]
    return build.add("Reshape", each[0], build.integers(0, geometry.groups, layer.inputs, -1))


def over_patches(build: GraphBuilder, layer: DenseLayer, x: str, delta: str) -> str:
    """Σ over the rows of δ Pᵀ, for each group by itself."""
    groups = geometry_of(layer).groups
    by_group = build.add("Reshape", delta, build.integers(0, groups, layer.units // groups, -1))
    turned = build.add("Transpose", patches(build, layer, x), perm=[0, 1, 3, 2])
    found = build.add("ReduceSum", build.add("MatMul", by_group, turned), build.axes(0), keepdims=0)
    return build.add("Reshape", found, build.integers(layer.units, layer.inputs))


def by_tap(build: GraphBuilder, layer: DenseLayer, x: str, delta: str) -> str:
    """For each tap, Σ over the rows of δ xᵀ, x shifted by the tap."""
    geometry = geometry_of(layer)
    groups, channels = geometry.groups, layer.inputs // geometry.taps
    by_group = build.add("Reshape", delta, build.integers(0, groups, layer.units // groups, -1))
    found = []
    for each in shifted(build, geometry, x):
        rows = build.add("Reshape", each, build.integers(0, groups, channels, -1))
        products = build.add("MatMul", by_group, build.add("Transpose", rows, perm=[0, 1, 3, 2]))
        found.append(build.add("ReduceSum", products, build.axes(0), keepdims=0))
    return _taps_last(build, layer, found)


def by_row(build: GraphBuilder, layer: DenseLayer, x: str, delta: str) -> Gradient:
    """For each tap, Σ over the rows of δ times x shifted by the tap, whose channels are last."""
    channels = layer.inputs // geometry_of(layer).taps
    units = build.add("Reshape", delta, build.integers(0, layer.units, -1))
    found = []
    for each in _channels_last(build, layer, x):
        products = build.add("MatMul", units, build.add("Reshape", each, build.integers(0, -1, channels)))
        found.append(build.add("ReduceSum", products, build.axes(0), keepdims=0))
    return StoredGradient(_taps_last(build, layer, found))


def over_the_batch(build: GraphBuilder, layer: DenseLayer, x: str, delta: str) -> Gradient:
    """For each tap one product over rows and positions together; with a single tap, the update is part of it."""
    geometry = geometry_of(layer)
    channels = layer.inputs // geometry.taps
    by_unit = build.add("Transpose", delta, perm=[1, 0, *range(2, geometry.rank + 2)])
    units = build.add("Reshape", by_unit, build.integers(layer.units, -1))
    taps = _channels_last(build, layer, x)
    rows = [build.add("Reshape", each, build.integers(-1, channels)) for each in taps]
    if len(rows) == 1:
        return GemmGradient(units, rows[0])
    return StoredGradient(_taps_last(build, layer, [build.gemm(units, each) for each in rows]))


def _channels_last(build: GraphBuilder, layer: DenseLayer, x: str) -> Iterator[str]:
    """Yield for each tap x as that tap reads it, (rows, positions in space…, channels), in long pieces of memory."""
    geometry = geometry_of(layer)
    turned = build.add("Transpose", x, perm=[0, *range(2, geometry.rank + 2), 1])
    return shifted(build, geometry, turned, first=1)


def of_depthwise(build: GraphBuilder, layer: DenseLayer, x: str, delta: str) -> str:
    """For each tap, Σ over rows and positions of δ ⊙ x, x shifted by the tap."""
    geometry = geometry_of(layer)
    space = build.axes(*range(2, geometry.rank + 2))
    found = []
    for each in shifted(build, geometry, x):
        by_row = build.add("ReduceSum", build.add("Mul", delta, each), space, keepdims=0)
        found.append(build.add("ReduceSum", by_row, build.axes(0), keepdims=0))
    return _taps_last(build, layer, found)


def _taps_last(build: GraphBuilder, layer: DenseLayer, found: Sequence[str]) -> str:
    """Join the results for each tap, (…units, channels), to (units, channels · taps)."""
    channels = layer.inputs // geometry_of(layer).taps
    shape = build.integers(layer.units, channels, 1)
    each = [build.add("Reshape", tap, shape) for tap in found]
    together = build.add("Concat", *each, axis=2) if len(each) > 1 else each[0]
    return build.add("Reshape", together, build.integers(layer.units, layer.inputs))
