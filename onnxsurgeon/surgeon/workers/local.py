"""Branches trained in threads of this process."""

from __future__ import annotations

import contextvars
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.runs.branch import write_branch
from onnxsurgeon.runtime import usable_cores
from onnxsurgeon.surgeon.jobs import Job, JobResult
from onnxsurgeon.surgeon.trainer import TrainingContext, train_branch
from onnxsurgeon.surgeon.workers.base import Workers


class LocalWorkers(Workers):
    """Threads of this process.

    ONNX Runtime's ``run`` releases Python's lock, so a session in each trains in parallel.
    """

    def __init__(self, count: int | None = None) -> None:
        """``count`` threads; None: one for each processor.

        Raises:
            SettingsError: the count is below 1.
        """
        super().__init__()
        if count is not None and count < 1:
            raise SettingsError(f"workers: {count} is too small: expected at least 1", "senseless-value")
        self.count = count if count is not None else usable_cores()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="onnxsurgeon")
        self._futures: list[Future[JobResult]] = []

    def begin(self, context: TrainingContext, run: Path) -> None:
        """Remember the tools of the jobs."""
        self._context, self._folder = context, run / "branches"

    def submit(self, job: Job) -> Future[JobResult]:
        """Start one job in a thread."""
        # A thread starts without the caller's context, in which bounds may be lifted.
        future = self._pool.submit(contextvars.copy_context().run, self._do, job)
        self._futures = [*(each for each in self._futures if not each.done()), future]
        return future

    def _do(self, job: Job) -> JobResult:
        done = train_branch(job, self._context, self._folder)
        if done.finite and not job.keep_file:
            write_branch(done.branch, self._folder)
        return done

    def receive(self, job: Job, future: Future[JobResult]) -> JobResult:
        """Return the result as it is, since the thread has written the file."""
        return future.result()

    def free_threads(self) -> int:
        """The cores, shared out between as many jobs as are left to run side by side."""
        left = sum(not future.done() for future in self._futures)
        return max(1, usable_cores() // max(1, min(left, self.count)))

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)
