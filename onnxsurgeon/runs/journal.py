"""The run directory: settings, journal and branch files.

Every event is one line of journal.jsonl, from which a killed run goes on; see ``runs.resumption``.

The folder may be a stranger's, or damaged: no file in it may be a link, and files are checked where they are read.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxsurgeon.bounds import MAX_JOURNAL_BYTES, bound
from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import TEMPORARY_SUFFIX, copy_model, write_bytes
from onnxsurgeon.runs.events import JournalEvent
from onnxsurgeon.runs.lines import Line, Record, plain, read_lines, sealed
from onnxsurgeon.runs.own_files import file_digest as file_digest
from onnxsurgeon.runs.own_files import read_own_file, refuse_links
from onnxsurgeon.runs.records import check_settings
from onnxsurgeon.typed import UnfitError

# The contents of a run directory; a file or folder whose name begins so and that is a link is refused.
_NAMES = (
    "settings.json",
    "journal.jsonl",
    "branches",
    "best.onnx",
    "front",
    "teacher",
    "report.html",
    "side_by_side.html",
    "plots",
    "tensorboard",
    "mlflow.json",
)
_LARGEST_SETTINGS = 2**24  # bytes
_ATTEMPTS, _MOMENT = 5, 0.02  # tries to hold a run, and the seconds between them
# Events from which a run can resume: they hold the whole state, except for the contents of the branch files.
CHECKPOINTS = ("started", "decided", "extended")
_NEEDED = (*CHECKPOINTS, "finished")


@dataclass
class RunDirectory:
    """RUN/ with settings.json, journal.jsonl, branches/, best.onnx, and front/ where the objective is pareto.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def branches(self) -> Path:
        """Folder of the branch files."""
        return self.path / "branches"

    @property
    def best(self) -> Path:
        """The result."""
        return self.path / "best.onnx"

    @property
    def front(self) -> Path:
        """Folder of the models of the front, where the objective is pareto."""
        return self.path / "front"

    @property
    def journal(self) -> Path:
        """One event a line."""
        return self.path / "journal.jsonl"

    @property
    def settings_file(self) -> Path:
        """File of everything with which the run was started."""
        return self.path / "settings.json"

    @classmethod
    def create(cls, path: Path | None, stem: str, fill: Callable[[RunDirectory], None]) -> RunDirectory:
        """Make a new run directory: ``path``, or else runs/STEM-N with the next free N.

        ``fill`` writes the files that belong into it from the start. The folder appears complete or not at all: it is
        made under a temporary name and renamed.

        Raises:
            RunError: ``path`` exists, or cannot be made.
        """
        parent = Path("runs") if path is None else path.parent
        try:
            if path is not None and os.path.lexists(path):
                raise RunError(
                    f"{path}: exists already; choose another --run-dir, or continue it with --resume", "run-exists"
                )
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, prefix=".", suffix=TEMPORARY_SUFFIX) as temporary:
                unfinished = cls(Path(temporary, "run"))
                unfinished.branches.mkdir(parents=True)
                fill(unfinished)
                names = [path] if path is not None else (parent / f"{stem}-{number}" for number in count(1))
                return cls(_rename_to_first_free(unfinished.path, names))
        except OSError as error:
            raise RunError(
                f"{error.filename or path}: cannot be made: {error.strerror or error}", "cannot-write"
            ) from error

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run directory.

        Raises:
            RunError: it is none, or something in it is a link, so that files would be written elsewhere.
        """
        run = cls(path)
        try:
            for needed, is_there in ((run.settings_file, Path.is_file), (run.branches, Path.is_dir)):
                if not is_there(needed):
                    raise RunError(f"{path}: not a run directory: no {needed.name} in it", "not-a-run")
            for entry in path.iterdir():
                if entry.name.startswith(_NAMES):
                    refuse_links(entry, inside=entry.name != "teacher")  # files that do not fit there are made again
        except OSError as error:
            raise RunError(
                f"{error.filename or path}: cannot be read: {error.strerror or error}", "cannot-read"
            ) from error
        return run

    def write_settings(self, record: Mapping[str, Any]) -> None:
        """Write settings.json."""
        write_bytes(self.settings_file, (json.dumps(record, indent=2) + "\n").encode())

    def read_settings(self, hints: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        """Read settings.json.

        Raises:
            RunError: it is damaged, or an entry that is used somewhere is of another type.
        """
        try:
            record = json.loads(read_own_file(self.settings_file, _LARGEST_SETTINGS))
            check_settings(record, hints)
        except UnfitError as error:
            raise RunError(f"{self.settings_file}: lacks or misnames an entry: {error}", "settings-of-run") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.settings_file}: cannot be read: {error}", "settings-of-run") from error
        assert isinstance(record, dict)
        return record

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the run for this process; a kill releases it. Where there is no flock (Windows), nothing is held.

        Raises:
            RunError: another process holds it.
        """
        try:
            file = self.settings_file.open("rb")  # never replaced, unlike the other files
        except OSError as error:
            raise RunError(f"{self.settings_file}: cannot be read: {error.strerror}", "cannot-read") from error
        with file:
            try:
                import fcntl

                for attempt in range(_ATTEMPTS):
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:  # or another process only checks, for a moment, whether it is held
                        if attempt == _ATTEMPTS - 1:
                            raise
                        time.sleep(_MOMENT)
            except ImportError:
                pass
            except OSError as error:
                raise RunError(f"{self.path}: another process is working on this run", "busy") from error
            yield

    def is_held(self) -> bool:
        """Whether a process works on the run, as far as this machine can tell; False where there is no flock."""
        try:
            import fcntl

            with self.settings_file.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (ImportError, OSError):
            return False
        return False

    def write_best(self, file_name: str) -> None:
        """Make best.onnx a copy of the branch file of that name."""
        copy_model(self.branches / file_name, self.best, overwrite=True)

    def write_front(self, names: Mapping[str, str]) -> None:
        """Write front/: copies of branch files, from their names to their names there; earlier contents are removed.

        Raises:
            RunError: it cannot be written, or is a link.
        """
        try:
            refuse_links(self.front)
            self.front.mkdir(exist_ok=True)
            for old in self.front.glob("*.onnx"):
                old.unlink()
        except OSError as error:
            raise RunError(
                f"{error.filename or self.front}: cannot be written: {error.strerror}", "cannot-write"
            ) from error
        for branch, name in names.items():
            copy_model(self.branches / branch, self.front / name, overwrite=True)

    def append(self, event: JournalEvent) -> None:
        """Append one event to the journal; an event that a resumed run needs is on the disk afterwards.

        A checkpoint carries a checksum.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with self.journal.open("ab") as file:
                file.write(sealed(event) if event["event"] in CHECKPOINTS else plain(event))
                if event["event"] in _NEEDED:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.journal}: cannot be written: {error.strerror or error}", "cannot-write") from error

    def lines(self) -> list[Line]:
        """The journal's lines; none where there is no journal yet.

        Raises:
            RunError: it cannot be read, is no regular file, or is larger than any run makes it.
        """
        if not os.path.lexists(self.journal):
            return []
        return list(read_lines(read_own_file(self.journal, bound(MAX_JOURNAL_BYTES))))

    def read_journal(self) -> list[Record]:
        """The journal's records up to the first damaged line, since a kill can cut off the last one."""
        records: list[Record] = []
        for line in self.lines():
            if line.record is None:
                break
            records.append(line.record)
        return records


def _rename_to_first_free(folder: Path, names: Iterable[Path]) -> Path:
    """Rename ``folder`` to the first of ``names`` that is free; safe against runs started at the same time."""
    for name in names:
        if not name.exists():
            try:
                return folder.rename(name)  # fails where another run has just taken it, since that folder is not empty
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
    raise RunError(f"{name}: exists already; choose another --run-dir, or continue it with --resume", "run-exists")
