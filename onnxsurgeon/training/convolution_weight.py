"""The gradient of a convolution's weight, in the form that suits its shape.

tools/convolution_forms.py measures the forms. The gradient is one product for each tap, of δ and what that tap reads.
It reads an image whose channels are last, so in long pieces. The product is taken for each row of the batch by itself;
where there are few positions, it is taken over the whole batch, and δ is transposed too. A pointwise layer needs
neither. Where there are few channels, such products are narrow, and one product over patches, which are copies of the
input for each tap, is faster. The convolution with batch and channels exchanged is never the fastest, since ONNX
Runtime computes it at a third of its usual speed. A depthwise weight's gradient is a sum of products for each tap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.optimizers import GemmGradient, Gradient, StoredGradient
from onnxsurgeon.training.taps import channels_last, geometry_of, shifted
from onnxsurgeon.training.trace import Space

NARROW = 8  # with fewer channels, one product over patches is faster than one for each tap, except for a single tap
FEW_POSITIONS = 256  # with fewer, products image by image are too small, and one over the whole batch is made


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
    for each in channels_last(build, layer, x):
        products = build.add("MatMul", units, build.add("Reshape", each, build.integers(0, -1, channels)))
        found.append(build.add("ReduceSum", products, build.axes(0), keepdims=0))
    return StoredGradient(_taps_last(build, layer, found))


def over_the_batch(build: GraphBuilder, layer: DenseLayer, x: str, delta: str) -> Gradient:
    """For each tap one product over rows and positions together; with a single tap, the update is part of it."""
    geometry = geometry_of(layer)
    channels = layer.inputs // geometry.taps
    by_unit = build.add("Transpose", delta, perm=[1, 0, *range(2, geometry.rank + 2)])
    units = build.add("Reshape", by_unit, build.integers(layer.units, -1))
    taps = channels_last(build, layer, x)
    rows = [build.add("Reshape", each, build.integers(-1, channels)) for each in taps]
    if len(rows) == 1:
        return GemmGradient(units, rows[0])
    return StoredGradient(_taps_last(build, layer, [build.gemm(units, each) for each in rows]))


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
