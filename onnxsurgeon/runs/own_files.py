"""Files of a run directory: only regular ones, since a link could lead elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import open_regular, sha256_of


def read_own_file(path: Path, most: int | None = None) -> bytes:
    """Read a file of a run, which must be a regular one and no link.

    Raises:
        RunError: it is none, cannot be read, or has more bytes than ``most``.
    """
    try:
        refuse_links(path)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise RunError(f"{path}: {size:,} bytes are more than such a file has", "strange-file")
            return file.read()
    except (OSError, MemoryError) as error:
        raise RunError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'too large'}", "cannot-read"
        ) from error


def refuse_links(path: Path, *, inside: bool = True) -> None:
    """Raise RunError where ``path``, or anything ``inside`` it, is a link; a path that does not exist is fine."""
    if path.is_symlink():
        raise RunError(
            f"{path}: is a link; expected {'a folder' if path.is_dir() else 'a file'} of the run's own", "strange-file"
        )
    if inside and path.is_dir():
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink() or entry.is_dir(follow_symlinks=False):
                    refuse_links(Path(entry.path))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}", "cannot-read") from error
