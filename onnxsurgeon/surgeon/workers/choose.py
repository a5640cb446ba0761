"""The workers that ``--workers`` names."""

from __future__ import annotations

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.surgeon.progress import TrainingProgress
from onnxsurgeon.surgeon.workers.base import Workers
from onnxsurgeon.surgeon.workers.local import LocalWorkers


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
                from onnxsurgeon.surgeon.workers.cluster import Cluster
            except ModuleNotFoundError as error:
                if error.name not in ("dask", "distributed"):
                    raise
                raise SettingsError(
                    f"workers: '{workers}' needs Dask: pip install 'onnxsurgeon[dask]'", "no-package"
                ) from error
            return Cluster(workers)
        try:
            workers = int(workers)
        except ValueError as error:
            raise SettingsError(
                f"workers: '{workers}' is neither a number nor an address such as dask://host:8786", "workers-address"
            ) from error
    return LocalWorkers(workers)
