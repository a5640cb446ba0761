"""The outputs of a run's teacher in RUN/teacher, one .npy for each head and split, so that it need not run again."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxsurgeon.buffers import byte_chunks
from onnxsurgeon.data.dataset import chunks
from onnxsurgeon.data.soft import MAPPED_BYTES
from onnxsurgeon.data.teacher import Taught
from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import write_bytes
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runs.own_files import read_own_file

FOLDER, RECORD = "teacher", "teacher.json"
_LARGEST_RECORD = 2**20  # bytes
_SQUASHES = ("", "Softmax", "Sigmoid")


@dataclass(frozen=True)
class TaughtFolder:
    """RUN/teacher, whose content only saves time: files that do not fit are not read.

    Attributes:
        run: the run directory.
        digest: digest of everything on which the teacher's outputs depend.
    """

    run: Path
    digest: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.run / FOLDER

    def read(self, part: str, rows: int, widths: tuple[int, ...]) -> Taught | None:
        """The teacher's outputs for the rows of ``part``; large arrays stay in their files.

        None where they are missing, of another teacher or other rows, or damaged.
        """
        try:
            if self.path.is_symlink():
                return None
            record = json.loads(read_own_file(self.path / RECORD, _LARGEST_RECORD))
            squashes = tuple(record["squashes"][part]) if record["digest"] == self.digest else ()
            if not all(squash in _SQUASHES for squash in squashes):
                return None
        except (RunError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if len(squashes) != len(widths):
            return None
        found = (_array(self.path / _name(part, head), rows, width) for head, width in enumerate(widths))
        outputs = tuple(values for values in found if values is not None)
        return Taught(outputs, squashes) if len(outputs) == len(widths) else None

    def write(self, kept: Mapping[str, Taught]) -> None:
        """Write the teacher's outputs for each part, the record last.

        Raises:
            RunError: the folder is a link, or cannot be written.
        """
        if self.path.is_symlink():
            raise RunError(f"{self.path}: is a link; expected a folder of the run's own", "strange-file")
        try:
            self.path.mkdir(exist_ok=True)
            (self.path / RECORD).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}", "cannot-write") from error
        for part, taught in kept.items():
            for head, values in enumerate(taught.outputs):
                header = io.BytesIO()
                described = np.lib.format.header_data_from_array_1_0(values)
                np.lib.format.write_array_header_1_0(header, described)
                write_bytes(self.path / _name(part, head), (header.getvalue(), *byte_chunks(values)), overwrite=True)
        squashes = {part: list(taught.squashes) for part, taught in kept.items()}
        record = json.dumps({"digest": self.digest, "squashes": squashes}, indent=2) + "\n"
        write_bytes(self.path / RECORD, record.encode(), overwrite=True)


def _name(part: str, head: int) -> str:
    return f"{part}-{head}.npy"


def _array(path: Path, rows: int, width: int) -> Array | None:
    """An array (rows, …, width) float32 of finite values from a file; None where it is none."""
    try:
        if path.is_symlink() or not path.is_file():  # reading a FIFO would wait without end
            return None
        values: Array = np.lib.format.open_memmap(path, mode="r")  # refuses pickles
    except Exception:  # for damaged headers, tokenize and numpy raise errors without a common base
        return None
    if values.dtype != np.float32 or values.ndim < 2 or len(values) != rows or values.shape[-1] != width:
        return None
    if not values.flags.c_contiguous:
        return None
    if not all(bool(np.isfinite(values[start:stop]).all()) for start, stop in chunks(values)):
        return None
    return values if values.nbytes > MAPPED_BYTES else np.array(values)
