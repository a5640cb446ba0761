"""Where branches are trained side by side: threads of this process, or a Dask cluster."""

from __future__ import annotations

import contextvars
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.runtime import usable_cores
from onnxsurgeon.surgeon.branch import write_branch
from onnxsurgeon.surgeon.progress import TrainingProgress
from onnxsurgeon.surgeon.trainer import Bench, Done, Job, train_branch


class Workers(ABC):
    """An executor of jobs. Results come in the order of the jobs, whatever order they finish in.

    Attributes:
        count: how many jobs are done at a time.
        cluster: the address of the cluster; "" for this machine.
        stop: set where jobs shall end at once.
        progress: told of every job.
    """

    count: int
    cluster: str = ""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.progress = TrainingProgress()

    @abstractmethod
    def begin(self, bench: Bench, run: Path) -> None:
        """Get ready for the jobs of a run, whose branch files go to ``run``/branches."""

    @abstractmethod
    def submit(self, job: Job) -> Future[Any]:
        """Start one job."""

    @abstractmethod
    def receive(self, job: Job, future: Future[Any]) -> Done:
        """Wait for a job; what came of it, its branch's file written."""

    def free_threads(self) -> int:
        """How many threads each job that runs at the moment may take."""
        return 1

    @abstractmethod
    def close(self) -> None:
        """Wait for jobs that run still, and let go of everything."""

    def perform(self, jobs: Iterable[Job]) -> list[Done]:
        """Do the jobs, in parallel, the first while later ones are still being made.

        Raises:
            Exception: what the first failing job, or making one, raised; the others are cancelled.
        """
        started: list[tuple[Job, Future[Any]]] = []
        self.progress.begin()
        try:
            for job in jobs:
                self.progress.expect(job)
                future = self.submit(job)
                started.append((job, future))
                future.add_done_callback(functools.partial(self._ended, job))
            return [self._received(job, future) for job, future in started]
        except BaseException:
            self.stop.set()
            for _, future in started:
                future.cancel()
            raise

    def _received(self, job: Job, future: Future[Any]) -> Done:
        done = self.receive(job, future)
        self.progress.end(job.branch.number)  # a future's callbacks may be late
        return done

    def _ended(self, job: Job, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.progress.end(job.branch.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.stop.set()
        self.close()


class LocalWorkers(Workers):
    """Threads. ONNX Runtime's ``run`` releases Python's lock, so a session in each trains in parallel."""

    def __init__(self, count: int | None = None) -> None:
        """``count`` threads; None: one for each processor.

        Raises:
            SettingsError: the count is below 1.
        """
        super().__init__()
        if count is not None and count < 1:
            raise SettingsError(f"workers: {count} is too small: expected at least 1")
        self.count = count if count is not None else usable_cores()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="onnxsurgeon")
        self._futures: list[Future[Done]] = []

    def begin(self, bench: Bench, run: Path) -> None:
        """Remember what the jobs are done with."""
        self._bench, self._folder = bench, run / "branches"

    def submit(self, job: Job) -> Future[Done]:
        """Start one job in a thread."""
        # A thread starts without the caller's context, in which bounds may be lifted.
        future = self._pool.submit(contextvars.copy_context().run, self._do, job)
        self._futures = [*(each for each in self._futures if not each.done()), future]
        return future

    def _do(self, job: Job) -> Done:
        done = train_branch(job, self._bench, self._folder)
        if done.finite and not job.keep_file:
            write_branch(done.branch, self._folder)
        return done

    def receive(self, job: Job, future: Future[Done]) -> Done:
        """The result as it is: the thread has written the file."""
        return future.result()

    def free_threads(self) -> int:
        """The cores, shared out between as many jobs as are left to run side by side."""
        left = sum(not future.done() for future in self._futures)
        return max(1, usable_cores() // max(1, min(left, self.count)))

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def make_workers(workers: int | str | None = None, progress: TrainingProgress | None = None) -> Workers:
    """The workers that ``--workers`` names: a number of threads, or a cluster; None: a thread for each processor.

    ``progress`` is told of every job.

    Raises:
        SettingsError: it is neither a number from 1 on nor an address.
        EngineError: there is no usable cluster at that address.
    """
    made = _make_workers(workers)
    made.progress = progress or made.progress
    return made


def _make_workers(workers: int | str | None) -> Workers:
    if isinstance(workers, str):
        if "://" in workers:
            try:
                from onnxsurgeon.surgeon.cluster import Cluster
            except ModuleNotFoundError as error:
                if error.name not in ("dask", "distributed"):
                    raise
                raise SettingsError(f"workers: '{workers}' needs Dask: pip install 'onnxsurgeon[dask]'") from error
            return Cluster(workers)
        try:
            workers = int(workers)
        except ValueError as error:
            raise SettingsError(
                f"workers: '{workers}' is neither a number nor an address such as dask://host:8786"
            ) from error
    return LocalWorkers(workers)
