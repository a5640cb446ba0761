"""The progress of the branches that are being trained.

The workers write it, and whoever shows it reads it, from any thread. It is no part of a run: nothing of it is in the
journal, and no decision depends on it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgeon.jobs import Job

# Steps that an engine gets at a time; after each piece its progress is known, and it can be stopped. One run of the
# loop costs some 0.1 ms besides its steps, of which the fastest take 30 µs.
PIECE = 1024


@dataclass(frozen=True)
class ActiveJob:
    """A branch that waits for a worker or is being trained.

    Attributes:
        branch: its number.
        stage: its stage when the job is done, RECUPERATED or TRAINED.
        surgery: the surgery that made it.
        topology: as in ``Network.topology``.
        parameters: number of its parameters.
        start: position of the first batch.
        stop: position behind the last one.
        done: batches of these that are trained; on a cluster 0 until all are.
        ended: whether all are trained, and the branch waits for others.
    """

    branch: int
    stage: str
    surgery: str
    topology: str
    parameters: int
    start: int
    stop: int
    done: int = 0
    ended: bool = False

    @property
    def steps(self) -> int:
        """All batches to train."""
        return self.stop - self.start


class TrainingProgress:
    """Counts training steps while they are done. Several threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before = 0
        self._underway: dict[int, ActiveJob] = {}

    @property
    def steps(self) -> int:
        """Steps trained, over all branches, since this was made."""
        with self._lock:
            return self._before + sum(each.done for each in self._underway.values())

    @property
    def underway(self) -> list[ActiveJob]:
        """The branches that are trained side by side, including those that wait and those that have ended."""
        with self._lock:
            return list(self._underway.values())

    def begin(self) -> None:
        """Start a new round: earlier jobs count as done."""
        with self._lock:
            self._before += sum(each.done for each in self._underway.values())
            self._underway.clear()

    def expect(self, job: Job) -> None:
        """Note that a job is given to a worker."""
        branch, network = job.branch, job.branch.network
        each = ActiveJob(
            branch.number, job.stage, branch.surgery, network.topology, network.parameter_count, job.start, job.stop
        )
        with self._lock:
            self._underway[branch.number] = each

    def advance(self, branch: int, steps: int) -> None:
        """Note that ``steps`` more batches of the branch are trained; a branch that is not expected is ignored."""
        with self._lock:
            each = self._underway.get(branch)
            if each is not None:
                self._underway[branch] = replace(each, done=min(each.done + steps, each.steps))

    def end(self, branch: int) -> None:
        """Note that all batches of the branch are trained. Calling it again has no effect."""
        with self._lock:
            each = self._underway.get(branch)
            if each is not None:
                self._underway[branch] = replace(each, done=each.steps, ended=True)

    def counted(self, branch: int, batches: Iterable[Array]) -> Iterator[Array]:
        """Yield the batches, arrays (steps, batch), in pieces; each piece counts when the next one is asked for."""
        for array in batches:
            for first in range(0, len(array), PIECE):
                piece = array[first : first + PIECE]
                yield piece
                self.advance(branch, len(piece))
