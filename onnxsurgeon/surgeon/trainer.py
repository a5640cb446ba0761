"""What a worker does: train a branch for a while, measure it, write its file."""

from __future__ import annotations

import time
from dataclasses import dataclass

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.surgeon.branch import TRAINED, Branch, Measurement, digests, read_branch, write_branch
from onnxsurgeon.surgeon.journal import RunDirectory
from onnxsurgeon.surgeon.score import paper_score
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.workers import Workers
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.schedule import BatchSchedule


@dataclass
class Job:
    """Train one branch from one position to another, then measure it.

    Attributes:
        branch: as it was before.
        start: position of the first batch.
        stop: position behind the last one.
        stage: what the measurement is called, RECUPERATED or TRAINED.
        parent_accuracy: what the gain is measured against.
        parent_parameters: what the parameter count is a fraction of.
    """

    branch: Branch
    start: int
    stop: int
    stage: str
    parent_accuracy: float
    parent_parameters: int


@dataclass
class Done:
    """What came of a job.

    Attributes:
        branch: as it is now; unchanged where its weights did not stay finite.
        finite: whether they did.
        steps: batches trained.
        training_seconds: time inside ONNX Runtime's training.
        seconds: time of the whole job.
    """

    branch: Branch
    finite: bool
    steps: int
    training_seconds: float
    seconds: float


@dataclass(frozen=True)
class Trainer:
    """Does jobs; shared by all workers, and never changed by them."""

    run: RunDirectory
    settings: SurgeonSettings
    engine: Engine
    train: Examples
    validation: Examples
    schedule: BatchSchedule
    workers: Workers

    def __call__(self, job: Job) -> Done:
        """Train, measure, write the branch's file."""
        begun = time.perf_counter()
        path = self.run.branches / job.branch.file_name
        # The files of a branch whose training had ended before a kill are worth keeping.
        wanted = self.run.finished_training.get(job.branch.number)
        finished = wanted is not None and path.is_file() and digests(path) == wanted
        if finished and job.stage == TRAINED:
            return Done(read_branch(path), True, job.stop - job.start, 0.0, time.perf_counter() - begun)
        settings = self.settings
        artifacts = path.with_suffix(".artifacts") if self.engine.name == "artifacts" else None
        per_epoch = self.schedule.batches_per_epoch
        spec = settings.spec(settings.epochs, per_epoch, job.start, artifact_directory=artifacts)
        batches = self.workers.interruptible(self.schedule.window(job.start, job.stop))
        trained = self.engine.train(job.branch.network, self.train, batches, spec, job.branch.state)
        finite = trained.network.is_finite and (trained.state is None or trained.state.is_finite)
        branch = job.branch
        if finite:
            metrics = self.engine.evaluate(trained.network, self.validation)
            epoch = job.stop / per_epoch
            measurement = Measurement(job.stop, epoch, job.stage, metrics.accuracy, metrics.loss, trained.rounding)
            fraction = trained.network.parameter_count / job.parent_parameters
            score = paper_score(metrics.accuracy, metrics.accuracy - job.parent_accuracy, fraction)
            branch = branch.measured(trained.network, trained.state, measurement, score)
            if not finished:
                write_branch(branch, self.run.branches)
        return Done(branch, finite, trained.steps, trained.seconds, time.perf_counter() - begun)
