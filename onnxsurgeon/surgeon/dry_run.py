"""What a run would do, the least size of its result, and its memory and time; nothing is written.

The rows are read, and a copy of the given network is trained for some steps: times are measured on this machine, and
for networks of other sizes they are in proportion, as in ``cycles.Pace``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxsurgeon.data.given import DataSource
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.graph.opening import ModelSource, open_model
from onnxsurgeon.recommend.shrinking import least_count
from onnxsurgeon.runs.branch import START, TRAINED, Branch, Measurement, write_branch
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.beginning import Beginning, begin, make_surgeon
from onnxsurgeon.surgeon.callbacks import Callbacks
from onnxsurgeon.surgeon.clock import Clock
from onnxsurgeon.surgeon.cycles import OVERHEAD
from onnxsurgeon.surgeon.file_size import bytes_as_written
from onnxsurgeon.surgeon.jobs import Job
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.start import least_network, smallest_file
from onnxsurgeon.surgeon.trainer import train_branch
from onnxsurgeon.surgeon.workers import make_workers
from onnxsurgeon.training.standardised import standardisable

WARM_UP, STEPS = 4, 64  # training steps that make sessions, and that are measured
COPIES = 6  # of its parameters, for a network in training: weights, gradients, moments, stored values
_SINGLE = 4  # bytes


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        search: the value of ``--search``.
        start: whether the given network counts as trained, and why.
        rows: rows to train on, without those that would be made.
        deciding_rows: rows to choose by.
        engine: name of the engine.
        device: its device.
        workers: number of networks at a time.
        metric: the metric that decides.
        topology: topology of the given network.
        parameters: number of parameters of the given network.
        size: bytes of its file.
        least_parameters: the fewest parameters that pruning can lead to.
        least_size: estimated bytes of a file with that many.
        limit: number of parameters that the result may have; None: any number.
        largest: estimated parameters of the largest network that would be trained.
        epochs: length of the run.
        epoch_seconds: measured seconds for an epoch of the given network.
        search_seconds: estimated seconds before the first training, for making and measuring networks; 0: not known.
        seconds: least and most estimated seconds of training; a limit on time counts.
        memory: estimated bytes: the most that this process took so far, and further networks; None: not known here.
        notes: notes on model and data.
    """

    search: str
    start: str
    rows: int
    deciding_rows: int
    engine: str
    device: str
    workers: int
    metric: str
    topology: str
    parameters: int
    size: int
    least_parameters: int
    least_size: int
    limit: int | None
    largest: int
    epochs: int
    epoch_seconds: float
    search_seconds: float
    seconds: tuple[float, float]
    memory: int | None
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """All of it for a JSON document."""
        return asdict(self)


def dry_run(
    model: ModelSource,
    data: DataSource,
    *,
    settings: SurgeonSettings | None = None,
    options: InputOptions | None = None,
    freeze: Sequence[str] = (),
    train_only: Sequence[str] = (),
    engine: str = "auto",
    device: str = "cpu",
    target: Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    teacher: str | os.PathLike[str] | None = None,
    workers: int | str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Any = None,
) -> Plan:
    """Plan what ``evolve`` would do with the same arguments; nothing is written, except a named data set's download.

    Raises:
        OnnxSurgeonError: as ``evolve`` does for errors that it finds before it begins.
    """
    settings, clock = settings or SurgeonSettings.from_preset(), Clock(time.perf_counter())
    rows: dict[str, Any] = {"target": tuple(target), "impute": impute, "validation_fraction": validation_fraction}
    with (
        make_workers(workers, None) as pool,
        tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder,
    ):
        options = options or InputOptions()
        network = open_model(model, freeze=freeze, train_only=train_only).network
        found = begin(network, data, settings, options, engine, device, rows, teacher, data_dir, progress)
        given = Branch(0, None, START, found.network)
        metrics = found.engine.evaluate(found.network, found.splits.validation)
        given = replace(given, history=(Measurement(0, 0.0, TRAINED, metrics.accuracy, metrics.loss),))

        def fill(made: RunDirectory) -> None:
            write_branch(given, made.branches)

        run = RunDirectory.create(Path(folder) / "run", "run", fill)
        surgeon = make_surgeon(
            found.kind, run, settings, found.engine, found.splits, pool, Callbacks(()), found.start, clock
        )
        surgeon.context = replace(surgeon.context, free=standardisable(found.network))
        seconds = _epoch_seconds(surgeon, given, Path(folder))
        return _plan(found, surgeon, given, seconds, surgeon.searching(given))


def _epoch_seconds(surgeon: Surgeon, given: Branch, folder: Path) -> float:
    """Seconds of an epoch of the given network, measured over some steps."""
    per_epoch = surgeon.batches_per_epoch
    parameters = given.network.parameter_count
    found = 0.0
    for steps in (WARM_UP, STEPS):
        steps = min(steps, per_epoch)
        job = Job(given, 0, steps, TRAINED, given.accuracy, parameters, is_trained=surgeon.is_trained, uses_made=False)
        done = train_branch(job, surgeon.context, folder)
        found = done.training_seconds / max(done.steps, 1) * per_epoch
    return found


def _plan(found: Beginning, surgeon: Surgeon, given: Branch, seconds: float, before: float) -> Plan:
    network, settings, splits = found.network, surgeon.settings, found.splits
    parameters, barest = network.parameter_count, least_network(network, blocks=found.kind.removes_blocks)
    least = least_count(barest)
    smallest, largest = surgeon.sizes(given)
    pace = settings.epochs * seconds / (parameters + OVERHEAD)
    times = [pace * (smallest + OVERHEAD), pace * (largest + OVERHEAD) * surgeon.effort()]
    if settings.time_limit is not None:
        times, before = [min(each, settings.time_limit) for each in times], min(before, settings.time_limit)
    return Plan(
        found.kind.name,
        f"{'trained' if found.start.is_trained else 'untrained'}: {found.start.reason}",
        splits.given_rows,
        splits.validation.rows,
        found.engine.name,
        found.engine.device,
        surgeon.workers.count,
        splits.train.metric,
        network.topology,
        parameters,
        bytes_as_written(network),
        least,
        smallest_file(barest, least),
        surgeon.limit(given),
        largest,
        settings.epochs,
        seconds,
        before,
        (times[0], times[1]),
        _memory(largest, surgeon.workers.count),
        splits.notes,
    )


def _memory(largest: int, networks: int) -> int | None:
    """The most bytes that this process took so far, plus those of ``networks`` of the largest size in training."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(peak) + COPIES * _SINGLE * largest * networks
