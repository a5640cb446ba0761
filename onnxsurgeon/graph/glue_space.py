"""Readers of glue for nodes that work on axes of space, (batch, channels, space…): geometry in plain numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import WINDOWS
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.queries import has_input
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.glue_node import (
    EPSILON,
    Glue,
    NotGlue,
    constant_of,
    glue_of,
    glue_shape,
    names_from,
    space_of,
    tensors_of,
)
from onnxsurgeon.graph.glue_resize import resize
from onnxsurgeon.linear_algebra import Array


def geometry_of(node: gs.Node, kernel: Sequence[int], groups: int = 1) -> Geometry:
    """The geometry of a node with Conv's or a pool's attributes; all padding, also of ``ceil_mode``, is in numbers.

    Raises:
        NotGlue: the sizes around it are not known.
    """
    rank = len(kernel)
    strides = tuple(int(step) for step in node.attrs.get("strides") or [1] * rank)
    dilations = tuple(int(step) for step in node.attrs.get("dilations") or [1] * rank)
    given = [int(size) for size in node.attrs.get("pads") or [0] * 2 * rank]
    sizes, behind = space_of(node.inputs[0]), space_of(node.outputs[0])
    automatic = node.attrs.get("auto_pad", "NOTSET")
    before, after = [], []
    for i, size in enumerate(sizes):
        read = (behind[i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            total = max(read - size, 0)
            half = total // 2
            before.append(half if automatic == "SAME_UPPER" else total - half)
            after.append(total - before[i])
        else:
            padded = automatic in ("NOTSET", "")
            before.append(given[i] if padded else 0)
            after.append(max(given[rank + i] if padded else 0, read - size - before[i]))
    return Geometry(tuple(map(int, kernel)), strides, dilations, (*before, *after), groups)


def _pool(node: gs.Node) -> list[Glue]:
    if any(tensor.outputs for tensor in node.outputs[1:]):
        raise NotGlue("it puts out where its maxima are")
    geometry = geometry_of(node, node.attrs["kernel_shape"])
    rank = geometry.rank
    if any(pad >= size for pad, size in zip(geometry.pads, geometry.kernel * 2, strict=True)):
        raise NotGlue("its padding is not smaller than its windows")
    if node.op == "MaxPool":
        return [glue_of(node, geometry=geometry)]
    if set(geometry.dilations) != {1}:
        raise NotGlue("it takes means over dilated windows")
    given = [int(size) for size in node.attrs.get("pads") or [0] * 2 * rank]
    has_pads = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "")
    declared = given if has_pads else list(geometry.pads)
    counted = declared if node.attrs.get("count_include_pad", 0) else None
    return [glue_of(node, geometry=geometry, share=_share(geometry, node, counted))]


def _share(geometry: Geometry, node: gs.Node, counted: Sequence[int] | None) -> Array | None:
    """Taps over those that count in a mean, ``counted`` zeros of padding included: (1, 1, positions…); None for 1."""
    rank, counts = geometry.rank, np.ones((1, 1), np.float64)
    for i, (size, behind) in enumerate(zip(space_of(node.inputs[0]), space_of(node.outputs[0]), strict=True)):
        begins = np.arange(behind) * geometry.strides[i] - geometry.pads[i]
        low = 0 if counted is None else -counted[i]
        high = size if counted is None else size + counted[rank + i]
        inside = np.minimum(begins + geometry.kernel[i], high) - np.maximum(begins, low)
        counts = counts[..., None] * inside
    return None if np.all(counts == geometry.taps) else geometry.taps / counts


def _global_average(node: gs.Node) -> list[Glue]:
    axes = tuple(range(2, len(glue_shape(node.inputs[0]))))
    return [glue_of(node, "ReduceMean", 1, axes=axes, keepdims=True)]


def _global_maximum(node: gs.Node) -> list[Glue]:
    sizes = space_of(node.inputs[0])
    geometry = Geometry(sizes, sizes, (1,) * len(sizes), (0,) * 2 * len(sizes))
    return [glue_of(node, "MaxPool", 1, geometry=geometry)]


def _pad(node: gs.Node) -> list[Glue]:
    shape = glue_shape(node.inputs[0])
    if node.attrs.get("mode", "constant") != "constant":
        raise NotGlue(f"it pads by mode {node.attrs['mode']}")
    if "pads" in node.attrs:
        given, value = list(node.attrs["pads"]), float(node.attrs.get("value", 0.0))
    else:
        given = constant_of(node, 1).tolist()
        value = float(constant_of(node, 2).reshape(())) if has_input(node, 2) else 0.0
    axes = constant_of(node, 3).tolist() if has_input(node, 3) else list(range(len(shape)))
    pads = [0] * 2 * len(shape)
    for i, axis in enumerate(axes):
        pads[axis % len(shape)], pads[axis % len(shape) + len(shape)] = given[i], given[len(axes) + i]
    if pads[0] or pads[len(shape)]:
        raise NotGlue("it adds rows to the batch")
    if min(pads) < 0:
        raise NotGlue("it pads by less than nothing")
    return [glue_of(node, "Pad", 1, pads=tuple(map(int, pads)), value=value)]


def _windows(node: gs.Node) -> list[Glue]:
    """Means over windows of unequal sizes are a matrix along each axis of space, as resizing is."""
    matrices = [np.ascontiguousarray(matrix) for matrix in node.attrs["matrices"]]
    return [glue_of(node, "Resample", 1, matrices=matrices, digest=[matrix.tobytes() for matrix in matrices])]


def _normalization(node: gs.Node) -> list[Glue]:
    """InstanceNormalization, and GroupNormalization with a scale for each channel or each group."""
    shape = glue_shape(node.inputs[0])
    channels = shape[1]
    if channels is None:
        raise NotGlue("the number of channels is not known")
    groups = int(node.attrs["num_groups"]) if node.op == "GroupNormalization" else channels
    scale, shift = (constant_of(node, i).reshape(-1).astype(np.float64) for i in (1, 2))
    every = (-1,) + (1,) * (len(shape) - 2)
    given = {
        name: np.repeat(each, channels // each.size).reshape(every)
        for name, each in (("scale", scale), ("shift", shift))
    }
    epsilon = float(node.attrs.get("epsilon", EPSILON))
    names = names_from(node, 1)
    return [glue_of(node, "GroupNormalization", 1, groups=groups, epsilon=epsilon, constants=names, **given)]


def _depth_and_space(node: gs.Node) -> list[Glue]:
    """Blocks of an image as channels, and back: a reshape, a transposition, a reshape."""
    x, y, block = node.inputs[0], node.outputs[0], int(node.attrs["blocksize"])
    (_, channels, *_), (height, width) = glue_shape(x), space_of(x)
    space_of(y)
    if channels is None:
        raise NotGlue("the number of channels is not known")
    if node.op == "SpaceToDepth":
        wide = (channels, height // block, block, width // block, block)
        order = (0, 3, 5, 1, 2, 4)
    elif node.attrs.get("mode", "DCR") == "DCR":
        wide, order = (block, block, channels // block**2, height, width), (0, 3, 4, 1, 5, 2)
    else:
        wide, order = (channels // block**2, block, block, height, width), (0, 1, 4, 2, 5, 3)
    parts: tuple[int | None, ...] = (None, *wide)
    moved = tuple(parts[axis] for axis in order)
    first, second = f"{y.name}/blocks", f"{y.name}/moved"
    return [
        Glue("Reshape", (x.name,), first, (glue_shape(x),), parts, {}, label(node)),
        Glue("Transpose", (first,), second, (parts,), moved, {"order": order}, label(node)),
        Glue("Reshape", (second,), y.name, (moved,), glue_shape(y), {}, label(node)),
    ]


def _fixed_convolution(node: gs.Node) -> list[Glue]:
    """A convolution, or a transposed one, that is not trained."""
    weight = constant_of(node, 1)
    if has_input(node, 2):
        constant_of(node, 2)
    groups = int(node.attrs.get("group", 1))
    if node.op == "Conv":
        given: dict[str, Any] = {"geometry": geometry_of(node, weight.shape[2:], groups)}
    else:
        geometry, rest = _transposed_geometry(node, weight.shape[2:], groups)
        given = {"geometry": geometry, "rest": rest}
    read, y = tensors_of(node), node.outputs[0]
    shapes = tuple(glue_shape(tensor) for tensor in read)
    return [Glue(node.op, tuple(t.name for t in read), y.name, shapes, glue_shape(y), given, label(node))]


def _transposed_geometry(node: gs.Node, kernel: Sequence[int], groups: int) -> tuple[Geometry, tuple[int, ...]]:
    """The geometry of the convolution that this one transposes, and the number of values left unread at the end."""
    rank = len(kernel)
    strides = tuple(int(step) for step in node.attrs.get("strides") or [1] * rank)
    dilations = tuple(int(step) for step in node.attrs.get("dilations") or [1] * rank)
    automatic = node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "")
    if automatic or node.attrs.get("output_shape"):
        raise NotGlue("it works out its own padding")
    pads = tuple(int(size) for size in node.attrs.get("pads") or [0] * 2 * rank)
    rest = tuple(int(size) for size in node.attrs.get("output_padding") or [0] * rank)
    space_of(node.inputs[0])
    if any(size >= step for size, step in zip(rest, strides, strict=True)):
        raise NotGlue("its output_padding is no less than its strides")
    return Geometry(tuple(map(int, kernel)), strides, dilations, pads, groups), rest


def _rank_of_space(reader: Callable[[gs.Node], list[Glue]]) -> Callable[[gs.Node], list[Glue]]:
    """Wrap a reader so that it only gets nodes that have axes of space."""

    @functools.wraps(reader)
    def read(node: gs.Node) -> list[Glue]:
        if len(glue_shape(node.inputs[0])) < 3:
            raise NotGlue("it has no axes of space")
        return reader(node)

    return read


READERS: dict[str, Callable[[gs.Node], list[Glue]]] = {
    op: _rank_of_space(reader)
    for op, reader in {
        "MaxPool": _pool,
        "AveragePool": _pool,
        "GlobalAveragePool": _global_average,
        "GlobalMaxPool": _global_maximum,
        "Resize": resize,
        WINDOWS: _windows,
        "Upsample": resize,
        "InstanceNormalization": _normalization,
        "GroupNormalization": _normalization,
        "DepthToSpace": _depth_and_space,
        "SpaceToDepth": _depth_and_space,
        "Conv": _fixed_convolution,
        "ConvTranspose": _fixed_convolution,
    }.items()
} | {"Pad": _pad}
