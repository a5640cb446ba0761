"""The normal forms of layers: Dense(x, W, b) = x W + b over the last axis, and Convolution over patches of space."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph import makers
from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, dtype_of, has_input, like, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.linear_algebra import Array

CONVOLUTION = "Convolution"
LAYERS = ("Dense", CONVOLUTION)


def geometry_of(node: gs.Node) -> Geometry | None:
    """The geometry of a convolution in normal form; None for a dense layer."""
    found = node.attrs.get("geometry") if node.op == CONVOLUTION else None
    return found if isinstance(found, Geometry) else None


def by_channel(values: Array, rank: int) -> Array | None:
    """Values of shape (n,) or () that broadcasting spreads over axis 1, the channels, of ``rank`` axes; else None."""
    shape = (1,) * (rank - values.ndim) + values.shape
    if len(shape) > rank or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return values.reshape(() if values.size == 1 else -1)


def is_dense(node: gs.Node) -> bool:
    """Whether ``node`` is a layer in normal form, dense or a convolution, at which the file can be cut."""
    return node.op in LAYERS and len(node.inputs) > 1 and bool(node.outputs) and node.attrs.get("entry") is not None


def weight_of(tensor: Any) -> Array | None:
    """The values of a constant floating-point matrix; None for any other tensor."""
    if not isinstance(tensor, gs.Constant) or len(tensor.shape) != 2:
        return None
    values = constant_values(tensor)
    return values if values is not None and values.dtype in FLOATS else None


def as_bias(values: Array | None, units: int, rank: int | None = 2) -> Array | None:
    """Spread ``values`` to (units,); None where there is neither one value for each unit nor one for all.

    An input of unknown rank is taken to have two axes: the batch and the features.
    """
    if values is None or values.dtype not in FLOATS:
        return None
    if values.ndim > (2 if rank is None else max(rank, 1)) or any(size != 1 for size in values.shape[:-1]):
        return None
    if values.size == units:
        return values.reshape(units)
    return np.full(units, values.reshape(()), values.dtype) if values.size == 1 else None


def make_dense(
    rewriter: Rewriter, node: gs.Node, x: Any, weight: gs.Constant, bias: gs.Constant | None, entry: str | None
) -> None:
    """Turn ``node`` into the dense layer y = x W + b."""
    y = node.outputs[0]
    shape = shape_of(x)
    if shape_of(y) is None and shape is not None:
        y.shape = [*shape[:-1], int(weight.shape[1])]
    if dtype_of(y) is None:
        y.dtype = weight.values.dtype
    inputs = [x, weight] if bias is None else [x, weight, bias]
    rewriter.become(node, "Dense", inputs, {"entry": entry})


def bias_of(node: gs.Node) -> Array | None:
    """The dense layer's bias, None where it has none."""
    return constant_values(node.inputs[2]) if has_input(node, 2) else None


def units_of(node: gs.Node) -> int:
    """Number of units of a dense layer."""
    return int(node.inputs[1].shape[1])


def rescale(rewriter: Rewriter, node: gs.Node, weight: Array, bias: Array | None, name: str) -> None:
    """Give the dense layer another weight and bias, rounded once; ``name`` is the new bias's where it had none."""
    kind = node.inputs[1].values.dtype
    if weight is not node.inputs[1].values:
        rewriter.allow(node, weight.size * kind.itemsize)
        rewriter.set_input(node, 1, like(node.inputs[1], weight.astype(kind)))
    if bias is None:
        return
    if len(node.inputs) > 2:
        rewriter.set_input(node, 2, like(node.inputs[2], bias.astype(node.inputs[2].values.dtype)))
    else:
        rewriter.set_inputs(node, [*node.inputs, makers.constant(name, bias.astype(kind))])


def absorb(rewriter: Rewriter, source: gs.Node, node: gs.Node) -> None:
    """Let ``source`` write ``node``'s output, and remove ``node``."""
    y, before = node.outputs[0], source.outputs[0]
    if y.shape is None:
        y.shape = before.shape
    if y.dtype is None:
        y.dtype = before.dtype
    rewriter.release_output(node)
    rewriter.set_output(source, y)
    rewriter.remove(node)
