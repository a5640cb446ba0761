"""A search that trains in cycles, measures how long an epoch takes, and knows what there is time for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from onnxsurgeon.runs.branch import TRAINED, Branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.cycles import Pace
from onnxsurgeon.surgeon.jobs import Job, JobResult
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.trainer import train_branch

SEGMENT = 5  # epochs between two checkpoints of a cycle
PROBE = 64  # training steps by which the pace is measured


class PacedSearch(Surgeon):
    """A search in cycles of the learning rate, which knows its pace.

    Attributes:
        pace: how fast networks are trained.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pace = Pace()
        self._mark: tuple[int, float] | None = None  # epoch and seconds when the last part of a cycle began

    def train_all(self, state: State, jobs: Iterable[Job]) -> list[tuple[Job, JobResult]]:
        """Do the jobs as every search does; a job that is done alone gives the pace."""
        performed = super().train_all(state, jobs)
        if len(performed) == 1:
            ((job, done),) = performed
            epochs = done.steps / self.batches_per_epoch
            self.pace.note(job.branch.network.parameter_count, epochs, done.seconds)
        return performed

    def probe(self, state: State) -> bool:
        """Where time is limited, measure the pace before anything is trained, by some steps on a copy.

        Returns:
            Whether there is time for an epoch.
        """
        if self.settings.time_limit is None or self.pace.is_known:
            return True
        branch, (start, _) = state.branches[0], self.window(state, 0)
        steps = min(PROBE, self.batches_per_epoch)
        parameters = branch.network.parameter_count
        job = Job(
            branch,
            start,
            start + steps,
            TRAINED,
            branch.accuracy,
            parameters,
            is_trained=self.is_trained,
            uses_made=False,
        )
        done = self.tried(job)
        self.pace.note(parameters, done.steps / self.batches_per_epoch, done.training_seconds)
        return self.has_epoch(state)

    def tried(self, job: Job) -> JobResult:
        """The result of a job that is done here and now, on a copy that nobody keeps."""
        with tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder:
            return train_branch(job, self.context, Path(folder))

    def _is_over(self, state: State) -> bool:
        return super()._is_over(state) or not self.has_epoch(state)

    def has_epoch(self, state: State) -> bool:
        """Whether there is time to train for another epoch, or no telling yet."""
        if self.settings.time_limit is None:
            return True
        seconds = max(0.0, self.deadline - self.elapsed(state)) / self._turns(state)
        return self.pace.epochs(state.branches[0].network.parameter_count, seconds) >= 1

    def left(self, state: State) -> int:
        """Number of epochs that the network is still trained: those of the run, or fewer in the time that is left."""
        settings, parameters = self.settings, state.branches[0].network.parameter_count
        left = settings.epochs - state.epoch
        if settings.time_limit is None:
            return left
        seconds = max(0.0, self.deadline - self.elapsed(state)) / self._turns(state)
        return max(1, int(min(left, self.pace.epochs(parameters, seconds))))

    def look_back(self, state: State, share: float = 1.0) -> None:
        """Note the pace of the last part of a cycle with its checkpoint; keep within ``share`` of the time."""
        search, branch = state.search, state.branches[0]
        now, parameters = self.elapsed(state), branch.network.parameter_count
        if self._mark is not None:
            epoch, seconds = self._mark
            self.pace.note(parameters, state.epoch - epoch, (now - seconds) / self._turns(state))
        self._mark = (state.epoch, now)
        if self.settings.time_limit is None or state.epoch >= search.end:
            return
        seconds = (share * self.deadline - now) / self._turns(state)
        left = max(1, int(min(search.end, self.pace.epochs(parameters, seconds))))
        state.search = replace(search, end=min(search.end, state.epoch + left))

    def _turns(self, state: State) -> int:
        """Number of networks that each worker trains one after the other."""
        return -(-len(state.branches) // self.workers.count)

    def cycle(self, state: State) -> tuple[int, int]:
        """Positions where the learning rate's course begins and ends."""
        per_epoch = self.batches_per_epoch
        return state.search.begin * per_epoch, state.search.end * per_epoch

    def go_on(self, state: State) -> tuple[list[Branch], int]:
        """Train the next part of a cycle."""
        epochs = min(SEGMENT, state.search.end - state.epoch)
        return self.train_on(state, state.branches, epochs, what="the network", cycle=self.cycle(state)), epochs
