"""How a file holds the weights of the network that was read from it, so that trained weights can be written there."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxsurgeon.graph.files import read_parts
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array

STRAIGHT, TRANSPOSED = "straight", "transposed"
_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def layouts(network: Network, path: str | os.PathLike[str]) -> dict[str, str]:
    """For parameters that are initializers of the file at ``path``, with the same values, their layout there, by name.

    "straight" is the layout of a state, one row a unit, whatever the number of axes; "transposed" is one column a unit.
    Parameters that the file has in another form (integers, folded with others, in nodes or in files beside it) are
    missing.

    Raises:
        ModelError: the file cannot be read.
    """
    parts = read_parts(path)
    if parts.external:
        return {}
    small = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in parts.skeleton.graph.initializer
        if tensor.data_type in _TYPES
    }
    held: dict[str, Array] = {**small, **parts.arrays}
    found = {}
    for name, values in network.parameters():
        layout = _layout(name, values, held, parts.skeleton.graph)
        if layout:
            found[name] = layout
    return found


def _layout(name: str, values: Array, held: Mapping[str, Array], graph: onnx.GraphProto) -> str:
    there = held.get(name)
    if there is None or there.size != values.size or there.dtype.name not in ("float16", "float32", "float64"):
        return ""
    own = values.T if values.ndim == 2 else values
    has_rows = own.ndim == 1 or there.shape[0] == own.shape[0]
    is_straight = has_rows and np.array_equal(there.reshape(own.shape), own)
    is_transposed = there.shape == own.shape[::-1] and own.ndim == 2 and np.array_equal(there.T, own)
    if is_straight and is_transposed and there.shape[0] > 1:
        return _read_as(name, graph)  # the values of a square matrix do not tell
    return STRAIGHT if is_straight else TRANSPOSED if is_transposed else ""


def _read_as(name: str, graph: onnx.GraphProto) -> str:
    """The layout in which the one node that reads the matrix takes it; "" where that is neither a Gemm nor a MatMul."""
    readers = [node for node in graph.node if name in node.input]
    if len(readers) != 1 or list(readers[0].input[:2])[1:] != [name]:
        return ""
    turned = next((entry.i for entry in readers[0].attribute if entry.name == "transB"), 0)
    return {"Gemm": STRAIGHT if turned else TRANSPOSED, "MatMul": TRANSPOSED}.get(readers[0].op_type, "")
