"""The run directory: settings, journal and branch files; and how a killed run is picked up again.

Every event is one line of journal.jsonl. A run resumes from its last "decided" event: what came
after is done again, with the same result, except that branches whose training had ended are read from their files.

The folder may be a stranger's, or damaged: no file in it is a link, and what is read is checked where it is read.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import TEMPORARY_SUFFIX, copy_model, open_regular, sha256_of, write_bytes
from onnxsurgeon.runs.events import Digests, Extended, JournalEvent, Measured, Resumable
from onnxsurgeon.runs.lines import Line, Record, plain, read_lines, sealed
from onnxsurgeon.runs.records import check_settings
from onnxsurgeon.typed import UnfitError

# What is in a run directory; a file or folder whose name begins so and that is a link is refused.
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
_ATTEMPTS, _MOMENT = 5, 0.02  # to hold a run, and the seconds between them
# Events a run can be resumed from: both hold the whole state, but for what is in the branch files.
_CHECKPOINTS = ("started", "decided", "extended")
_NEEDED = (*_CHECKPOINTS, "finished")


WhyDamaged = Callable[[Record], str]


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Attributes:
        kept: the journal's lines up to it.
        event: what its own line tells of; None: the run begins anew.
        trained: by branch number, the digests of its files as they were when its training had ended; only of branches
            since this checkpoint and up to the next.
    """

    kept: tuple[Line, ...]
    event: Resumable | None
    trained: dict[int, Digests]

    @property
    def run_epochs(self) -> int | None:
        """How long the run is by then, where it was made longer; None: as long as its settings say."""
        found = [cast(Extended, line.record) for line in self.kept if line.kind == "extended"]
        return found[-1]["run_epochs"] if found else None


@dataclass
class RunDirectory:
    """RUN/ with settings.json, journal.jsonl, branches/, best.onnx, and front/ where the objective is pareto.

    Attributes:
        path: the folder.
        finished_training: by branch number, the digests of its files as they were when its training had ended; only of
            branches since the checkpoint that the run resumes from.
    """

    path: Path
    finished_training: dict[int, Digests] = field(default_factory=dict)

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
        """An existing run directory.

        Raises:
            RunError: it is none, or something in it is a link: what is written there would end up elsewhere.
        """
        run = cls(path)
        try:
            for needed, is_there in ((run.settings_file, Path.is_file), (run.branches, Path.is_dir)):
                if not is_there(needed):
                    raise RunError(f"{path}: not a run directory: no {needed.name} in it", "not-a-run")
            for entry in path.iterdir():
                if entry.name.startswith(_NAMES):
                    _refuse_links(entry, inside=entry.name != "teacher")  # what does not fit there is made again
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
            RunError: it is damaged, or an entry that is read somewhere is not what it should be.
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
        """Hold the run for this process; a kill lets go of it. Where there is no flock (Windows), nothing is held.

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
                    except BlockingIOError:  # or someone only looks, for a moment, whether it is held
                        if attempt == _ATTEMPTS - 1:
                            raise
                        time.sleep(_MOMENT)
            except ImportError:
                pass
            except OSError as error:
                raise RunError(f"{self.path}: another process is working on this run", "busy") from error
            yield

    def is_held(self) -> bool:
        """Whether a process works on the run, as far as can be seen from here; False where there is no flock."""
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
        """Write front/: copies of branch files, from their names to those they get there; what it held is removed.

        Raises:
            RunError: it cannot be written, or is a link.
        """
        try:
            _refuse_links(self.front)
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
        """Append one event to the journal; one that a resumed run needs is on the disk afterwards.

        A checkpoint carries a checksum.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with self.journal.open("ab") as file:
                file.write(sealed(event) if event["event"] in _CHECKPOINTS else plain(event))
                if event["event"] in _NEEDED:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.journal}: cannot be written: {error.strerror or error}", "cannot-write") from error

    def lines(self) -> list[Line]:
        """The journal's lines; none where there is no journal yet.

        Raises:
            RunError: it cannot be read, or is no regular file.
        """
        return list(read_lines(read_own_file(self.journal))) if os.path.lexists(self.journal) else []

    def read_journal(self) -> list[Record]:
        """What the journal tells up to the first line that is damaged: a kill can cut off the last one."""
        records: list[Record] = []
        for line in self.lines():
            if line.record is None:
                break
            records.append(line.record)
        return records

    def checkpoint(self, why_damaged: WhyDamaged, wanted: int | None = None) -> Checkpoint:
        """Where the run goes on from; nothing is changed.

        Args:
            why_damaged: says of a line why a run cannot go on from it, or "".
            wanted: number of the line of a checkpoint; 0: the run begins anew; None: the last checkpoint.

        Raises:
            RunError: a line is damaged and no checkpoint is wanted, since more could be lost than is known; there is
                no checkpoint, but there are branches; or the wanted line holds none. The text names lines.
        """
        kept: list[Line] = []
        damaged: Line | None = None
        for line in self.lines():
            damage = line.damage or why_damaged(line.record or {})
            if not damage:
                kept.append(line)
            elif not line.is_cut_off and damaged is None:
                damaged = Line(line.number, line.content, None, damage)
        found = [line for line in kept if line.kind in _CHECKPOINTS]
        if wanted is None and damaged is not None:
            raise RunError(
                f"{self.journal}: line {damaged.number} is damaged: {damaged.damage}; {_onward(found)}",
                "damaged-journal",
            )
        if wanted is None and not found and self._has_trained():
            raise RunError(
                f"{self.journal}: holds no checkpoint, though branches were trained; {_onward(found)}",
                "damaged-journal",
            )
        if wanted == 0 or not found:
            if wanted:
                raise RunError(f"{self.journal}: line {wanted} is no checkpoint; {_onward(found)}", "damaged-journal")
            return Checkpoint((), None, {})
        chosen = next((line for line in found if line.number == wanted), found[-1] if wanted is None else None)
        if chosen is None:
            places = ", ".join(f"{line.number} (epoch {_epoch(line)})" for line in found[-8:])
            raise RunError(
                f"{self.journal}: line {wanted} is no checkpoint; the last ones are in lines {places}",
                "damaged-journal",
            )
        later = found[found.index(chosen) + 1].number if chosen is not found[-1] else kept[-1].number + 1
        since = (line for line in kept if line.kind == "trained" and chosen.number < line.number < later)
        trained = {event["branch"]: _digests(event) for event in (cast(Measured, line.record) for line in since)}
        upto = tuple(line for line in kept if line.number <= chosen.number)
        return Checkpoint(upto, cast(Resumable, chosen.record), trained)

    def _has_trained(self) -> bool:
        names = (path.name for path in self.branches.iterdir())
        return any(name.endswith(".onnx") and not name.startswith(("0000-", ".")) for name in names)

    def rewind(self, why_damaged: WhyDamaged = lambda event: "", wanted: int | None = None) -> Resumable | None:
        """Cut the journal back to a checkpoint, which is returned; None: there is none, start afresh.

        Unfinished temporary files are removed. Lines that are damaged are, too, where a checkpoint was ``wanted``.

        Raises:
            RunError: as ``checkpoint`` does, or a file cannot be written.
        """
        found = self.checkpoint(why_damaged, wanted)
        try:
            for leftover in (*self.path.glob(f".*{TEMPORARY_SUFFIX}"), *self.branches.glob(f".*{TEMPORARY_SUFFIX}")):
                leftover.unlink()
        except OSError as error:
            raise RunError(
                f"{error.filename or self.path}: cannot be removed: {error.strerror}", "cannot-write"
            ) from error
        self.finished_training = found.trained
        write_bytes(self.journal, b"".join(line.content for line in found.kept), overwrite=True)
        return found.event


def read_own_file(path: Path, most: int | None = None) -> bytes:
    """The content of a file of a run: a regular one, and no link.

    Raises:
        RunError: it is none, cannot be read, or has more bytes than ``most``.
    """
    try:
        _refuse_links(path)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise RunError(f"{path}: {size:,} bytes are more than such a file has", "strange-file")
            return file.read()
    except (OSError, MemoryError) as error:
        raise RunError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'too large'}", "cannot-read"
        ) from error


def _refuse_links(path: Path, *, inside: bool = True) -> None:
    """Raise RunError where ``path``, or anything ``inside`` it, is a link; where there is nothing, nothing is wrong."""
    if path.is_symlink():
        raise RunError(
            f"{path}: is a link; expected {'a folder' if path.is_dir() else 'a file'} of the run's own", "strange-file"
        )
    if inside and path.is_dir():
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink() or entry.is_dir(follow_symlinks=False):
                    _refuse_links(Path(entry.path))


def _digests(event: Measured) -> Digests:
    """Those that the event tells: runs whose optimizer has no state lack one, and a stranger's may lack both."""
    return cast(Digests, {key: event[key] for key in ("digest", "state_digest") if key in event})


def _epoch(checkpoint: Line) -> int:
    return cast(Resumable, checkpoint.record)["epoch"]


def _onward(found: list[Line]) -> str:
    """How a run can go on whose journal is damaged."""
    if not found:
        return "there is no checkpoint to go on from: --from-checkpoint 0 begins anew"
    line, epoch = found[-1].number, _epoch(found[-1])
    return f"the last whole checkpoint is in line {line} (epoch {epoch}): --from-checkpoint {line} goes on from there"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}", "cannot-read") from error


def _rename_to_first_free(folder: Path, names: Iterable[Path]) -> Path:
    """Rename ``folder`` to the first of ``names`` that nothing bears yet; safe against runs started at once."""
    for name in names:
        if not name.exists():
            try:
                return folder.rename(name)  # fails where another run has just taken it: that one is not empty
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
    raise RunError(f"{name}: exists already; choose another --run-dir, or continue it with --resume", "run-exists")
