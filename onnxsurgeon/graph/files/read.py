"""Reading an ONNX file, top to bottom: bytes, protobuf, external data, headers; everything is checked on the way."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph import external, wire
from onnxsurgeon.graph.check import check_graph, check_opsets
from onnxsurgeon.graph.damage import why_unreadable
from onnxsurgeon.graph.declared import forget_negative_sizes
from onnxsurgeon.graph.parts import LARGEST_FILE, Parts, as_array, headers_of, join
from onnxsurgeon.graph.structure import tensor_place, tensors
from onnxsurgeon.graph.tensors import check_tensor
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line


def read_model(path: str | os.PathLike[str]) -> ModelProto:
    """Read and check the ONNX model at ``path``, external data included.

    External data is loaded from the model's own folder only.

    Raises:
        ModelError: no such file, not ONNX, invalid, external data that is missing or leads out of the folder, or a
            model of more than 2 GB.
    """
    parts = read_parts(path)
    try:
        return join(parts)
    except ModelError as error:
        raise ModelError(f"{path}: {error}", error.kind) from error


def read_parts(path: str | os.PathLike[str]) -> Parts:
    """Read and check the ONNX model at ``path``; external data is mapped into memory, not read.

    Raises:
        ModelError: no such file, not ONNX, invalid, or external data that is missing or leads out of the folder.
    """
    path = Path(path)
    name = str(path)
    model, large = _parse(path)
    check_opsets(model, name)
    arrays, outside = _take_arrays(model, path, large)
    headers = headers_of(model)
    kept: list[TensorProto] = [tensor for tensor in model.graph.initializer if tensor.name not in arrays]
    inside = 0
    for tensor, where in tensors(model, name, skip_initializers=True):
        if not external.is_external(tensor):
            check_tensor(tensor, where)
        else:
            place = external.locate(tensor, path.parent, where)
            inside += place.length
            if inside > LARGEST_FILE:  # many tensors may point at the same bytes
                raise ModelError(f"{where}: its external data is more than a graph can hold", "beyond-one-file")
            external.load_inline(tensor, place)
            outside = True
    if len(kept) < len(model.graph.initializer):
        # The memory of a message is freed as one piece, so only a copy without the bulk is small.
        skeleton = ModelProto()
        del model.graph.initializer[:]
        skeleton.CopyFrom(model)
        skeleton.graph.initializer.extend(kept)
        del kept
        model = skeleton
    forget_negative_sizes(model.graph)
    parts = Parts(model, arrays, outside, headers)
    return replace(parts, typed=check_graph(parts, name))


def _parse(path: Path) -> tuple[ModelProto, dict[int, Array]]:
    """The model in a file, and the values of those initializers that are so large that they were read on their own."""
    model = ModelProto()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ModelError(f"{path}: is {what}, not a model", "no-such-file")
        if status.st_size > LARGEST_FILE:
            raise ModelError(
                f"{path}: not an ONNX model ({status.st_size} bytes; a file holds at most 2 GB)", "not-a-model"
            )
        with path.open("rb") as file:
            if status.st_size >= wire.LARGE_FILE:
                with suppress(wire.NotPlain):
                    return wire.read_apart(file, status.st_size)
                file.seek(0)
            content = file.read()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file", "no-such-file") from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or first_line(error)}", "cannot-read"
        ) from error
    try:
        model.ParseFromString(content)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX model ({why_unreadable(content)})", "not-a-model") from error
    return model, {}


def _take_arrays(model: ModelProto, path: Path, large: Mapping[int, Array]) -> tuple[dict[str, Array], bool]:
    """Values of the main graph's bulky initializers, and whether any initializer is external data.

    The initializers at the positions ``large`` have been read already.
    """
    arrays: dict[str, Array] = {}
    names: set[str] = set()
    outside = False
    for index, tensor in enumerate(model.graph.initializer):
        where = tensor_place(tensor, "initializer", str(path))
        if tensor.name in names:
            raise ModelError(f"{path}: two initializers are called '{tensor.name}'", "damaged-model")
        names.add(tensor.name)
        if index in large:
            array: Array | None = large[index]
        elif external.is_external(tensor):
            outside = True
            array = external.load(tensor, path.parent, where)
        else:
            array = as_array(tensor, where)
        if array is not None:
            arrays[tensor.name] = array
    return arrays, outside
