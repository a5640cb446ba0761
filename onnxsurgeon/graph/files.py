"""Read and write ONNX files: every read is checked, every write is atomic."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

from onnxsurgeon.errors import ModelError, OnnxSurgeonError, RunError
from onnxsurgeon.runtime import first_line

TEMPORARY_SUFFIX = ".tmp"


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read and check the ONNX model at ``path``.

    External data is loaded from the model's own folder only.

    Raises:
        ModelError: no such file, not ONNX, invalid, or external data that is missing or leads out of the folder.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: {'is a directory, not a model' if path.is_dir() else 'no such file'}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, OSError, RuntimeError) as error:
        raise ModelError(f"{path}: not an ONNX model ({first_line(error)})") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{path}: not an ONNX model (it holds no graph or no opset)")
    for tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            _load_external(tensor, path)
    check_model(model, str(path))
    return model


def check_model(model: onnx.ModelProto, name: str) -> None:
    """Run onnx.checker on ``model``, shape inference included.

    Raises:
        ModelError: the checker finds fault, or shapes do not fit; the text starts with ``name``.
    """
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not 7 <= entry.version <= newest:
            # Below 7, Gemm and Add broadcast by attributes of their own; the checker lets the future pass.
            raise ModelError(f"{name}: opset {entry.version} is not supported (7 to {newest} are)")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name}: invalid model: {first_line(error)}") from error


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                found.append(attribute.t)
            for subgraph in subgraphs(attribute):
                found.extend(_tensors(subgraph))
    return found


def subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """Graphs held by a node's attribute (bodies of If, Loop and Scan)."""
    return [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)


def _load_external(tensor: onnx.TensorProto, model_path: Path) -> None:
    """Load one tensor's external data after checking where it points and how long it says it is."""
    name = f"{model_path}: external data of tensor '{tensor.name}'"
    try:
        info = ExternalDataInfo(tensor)
        offset, length = int(info.offset or 0), int(info.length or 0)
    except ValueError as error:
        raise ModelError(f"{name} has an invalid entry: {first_line(error)}") from error
    folder = model_path.parent.resolve()
    target = (folder / info.location).resolve()
    if Path(info.location).is_absolute() or not target.is_relative_to(folder):
        raise ModelError(f"{name} leads out of the model's folder: '{info.location}'")
    if not target.is_file():
        raise ModelError(f"{name} is missing: no file '{info.location}' beside the model")
    if offset < 0 or length < 0 or offset + length > target.stat().st_size:
        raise ModelError(f"{name} ends beyond the file '{info.location}'")
    try:
        load_external_data_for_tensor(tensor, str(folder))
    except Exception as error:  # onnx raises several unrelated types here
        raise ModelError(f"{name} cannot be loaded: {first_line(error)}") from error
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def write_model(model: onnx.ModelProto, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write ``model`` to ``path``, complete or not at all.

    Raises:
        ModelError: the file exists and ``overwrite`` is false, it cannot be written, or the model is too large.
    """
    try:
        content = model.SerializeToString(deterministic=True)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be written as one file: {first_line(error)}") from error
    write_bytes(path, content, overwrite=overwrite, error=ModelError)


def write_bytes(
    path: str | os.PathLike[str],
    content: bytes,
    *,
    overwrite: bool = False,
    error: type[OnnxSurgeonError] = RunError,
) -> None:
    """Write ``content`` to ``path`` under a temporary name, flush it to the disk, and rename it.

    Raises:
        OnnxSurgeonError: of type ``error``, where the file exists and ``overwrite`` is false, or the system refuses.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite, error=error)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise error(f"{path}: cannot be written: {problem.strerror or problem}") from problem


def refuse_existing(path: Path, *, overwrite: bool, error: type[OnnxSurgeonError] = ModelError) -> None:
    """Raise ``error`` where ``path`` exists and may not be overwritten, or is a directory."""
    if path.is_dir():
        raise error(f"{path}: is a directory")
    if path.exists() and not overwrite:
        raise error(f"{path}: exists already; --force overwrites it")


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Raise ModelError where ``path`` could not be written: a long run must not end in what its start could tell."""
    refuse_existing(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise ModelError(f"{path}: no such folder: {path.parent}")


# INTERIM: replaced by graph/parts
from dataclasses import dataclass as _dataclass
from dataclasses import field as _field


@_dataclass(frozen=True, eq=False)
class Parts:
    skeleton: onnx.ModelProto
    arrays: dict = _field(default_factory=dict)
    external: bool = False


def split(model):
    from onnx import numpy_helper

    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    arrays = {}
    keep = []
    for t in skeleton.graph.initializer:
        if t.ByteSize() > 1024 and t.data_type in (1, 11, 10, 16):
            arrays[t.name] = numpy_helper.to_array(t)
        else:
            keep.append(t)
    del skeleton.graph.initializer[:]
    skeleton.graph.initializer.extend(keep)
    return Parts(skeleton, arrays, False)


def join(parts):
    import numpy as np
    from onnx import numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(parts.skeleton)
    model.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in parts.arrays.items())
    return model


def read_parts(path):
    return split(read_model(path))


def check_parts(parts, name):
    check_model(join(parts), name)


def write_parts(parts, path, *, overwrite=False):
    write_model(join(parts), path, overwrite=overwrite)
