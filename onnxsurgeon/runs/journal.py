"""The run directory: settings, journal and branch files; and how a killed run is picked up again.

Every event is one line of journal.jsonl. A run resumes from its last "decided" event: what came
after is done again, with the same result, except that branches whose training had ended are read from their files.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import TEMPORARY_SUFFIX, copy_model, write_bytes

Event = dict[str, Any]
# Events a run can be resumed from: both hold the whole state, but for what is in the branch files.
_CHECKPOINTS = ("started", "decided")
_NEEDED = (*_CHECKPOINTS, "finished")


@dataclass
class RunDirectory:
    """RUN/ with settings.json, journal.jsonl, branches/, best.onnx, and front/ where the objective is pareto.

    Attributes:
        path: the folder.
        finished_training: by branch number, the digests of its files as they were when its training had ended; only of
            branches since the checkpoint that the run resumes from.
    """

    path: Path
    finished_training: dict[int, dict[str, str]] = field(default_factory=dict)

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
        """The models of the front, where the objective is one."""
        return self.path / "front"

    @property
    def journal(self) -> Path:
        """One event a line."""
        return self.path / "journal.jsonl"

    @property
    def settings_file(self) -> Path:
        """Everything the run was started with."""
        return self.path / "settings.json"

    @classmethod
    def create(cls, path: Path | None, stem: str, fill: Callable[[RunDirectory], None]) -> RunDirectory:
        """Make a new run directory: ``path``, or else runs/STEM-N with the next free N.

        ``fill`` writes what belongs into it from the start. The folder appears complete or not at all: it is made
        under a temporary name and renamed.

        Raises:
            RunError: ``path`` exists, or cannot be made.
        """
        if path is not None and path.exists():
            raise RunError(f"{path}: exists already; choose another --run-dir, or continue it with --resume")
        parent = Path("runs") if path is None else path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, prefix=".", suffix=TEMPORARY_SUFFIX) as temporary:
                unfinished = cls(Path(temporary, "run"))
                unfinished.branches.mkdir(parents=True)
                fill(unfinished)
                names = [path] if path is not None else (parent / f"{stem}-{number}" for number in count(1))
                return cls(_rename_to_first_free(unfinished.path, names))
        except OSError as error:
            raise RunError(f"{error.filename or path}: cannot be made: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            RunError: it is none.
        """
        run = cls(path)
        for needed, is_there in ((run.settings_file, Path.is_file), (run.branches, Path.is_dir)):
            if not is_there(needed):
                raise RunError(f"{path}: not a run directory: no {needed.name} in it")
        return run

    def write_settings(self, record: Mapping[str, Any]) -> None:
        """Write settings.json."""
        write_bytes(self.settings_file, (json.dumps(record, indent=2) + "\n").encode())

    def read_settings(self) -> dict[str, Any]:
        """Read settings.json.

        Raises:
            RunError: it is damaged.
        """
        try:
            record = json.loads(self.settings_file.read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.settings_file}: cannot be read: {error}") from error
        if not isinstance(record, dict):
            raise RunError(f"{self.settings_file}: not a record of settings")
        return record

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the run for this process; a kill lets go of it. Where there is no flock (Windows), nothing is held.

        Raises:
            RunError: another process holds it.
        """
        with self.settings_file.open("rb") as file:  # never replaced, unlike the other files
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                pass
            except OSError as error:
                raise RunError(f"{self.path}: another process is working on this run") from error
            yield

    def write_best(self, file_name: str) -> None:
        """Make best.onnx a copy of the branch file of that name."""
        copy_model(self.branches / file_name, self.best, overwrite=True)

    def write_front(self, names: Mapping[str, str]) -> None:
        """Write front/: copies of branch files, from their names to those they get there; what it held is removed.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self.front.mkdir(exist_ok=True)
            for old in self.front.glob("*.onnx"):
                old.unlink()
        except OSError as error:
            raise RunError(f"{error.filename or self.front}: cannot be written: {error.strerror}") from error
        for branch, name in names.items():
            copy_model(self.branches / branch, self.front / name, overwrite=True)

    def append(self, event: Event) -> None:
        """Append one event to the journal; one that a resumed run needs is on the disk afterwards."""
        with self.journal.open("ab") as file:
            file.write(json.dumps(event).encode() + b"\n")
            if event["event"] in _NEEDED:
                file.flush()
                os.fsync(file.fileno())

    def read_journal(self) -> list[Event]:
        """The journal's events up to the first line that is damaged: a kill can cut off the last one."""
        events: list[Event] = []
        if self.journal.exists():
            for line in self.journal.read_bytes().splitlines(keepends=True):
                try:
                    event = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n") or not isinstance(event, dict) or "event" not in event:
                    break
                events.append(event)
        return events

    def rewind(self) -> Event | None:
        """Cut the journal back to its last checkpoint, which is returned; None: there is none, start afresh.

        Unfinished temporary files are removed.
        """
        for leftover in (*self.path.glob(f".*{TEMPORARY_SUFFIX}"), *self.branches.glob(f".*{TEMPORARY_SUFFIX}")):
            leftover.unlink()
        events = self.read_journal()
        last = max((i for i, event in enumerate(events) if event["event"] in _CHECKPOINTS), default=-1)
        self.finished_training = {
            event["branch"]: {key: event[key] for key in ("digest", "state_digest") if key in event}
            for event in events[last + 1 :]
            if event["event"] == "trained"
        }
        kept = b"".join(json.dumps(event).encode() + b"\n" for event in events[: last + 1])
        write_bytes(self.journal, kept, overwrite=True)
        return events[last] if last >= 0 else None


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error


def _rename_to_first_free(folder: Path, names: Iterable[Path]) -> Path:
    """Rename ``folder`` to the first of ``names`` that nothing bears yet; safe against runs started at once."""
    for name in names:
        if not name.exists():
            try:
                return folder.rename(name)  # fails where another run has just taken it: that one is not empty
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
    raise RunError(f"{name}: exists already; choose another --run-dir, or continue it with --resume")
