"""How far the branches that are being trained have come.

Written by the workers and read by whoever shows it, from any thread. It is no part of a run: nothing of it is in the
journal, and nothing that is decided depends on it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgeon.jobs import Job

# Steps that an engine is given at a time: about as often it is known how far it is, and can be stopped. One run of the
# loop costs some 0.1 ms besides its steps, of which the fastest take 30 µs.
PIECE = 1024


@dataclass(frozen=True)
class ActiveJob:
    """A branch that waits for a worker or is being trained.

    Attributes:
        branch: its number.
        stage: what it will be when that is done, RECUPERATED or TRAINED.
        surgery: what made it.
        topology: as of ``Network.topology``.
        parameters: how many it has.
        start: position of the first batch.
        stop: position behind the last one.
        done: batches of these that are trained; on a cluster 0 until all are.
        ended: whether all are trained, and the branch waits for others to be.
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
    """Counts training steps while they are done. May be used from several threads."""

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
        """The branches that are trained side by side, those that wait and those that have ended included."""
        with self._lock:
            return list(self._underway.values())

    def begin(self) -> None:
        """Start a new round: earlier jobs count as done."""
        with self._lock:
            self._before += sum(each.done for each in self._underway.values())
            self._underway.clear()

    def expect(self, job: Job) -> None:
        """A job is given to a worker."""
        branch, network = job.branch, job.branch.network
        each = ActiveJob(
            branch.number, job.stage, branch.surgery, network.topology, network.parameter_count, job.start, job.stop
        )
        with self._lock:
            self._underway[branch.number] = each

    def advance(self, branch: int, steps: int) -> None:
        """``steps`` more batches of the branch are trained; of one that is not expected, nothing is known."""
        with self._lock:
            each = self._underway.get(branch)
            if each is not None:
                self._underway[branch] = replace(each, done=min(each.done + steps, each.steps))

    def end(self, branch: int) -> None:
        """All batches of the branch are trained. Calling it again has no effect."""
        with self._lock:
            each = self._underway.get(branch)
            if each is not None:
                self._underway[branch] = replace(each, done=each.steps, ended=True)

    def counted(self, branch: int, batches: Iterable[Array]) -> Iterator[Array]:
        """The batches, arrays (steps, batch), in pieces; each piece counts when the next one is asked for."""
        for array in batches:
            for first in range(0, len(array), PIECE):
                piece = array[first : first + PIECE]
                yield piece
                self.advance(branch, len(piece))
