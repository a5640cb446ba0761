"""Questions to the tensors and nodes of a canonical graph: constants, types, shapes, producers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.graph import makers
from onnxsurgeon.linear_algebra import Array

BFLOAT16 = np.dtype(helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16)


def is_output(graph: gs.Graph, tensor: Any) -> bool:
    """Whether the tensor is one of the graph's outputs."""
    return any(tensor is output for output in graph.outputs)


def constant_values(tensor: Any) -> Array | None:
    """Values of a constant tensor, or None where it is not constant."""
    return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None


def like(tensor: Any, values: Array) -> gs.Constant:
    """A constant of the same name with other values, for a new reader; other readers keep the old one."""
    return makers.constant(tensor.name, values)


def producer_of(tensor: Any) -> gs.Node | None:
    """The one node that writes ``tensor``."""
    return tensor.inputs[0] if len(tensor.inputs) == 1 else None


def has_input(node: gs.Node, position: int) -> bool:
    """Whether the optional input is given."""
    return len(node.inputs) > position and bool(node.inputs[position].name)


def dtype_of(tensor: Any) -> np.dtype[Any] | None:
    """Numpy's type of the tensor's elements; None where it is not known."""
    dtype = tensor.dtype
    if dtype is None:
        return None
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(dtype)) if isinstance(dtype, int) else np.dtype(dtype)
    except (KeyError, TypeError):
        return None


def shape_of(tensor: Any) -> list[Any] | None:
    """The sizes of a tensor: numbers, symbolic names, and None for a size that is not known.

    The result is None where not even the rank is known.
    """
    return (
        None
        if tensor.shape is None
        else [size or 0 if isinstance(size, int) else size or None for size in tensor.shape]
    )


def same_shape(first: Sequence[Any] | None, second: Sequence[Any] | None) -> bool:
    """Whether two shapes with the same number of elements are the same: all sizes but one agree, or all of them."""
    if first is None or second is None or len(first) != len(second):
        return False
    unknown = 0
    for a, b in zip(first, second, strict=True):
        if isinstance(a, int) and isinstance(b, int):
            if a != b or a <= 0:
                return False
        elif a is None or a != b:
            unknown += 1
    return unknown <= 1


def is_trained_vector(values: Array) -> bool:
    """Whether a vector may have been trained: it is not evenly spaced, as sums, means and expected values have it."""
    if values.dtype not in FLOATS or not values.size or not np.isfinite(values).all():
        return False
    if not values.any():  # as a last layer may begin
        return True
    exact = values.astype(np.float64)
    if len(exact) < 3:
        return not (exact == np.round(exact)).all()
    steps = np.diff(exact)
    is_even = np.abs(steps - steps.mean()).max() <= 1e-3 * max(np.abs(exact).max() / len(exact), abs(steps.mean()))
    return not is_even and len(np.unique(exact)) > min(2, len(exact) - 1)
