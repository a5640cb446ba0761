"""Algorithm 1: train, operate, recuperate, judge, keep (paper, section 3.3)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError, SurgeryError
from onnxsurgeon.recommend import Candidate, propose, select
from onnxsurgeon.surgeon.branch import (
    RECUPERATED,
    START,
    TRAINED,
    Branch,
    Measurement,
    digests,
    read_branch,
    write_branch,
)
from onnxsurgeon.surgeon.callbacks import Callbacks
from onnxsurgeon.surgeon.checkpoint import State, checkpoint, restored, summary
from onnxsurgeon.surgeon.journal import Event, RunDirectory
from onnxsurgeon.surgeon.log import log_event, logger, near_chance
from onnxsurgeon.surgeon.settings import RECUPERATION, SurgeonSettings
from onnxsurgeon.surgeon.spectra import spectra
from onnxsurgeon.surgeon.trainer import Bench, Done, Job
from onnxsurgeon.surgeon.workers import Workers
from onnxsurgeon.surgery import operate
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.schedule import generator


@dataclass
class Surgeon:
    """One run of Algorithm 1.

    Attributes:
        run: its directory.
        settings: every hyperparameter.
        engine: trains and evaluates.
        train: rows to train on.
        validation: rows to choose by.
        workers: where branches are trained side by side.
        callbacks: called with every event that is written to the journal.
    """

    run: RunDirectory
    settings: SurgeonSettings
    engine: Engine
    train: Examples
    validation: Examples
    workers: Workers
    callbacks: Callbacks = field(default_factory=Callbacks)

    def __post_init__(self) -> None:
        workers = self.workers
        self._bench = Bench(
            self.settings,
            self.engine,
            self.train,
            self.validation,
            workers.stop,
            workers.free_threads,
            workers.progress,
        )
        self._started = time.perf_counter()

    @property
    def batches_per_epoch(self) -> int:
        """Number of training steps in an epoch of one branch."""
        return self._bench.schedule.batches_per_epoch

    def evolve(self) -> State:
        """Run from the last checkpoint to the end; return the final state.

        Raises:
            EngineError: training failed, or the given model's weights became NaN.
            RunError: the run directory was changed from outside.
        """
        self.workers.begin(self._bench, self.run.path)
        last = self.run.rewind()
        state = self._start() if last is None else self._restored(last)
        while not self._is_over(state):
            left = self.settings.epochs - state.epoch
            if state.epoch == 0 and self.settings.initial_epochs:
                epochs = min(self.settings.initial_epochs, left)
                branches = self._train_on(state, state.branches, epochs, what="the given model")
            else:
                epochs = min(self.settings.epoch_step, left)
                branches = self._decision_point(state, epochs)
            self._decide(state, branches, state.epoch + epochs)
        self.run.write_best(state.best.file_name)
        return state

    def _start(self) -> State:
        """Measure the given model, which is branch 0."""
        branch = read_branch(self.run.branches / f"0000-{START}.onnx")
        metrics = self.engine.evaluate(branch.network, self.validation)
        measurement = Measurement(0, 0.0, TRAINED, metrics.accuracy, metrics.loss)
        branch = replace(branch, history=(measurement,))
        state = State(0, [branch], branch)
        write_branch(branch, self.run.branches)
        self.run.write_best(branch.file_name)  # there is a result from the first checkpoint on
        self._checkpoint("started", state)
        if near_chance(metrics.accuracy, self.train.classes):
            logger.warning("near chance: untrained, or in need of another scale, mean, std or layout")
        return state

    def _restored(self, last: Event) -> State:
        """The state of a checkpoint, which only callbacks are told of: the journal has it."""
        state = restored(last, self.run.branches)
        if not self.run.best.exists():  # a run of before the first checkpoint came with it
            self.run.write_best(state.best.file_name)
        self.announce(event="resumed", **summary(state))
        return state

    def _is_over(self, state: State) -> bool:
        settings = self.settings
        if self.callbacks.stop_asked or state.epoch >= settings.epochs:
            return True
        if settings.target_accuracy is not None and state.best.accuracy >= settings.target_accuracy:
            return True
        if settings.time_limit is not None and self._elapsed(state) >= settings.time_limit:
            return True
        return settings.patience is not None and state.stale >= settings.patience

    def _elapsed(self, state: State) -> float:
        return state.seconds + time.perf_counter() - self._started

    def _decision_point(self, state: State, epochs: int) -> list[Branch]:
        """Steps 2 to 4 of Algorithm 1: the branches that go on from here, trained to the end of the step."""
        settings = self.settings
        before = max(branch.accuracy for branch in state.branches)
        rest = [
            candidate
            for branch in state.branches
            for candidate in propose(branch.network, settings.thresholds, mode=settings.widen, branch=branch.number)
        ]
        pool: list[Branch] = []
        for draw in range(settings.redraws + 1 if settings.memory else 1):
            rng = generator(settings.seed, "selection", state.epoch, draw)
            chosen = select(settings.selection, rest, rng, n=settings.top_n, random_draw=settings.random_draw)
            if not chosen:
                break
            rest = [candidate for candidate in rest if candidate not in chosen]
            recuperated = self._recuperate(state, chosen, epochs, draw)
            ranked = sorted(recuperated, key=lambda job: (-job.branch.score, _size_then_number(job.branch)))
            kept = ranked[: settings.branches]
            for job in ranked[settings.branches :]:
                self.tell(event="dropped", branch=job.branch.number, reason="score")
            trained = self._finish_step(state, kept, epochs)
            pool += trained
            good = [branch for branch in trained if branch.accuracy >= before or not settings.memory]
            if good:
                return self._keep(good, pool)
        if pool:
            most_accurate = min(pool, key=lambda branch: (-branch.accuracy, _size_then_number(branch)))
            return self._keep([most_accurate], pool)
        return self._train_on(state, state.branches, epochs, what="every branch")

    def _keep(self, kept: list[Branch], pool: Sequence[Branch]) -> list[Branch]:
        for branch in pool:
            if branch not in kept:
                self.tell(event="dropped", branch=branch.number, reason="less accurate than before")
        return kept

    def _recuperate(self, state: State, chosen: Sequence[Candidate], epochs: int, draw: int) -> list[Job]:
        """Perform the surgeries and train each for its few batches; those with NaN weights are dropped."""
        jobs = self._surgeries(state, chosen, epochs, draw)
        return [replace(job, branch=done.branch, start=job.stop) for job, done in self._perform(state, jobs)]

    def _surgeries(self, state: State, chosen: Sequence[Candidate], epochs: int, draw: int) -> Iterator[Job]:
        """The candidates' jobs; while one is being trained, the next surgery is performed."""
        parents = {branch.number: branch for branch in state.branches}
        start, stop = self._window(state, epochs)
        for candidate in chosen:
            parent = parents[candidate.branch]
            number, state.next_number = state.next_number, state.next_number + 1
            self.tell(
                event="proposed",
                branch=number,
                parent=parent.number,
                surgery=str(candidate),
                score=candidate.score,
                parameters=candidate.parameters,
                reason=candidate.reason,
                epoch=state.epoch,
                draw=draw,
            )
            try:
                branch = self._operate(parent, candidate, number, state.epoch)
            except SurgeryError as error:
                self.tell(event="dropped", branch=number, reason=str(error))
                continue
            batches = self.settings.recuperation_batches * RECUPERATION[candidate.operation]
            until = min(start + batches, stop)
            yield Job(branch, start, until, RECUPERATED, parent.accuracy, parent.network.parameter_count)

    def _operate(self, parent: Branch, candidate: Candidate, number: int, epoch: int) -> Branch:
        network, lineage, state = parent.network, parent.lineage, parent.state
        if candidate.surgery is not None:
            rng = generator(self.settings.seed, "surgery", epoch, number)
            operated = operate(network, candidate.surgery, rng)
            self.tell(event="operated", branch=number, **spectra(network, candidate.surgery, operated.network))
            if state is not None:
                state = state.mapped(network, operated.carry)
            # A branch is what its file holds, wherever it is trained.
            network, _ = operated.network.as_stored()
            lineage = (*lineage, str(candidate))
        return Branch(number, parent.number, str(candidate), network, lineage, parent.history, state=state)

    def _finish_step(self, state: State, kept: Sequence[Job], epochs: int) -> list[Branch]:
        """Train recuperated branches to the end of the epoch step."""
        _, stop = self._window(state, epochs)
        jobs = [replace(job, stop=stop, stage=TRAINED) for job in kept]
        return [done.branch for _, done in self._perform(state, jobs)]

    def _train_on(self, state: State, branches: Sequence[Branch], epochs: int, *, what: str) -> list[Branch]:
        """Train branches for a whole step without surgery, each under a new number."""
        start, stop = self._window(state, epochs)
        jobs = []
        for branch in branches:
            number, state.next_number = state.next_number, state.next_number + 1
            same = replace(branch, number=number, parent=branch.number, surgery="identity", score=0.0)
            jobs.append(Job(same, start, stop, TRAINED, branch.accuracy, branch.network.parameter_count))
        trained = [done.branch for _, done in self._perform(state, jobs)]
        if not trained:
            raise EngineError(
                f"training diverged: the weights of {what} became NaN or infinite; try a smaller --learning-rate"
            )
        return trained

    def _window(self, state: State, epochs: int) -> tuple[int, int]:
        per_epoch = self.batches_per_epoch
        return state.epoch * per_epoch, (state.epoch + epochs) * per_epoch

    def _perform(self, state: State, jobs: Iterable[Job]) -> list[tuple[Job, Done]]:
        """Do the jobs side by side; those that end with finite weights, in the order given."""
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
                self.tell(event="dropped", branch=branch.number, reason="its weights became NaN or infinite")
                continue
            survivors.append((job, each))
            self.tell(
                event=job.stage,
                branch=branch.number,
                parent=branch.parent,
                surgery=branch.surgery,
                topology=branch.network.topology,
                parameters=branch.network.parameter_count,
                epoch=branch.history[-1].epoch,
                accuracy=branch.accuracy,
                gain=branch.accuracy - job.parent_accuracy,
                loss=branch.history[-1].loss,
                score=branch.score,
                **digests(self.run.branches / branch.file_name),
            )
        return survivors

    def _train(self, jobs: Iterable[Job]) -> list[tuple[Job, Done]]:
        """What comes of each job; a branch whose training had ended before a kill is read from its file."""
        every: list[Job] = []
        found: dict[int, Done] = {}

        def unfinished() -> Iterator[Job]:
            for job in jobs:
                every.append(job)
                path = self.run.branches / job.branch.file_name
                wanted = self.run.finished_training.get(job.branch.number)
                finished = wanted is not None and path.is_file() and digests(path) == wanted
                if finished and job.stage == TRAINED:
                    found[job.branch.number] = Done(read_branch(path), True, job.stop - job.start, 0.0, 0.0)
                else:
                    yield replace(job, keep_file=finished)

        found.update((done.branch.number, done) for done in self.workers.perform(unfinished()))
        return [(job, found[job.branch.number]) for job in every]

    def _decide(self, state: State, branches: list[Branch], epoch: int) -> None:
        """Enter the branches that go on into the state, write best.onnx and the checkpoint."""
        # They come back from their files, so that a resumed run continues from the very same networks.
        state.branches = [read_branch(self.run.branches / branch.file_name) for branch in branches]
        state.epoch = epoch
        if self.settings.result == "most-accurate":
            contenders = [state.best, *state.branches]
            best = min(contenders, key=lambda branch: (-branch.accuracy, _size_then_number(branch)))
        else:
            best = min(state.branches, key=lambda branch: (-branch.score, _size_then_number(branch)))
        state.stale = 0 if best.accuracy > state.best.accuracy else state.stale + 1
        state.best = best
        self.run.write_best(best.file_name)
        self._checkpoint("decided", state)

    def _checkpoint(self, event: str, state: State) -> None:
        now = time.perf_counter()
        state.seconds, self._started = state.seconds + now - self._started, now
        self.tell(event=event, **checkpoint(state, self.run.branches))

    def tell(self, **event: object) -> None:
        """Write an event to the journal and pass it to the callbacks."""
        self.run.append(event)
        self.announce(**event)

    def announce(self, **event: object) -> None:
        """Pass an event to the log and the callbacks only."""
        log_event(event)
        self.callbacks(event)


def _size_then_number(branch: Branch) -> tuple[int, int]:
    return branch.network.parameter_count, branch.number


__all__ = ["State", "Surgeon"]
