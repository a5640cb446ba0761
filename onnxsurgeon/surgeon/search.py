"""What every search shares: its loop from one checkpoint to the next, and when it ends."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.reader import load
from onnxsurgeon.runs import events
from onnxsurgeon.runs.branch import TRAINED, Branch, Measurement, given_file, read_branch, write_branch
from onnxsurgeon.runs.checkpoint import DONE, GROW, CyclePosition, State, checkpoint, restored, resumed
from onnxsurgeon.runs.journal import CHECKPOINTS
from onnxsurgeon.runs.resumption import Resumption, onward, rewind
from onnxsurgeon.surgeon.branching import Branching
from onnxsurgeon.surgeon.clock import Clock
from onnxsurgeon.surgeon.fields import OwnSettings
from onnxsurgeon.surgeon.log import logger, near_chance
from onnxsurgeon.training.standardised import standardisable


@dataclass
class Surgeon(Branching, ABC):
    """One run of a search. Subclasses are registered.

    All of them use the journal's events and a checkpoint's ``State``.

    Attributes besides those of ``Branching``:
        name: its name for ``--search``.
        settings_type: a dataclass of the settings of this search alone; ``own`` is one.
        first_phase: the phase in which a run begins.
        races_made_rows: whether it finds out if rows that were made unasked pay; else it uses only the given ones.
        removes_blocks: whether branches of residual blocks may go where a limit asks for it.
        clock: the clock of a time limit; None: it begins now, and no report follows.
        from_checkpoint: the line of the journal from which to go on; see ``runs.resumption``.
        is_extended: whether the run goes on for longer than it was made for; ``settings`` say how long.
    """

    name: ClassVar[str] = ""
    settings_type: ClassVar[type[OwnSettings]] = OwnSettings
    first_phase: ClassVar[str] = GROW
    races_made_rows: ClassVar[bool] = False
    removes_blocks: ClassVar[bool] = False

    clock: Clock | None = None
    from_checkpoint: int | None = None
    is_extended: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._clock = self.clock or Clock(time.perf_counter())
        self._started = self._clock.begun

    @cached_property
    def own(self) -> Any:
        """The settings of this search alone: a ``settings_type``."""
        return self.settings.of(self.settings_type)

    def evolve(self) -> State:
        """Run from the last checkpoint to the end; return the final state.

        Raises:
            EngineError: training failed, or the given model's weights became NaN.
            RunError: the run directory was changed from outside.
        """
        given = load(given_file(self.run.branches))
        self.context = replace(self.context, free=standardisable(given))
        self.workers.begin(self.context, self.run.path)
        last = rewind(self.run, self.from_checkpoint)
        self._trained = last.trained
        state = self._start() if last.event is None else self._restored(last.event)
        if self.is_extended:
            self.lengthen(state)
            told = events.Extended(event="extended", **self._checkpoint(state), run_epochs=self.settings.epochs)
            self.tell(told)
        while not self._is_over(state):
            branches, epochs = self.advance(state)
            self.decide(state, branches, state.epoch + epochs)
        self.conclude(state)
        self.run.write_best(state.best.file_name)
        return state

    @abstractmethod
    def advance(self, state: State) -> tuple[list[Branch], int]:
        """Train the branches of a checkpoint up to the next one; return those that go on, and the number of epochs."""

    @abstractmethod
    def result(self, state: State) -> Branch:
        """The branch that would be the result if the run ended at this checkpoint."""

    def has_several(self, position: CyclePosition, epoch: int) -> bool:
        """Whether more than one branch can go on from such a checkpoint, which may be a damaged run's."""
        return True

    def require_fit(self, last: Resumption) -> None:
        """Raise RunError where the search cannot go on from that checkpoint."""
        event = last.event
        if event is None or len(event["branches"]) < 2:
            return
        if not self.has_several(CyclePosition(**event.get("search", {})), event["epoch"]):
            *before, line = (line for line in last.kept if line.kind in CHECKPOINTS)
            raise RunError(
                f"{self.run.journal}: line {line.number} is damaged: {len(event['branches'])} branches go on from it, "
                f"where this search has one; {onward(before)}",
                "damaged-journal",
            )

    def sizes(self, given: Branch) -> tuple[int, int]:
        """Parameters of the smallest and the largest network that will be trained, as far as is known before."""
        count = given.network.parameter_count
        return count, count

    def limit(self, given: Branch) -> int | None:
        """Number of parameters that the result may have; None: any number."""
        return None

    def effort(self) -> float:
        """Estimated number of networks of the largest size that are trained for each epoch of the run."""
        return 1.0

    def searching(self, given: Branch) -> float:
        """Seconds that what comes before the first training takes, about, as measured on a part of it; 0: not known."""
        return 0.0

    def conclude(self, state: State) -> None:
        """Do what is left to do when the time, or all epochs, are over."""

    def lengthen(self, state: State) -> None:
        """Let the search go on where it was over, since the run is longer now."""
        if state.search.phase == DONE:
            state.search = replace(state.search, phase=self.first_phase)

    def leading(self, state: State) -> float:
        """The best accuracy so far: --patience counts the checkpoints without a better one."""
        return state.best.accuracy

    def is_allowed(self, branch: Branch) -> bool:
        """Whether a branch is within the limits, where a search has any."""
        return True

    def measured(self, branch: Branch, state: State) -> None:
        """Take notice of a branch of a checkpoint, the given model included, before ``result`` is asked."""

    def _start(self) -> State:
        """Measure the given model, which is branch 0."""
        branch = read_branch(given_file(self.run.branches))
        metrics = self.engine.evaluate(branch.network, self.validation)
        measurement = Measurement(0, 0.0, TRAINED, metrics.accuracy, metrics.loss)
        branch = replace(branch, history=(measurement,))
        state = State(0, [branch], branch, search=CyclePosition(phase=self.first_phase))
        write_branch(branch, self.run.branches)
        self.measured(branch, state)
        self.run.write_best(branch.file_name)  # there is a result from the first checkpoint on
        self.tell(events.Checkpoint(event="started", **self._checkpoint(state)))
        if near_chance(metrics.accuracy, self.train.classes):
            logger.warning("near chance: untrained, or in need of another scale, mean, std or layout")
        return state

    def _restored(self, last: events.Resumable) -> State:
        """Restore the state of a checkpoint; only callbacks are told of it, since the journal has it."""
        state = restored(last, self.run.branches)
        if not self.run.best.exists():  # runs did not always write it at the first checkpoint
            self.run.write_best(state.best.file_name)
        self.announce(resumed(state))
        return state

    def _is_over(self, state: State) -> bool:
        settings = self.settings
        if self.callbacks.stop_asked or state.epoch >= settings.epochs or state.search.phase == DONE:
            return True
        target = settings.target_accuracy
        if target is not None and state.best.accuracy >= target and self.is_allowed(state.best):
            return True
        if settings.time_limit is not None and self.elapsed(state) >= self.deadline:
            return True
        return settings.patience is not None and state.stale >= settings.patience

    @property
    def deadline(self) -> float:
        """Seconds after which nothing more is trained; the rest of a time limit is for the end of the run."""
        limit = self.settings.time_limit
        return math.inf if limit is None else self._clock.deadline(limit)

    def elapsed(self, state: State) -> float:
        """Wall time of the run so far, in seconds, over all resumptions."""
        return state.seconds + time.perf_counter() - self._started

    def decide(self, state: State, branches: list[Branch], epoch: int) -> None:
        """Enter the branches that go on into the state, write best.onnx and the checkpoint."""
        # They are read back from their files, so that a resumed run continues from the very same networks.
        before, is_trained = self.leading(state), epoch > state.epoch
        state.branches = [read_branch(self.run.branches / branch.file_name) for branch in branches]
        state.epoch = epoch
        for branch in state.branches:
            self.measured(branch, state)
        best = self.result(state)
        state.best = best
        state.stale = 0 if self.leading(state) > before else state.stale + is_trained
        self.run.write_best(best.file_name)
        self.tell(events.Checkpoint(event="decided", **self._checkpoint(state)))

    def _checkpoint(self, state: State) -> events.Resumable:
        now = time.perf_counter()
        state.seconds, self._started = state.seconds + now - self._started, now
        return checkpoint(state, self.run.branches)


def size_then_number(branch: Branch) -> tuple[int, int]:
    """The order of equally good branches."""
    return branch.network.parameter_count, branch.number
