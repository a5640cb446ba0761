"""The work of a worker, wherever it runs: train a branch for a while and measure it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxsurgeon.data.examples import Examples, together
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator
from onnxsurgeon.runs.branch import Measurement
from onnxsurgeon.surgeon.jobs import Job, JobResult, Manner
from onnxsurgeon.surgeon.progress import TrainingProgress
from onnxsurgeon.surgeon.score import paper_score
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.task import SQUARED
from onnxsurgeon.training.dropout import masked_maps
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.rates import RateSchedule
from onnxsurgeon.training.schedule import BatchSchedule
from onnxsurgeon.training.standardised import Standardised
from onnxsurgeon.training.threads import one_thread

# Batches of runs that imitate numbers under a time limit have this many times the rows: a step on twice the rows takes
# less than twice as long, and without noise in the targets little is lost by fewer steps an epoch.
MORE_IMITATED = 2


class Cancelled(Exception):  # noqa: N818 - a signal between threads, not an error
    """Another branch failed, or the user interrupted: stop training."""


@dataclass(frozen=True)
class TrainingContext:
    """The tools of all jobs of a run; the threads of a process share it and never change it.

    Attributes:
        settings: every hyperparameter.
        engine: trains and evaluates.
        train: rows to train on.
        validation: rows to measure on.
        stop: set where jobs have to end at once, by ``Cancelled``.
        free_threads: returns how many threads each running job may take.
        progress: is told the progress of each job.
        given_rows: number of the training rows, the first ones, that were given and not made; None: all. An epoch has
            as many batches as these make, whatever is trained on.
        free: what may be standardised, by the network with which the run began; see ``standardised.standardisable``.
        manner: how the search has its branches trained.
    """

    settings: SurgeonSettings
    engine: Engine
    train: Examples
    validation: Examples
    stop: threading.Event
    free_threads: Callable[[], int] = one_thread
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    given_rows: int | None = None
    free: tuple[frozenset[str], frozenset[str]] | None = None
    manner: Manner = field(default_factory=Manner)
    _standardised: dict[bool, Standardised] = field(default_factory=dict)

    @cached_property
    def whole(self) -> Examples:
        """All rows, including those to measure on."""
        return together(self.train, self.validation)

    @cached_property
    def schedule(self) -> BatchSchedule:
        """The order of the batches of the given rows."""
        return self._schedule_of(self.given_rows or self.train.rows)

    @cached_property
    def made_schedule(self) -> BatchSchedule:
        """The order of the batches of given and made rows together."""
        given = self.schedule
        return BatchSchedule(self.train.rows, given.batch_size, self.settings.seed)

    @cached_property
    def whole_schedule(self) -> BatchSchedule:
        """The order of the batches of all rows."""
        self.schedule.forget()  # from now on mostly all rows are trained on
        return self._schedule_of(self.whole.rows)

    def forget_orders(self) -> None:
        """Free the orders of rows, each of which takes four or eight bytes a row: nothing is trained any more."""
        for name in ("schedule", "made_schedule", "whole_schedule"):
            if name in self.__dict__:
                getattr(self, name).forget()

    def _schedule_of(self, rows: int) -> BatchSchedule:
        times = MORE_IMITATED if self._is_imitation_by_the_clock else 1
        return BatchSchedule(rows, self.settings.batch_rows(max(rows, self.train.rows), times), self.settings.seed)

    @property
    def _is_imitation_by_the_clock(self) -> bool:
        """Whether a teacher's numbers are learnt, which have no noise, and time counts instead of epochs."""
        tasks = self.train.tasks
        return self.settings.time_limit is not None and all(task.imitates and task.loss == SQUARED for task in tasks)

    def standardised(self, network: Network, *, whole: bool = False) -> Standardised:
        """The rows in the form in which the network is trained; all networks of a run have the same inputs."""
        found = self._standardised.get(whole)
        if found is not None:
            return found
        if whole:
            before = self.standardised(network)
            found = before.on(self.whole)
            before.examples.forget_targets()  # from now on mostly all rows are trained on
        elif self.settings.standardise and self.manner.standardises:
            found = Standardised.of(network, self.train, self.settings.seed, self.free)
        else:
            found = Standardised.none(network, self.train)
        return self._standardised.setdefault(whole, found)

    def dropouts(self, network: Network) -> dict[str, Any]:
        """Dropouts of a network, as fields of a ``TrainingSpec``.

        Unasked, inputs are left out only where they are pixels and standardised. A standardised input that is left out
        has its mean, where the 0 of a column of years would be an outlier; and a pixel's neighbours carry much of its
        information, which the other columns of a table do not.
        """
        settings = self.settings
        inputs = settings.input_dropout
        if self.standardised(network).are_pixels:
            inputs = max(inputs, settings.standardised_dropout)
        has_maps = bool(masked_maps(network))
        return {
            "dropout": settings.dropout_of(network.parameter_count, self.train.rows, has_maps=has_maps),
            "input_dropout": inputs,
        }

    def batches(self, job: Job) -> Iterator[Array]:
        """Row numbers of the job's batches, as arrays (steps, batch), see ``BatchSchedule.window``."""
        schedule = self.whole_schedule if job.refits else self.made_schedule if job.uses_made else self.schedule
        for piece in self.progress.counted(job.branch.number, schedule.window(job.start, job.stop, job.member)):
            if self.stop.is_set():
                raise Cancelled
            yield piece


def train_branch(job: Job, context: TrainingContext, folder: Path) -> JobResult:
    """Train and measure a branch.

    Files that the engine keeps beside the branch's go to ``folder``; the caller writes the branch's file itself.

    Raises:
        EngineError: training failed.
        Cancelled: ``context.stop`` was set.
    """
    begun = time.perf_counter()
    settings, engine, branch = context.settings, context.engine, job.branch
    artifacts = (folder / branch.file_name).with_suffix(".artifacts") if engine.name == "artifacts" else None
    per_epoch = (context.whole_schedule if job.refits else context.schedule).batches_per_epoch
    others = {
        "artifact_directory": artifacts,
        "threads": context.free_threads,
        "seed": _seed_of(settings.seed, job.member),
        "augment": settings.augment,
    }
    spec = settings.spec(settings.epochs, per_epoch, job.start, **others)
    size = branch.network.parameter_count
    if context.manner.follows_size:
        rate = job.rate * settings.rate_of(size)
        spec = replace(spec, schedule=_course(settings, job.cycle, per_epoch), learning_rate=rate)
    if engine.name == "loop" and not job.is_trained:
        spec = replace(spec, **context.dropouts(branch.network))
    inputs = context.standardised(branch.network, whole=job.refits)
    trained = engine.train(inputs.into(branch.network), inputs.examples, context.batches(job), spec, branch.state)
    network, rounding = inputs.out_of(trained.network).as_stored()
    finite = network.is_finite and (trained.state is None or trained.state.is_finite)
    if finite and job.refits:
        before = replace(branch.history[-1], rounding=max(rounding, trained.rounding))
        branch = branch.measured(network, trained.state, before, branch.score)
    elif finite:
        metrics = engine.evaluate(network, context.validation)
        epoch, rounding = job.stop / per_epoch, max(rounding, trained.rounding)
        measurement = Measurement(job.stop, epoch, job.stage, metrics.accuracy, metrics.loss, rounding)
        score = -metrics.loss
        if context.manner.scores_paper:
            fraction = network.parameter_count / job.parent_parameters
            score = paper_score(metrics.accuracy, metrics.accuracy - job.parent_accuracy, fraction)
        branch = branch.measured(network, trained.state, measurement, score)
    return JobResult(branch, finite, trained.steps, trained.seconds, time.perf_counter() - begun)


def _seed_of(seed: int, member: int) -> int:
    """The seed of a member's dropout."""
    return int(generator(seed, "member", member).integers(2**31)) if member else seed


def _course(settings: SurgeonSettings, cycle: tuple[int, int] | None, per_epoch: int) -> RateSchedule:
    """The learning rate's course in a cycle, at most a quarter of which is warm-up; without a cycle it stays high."""
    warmup = round(settings.warmup * per_epoch)
    if cycle is None:
        return RateSchedule("constant", 0, warmup)
    start, stop = cycle
    warmup = 0 if settings.schedule == "one-cycle" else min(warmup, (stop - start) // 4)
    return RateSchedule(settings.schedule, stop - start, warmup, start)
