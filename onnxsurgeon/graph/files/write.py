"""ONNX files written and copied, with external data where that is needed; whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from onnx import ModelProto, TensorProto

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph import external, wire
from onnxsurgeon.graph.beside import Surroundings, data_name, referred_files, refers_out, speaks_of
from onnxsurgeon.graph.files.atomic import (
    flush_folder,
    refuse_existing,
    sha256_of,
    temporary_beside,
    write_bytes,
)
from onnxsurgeon.graph.files.read import read_parts
from onnxsurgeon.graph.parts import Parts, join, ordered, with_arrays
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line

# Models with larger tensors are written with external data; the rest up to protobuf's limit is for the graph.
LARGEST_INLINE = 1_900_000_000
_READ = 2**20  # bytes of a file that are copied at a time


def write_parts(
    parts: Parts, path: str | os.PathLike[str], *, overwrite: bool = False, flush: bool = True
) -> tuple[str, ...]:
    """Write a model taken apart to ``path``: as one file, or with external data where it had any or is too large.

    Without ``flush``, the system decides when a model of one file reaches the disk.

    External data goes to a file beside the model, ``NAME.data``, or ``NAME.DIGEST.data`` where the plain name is in
    use. An older file that nothing else refers to is removed only after the model that refers to it has been replaced:
    whenever the machine stops, the model on the disk finds its own data.

    Returns:
        Sentences on files of external data that the user should know.

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
            flush_folder(path.parent)

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
        raise ModelError(f"{path}: cannot be written: {problem.strerror or problem}", "cannot-write") from problem
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
        flush_folder(path.parent)
        write_bytes(path, _referring_bytes(parts, name, written, path), overwrite=True, error=ModelError)
    finally:
        link.unlink(missing_ok=True)


def written_size(parts: Parts, name: str) -> int:
    """Compute the number of bytes that ``write_parts`` would write to a file called ``name``, external data included.

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
        Sentences on files of external data, as from ``write_parts``.

    Raises:
        ModelError: the target exists and ``overwrite`` is false, or it cannot be written.
    """
    if refers_out(source):
        return write_parts(read_parts(source), target, overwrite=overwrite)
    around = Surroundings.of(Path(target), overwrite=overwrite)
    with source.open("rb") as file:
        chunks = iter(lambda: file.read(_READ), b"")
        write_bytes(target, chunks, overwrite=overwrite, error=ModelError)
    return around.remove_old(keep=None) if overwrite else ()


def _inline(parts: Parts, path: Path) -> Iterable[bytes | memoryview]:
    """The bytes of the model as one file; besides the arrays, only one chunk at a time is in memory."""

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
    except Exception as error:  # protobuf's implementations raise different types for more than 2 GB
        raise ModelError(f"{path}: cannot be written as one file: {first_line(error)}", "cannot-write") from error


def model_digest(path: Path) -> str:
    """SHA-256 of a model's file; where it has external data, over the digests of both.

    Raises:
        OSError: a file cannot be read.
    """
    found = [sha256_of(file) for file in (path, *sorted(referred_files(path).values()))]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()
