"""Files that are written whole or not at all, and checks of what may be read or written."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from onnxsurgeon.errors import ModelError, OnnxSurgeonError, RunError

TEMPORARY_SUFFIX = ".tmp"
_READ = 2**20  # bytes that are read at a time


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

    Without ``flush``, a power failure may leave other content; the end of the process alone does not. ``before`` is
    called when all is on the disk but the old file is not yet replaced.

    Raises:
        OnnxSurgeonError: of type ``error``, where the file exists and ``overwrite`` is false, or the system refuses.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite, error=error)
    temporary = temporary_beside(path)
    try:
        temporary.unlink(missing_ok=True)  # left by an earlier process with this number; never a link to another place
        with temporary.open("xb") as file:
            file.writelines((content,) if isinstance(content, bytes) else content)
            file.flush()
            if flush:
                os.fsync(file.fileno())
        if before is not None:
            before()
        temporary.replace(path)
    except OSError as problem:
        raise error(f"{path}: cannot be written: {problem.strerror or problem}", "cannot-write") from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Bring renames in ``folder`` to the disk, where the system can open a folder at all."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_beside(path: Path, what: str = "") -> Path:
    """A hidden name in the folder of ``path``, for it or what belongs to it.

    It is short, however long the path's name is.
    """
    digest = hashlib.sha256(f"{path.name}/{what}".encode(errors="surrogateescape")).hexdigest()[:16]
    return path.with_name(f".{digest}.{os.getpid()}{TEMPORARY_SUFFIX}")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to be read, and refuse any other: reading a FIFO would wait without end.

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
        while piece := file.read(_READ):
            digest.update(piece)
    return digest.hexdigest()


def flush_file(path: Path) -> None:
    """Bring what was written to ``path`` to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def refuse_existing(path: Path, *, overwrite: bool, error: type[OnnxSurgeonError] = ModelError) -> None:
    """Raise ``error`` where ``path`` exists and may not be overwritten, is a directory, or is no name of a file."""
    try:
        if path.is_dir():
            raise error(f"{path}: is a directory", "no-such-file")
        if path.exists() and not path.is_file():  # a device would be replaced, not written to
            raise error(f"{path}: is no regular file", "no-such-file")
        if path.exists() and not overwrite:
            raise error(f"{path}: exists already; --force overwrites it", "exists")
    except OSError as problem:
        raise error(f"{path}: cannot be written: {problem.strerror or problem}", "cannot-write") from problem


def require_writable(path: Path, *, overwrite: bool) -> None:
    """Raise ModelError where ``path`` could not be written.

    With this check, a long run fails at its start and not at its end.
    """
    refuse_existing(path, overwrite=overwrite)
    if not path.parent.is_dir():
        raise ModelError(f"{path}: no such folder: {path.parent}", "no-folder")
    if not os.access(path.parent, os.W_OK):
        raise ModelError(f"{path}: the folder {path.parent} cannot be written to", "cannot-write")
