"""How branches are made by surgery and trained side by side, and how each step is told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.sampling import SAMPLE, sample_rows
from onnxsurgeon.errors import DivergedError, SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.operating.perform import moments_for
from onnxsurgeon.randomness import generator
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.runs import events
from onnxsurgeon.runs.branch import RECUPERATED, TRAINED, Branch, digests, read_branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.callbacks import Callbacks
from onnxsurgeon.surgeon.jobs import Job, JobResult, Manner
from onnxsurgeon.surgeon.log import SCORE, log_event
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.spectra import spectra
from onnxsurgeon.surgeon.trainer import TrainingContext
from onnxsurgeon.surgeon.workers import Workers
from onnxsurgeon.surgery import Operated, Surgery, operate, spell
from onnxsurgeon.training.engine import Engine


@dataclass
class Branching:
    """Makes branches, has them trained and tells of it, for a search that decides which.

    Attributes:
        manner: how branches are trained and scored.
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
    """

    manner: ClassVar[Manner] = Manner()

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
        self._trained: dict[int, events.Digests] = {}  # by a process that was killed, since the checkpoint

    @property
    def batches_per_epoch(self) -> int:
        """Number of training steps in an epoch of one branch."""
        return self.context.schedule.batches_per_epoch

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
        number = state.new_number()
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

    def heed(self, operated: Operated) -> None:
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
            number = state.new_number()
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

    def tell(self, event: events.JournalEvent) -> None:
        """Write an event to the journal and pass it to the callbacks."""
        self.run.append(event)
        self.announce(event)

    def announce(self, event: events.Event) -> None:
        """Pass an event to the log and the callbacks only."""
        log_event(event)
        self.callbacks(event)
