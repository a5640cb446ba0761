"""What every search shares: its loop, its checkpoints, and how branches are operated on and trained side by side.

One file: the class that searches derive from, each of whose steps tells, trains or decides for all of them.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.sampling import SAMPLE, sample_rows
from onnxsurgeon.errors import DivergedError, SettingsError, SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import load
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.operating.perform import moments_for
from onnxsurgeon.randomness import generator
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.runs import events
from onnxsurgeon.runs.branch import (
    RECUPERATED,
    START,
    TRAINED,
    Branch,
    Measurement,
    digests,
    read_branch,
    write_branch,
)
from onnxsurgeon.runs.checkpoint import DONE, GROW, CyclePosition, State, checkpoint, restored, resumed
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.resumption import rewind
from onnxsurgeon.surgeon.callbacks import Callbacks
from onnxsurgeon.surgeon.clock import Clock
from onnxsurgeon.surgeon.fields import OwnSettings
from onnxsurgeon.surgeon.jobs import Job, JobResult, Manner
from onnxsurgeon.surgeon.log import SCORE, log_event, logger, near_chance
from onnxsurgeon.surgeon.own_settings import OWN_SETTINGS
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.spectra import spectra
from onnxsurgeon.surgeon.trainer import TrainingContext
from onnxsurgeon.surgeon.workers import Workers
from onnxsurgeon.surgery import Operated, Surgery, operate, spell
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.standardised import standardisable

SEARCHES: dict[str, type[Surgeon]] = {}
T = TypeVar("T", bound="type[Surgeon]")


def register(kind: T) -> T:
    """Enter a search into the registry under its name; its own settings become options of ``evolve``.

    Raises:
        SettingsError: a setting of its own has the name of another.
    """
    taken = {entry.name: "every search" for entry in fields(SurgeonSettings)}
    for search, settings in OWN_SETTINGS.items():
        taken.update({entry.name: search for entry in fields(settings)} if search != kind.name else {})
    for entry in fields(kind.settings_type) if kind.name not in OWN_SETTINGS else ():
        if entry.name in taken:
            raise SettingsError(
                f"search {kind.name}: its setting '{entry.name}' is one of {taken[entry.name]}", "other-search"
            )
    SEARCHES[kind.name] = kind
    OWN_SETTINGS[kind.name] = kind.settings_type
    return kind


def unregister(name: str) -> None:
    """Take a search out of the registry."""
    del SEARCHES[name], OWN_SETTINGS[name]


@dataclass
class Surgeon(ABC):
    """One run of a search. Subclasses are registered.

    All of them use the journal's events and a checkpoint's ``State``.

    Attributes:
        name: its name for ``--search``.
        settings_type: a dataclass of the settings of this search alone; ``own`` is one.
        manner: how it has its branches trained and scored.
        first_phase: the phase in which a run begins.
        races_made_rows: whether it finds out if rows that were made unasked pay; else it uses only the given ones.
        removes_blocks: whether branches of residual blocks may go where a limit asks for it.
        run: its directory.
        settings: every hyperparameter.
        engine: trains and evaluates.
        train: rows to train on.
        validation: rows to choose by.
        workers: train branches side by side.
        callbacks: called with every event that is written to the journal.
        is_held_out: whether the rows to choose by were held out of the training rows, and not given apart.
        is_trained: whether the given model was trained before.
        given_rows: number of the training rows, the first ones, that were given; the others were made of these.
        clock: the clock of a time limit; None: it begins now, and no report follows.
        from_checkpoint: the line of the journal from which to go on; see ``runs.resumption``.
        is_extended: whether the run goes on for longer than it was made for; ``settings`` say how long.
    """

    name: ClassVar[str] = ""
    settings_type: ClassVar[type[OwnSettings]] = OwnSettings
    manner: ClassVar[Manner] = Manner()
    first_phase: ClassVar[str] = GROW
    races_made_rows: ClassVar[bool] = False
    removes_blocks: ClassVar[bool] = False

    run: RunDirectory
    settings: SurgeonSettings
    engine: Engine
    train: Examples
    validation: Examples
    workers: Workers
    callbacks: Callbacks = field(default_factory=Callbacks)
    is_held_out: bool = False
    is_trained: bool = False
    given_rows: int | None = None
    clock: Clock | None = None
    from_checkpoint: int | None = None
    is_extended: bool = False

    def __post_init__(self) -> None:
        workers = self.workers
        self.context = TrainingContext(
            self.settings,
            self.engine,
            self.train,
            self.validation,
            workers.stop,
            workers.free_threads,
            workers.progress,
            given_rows=self.given_rows,
            manner=self.manner,
        )
        self._clock = self.clock or Clock(time.perf_counter())
        self._started = self._clock.begun
        self._trained: dict[int, events.Digests] = {}  # by a process that was killed, since the checkpoint

    @cached_property
    def own(self) -> Any:
        """The settings of this search alone: a ``settings_type``."""
        return self.settings.of(self.settings_type)

    @property
    def batches_per_epoch(self) -> int:
        """Number of training steps in an epoch of one branch."""
        return self.context.schedule.batches_per_epoch

    def evolve(self) -> State:
        """Run from the last checkpoint to the end; return the final state.

        Raises:
            EngineError: training failed, or the given model's weights became NaN.
            RunError: the run directory was changed from outside.
        """
        given = load(self.run.branches / f"0000-{START}.onnx")
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

    def conclude(self, state: State) -> None:  # noqa: B027 - only some searches have anything left to do
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

    def measured(self, branch: Branch, state: State) -> None:  # noqa: B027 - only some searches keep a front
        """Take notice of a branch of a checkpoint, the given model included, before ``result`` is asked."""

    def _start(self) -> State:
        """Measure the given model, which is branch 0."""
        branch = read_branch(self.run.branches / f"0000-{START}.onnx")
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

    def operated(
        self,
        state: State,
        chosen: Iterable[Candidate],
        draw: int = 0,
        parents: Sequence[Branch] | None = None,
    ) -> Iterator[tuple[Candidate, Branch, Branch]]:
        """Yield candidates with their parents and the branches that they make; impossible ones are dropped.

        ``parents`` are the branches from which they are made, by default those of the state.
        """
        known = {branch.number: branch for branch in (state.branches if parents is None else parents)}
        for candidate in chosen:
            parent = known[candidate.branch]
            what, reason = str(candidate), candidate.reason
            number = self.propose(state, parent, what, candidate.parameters, reason, score=candidate.score, draw=draw)
            try:
                yield candidate, parent, self._operate(parent, candidate, number, state.epoch)
            except SurgeryError as error:
                self.drop(number, str(error))

    def propose(
        self,
        state: State,
        parent: Branch,
        surgery: str,
        parameters: int,
        reason: str,
        *,
        score: float = 1.0,
        draw: int = 0,
    ) -> int:
        """Tell of a surgery that is about to be tried; return the number of the branch that it will make."""
        number, state.next_number = state.next_number, state.next_number + 1
        self.tell(
            events.Proposed(
                event="proposed",
                branch=number,
                parent=parent.number,
                surgery=surgery,
                score=score,
                parameters=parameters,
                reason=reason,
                epoch=state.epoch,
                draw=draw,
            )
        )
        return number

    def _operate(self, parent: Branch, candidate: Candidate, number: int, epoch: int) -> Branch:
        network, lineage, state = parent.network, parent.lineage, parent.state
        for step, surgery in enumerate(candidate.surgeries):
            rng = generator(self.settings.seed, "surgery", epoch, number, *([step] if step else []))
            moments = self.moments_for(surgery, network)
            operated = operate(network, surgery, rng, moments=moments)
            self.heed(operated)
            self.tell(events.Operated(event="operated", branch=number, **spectra(network, surgery, operated.network)))
            if state is not None:
                state = state.mapped(network, operated.carry)
            # A branch has the values of its file, wherever it is trained.
            network, _ = operated.network.as_stored()
            lineage = (*lineage, spell(surgery))
        return Branch(number, parent.number, str(candidate), network, lineage, parent.history, state=state)

    def moments_for(self, surgery: Surgery, network: Network) -> Moments | None:
        """The moments that a surgery needs; None where it needs none."""
        return moments_for(surgery, network, self.train, self.sample)

    def heed(self, operated: Operated) -> None:  # noqa: B027 - most searches have nothing to keep
        """Take notice of a surgery that was done on the way to a branch."""

    def job_options(self, state: State) -> dict[str, Any]:
        """Further fields of every ``Job`` that the search decides."""
        return {}

    @cached_property
    def sample(self) -> Array:
        """Numbers of the training rows from which data-aware surgeries take moments."""
        return sample_rows(self.train, SAMPLE, self.settings.seed, among=self.given_rows)

    @property
    def has_made_rows(self) -> bool:
        """Whether some training rows were made of the given ones."""
        return self.given_rows is not None and self.given_rows < self.train.rows

    def train_on(
        self,
        state: State,
        branches: Sequence[Branch],
        epochs: int,
        *,
        what: str,
        cycle: tuple[int, int] | None = None,
        are_members: bool = False,
    ) -> list[Branch]:
        """Train branches for a whole step without surgery, each under a new number; an ensemble's members apart."""
        start, stop = self.window(state, epochs)
        jobs = []
        for position, branch in enumerate(branches):
            number, state.next_number = state.next_number, state.next_number + 1
            same = replace(branch, number=number, parent=branch.number, surgery="identity", score=0.0)
            parameters, member = branch.network.parameter_count, position if are_members else 0
            others = self.job_options(state)
            jobs.append(Job(same, start, stop, TRAINED, branch.accuracy, parameters, cycle, member, **others))
        trained = [done.branch for _, done in self.train_all(state, jobs)]
        if not trained:
            raise DivergedError(
                f"training diverged: the weights of {what} became NaN or infinite; try a smaller --learning-rate",
                "diverged",
            )
        return trained

    def window(self, state: State, epochs: int) -> tuple[int, int]:
        """Positions of the first batch of the next epochs, and behind the last one."""
        per_epoch = self.batches_per_epoch
        return state.epoch * per_epoch, (state.epoch + epochs) * per_epoch

    def train_all(self, state: State, jobs: Iterable[Job]) -> list[tuple[Job, JobResult]]:
        """Do the jobs side by side; return those that end with finite weights, in the given order."""
        begun = time.perf_counter()
        performed = self._train(jobs)
        wall = time.perf_counter() - begun
        state.steps += sum(done.steps for _, done in performed)
        busy = sum(done.seconds for _, done in performed)
        state.training_seconds += wall * sum(done.training_seconds for _, done in performed) / busy if busy else 0.0
        survivors = []
        for job, each in performed:
            branch = each.branch
            if not each.finite:
                self.drop(branch.number, "its weights became NaN or infinite")
                continue
            survivors.append((job, each))
            self.tell_measured(branch, job.parent_accuracy)
        return survivors

    def tell_measured(self, branch: Branch, parent_accuracy: float) -> None:
        """Tell of a branch's latest measurement; its file is written."""
        latest = branch.history[-1]
        assert branch.parent is not None, "a checkpoint tells of the given model"
        self.tell(
            events.Measured(
                event="recuperated" if latest.stage == RECUPERATED else "trained",
                branch=branch.number,
                parent=branch.parent,
                surgery=branch.surgery,
                topology=branch.network.topology,
                parameters=branch.network.parameter_count,
                epoch=latest.epoch,
                accuracy=latest.accuracy,
                gain=latest.accuracy - parent_accuracy,
                loss=latest.loss,
                score=branch.score,
                **digests(self.run.branches / branch.file_name),
            )
        )

    def drop(self, branch: int, reason: str = SCORE) -> None:
        """Tell that a branch does not go on, by default because others score higher."""
        self.tell(events.Dropped(event="dropped", branch=branch, reason=reason))

    def _train(self, jobs: Iterable[Job]) -> list[tuple[Job, JobResult]]:
        """The results of the jobs; a branch whose training had ended before a kill is read from its file."""
        every: list[Job] = []
        found: dict[int, JobResult] = {}

        def unfinished() -> Iterator[Job]:
            for job in jobs:
                every.append(job)
                path = self.run.branches / job.branch.file_name
                wanted = self._trained.get(job.branch.number)
                finished = wanted is not None and path.is_file() and digests(path) == wanted
                if finished and job.stage == TRAINED:
                    known = read_branch(path)
                    if known.file_name == path.name and known.history:
                        found[job.branch.number] = JobResult(known, True, job.stop - job.start, 0.0, 0.0)
                        continue
                    finished = False
                yield replace(job, keep_file=finished)

        found.update((done.branch.number, done) for done in self.workers.run(unfinished()))
        return [(job, found[job.branch.number]) for job in every]

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

    def tell(self, event: events.JournalEvent) -> None:
        """Write an event to the journal and pass it to the callbacks."""
        self.run.append(event)
        self.announce(event)

    def announce(self, event: events.Event) -> None:
        """Pass an event to the log and the callbacks only."""
        log_event(event)
        self.callbacks(event)


def size_then_number(branch: Branch) -> tuple[int, int]:
    """The order of equally good branches."""
    return branch.network.parameter_count, branch.number


__all__ = ["SEARCHES", "State", "Surgeon", "register", "size_then_number", "unregister"]
