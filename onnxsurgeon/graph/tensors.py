"""Compares what a TensorProto declares with what it holds; nothing here allocates what is only declared."""

from __future__ import annotations

import math

import numpy as np
import onnx
from ml_dtypes import bfloat16
from onnx import TensorProto

from onnxsurgeon.errors import ModelError

# Types whose values can be taken out of the file as an array, and their little-endian layout.
ARRAY_TYPES: dict[int, np.dtype[np.generic]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.UINT32: np.dtype(np.uint32),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.UINT64: np.dtype(np.uint64),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.BOOL: np.dtype(np.bool_),
    TensorProto.COMPLEX64: np.dtype(np.complex64),
    TensorProto.COMPLEX128: np.dtype(np.complex128),
    TensorProto.BFLOAT16: np.dtype(bfloat16),
}

_LARGEST_SIZE = 2**63 - 1


# Bits of one element. FLOAT6E2M3 and FLOAT6E3M2 are missing: such tensors are refused where they hold anything.
_BITS = {kind: 8 * dtype.itemsize for kind, dtype in ARRAY_TYPES.items()}
for _name, _bits in (("FLOAT8", 8), ("UINT4", 4), ("INT4", 4), ("FLOAT4", 4), ("UINT2", 2), ("INT2", 2)):
    _BITS |= {value: _bits for key, value in TensorProto.DataType.items() if key.startswith(_name)}

# The repeated field that holds a type's values where raw_data does not, and how many entries one element takes.
_FIELDS: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}
_ALL_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def size_of(tensor: TensorProto, where: str) -> int:
    """Number of elements that the dims of ``tensor`` declare.

    Raises:
        ModelError: a dimension is negative, or the product does not fit into 64 bits; starts with ``where``.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{where} has a negative dimension: {_shape(tensor)}", "damaged-model")
    # Zeros come last: [2^40, 2^40, 0] holds nothing, but overflows in code that multiplies in order.
    if math.prod(dim for dim in tensor.dims if dim) > _LARGEST_SIZE:
        raise ModelError(f"{where} declares more elements than 64 bits can count: {_shape(tensor)}", "damaged-model")
    return math.prod(tensor.dims)


def bytes_of(tensor: TensorProto, where: str) -> int:
    """Number of bytes that the values of ``tensor`` take in raw_data or in a file of external data.

    Raises:
        ModelError: as for ``size_of``, or its type is unknown or has no layout of bytes.
    """
    size = size_of(tensor, where)
    if tensor.data_type not in _BITS:
        raise ModelError(f"{where} is of a type that cannot be read: {type_name(tensor.data_type)}", "unsupported-form")
    return -(-size * _BITS[tensor.data_type] // 8)


def check_tensor(tensor: TensorProto, where: str) -> None:
    """Check that a tensor inside the file holds as many values as its dims declare.

    Raises:
        ModelError: it does not, or declares no such type or shape; the text starts with ``where``.
    """
    size = size_of(tensor, where)
    held = holds_values(tensor)
    if tensor.HasField("segment"):
        raise ModelError(f"{where} is one segment of a tensor, which is not supported", "unsupported-form")
    if tensor.HasField("raw_data"):
        expected, found = bytes_of(tensor, where), len(tensor.raw_data)
        if held:
            raise ModelError(f"{where} holds its values twice, as raw_data and as {held[0]}", "damaged-model")
        if found != expected:
            raise ModelError(
                f"{where} of shape {_shape(tensor)} needs {expected} bytes but holds {found}", "damaged-model"
            )
        return
    if tensor.data_type != TensorProto.STRING and tensor.data_type not in _BITS:
        raise ModelError(f"{where} is of a type that cannot be read: {type_name(tensor.data_type)}", "unsupported-form")
    field, entries = _FIELDS.get(tensor.data_type, ("int32_data", 1))
    bits = _BITS.get(tensor.data_type, 8)
    expected = -(-size * bits // 8) if bits < 8 else size * entries
    if any(other != field for other in held):
        wrong = next(other for other in held if other != field)
        raise ModelError(
            f"{where} of type {type_name(tensor.data_type)} holds its values as {wrong}, not as {field}",
            "damaged-model",
        )
    found = len(getattr(tensor, field))
    if found != expected:
        raise ModelError(
            f"{where} of shape {_shape(tensor)} needs {expected} values but holds {found}", "damaged-model"
        )


def holds_values(tensor: TensorProto) -> list[str]:
    """Names of the repeated fields that hold values of ``tensor``."""
    return [field for field in _ALL_FIELDS if len(getattr(tensor, field))]


def type_name(kind: int) -> str:
    """Name of a tensor's element type, such as "float16", or its number where onnx knows no name."""
    known = TensorProto.DataType.DESCRIPTOR.values_by_number
    return str(known[kind].name).lower() if kind in known else f"number {kind}"


def _shape(tensor: TensorProto) -> str:
    return "(" + ", ".join(str(dim) for dim in tensor.dims) + ")"


def value_info(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    """A typed graph input, without the checks and the cost of onnx.helper's."""
    made = onnx.ValueInfoProto(name=name)
    made.type.tensor_type.elem_type = kind
    made.type.tensor_type.shape.SetInParent()
    for size in shape:
        made.type.tensor_type.shape.dim.add().dim_value = size
    return made
