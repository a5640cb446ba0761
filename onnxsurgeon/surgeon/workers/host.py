"""The part of a run that a worker process of a cluster holds, and the transport of jobs: their branches as files.

Worker and coordinator share no file system: a branch's file, and the files beside it under its name, are packed as a
mapping from file name to bytes.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.runs.branch import read_branch, write_branch
from onnxsurgeon.runs.versions import differences, versions
from onnxsurgeon.surgeon.jobs import Job, JobResult, Manner
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.trainer import TrainingContext, train_branch
from onnxsurgeon.training.choose import make_engine


@dataclass(frozen=True)
class Packed:
    """A job or its result on its way.

    Attributes:
        file_name: name of the branch's file.
        files: content of that file and of those that belong to it, by path relative to the folder of branches.
        rest: every field of ``Job`` or ``JobResult`` except the branch.
    """

    file_name: str
    files: dict[str, bytes]
    rest: dict[str, Any]


def pack(item: Job | JobResult, folder: Path) -> Packed:
    """Pack a job or a result; the branch's file is written to ``folder``, which must hold only its own files."""
    write_branch(item.branch, folder)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    rest = {field.name: getattr(item, field.name) for field in fields(item) if field.name != "branch"}
    return Packed(item.branch.file_name, files, rest)


def unpack_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write packed files to ``folder``.

    Raises:
        EngineError: a name leads out of it.
    """
    for name, content in files.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise EngineError(
                f"a worker sent a file called '{name}', which leads out of the folder of branches", "leads-out"
            )
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class WorkerHost(WorkerPlugin):  # type: ignore[misc]
    """The data set, settings and engine of a run on a worker: sent once to each, also to those that join later.

    Workers that have set it up offer a resource of its name, one unit a thread; jobs ask for a unit, and so never reach
    a worker that lacks the data set or has other versions.
    """

    def __init__(
        self,
        name: str,
        settings: SurgeonSettings,
        engine: str,
        device: str,
        train: Examples,
        validation: Examples,
        wanted: dict[str, str],
        given_rows: int | None = None,
        free: tuple[frozenset[str], frozenset[str]] | None = None,
        manner: Manner = Manner(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name
        self._given_rows, self._free, self._manner = given_rows, free, manner
        self._settings, self._engine, self._device = settings, engine, device
        self._train, self._validation = train, _on_sources_of(train, validation)
        self._wanted = wanted
        self._context: TrainingContext | None = None

    async def setup(self, worker: Worker) -> None:
        """Make the engine, whose sessions are kept from job to job, and offer the resource.

        Raises:
            EngineError: the worker has other versions than the coordinator, or cannot run the engine.
        """
        require_versions(worker.address, versions(), self._wanted)
        engine = make_engine(self._engine, self._device)
        self._context = TrainingContext(
            self._settings,
            engine,
            self._train,
            self._validation,
            threading.Event(),
            given_rows=self._given_rows,
            free=self._free,
            manner=self._manner,
        )
        await worker.set_resources(**{self.name: worker.state.nthreads})

    def teardown(self, worker: Worker) -> None:
        """End the jobs that still run, since nobody waits for them."""
        if self._context is not None:
            self._context.stop.set()

    def do(self, packed: Packed) -> Packed:
        """Do a job."""
        assert self._context is not None
        with tempfile.TemporaryDirectory(prefix="onnxsurgeon-", ignore_cleanup_errors=True) as given:
            unpack_files(packed.files, Path(given))
            job = Job(branch=read_branch(Path(given) / packed.file_name), **packed.rest)
            with tempfile.TemporaryDirectory(prefix="onnxsurgeon-", ignore_cleanup_errors=True) as made:
                return pack(train_branch(job, self._context, Path(made)), Path(made))


def _on_sources_of(first: Examples, second: Examples) -> Examples:
    """The second examples, reading the first's arrays where both are the same memory, which then travels once."""
    known = {rows.memory: rows.source for rows in first.stored}
    rows = [replace(rows, source=known.get(rows.memory, rows.source)) for rows in second.stored]
    return second.with_stored(rows)


def require_versions(address: str, found: dict[str, str], wanted: dict[str, str]) -> None:
    """Raise EngineError where the worker's versions are not those of the coordinator, since bytes could differ."""
    if found != wanted:
        raise EngineError(
            f"worker {address} has {', '.join(differences(wanted, found))}; here it is "
            f"{', '.join(differences(found, wanted))}: the result could differ, install the same",
            "unlike-workers",
        )


def do_on_host(name: str, packed: Packed) -> Packed:
    """Do a job at this worker's host of that name."""
    host: WorkerHost = get_worker().plugins[name]
    return host.do(packed)
