"""External data: the file to which a tensor's entries point, whether that may be read, and how it is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx
from onnx import TensorProto

from onnxsurgeon.buffers import byte_chunks
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.parts import BULKY
from onnxsurgeon.graph.tensors import ARRAY_TYPES, bytes_of
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line

# The alignment of a large tensor, so that it can be mapped into memory by itself. The specification advises 4 KiB, and
# 64 KiB where Windows is to map the file.
ALIGNMENT = 64 * 1024
LARGE = 2**20
# The alignment of other tensors, which suits their widest type.
SMALL_ALIGNMENT = 16


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's values are in another file."""
    return bool(tensor.HasField("data_location") and tensor.data_location == TensorProto.EXTERNAL)


@dataclass(frozen=True)
class Place:
    """Where a tensor's values are: ``length`` bytes of ``path`` from ``offset`` on."""

    path: Path
    offset: int
    length: int


def locate(tensor: TensorProto, folder: Path, where: str) -> Place:
    """Find the values of an external tensor, which have to lie in ``folder`` and in an existing file.

    Raises:
        ModelError: an entry is missing or malformed, leads out of the folder, or does not fit the file or the tensor's
            shape; the text starts with ``where``.
    """
    where = f"{where}: its external data"
    expected = bytes_of(tensor, where)
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries:
            raise ModelError(f"{where} has an invalid entry: {entry.key} is given twice", "damaged-model")
        entries[entry.key] = entry.value
    numbers = {key: _number(entries[key], key, where) for key in ("offset", "length") if key in entries}
    path = _resolve(entries.get("location", ""), folder, where)
    offset, length = numbers.get("offset", 0), numbers.get("length", expected)
    size, name = path.stat().st_size, entries["location"]
    if offset + length > size:
        raise ModelError(f"{where} ends beyond the file '{name}': {offset} + {length} of {size} bytes", "external-data")
    if length != expected:
        raise ModelError(
            f"{where} is {length} bytes long, but shape {tuple(tensor.dims)} needs {expected}", "damaged-model"
        )
    return Place(path, offset, length)


def size_on_disk(path: Path) -> int:
    """Bytes of the model file at ``path`` and of the files that hold its initializers.

    Raises:
        ModelError: they cannot be read.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # neither onnx nor protobuf promises a type
        raise ModelError(f"{path}: cannot be read: {first_line(error)}", "cannot-read") from error
    outside = [tensor for tensor in model.graph.initializer if is_external(tensor)]
    files = {locate(tensor, path.parent, f"{path}: tensor '{tensor.name}'").path for tensor in outside}
    return sum(file.stat().st_size for file in (path, *files))


def _number(text: str, key: str, where: str) -> int:
    # int() would also take signs, spaces, underscores and other scripts' digits; no file's size in bytes has 20 digits.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(
            f"{where} has an invalid entry: {key} is {text[:30]!r}, not a number of bytes", "damaged-model"
        )
    return int(text)


def _resolve(location: str, folder: Path, where: str) -> Path:
    shown = f"'{location}'" if location.isprintable() and len(location) < 200 else repr(location[:200])
    if not location or "\0" in location:
        raise ModelError(f"{where} has an invalid entry: location is {shown}, not the name of a file", "damaged-model")
    try:
        root = folder.resolve()
        target = (root / location).resolve()
        windows = PureWindowsPath(location)
        if Path(location).is_absolute() or windows.is_absolute() or windows.drive or not target.is_relative_to(root):
            raise ModelError(f"{where} leads out of the model's folder: {shown}", "leads-out")
        if not target.exists():
            raise ModelError(f"{where} is missing: no file {shown} beside the model", "external-data")
        if not target.is_file():
            raise ModelError(f"{where} is missing: {shown} is no regular file", "external-data")
    except (OSError, RuntimeError, ValueError) as error:  # for names that are too long, and loops of links
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"{where} cannot be found: {shown}: {reason}", "external-data") from error
    return target


def load(tensor: TensorProto, folder: Path, where: str) -> Array | None:
    """Values of an external tensor, mapped into memory; None, and the values inside ``tensor``, for small or odd ones.

    Raises:
        ModelError: as for ``locate``, or the file cannot be read.
    """
    if tensor.data_type == TensorProto.STRING:
        raise ModelError(f"{where} holds strings, which cannot be external data", "damaged-model")
    place = locate(tensor, folder, where)
    dtype = ARRAY_TYPES.get(tensor.data_type)
    try:
        if dtype is not None and place.length >= BULKY:
            return np.memmap(place.path, dtype, "r", place.offset, tuple(tensor.dims))
        load_inline(tensor, place)
    except OSError as error:
        raise ModelError(
            f"{where}: its external data cannot be read: {error.strerror or error}", "cannot-read"
        ) from error
    return None


def load_inline(tensor: TensorProto, place: Place) -> None:
    """Put an external tensor's values into the tensor itself."""
    with place.path.open("rb") as file:
        file.seek(place.offset)
        tensor.raw_data = file.read(place.length)
    del tensor.external_data[:]
    tensor.ClearField("data_location")


@dataclass(frozen=True)
class Written:
    """A file of external data: offset and length of each tensor in it, and the SHA-256 of the whole."""

    places: Mapping[str, tuple[int, int]]
    digest: str


def layout(arrays: Iterable[tuple[str, Array]]) -> tuple[dict[str, tuple[int, int]], int]:
    """Offset and length of each array in a file of external data, one behind the other, and the file's length."""
    places: dict[str, tuple[int, int]] = {}
    position = 0
    for name, array in arrays:
        position += -position % (ALIGNMENT if array.nbytes >= LARGE else SMALL_ALIGNMENT)
        places[name] = (position, array.nbytes)
        position += array.nbytes
    return places, position


def write_data(path: Path, arrays: Sequence[tuple[str, Array]]) -> Written:
    """Write arrays to ``path`` and flush them to the disk; one chunk at a time is in memory."""
    places, _ = layout(arrays)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for name, array in arrays:
            padding = bytes(places[name][0] - file.tell())
            file.write(padding)
            digest.update(padding)
            for chunk in byte_chunks(array):
                file.write(chunk)
                digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Written(places, digest.hexdigest())


def refer(tensor: TensorProto, location: str, place: tuple[int, int]) -> None:
    """Let ``tensor`` say that its values are in the file ``location``."""
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", place[0]), ("length", place[1])):
        tensor.external_data.add(key=key, value=str(value))
