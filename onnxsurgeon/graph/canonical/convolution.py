"""Conv with a constant weight → Convolution(x, W, b), whose W is a matrix and whose padding is given in numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.dense import CONVOLUTION, geometry_of
from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, dtype_of, has_input, like, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.canonical.shapes import learn
from onnxsurgeon.graph.geometry import Geometry

_FEWEST_AXES = 3  # batch, channels, and one of space
FARTHEST = 2**16  # places that a kernel may step, reach or pad at once; a larger number only demands memory
_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


class _NoLayer(Exception):  # noqa: N818 - a finding, not an error
    """The node is no layer that can be worked on; the text says why."""


def convolution(rewriter: Rewriter, node: gs.Node) -> bool:
    """Conv(x, K, b) = Convolution(x, W, b) with W (channels / groups · taps, units), the transpose of K, reshaped."""
    try:
        geometry = _geometry(node)
    except _NoLayer:
        return False
    kernels = np.asarray(constant_values(node.inputs[1]))
    matrix = like(node.inputs[1], kernels.reshape(len(kernels), -1).T)
    inputs = [node.inputs[0], matrix, *([node.inputs[2]] if has_input(node, 2) else [])]
    if dtype_of(node.outputs[0]) is None:
        node.outputs[0].dtype = kernels.dtype
    rewriter.become(node, CONVOLUTION, inputs, {"entry": rewriter.entry(node, 0), "geometry": geometry})
    return True


def laid_out(rewriter: Rewriter, node: gs.Node) -> bool:
    """Convolution(x) has the shape (batch, units, space…), with the sizes of space that follow from x's known ones."""
    geometry, shape = geometry_of(node), shape_of(node.inputs[0])
    assert geometry is not None
    space = [None] * geometry.rank if shape is None else shape[2:]
    batch = None if shape is None else shape[0]
    return learn(node.outputs[0], [batch, int(node.inputs[1].shape[1]), *geometry.sizes_behind(space)])


def explain_convolution(node: gs.Node) -> str:
    """Why a Conv is no layer here; "" where it is one."""
    try:
        _geometry(node)
    except _NoLayer as reason:
        return str(reason)
    return ""


def _geometry(node: gs.Node) -> Geometry:
    """Read the geometry of a Conv.

    Raises:
        _NoLayer: its weight or its bias is not constant, its padding is not known, or it is not as ONNX demands.
    """
    if len(node.inputs) < 2:
        raise _NoLayer("it has too few inputs")
    x, kernels = node.inputs[0], constant_values(node.inputs[1])
    if kernels is None:
        raise _NoLayer("its weight is not constant")
    if kernels.dtype not in FLOATS:
        raise _NoLayer(f"its weight is {kernels.dtype}; float16, bfloat16, float32 and float64 are supported")
    if isinstance(x, gs.Constant):
        raise _NoLayer("its input is constant")
    shape = shape_of(x)
    if kernels.ndim < _FEWEST_AXES or not kernels.size or (shape is not None and len(shape) != kernels.ndim):
        raise _NoLayer(f"its weight of shape {kernels.shape} is none of its input's")
    if has_input(node, 2):
        bias = constant_values(node.inputs[2])
        if bias is None or bias.shape != kernels.shape[:1] or bias.dtype not in FLOATS:
            raise _NoLayer("its bias is not one constant value for each unit")
    kernel = tuple(int(size) for size in kernels.shape[2:])
    if node.attrs.get("kernel_shape", list(kernel)) not in (list(kernel), kernel):
        raise _NoLayer(f"its kernel_shape is not that of its weight, {kernel}")
    groups = node.attrs.get("group", 1)
    if not isinstance(groups, int):
        raise _NoLayer(f"its group is {groups!r}")
    channels = groups * kernels.shape[1]
    known = None if shape is None else shape[1]
    if groups < 1 or len(kernels) % groups or (isinstance(known, int) and known != channels):
        raise _NoLayer(f"{groups} groups do not divide its channels, or its units")
    strides = _ints(node, "strides", len(kernel), least=1)
    dilations = _ints(node, "dilations", len(kernel), least=1)
    space: list[Any] = [None] * len(kernel) if shape is None else shape[2:]
    found = Geometry(kernel, strides, dilations, _pads(node, kernel, strides, dilations, space), groups)
    if 0 in found.sizes_behind(space):
        raise _NoLayer(f"its kernel ({found}) does not fit into its input, {'x'.join(map(str, space))}")
    return found


def _ints(node: gs.Node, name: str, count: int, *, least: int) -> tuple[int, ...]:
    """An attribute with one number for each axis of space."""
    given = node.attrs.get(name) or [least] * count
    values = tuple(given) if isinstance(given, list | tuple) else ()
    if len(values) != count or not all(isinstance(value, int) and least <= value <= FARTHEST for value in values):
        raise _NoLayer(f"its {name} are {given!r}")
    return values


def _pads(
    node: gs.Node, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], space: list[Any]
) -> tuple[int, ...]:
    """The padding in numbers; SAME_UPPER and SAME_LOWER pad for ⌈size / stride⌉ positions."""
    kind = node.attrs.get("auto_pad", "NOTSET")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in _AUTO_PADS:
        raise _NoLayer(f"its auto_pad '{kind}' is none of ONNX's")
    if kind == "NOTSET":
        return _ints(node, "pads", 2 * len(kernel), least=0)
    if kind == "VALID":
        return (0,) * (2 * len(kernel))
    begins, ends = [], []
    for taps, stride, dilation, size in zip(kernel, strides, dilations, space, strict=True):
        reach = dilation * (taps - 1) + 1
        if stride == 1:
            total = reach - 1
        elif isinstance(size, int) and size > 0:
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        else:
            raise _NoLayer(f"its auto_pad {kind} depends on the size of its input, which is not known")
        less, more = total // 2, total - total // 2
        begins.append(less if kind == "SAME_UPPER" else more)
        ends.append(more if kind == "SAME_UPPER" else less)
    return (*begins, *ends)
