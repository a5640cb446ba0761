"""As much of protobuf's wire format as is needed to read and write large weights without a second copy of them.

A message is a sequence of fields, each a key (number · 8 + kind) and a value; a value of kind 2 is a length and that
many bytes. Anything unusual is left to protobuf itself, which then says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedReader
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto

from onnxsurgeon.buffers import byte_chunks
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.tensors import ARRAY_TYPES, bytes_of, holds_values
from onnxsurgeon.linear_algebra import Array

# Files, and the weights in them, of at least this many bytes are read and written in this way.
LARGE_FILE = 2**24
LARGE_TENSOR = 2**20

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_VARINT, _EIGHT_BYTES, _DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_HEAD = 20  # bytes of a key and a length
# Fields of one message. Protobuf reads many small fields far faster than this does; in a tensor they would be its
# values.
_MOST_FIELDS = 2**16

Read = Callable[[int, int], bytes]


class NotPlain(Exception):  # noqa: N818 - not an error: protobuf reads such files
    """The bytes are no message, or one that needs protobuf itself."""


class Field(NamedTuple):
    """One field of a message: its key is at ``key``, its value between ``start`` and ``stop``."""

    number: int
    kind: int
    key: int
    start: int
    stop: int


def fields(read: Read, start: int, stop: int) -> Iterator[Field]:
    """Yield the fields between two positions; ``read`` gives a number of bytes from a position on.

    Raises:
        NotPlain: they are no sequence of fields, or contain a group, or they are very many.
    """
    for _ in range(_MOST_FIELDS):
        if start >= stop:
            return
        head = read(start, min(_LONGEST_HEAD, stop - start))
        key, size = _varint(head, 0)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, size = _varint(head, size)
            length = 0
        elif kind == _DELIMITED:
            length, size = _varint(head, size)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise NotPlain("a group")
        end = start + size + length
        if number == 0 or end > stop:
            raise NotPlain("no message")
        yield Field(number, kind, start, start + size, end)
        start = end
    if start < stop:
        raise NotPlain("too many fields")


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise NotPlain("no message")
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise NotPlain("no number")


def _encoded(value: int) -> bytes:
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)


def _head(number: int, length: int) -> bytes:
    """Key and length of a field of bytes."""
    return _encoded(number << 3 | _DELIMITED) + _encoded(length)


def read_apart(file: BufferedReader, size: int) -> tuple[ModelProto, dict[int, Array]]:
    """Read the model in ``file`` without the values of its large initializers, and those by their position in the list.

    The arrays are read-only, and the only copy of the values. Their sizes have been checked against the tensor's shape
    and type.

    Raises:
        NotPlain: protobuf has to read the file as a whole.
        OSError: the file cannot be read.
    """

    def read(start: int, length: int) -> bytes:
        file.seek(start)
        return file.read(length)

    graph = _graph(read, size)
    places: dict[int, tuple[Field, TensorProto]] = {}
    inner: list[bytes] = []
    position = graph.start
    for index, field in enumerate(_initializers(read, graph)):
        taken = _without_values(read, field) if field.stop - field.start >= LARGE_TENSOR else None
        if taken is not None:
            rest, values, tensor = taken
            places[index] = values, tensor
            inner += (read(position, field.key - position), _head(_INITIALIZER, len(rest)), rest)
            position = field.stop
    inner.append(read(position, graph.stop - position))
    outer = read(0, graph.key), _head(_GRAPH, sum(map(len, inner))), *inner, read(graph.stop, size - graph.stop)
    model = ModelProto()
    try:
        model.ParseFromString(b"".join(outer))
    except (DecodeError, RuntimeError, ValueError) as error:
        raise NotPlain("no model") from error
    return model, {index: _array(file, values, tensor) for index, (values, tensor) in places.items()}


def _graph(read: Read, size: int) -> Field:
    graphs = [field for field in fields(read, 0, size) if field.number == _GRAPH]
    if len(graphs) != 1 or graphs[0].kind != _DELIMITED:  # protobuf merges several into one
        raise NotPlain("not one graph")
    return graphs[0]


def _initializers(read: Read, graph: Field) -> Iterator[Field]:
    for field in fields(read, graph.start, graph.stop):
        if field.number == _INITIALIZER and field.kind == _DELIMITED:
            yield field


def _without_values(read: Read, field: Field) -> tuple[bytes, Field, TensorProto] | None:
    """A tensor's bytes without its raw_data, where that is, and the tensor; None for what is not plain or not right."""
    inside = list(fields(read, field.start, field.stop))
    values = [each for each in inside if each.number == _RAW_DATA]
    length = sum(each.stop - each.start for each in values)
    if len(values) != 1 or values[0].kind != _DELIMITED or field.stop - field.start - length >= LARGE_TENSOR:
        return None
    if length < LARGE_TENSOR:
        return None
    rest = b"".join(read(each.key, each.stop - each.key) for each in inside if each.number != _RAW_DATA)
    tensor = TensorProto()
    try:
        tensor.ParseFromString(rest)
        fits = tensor.data_type in ARRAY_TYPES and bytes_of(tensor, "tensor") == length
    except (DecodeError, RuntimeError, ValueError, ModelError):
        return None
    plain = not holds_values(tensor) and not tensor.HasField("data_location") and not tensor.HasField("segment")
    return (rest, values[0], tensor) if fits and plain else None


def _array(file: BufferedReader, values: Field, tensor: TensorProto) -> Array:
    content = np.empty(values.stop - values.start, np.uint8)
    file.seek(values.start)
    if file.readinto(content.data) != content.nbytes:
        raise OSError(0, "it became shorter while it was read")
    array = content.view(ARRAY_TYPES[tensor.data_type]).reshape(tuple(tensor.dims))
    array.setflags(write=False)
    return array


def filled(content: bytes, arrays: Mapping[int, Array]) -> Iterator[bytes | memoryview]:
    """Fill the empty raw_data of a serialized model's initializers at these positions with ``arrays``.

    The pieces joined are what protobuf would write of the model with all its values.

    Raises:
        NotPlain: the model has fields that onnx does not know, in a form that is not known here.
    """

    def read(start: int, length: int) -> bytes:
        return content[start : start + length]

    graph = _graph(read, len(content))
    inner: list[bytes | Array] = []
    position = graph.start
    for index, field in enumerate(_initializers(read, graph)):
        if index in arrays:
            array = arrays[index]
            values = next(each for each in fields(read, field.start, field.stop) if each.number == _RAW_DATA)
            before = content[field.start : values.key] + _head(_RAW_DATA, array.nbytes)
            behind = content[values.stop : field.stop]
            head = _head(_INITIALIZER, len(before) + array.nbytes + len(behind))
            inner += (content[position : field.key], head + before, array, behind)
            position = field.stop
    inner.append(content[position : graph.stop])
    length = sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in inner)
    return _chunks([content[: graph.key] + _head(_GRAPH, length), *inner, content[graph.stop :]])


def _chunks(pieces: Iterable[bytes | Array]) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from byte_chunks(piece)
