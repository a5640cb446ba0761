"""A model taken apart into its graph and its bulky tensors, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.declared import forget_negative_sizes
from onnxsurgeon.graph.tensors import ARRAY_TYPES, bytes_of, check_tensor
from onnxsurgeon.linear_algebra import Array

# Initializers of at least this many bytes are bulky; smaller ones hold shapes that inference needs to see.
BULKY = 1024
# Protobuf's limit is 2^31 - 1 bytes for everything.
LARGEST_FILE = 2**31 - 1

_KINDS = {dtype: kind for kind, dtype in ARRAY_TYPES.items()}


@dataclass(frozen=True, eq=False)
class Parts:
    """A model taken apart: its graph without bulky tensors, and those as arrays.

    Attributes:
        skeleton: the model without the main graph's initializers of ``BULKY`` bytes and more.
        arrays: name → values of those initializers, in the file's order; read-only, and mapped into memory where
            the file keeps them as external data. Types that numpy lacks (strings, float8, int4) stay in the skeleton.
        external: whether the file kept tensors as external data.
        headers: every initializer of the file in its order, with doc string and metadata but no values: what
            ``join`` needs to restore the order. Entries that are missing here come last.
        typed: the skeleton with the arrays among its inputs and with every shape that onnx infers, where the check of a
            file has just found them. Who changes the skeleton makes parts without it.
    """

    skeleton: ModelProto
    arrays: dict[str, Array]
    external: bool = False
    headers: Mapping[str, TensorProto] = field(default_factory=dict)
    typed: ModelProto | None = None


def split(model: ModelProto, name: str = "model") -> Parts:
    """Take a model in memory apart; it is not changed, and its external data must have been loaded.

    Raises:
        ModelError: a tensor does not hold what it declares; the text starts with ``name``.
    """
    skeleton = without_initializers(model)
    forget_negative_sizes(skeleton.graph)
    arrays: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        array = as_array(tensor, f"{name}: initializer '{tensor.name}'")
        if array is None:
            skeleton.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name in arrays:
            raise ModelError(f"{name}: two initializers are called '{tensor.name}'", "damaged-model")
        else:
            arrays[tensor.name] = array
    return Parts(skeleton, arrays, headers=headers_of(model))


def join(parts: Parts) -> ModelProto:
    """The complete model in memory.

    Raises:
        ModelError: it would be larger than protobuf's 2 GB, or an array's type is none of ONNX's.
    """
    total = sum(array.nbytes for array in parts.arrays.values()) + parts.skeleton.ByteSize()
    if total > LARGEST_FILE:
        raise ModelError(
            f"a model of {total / 1e9:.1f} GB does not fit into one protobuf, which holds at most 2 GB",
            "beyond-one-file",
        )

    def hold(tensor: TensorProto, name: str) -> None:
        tensor.raw_data = parts.arrays[name].tobytes()

    return with_arrays(parts, hold)


def with_arrays(parts: Parts, fill: Callable[[TensorProto, str], None]) -> ModelProto:
    """The model with all initializers in their order; ``fill`` writes the values of those that stand for arrays."""
    model = ModelProto()
    model.CopyFrom(parts.skeleton)
    del model.graph.initializer[:]
    inline = {tensor.name: tensor for tensor in parts.skeleton.graph.initializer}
    for name in ordered(parts):
        made = model.graph.initializer.add()
        if name in parts.arrays:
            declare(made, name, parts)
            fill(made, name)
        else:
            made.CopyFrom(inline[name])
    return model


def ordered(parts: Parts) -> list[str]:
    """Names of all initializers: first those of the file in its order, then those that were added to the skeleton."""
    inline = [tensor.name for tensor in parts.skeleton.graph.initializer]
    present = {*inline, *parts.arrays}
    kept = [name for name in parts.headers if name in present]
    return list(dict.fromkeys([*kept, *inline, *parts.arrays]))


def declare(tensor: TensorProto, name: str, parts: Parts) -> None:
    """Give ``tensor`` the name, type, shape, doc string and metadata of the array ``name``, but no values."""
    array = parts.arrays[name]
    if name in parts.headers:
        tensor.CopyFrom(parts.headers[name])
    tensor.name = name
    tensor.data_type = kind_of(array, f"initializer '{name}'")
    tensor.dims.extend(array.shape)


def kind_of(array: Array, where: str) -> int:
    """ONNX's element type of an array.

    Raises:
        ModelError: it has none; the text starts with ``where``.
    """
    kind = _KINDS.get(array.dtype)
    if kind is None:
        raise ModelError(f"{where} is of type {array.dtype}, which ONNX files cannot hold", "unsupported-form")
    return kind


def as_array(tensor: TensorProto, where: str) -> Array | None:
    """Values of an inline tensor as a read-only array; None for a tensor that is not bulky or of an odd type."""
    check_tensor(tensor, where)
    dtype = ARRAY_TYPES.get(tensor.data_type)
    if dtype is None or bytes_of(tensor, where) < BULKY:
        return None
    if tensor.HasField("raw_data") and tensor.raw_data:
        return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
    array = numpy_helper.to_array(tensor).astype(dtype, copy=False)
    array.setflags(write=False)
    return array


def headers_of(model: ModelProto) -> dict[str, TensorProto]:
    """Every initializer without its values: name, doc string and metadata."""
    found = {}
    for tensor in model.graph.initializer:
        header = TensorProto(name=tensor.name)
        if tensor.HasField("doc_string"):
            header.doc_string = tensor.doc_string
        header.metadata_props.extend(tensor.metadata_props)
        found[tensor.name] = header
    return found


def without_initializers(model: ModelProto) -> ModelProto:
    """A copy of ``model`` without the main graph's initializers, which are not copied on the way."""
    copy = ModelProto()
    for source, target in ((model, copy), (model.graph, copy.graph)):
        for descriptor, value in source.ListFields():
            if descriptor.name in ("graph", "initializer"):
                continue
            if isinstance(value, str | bytes | int | float):
                setattr(target, descriptor.name, value)
            else:
                getattr(target, descriptor.name).extend(value)
    copy.graph.SetInParent()
    return copy
