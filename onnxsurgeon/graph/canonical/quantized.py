"""Weights that a file holds as integers: DequantizeLinear and QuantizeLinear of constants."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.graph.canonical.queries import constant_values, has_input
from onnxsurgeon.linear_algebra import Array

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def dequantize(node: gs.Node, _: int = 0) -> Array | None:
    """DequantizeLinear(x, s, z) = (x − z) · s, for scales of the whole tensor, along an axis, and in blocks of one."""
    x, scale, zero = _operands(node)
    if x is None or scale is None:
        return None
    wide = np.int64 if _is_integer(x.dtype) else np.float32
    shifted = x.astype(wide) if zero is None else x.astype(wide) - _spread(node, zero, x).astype(wide)
    values: Array = shifted.astype(np.float32) * _spread(node, scale, x).astype(np.float32)
    return values.astype(_wanted(node) or scale.dtype)


def quantize(node: gs.Node, _: int = 0) -> Array | None:
    """QuantizeLinear(x, s, z) = x / s rounded to even, + z, saturated.

    Some files quantise their weights and dequantise them again.
    """
    x, scale, zero = _operands(node)
    kind = _wanted(node) or (np.dtype(np.uint8) if zero is None else zero.dtype)
    if x is None or scale is None or not _is_integer(kind):
        return None
    limits = ml_dtypes.iinfo(kind)
    rounded = np.rint(x.astype(np.float32) / _spread(node, scale, x).astype(np.float32)).astype(np.float64)
    moved = rounded if zero is None else rounded + _spread(node, zero, x).astype(np.float64)
    values: Array = np.clip(moved, int(limits.min), int(limits.max)).astype(kind)
    return values


def _operands(node: gs.Node) -> tuple[Array | None, Array | None, Array | None]:
    found = [constant_values(node.inputs[i]) if has_input(node, i) else None for i in range(3)]
    return found[0], found[1], found[2]


def _spread(node: gs.Node, values: Array, x: Array) -> Array:
    """Shape scales or zero points so that they broadcast to x."""
    if values.size == 1:
        return values.reshape(())
    axis = int(node.attrs.get("axis", 1)) % x.ndim
    if values.ndim == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    block = int(node.attrs.get("block_size", 0)) or -(-x.shape[axis] // values.shape[axis])
    return np.take(np.repeat(values, block, axis=axis), range(x.shape[axis]), axis=axis)


def _is_integer(dtype: np.dtype[Any]) -> bool:
    try:
        ml_dtypes.iinfo(dtype)
    except ValueError:
        return False
    return True


def _wanted(node: gs.Node) -> np.dtype[Any] | None:
    """The type that the attribute asks for."""
    kind = node.attrs.get("output_dtype", 0)
    return np.dtype(helper.tensor_dtype_to_np_dtype(int(kind))) if kind else None
