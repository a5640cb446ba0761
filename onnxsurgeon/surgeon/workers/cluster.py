"""Branches trained on a Dask cluster, through its executor."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import socket
import tempfile
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, Security, rpc
from distributed.comm import get_address_host_port

from onnxsurgeon.errors import EngineError, SettingsError
from onnxsurgeon.runs.branch import read_branch, write_branch
from onnxsurgeon.runs.versions import versions
from onnxsurgeon.runtime import first_line
from onnxsurgeon.surgeon.jobs import Job, JobResult
from onnxsurgeon.surgeon.trainer import TrainingContext
from onnxsurgeon.surgeon.workers.base import Workers
from onnxsurgeon.surgeon.workers.host import Packed, WorkerHost, do_on_host, pack, require_versions, unpack_files

CONNECT_SECONDS = 10.0
# A run gives up after this many seconds without any worker, as while a cluster restarts them.
ABSENCE_SECONDS = 60.0
POLL_SECONDS = 1.0
_ADDRESS = re.compile(r"(dask|tls)://([^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})/?")
_PROTOCOLS = {"dask": "tcp", "tls": "tls"}


def scheduler_address(text: str) -> str:
    """Dask's own address for dask://HOST:PORT, or for tls://HOST:PORT, whose certificates are Dask's configuration.

    Raises:
        SettingsError: it is none of these.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 2**16:
        raise SettingsError(f"workers: '{text}' is no address such as dask://host:8786", "workers-address")
    return f"{_PROTOCOLS[match[1]]}://{match[2]}:{match[3]}"


def _require_scheduler(address: str) -> None:
    """Check that a scheduler answers, since ``Client`` itself would wait without end for another program that listens.

    Raises:
        Exception: no such host, nobody listens, or it is no scheduler.
    """
    host, port = get_address_host_port(address)

    async def ask() -> None:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            await asyncio.wait_for(scheduler.identity(), CONNECT_SECONDS)

    socket.create_connection((host, port), CONNECT_SECONDS).close()  # fails at once, and says why
    with ThreadPoolExecutor(1) as thread:  # where a notebook calls, this one has an event loop of its own
        thread.submit(asyncio.run, ask()).result()


class Cluster(Workers):
    """The workers of a Dask scheduler. Only the coordinator, this process, writes the run directory."""

    def __init__(self, text: str) -> None:
        """Connect to the cluster at dask://HOST:PORT.

        Raises:
            SettingsError: that is no address.
            EngineError: nothing answers there, there is no worker, or one has other versions.
        """
        super().__init__()
        self.cluster, address = text, scheduler_address(text)
        self._name = ""
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # errors are raised
        try:
            _require_scheduler(address)
            self._client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="onnxsurgeon")
        except TimeoutError as error:
            raise EngineError(
                f"no Dask scheduler answers at {text} within {CONNECT_SECONDS:.0f} seconds", "no-scheduler"
            ) from error
        except Exception as error:  # OSError where nothing listens; any error where another program does
            reason = getattr(error, "strerror", None) or first_line(error)
            raise EngineError(f"no Dask scheduler answers at {text}: {reason}", "no-scheduler") from error
        try:
            self.count = self._checked()
        except BaseException:
            self.close()
            raise

    def _checked(self) -> int:
        """The number of the workers' threads, after a check that their versions are ours."""
        try:
            threads = self._client.nthreads()
            found = self._client.run(versions, on_error="return")
        except (OSError, RuntimeError) as error:
            raise EngineError(
                f"{self.cluster}: the workers cannot be asked: {first_line(error)}", "workers-lost"
            ) from error
        if not found:
            raise EngineError(
                f"the Dask cluster at {self.cluster} has no workers: start some with 'dask worker'", "unlike-workers"
            )
        for address, answer in found.items():
            if isinstance(answer, Exception):
                raise EngineError(f"worker {address} cannot import onnxsurgeon: {first_line(answer)}", "unlike-workers")
            require_versions(address, answer, versions())
        return sum(threads.values())

    def begin(self, context: TrainingContext, run: Path) -> None:
        """Place the data set on every worker.

        Raises:
            EngineError: a worker cannot hold it, or cannot run the engine.
        """
        self._folder = run / "branches"
        # The same name for the same run: a resumed run replaces what a kill has left on the workers.
        place = f"{socket.gethostname()}:{run.resolve()}"
        self._name = f"onnxsurgeon-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        host = WorkerHost(
            self._name,
            context.settings,
            context.engine.name,
            context.engine.device,
            context.train,
            context.validation,
            versions(),
            context.given_rows,
            context.free,
            context.manner,
        )
        try:
            self._client.register_plugin(host, name=self._name)
        except EngineError:
            raise
        except Exception as error:  # whatever a worker or the connection raised
            raise EngineError(
                f"the data set cannot be placed on {self.cluster}: {first_line(error)}", "workers-lost"
            ) from error
        # No retries: a job fails for its own reasons, and would fail again. Where its worker dies, Dask starts it anew.
        self._executor = self._client.get_executor(pure=False, resources={self._name: 1})

    def submit(self, job: Job) -> Future[Packed]:
        """Send one job."""
        with tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder:
            packed = pack(job, Path(folder))
        # Models are sent with the jobs on purpose: a scattered one is lost with the worker that holds it.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            future: Future[Packed] = self._executor.submit(do_on_host, self._name, packed)
        return future

    def receive(self, job: Job, future: Future[Packed]) -> JobResult:
        """Wait for a job and write its branch's file.

        Raises:
            EngineError: the cluster is gone, or the job ended one worker after the other.
        """
        try:
            packed = self._result(future)
        except KilledWorker as error:
            raise EngineError(
                f"{self.cluster}: branch {job.branch.number} ended several workers, perhaps for want of memory; "
                "continue with --resume",
                "workers-lost",
            ) from error
        except CancelledError as error:
            raise self._lost("the connection to the scheduler was lost") from error
        with tempfile.TemporaryDirectory(prefix="onnxsurgeon-", ignore_cleanup_errors=True) as temporary:
            unpack_files(packed.files, Path(temporary))
            done = JobResult(branch=read_branch(Path(temporary) / packed.file_name), **packed.rest)
        if done.finite and not job.keep_file:
            unpack_files({name: packed.files[name] for name in packed.files if "/" in name}, self._folder)
            write_branch(done.branch, self._folder)
        return done

    def _result(self, future: Future[Packed]) -> Packed:
        """The future's result, unless there is no worker for a long time."""
        seen = time.monotonic()
        while not wait([future], timeout=POLL_SECONDS).done:
            if self._has_workers():
                seen = time.monotonic()
            elif time.monotonic() - seen > ABSENCE_SECONDS:
                raise self._lost(f"no worker for {ABSENCE_SECONDS:.0f} seconds")
        return future.result()

    def _has_workers(self) -> bool:
        """Whether any worker is ready for our jobs."""
        try:
            workers: dict[str, Any] = self._client.scheduler_info()["workers"]
        except (OSError, RuntimeError):
            return False
        return any(self._name in worker["resources"] for worker in workers.values())

    def _lost(self, what: str) -> EngineError:
        return EngineError(
            f"{self.cluster}: {what}; continue with: onnxsurgeon evolve --resume {self._folder.parent}", "workers-lost"
        )

    def close(self) -> None:
        """Free the workers from the data set, which ends jobs that still run, and disconnect."""
        if self._client.status == "running" and self._name:
            try:
                self._client.unregister_worker_plugin(self._name)
            except Exception:  # the cluster may be half gone; a remaining worker drops it at the next run
                logging.getLogger(__name__).info("%s: the data set could not be removed", self.cluster)
            self._name = ""
        self._client.close(timeout=CONNECT_SECONDS)
