"""Algorithm 1: train, operate, recuperate, judge, keep (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from onnxsurgeon.randomness import generator
from onnxsurgeon.recommend import Candidate, propose, select
from onnxsurgeon.runs.branch import RECUPERATED, TRAINED, Branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.fields import OwnSettings
from onnxsurgeon.surgeon.jobs import Job, Manner
from onnxsurgeon.surgeon.own_settings import ALGORITHM_1, Algorithm1Settings
from onnxsurgeon.surgeon.registry import register
from onnxsurgeon.surgeon.search import Surgeon, size_then_number


@register
class Algorithm1(Surgeon):
    """The paper's search: decision points at equal distances, candidates by singular values, judged by eq. 16."""

    name: ClassVar[str] = ALGORITHM_1
    settings_type: ClassVar[type[OwnSettings]] = Algorithm1Settings
    manner: ClassVar[Manner] = Manner(standardises=False, follows_size=False, scores_paper=True)

    def effort(self) -> float:
        """The branches that are kept, times the draws."""
        return float(self.own.branches * (1 + (self.own.redraws if self.own.step_back else 0)))

    def advance(self, state: State) -> tuple[list[Branch], int]:
        """Train the initial epochs, or an epoch step with its decision point."""
        left = self.settings.epochs - state.epoch
        if state.epoch == 0 and self.own.initial_epochs:
            epochs = min(self.own.initial_epochs, left)
            return self.train_on(state, state.branches, epochs, what="the given model"), epochs
        epochs = min(self.own.epoch_step, left)
        return self._decision_point(state, epochs), epochs

    def result(self, state: State) -> Branch:
        """The most accurate branch so far, or the current one with the best score."""
        if self.own.pick == "most-accurate":
            contenders = [state.best, *state.branches]
            return min(contenders, key=lambda branch: (-branch.accuracy, size_then_number(branch)))
        return min(state.branches, key=lambda branch: (-branch.score, size_then_number(branch)))

    def _decision_point(self, state: State, epochs: int) -> list[Branch]:
        """Steps 2 to 4 of Algorithm 1: return the branches that go on from here, trained to the end of the step."""
        settings, own = self.settings, self.own
        before = max(branch.accuracy for branch in state.branches)
        rest = [
            candidate
            for branch in state.branches
            for candidate in propose(branch.network, settings.thresholds, mode=settings.widen, branch=branch.number)
        ]
        pool: list[Branch] = []
        for draw in range(own.redraws + 1 if own.step_back else 1):
            rng = generator(settings.seed, "selection", state.epoch, draw)
            chosen = select(own.selection, rest, rng, n=own.top_n, random_draw=own.random_draw)
            if not chosen:
                break
            rest = [candidate for candidate in rest if candidate not in chosen]
            recuperated = self._recuperate(state, chosen, epochs, draw)
            ranked = sorted(recuperated, key=lambda job: (-job.branch.score, size_then_number(job.branch)))
            kept = ranked[: own.branches]
            for job in ranked[own.branches :]:
                self.drop(job.branch.number)
            trained = self._finish_step(state, kept, epochs)
            pool += trained
            good = [branch for branch in trained if branch.accuracy >= before or not own.step_back]
            if good:
                return self._keep(good, pool)
        if pool:
            most_accurate = min(pool, key=lambda branch: (-branch.accuracy, size_then_number(branch)))
            return self._keep([most_accurate], pool)
        return self.train_on(state, state.branches, epochs, what="every branch")

    def _keep(self, kept: list[Branch], pool: Sequence[Branch]) -> list[Branch]:
        for branch in pool:
            if branch not in kept:
                self.drop(branch.number, "less accurate than before")
        return kept

    def _recuperate(self, state: State, chosen: Sequence[Candidate], epochs: int, draw: int) -> list[Job]:
        """Perform the surgeries and train each for its few batches; branches with NaN weights are dropped."""
        jobs = self._surgeries(state, chosen, epochs, draw)
        return [replace(job, branch=done.branch, start=job.stop) for job, done in self.train_all(state, jobs)]

    def _surgeries(self, state: State, chosen: Sequence[Candidate], epochs: int, draw: int) -> Iterator[Job]:
        """The candidates' jobs; while one is being trained, the next surgery is performed."""
        start, stop = self.window(state, epochs)
        for candidate, parent, branch in self.operated(state, chosen, draw):
            batches = self.own.recuperation_batches * candidate.recuperation
            until = min(start + batches, stop)
            yield Job(branch, start, until, RECUPERATED, parent.accuracy, parent.network.parameter_count)

    def _finish_step(self, state: State, kept: Sequence[Job], epochs: int) -> list[Branch]:
        """Train recuperated branches to the end of the epoch step."""
        _, stop = self.window(state, epochs)
        jobs = [replace(job, stop=stop, stage=TRAINED) for job in kept]
        return [done.branch for _, done in self.train_all(state, jobs)]
