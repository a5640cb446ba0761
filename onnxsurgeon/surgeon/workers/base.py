"""The interface of workers: an executor of jobs."""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnxsurgeon.surgeon.jobs import Job, JobResult
from onnxsurgeon.surgeon.progress import TrainingProgress
from onnxsurgeon.surgeon.trainer import TrainingContext


class Workers(ABC):
    """An executor of jobs. Results come in the order of the jobs, in whatever order these finish.

    Attributes:
        count: number of jobs that are done at a time.
        cluster: the address of the cluster; "" for this machine.
        stop: set where jobs have to end at once.
        progress: is told of every job.
    """

    count: int
    cluster: str = ""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.progress = TrainingProgress()

    @abstractmethod
    def begin(self, context: TrainingContext, run: Path) -> None:
        """Get ready for the jobs of a run, whose branch files go to ``run``/branches."""

    @abstractmethod
    def submit(self, job: Job) -> Future[Any]:
        """Start one job."""

    @abstractmethod
    def receive(self, job: Job, future: Future[Any]) -> JobResult:
        """Wait for a job; return its result, with its branch's file written."""

    def free_threads(self) -> int:
        """The number of threads that each running job may take."""
        return 1

    @abstractmethod
    def close(self) -> None:
        """Wait for jobs that still run, and free everything."""

    def run(self, jobs: Iterable[Job]) -> list[JobResult]:
        """Do the jobs in parallel; the first ones run while later ones are still being made.

        Raises:
            Exception: the error of the first failing job, or of making one; the others are cancelled.
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

    def _received(self, job: Job, future: Future[Any]) -> JobResult:
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
