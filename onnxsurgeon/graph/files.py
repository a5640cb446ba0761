"""Read and write ONNX files: every read is checked, every write is atomic."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from onnxsurgeon.buffers import CHUNK
from onnxsurgeon.errors import ModelError, OnnxSurgeonError, RunError
from onnxsurgeon.graph import external, wire
from onnxsurgeon.graph.beside import Surroundings, data_name, referred_files, refers_out, speaks_of
from onnxsurgeon.graph.check import check_graph, check_model, check_opsets, check_parts
from onnxsurgeon.graph.damage import why_unreadable
from onnxsurgeon.graph.declared import forget_negative_sizes, subgraphs
from onnxsurgeon.graph.parts import LARGEST_FILE, Parts, as_array, headers_of, join, ordered, split, with_arrays
from onnxsurgeon.graph.structure import tensor_place, tensors
from onnxsurgeon.graph.tensors import check_tensor
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line

__all__ = [
    "TEMPORARY_SUFFIX",
    "Parts",
    "check_model",
    "check_parts",
    "copy_model",
    "flush_file",
    "join",
    "model_digest",
    "open_regular",
    "read_model",
    "read_parts",
    "refuse_existing",
    "require_writable",
    "sha256_of",
    "split",
    "subgraphs",
    "write_bytes",
    "write_model",
    "write_parts",
    "written_size",
]

TEMPORARY_SUFFIX = ".tmp"
# Models whose parts are larger are written with external data; the rest up to protobuf's limit is for the graph.
LARGEST_INLINE = 1_900_000_000


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
        raise ModelError(f"{path}: {error}") from error


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
                raise ModelError(f"{where}: its external data is more than a graph can hold")
            external.load_inline(tensor, place)
            outside = True
    if len(kept) < len(model.graph.initializer):
        # A message's memory is one piece, freed as one: only a copy without the bulk is small.
        skeleton = ModelProto()
        del model.graph.initializer[:]
        skeleton.CopyFrom(model)
        skeleton.graph.initializer.extend(kept)
        del kept
        model = skeleton
    forget_negative_sizes(model.graph)
    parts = Parts(model, arrays, outside, headers)
    check_graph(parts, name)
    return parts


def _parse(path: Path) -> tuple[ModelProto, dict[int, Array]]:
    """The model in a file, and the values of initializers that are so large that they were read on their own."""
    model = ModelProto()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ModelError(f"{path}: is {what}, not a model")
        if status.st_size > LARGEST_FILE:
            raise ModelError(f"{path}: not an ONNX model ({status.st_size} bytes; a file holds at most 2 GB)")
        with path.open("rb") as file:
            if status.st_size >= wire.LARGE_FILE:
                with suppress(wire.NotPlain):
                    return wire.read_apart(file, status.st_size)
                file.seek(0)
            content = file.read()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or first_line(error)}") from error
    try:
        model.ParseFromString(content)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX model ({why_unreadable(content)})") from error
    return model, {}


def _take_arrays(model: ModelProto, path: Path, large: Mapping[int, Array]) -> tuple[dict[str, Array], bool]:
    """Values of the main graph's bulky initializers, and whether any initializer is external data.

    Those at the positions ``large`` have been read already.
    """
    arrays: dict[str, Array] = {}
    names: set[str] = set()
    outside = False
    for index, tensor in enumerate(model.graph.initializer):
        where = tensor_place(tensor, "initializer", str(path))
        if tensor.name in names:
            raise ModelError(f"{path}: two initializers are called '{tensor.name}'")
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


def write_parts(
    parts: Parts, path: str | os.PathLike[str], *, overwrite: bool = False, flush: bool = True
) -> tuple[str, ...]:
    """Write a model taken apart to ``path``: as one file, or with external data where it had any or is too large.

    Without ``flush`` a model of one file is left to the system to bring to the disk.

    External data goes to a file beside the model, ``NAME.data``, or ``NAME.DIGEST.data`` where the plain name is in
    use. An older one that nothing else refers to is removed only after the model that refers to it has been replaced:
    whenever the machine stops, the model on the disk finds its own data.

    Returns:
        What is to be said about files of external data, in sentences.

    Raises:
        ModelError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    path = Path(path)
    around = Surroundings.of(path, overwrite=overwrite)
    if _is_one_file(parts):
        write_bytes(path, _inline(parts, path), overwrite=overwrite, error=ModelError, flush=flush)
        return around.remove_old(keep=None) if overwrite else ()
    refuse_existing(path, overwrite=overwrite, error=ModelError)
    temporary = temporary_beside(path, "data")
    made: list[Path] = []
    try:
        temporary.unlink(missing_ok=True)
        written = external.write_data(temporary, _bulk(parts))
        first, name, reason = around.choose(temporary, written.digest)
        data = path.with_name(first)

        def publish() -> None:
            if not os.path.lexists(data):
                made.append(data)
            temporary.replace(data)
            _flush_folder(path.parent)

        write_bytes(
            path, _referring_bytes(parts, first, written, path), overwrite=overwrite, error=ModelError, before=publish
        )
        made.clear()
        if name != first:
            try:
                _rename_data(parts, written, path, first, name)
            except (OSError, ModelError) as problem:
                if speaks_of(path, first):
                    name, reason = first, f"'{name}' cannot be replaced: {first_line(problem)}"
    except OSError as problem:
        raise ModelError(f"{path}: cannot be written: {problem.strerror or problem}") from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        for file in made:
            if not speaks_of(path, file.name):  # data without the model that refers to it
                with suppress(OSError):
                    file.unlink(missing_ok=True)
    told = (f"{path}: its external data is in '{name}': {reason}",) if reason else ()
    return (*told, *around.remove_old(keep=name)) if overwrite else told


def _rename_data(parts: Parts, written: external.Written, path: Path, first: str, name: str) -> None:
    """Let the model at ``path`` and its external data, which is in the file ``first``, use ``name`` instead.

    The data bears both names until the model refers to the second; ``first`` is left for the caller to remove.
    """
    link = temporary_beside(path, "link")
    try:
        link.unlink(missing_ok=True)
        os.link(path.with_name(first), link)
        link.replace(path.with_name(name))
        _flush_folder(path.parent)
        write_bytes(path, _referring_bytes(parts, name, written, path), overwrite=True, error=ModelError)
    finally:
        link.unlink(missing_ok=True)


def written_size(parts: Parts, name: str) -> int:
    """How many bytes ``write_parts`` would write to a file called ``name``, external data included; none is written.

    Raises:
        ModelError: the graph is too large for a file.
    """
    path = Path(name)
    if _is_one_file(parts):
        return sum(len(piece) for piece in _inline(parts, path))
    places, length = external.layout(_bulk(parts))
    written = external.Written(places, "0" * 64)
    return len(_referring_bytes(parts, data_name(path.name), written, path)) + length


def _bulk(parts: Parts) -> list[tuple[str, Array]]:
    return [(name, parts.arrays[name]) for name in ordered(parts) if name in parts.arrays]


def _is_one_file(parts: Parts) -> bool:
    total = sum(array.nbytes for array in parts.arrays.values()) + parts.skeleton.ByteSize()
    return not parts.arrays or (not parts.external and total <= LARGEST_INLINE)


def copy_model(source: Path, target: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[str, ...]:
    """Copy a model file, and its external data where it has any.

    Returns:
        What is to be said about files of external data, as ``write_parts``.

    Raises:
        ModelError: the target exists and ``overwrite`` is false, or it cannot be written.
    """
    if refers_out(source):
        return write_parts(read_parts(source), target, overwrite=overwrite)
    around = Surroundings.of(Path(target), overwrite=overwrite)
    with source.open("rb") as file:
        chunks = iter(lambda: file.read(CHUNK), b"")
        write_bytes(target, chunks, overwrite=overwrite, error=ModelError)
    return around.remove_old(keep=None) if overwrite else ()


def _inline(parts: Parts, path: Path) -> Iterable[bytes | memoryview]:
    """The bytes of the model as one file, of which one chunk at a time is in memory besides the arrays."""

    def leave_room(tensor: TensorProto, name: str) -> None:
        tensor.raw_data = b""

    content = _serialized(with_arrays(parts, leave_room), path)
    try:
        return wire.filled(content, {i: parts.arrays[n] for i, n in enumerate(ordered(parts)) if n in parts.arrays})
    except wire.NotPlain:
        return (_serialized(join(parts), path),)


def _referring_bytes(parts: Parts, location: str, written: external.Written, path: Path) -> bytes:
    """The bytes of the model with references to the external file in place of the arrays."""
    model = with_arrays(parts, lambda tensor, name: external.refer(tensor, location, written.places[name]))
    return _serialized(model, path)


def write_model(model: ModelProto, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write ``model`` to ``path`` as one file, complete or not at all.

    Raises:
        ModelError: the file exists and ``overwrite`` is false, it cannot be written, or the model is too large.
    """
    write_bytes(path, _serialized(model, Path(path)), overwrite=overwrite, error=ModelError)


def _serialized(model: ModelProto, path: Path) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf's implementations raise different types for what is larger than 2 GB
        raise ModelError(f"{path}: cannot be written as one file: {first_line(error)}") from error


def _flush_folder(folder: Path) -> None:
    """Let renames in ``folder`` reach the disk, where the system can open a folder at all."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(
    path: str | os.PathLike[str],
    content: bytes | Iterable[bytes | memoryview],
    *,
    overwrite: bool = False,
    error: type[OnnxSurgeonError] = RunError,
    before: Callable[[], None] | None = None,
    flush: bool = True,
) -> None:
    """Write ``content``, whole or in pieces, to ``path`` under a temporary name, flush it to the disk, and rename it.

    Without ``flush``, a power failure may leave another content; the end of the process alone does not.
    ``before`` is called when all is on the disk but the old file not yet replaced.

    Raises:
        OnnxSurgeonError: of type ``error``, where the file exists and ``overwrite`` is false, or the system refuses.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite, error=error)
    temporary = temporary_beside(path)
    try:
        temporary.unlink(missing_ok=True)  # of an earlier process with this number; never a link to what is elsewhere
        with temporary.open("xb") as file:
            file.writelines((content,) if isinstance(content, bytes) else content)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        if before is not None:
            before()
        temporary.replace(path)
    except OSError as problem:
        raise error(f"{path}: cannot be written: {problem.strerror or problem}") from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path, what: str = "") -> Path:
    """A hidden name in the folder of ``path``, for it or what belongs to it; short, however long its own name is."""
    digest = hashlib.sha256(f"{path.name}/{what}".encode(errors="surrogateescape")).hexdigest()[:16]
    return path.with_name(f".{digest}.{os.getpid()}{TEMPORARY_SUFFIX}")


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened to be read: a FIFO in its place would be waited for without end.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "no regular file", str(path))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def model_digest(path: Path) -> str:
    """SHA-256 of a model's file; where it has external data, over the digests of both.

    Raises:
        OSError: a file cannot be read.
    """
    found = [sha256_of(file) for file in (path, *sorted(referred_files(path).values()))]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def flush_file(path: Path) -> None:
    """Bring what was written to ``path`` to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def refuse_existing(path: Path, *, overwrite: bool, error: type[OnnxSurgeonError] = ModelError) -> None:
    """Raise ``error`` where ``path`` exists and may not be overwritten, is a directory, or no name of a file."""
    try:
        if path.is_dir():
            raise error(f"{path}: is a directory")
        if path.exists() and not path.is_file():  # a device would be replaced, not written to
            raise error(f"{path}: is no regular file")
        if path.exists() and not overwrite:
            raise error(f"{path}: exists already; --force overwrites it")
    except OSError as problem:
        raise error(f"{path}: cannot be written: {problem.strerror or problem}") from problem


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Raise ModelError where ``path`` could not be written: a long run must not end in what its start could tell."""
    refuse_existing(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise ModelError(f"{path}: no such folder: {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ModelError(f"{path}: the folder {path.parent} cannot be written to")
