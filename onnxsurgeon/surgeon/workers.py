"""Where branches are trained side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.runtime import physical_cores

T = TypeVar("T")
R = TypeVar("R")


class Cancelled(Exception):  # noqa: N818 - a signal between threads, not an error
    """Another branch failed, or the user interrupted: stop training."""


class Workers:
    """A pool of threads. ONNX Runtime's ``run`` releases Python's lock, so a session in each trains in parallel.

    Results come in the order of the jobs, whatever order they finish in.
    """

    def __init__(self, count: int | None = None) -> None:
        """``count`` threads; None: one for each processor.

        Raises:
            SettingsError: the count is below 1.
        """
        if count is not None and count < 1:
            raise SettingsError(f"workers: {count} is too small: expected at least 1")
        self.count = count if count is not None else physical_cores()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="onnxsurgeon")
        self._stop = threading.Event()

    def map(self, function: Callable[[T], R], jobs: Sequence[T]) -> list[R]:
        """function(job) for every job, in parallel.

        Raises:
            Exception: what the first failing job raised; the others are cancelled.
        """
        futures = [self._pool.submit(function, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            self._stop.set()
            for future in futures:
                future.cancel()
            raise

    def interruptible(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, ended by ``Cancelled`` once a job has failed or the user has interrupted."""
        for batch in batches:
            if self._stop.is_set():
                raise Cancelled
            yield batch

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
