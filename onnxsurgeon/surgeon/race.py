"""The race of a trained start: networks, learning rates and rows, each trained for a part of the run, one goes on.

In a run of a few epochs rates alone race, for some steps on copies that nobody keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from onnxsurgeon.runs.branch import TRAINED, Branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.runs.events import Chosen
from onnxsurgeon.surgeon.front_search import FrontSearch
from onnxsurgeon.surgeon.jobs import Job, JobResult

RATES = (1.0, 0.25)  # factors of the learning rate that race; of a run too short for that, the last
SHARE = 1 / 8  # of the epochs left, that a race takes
SHORT = 4  # epochs of a run that has no time for a race of networks
FEWEST_STEPS = 200  # of a race of rates alone: of fewer little can be told
PAYS = 0.95  # times the loss with made rows, below which training on the given ones alone wins: in the end they overfit
RELEARNED = 4.0  # factor of the rate that networks race by too that lack a block: what it did has to be learned again


@dataclass(frozen=True)
class Race:
    """A race of the branches of a state, the one with the least loss first.

    Attributes:
        search: trains, measures and tells of them.
        state: of the run, which is not changed but for the front and the next number.
        left: epochs that are left of the run, or in its time.
    """

    search: FrontSearch
    state: State
    left: int

    def epochs(self) -> int:
        """How many epochs of a race there is time for."""
        search, epochs = self.search, max(1, round(SHARE * self.left))
        if search.settings.time_limit is None:
            return epochs
        turns = -(-len(self._ways()) // search.workers.count)
        seconds = 2 * SHARE * (search.deadline - search.elapsed(self.state)) / turns
        return int(min(epochs, search.pace.epochs(self.state.branches[0].network.parameter_count, seconds)))

    def winner(self, epochs: int) -> tuple[Job, JobResult] | None:
        """The job with the least loss after so many epochs, and its result; None where all training diverged."""
        search, state = self.search, self.state
        start, stop = search.window(state, epochs)
        jobs = []
        for branch, rate, uses_made in self._ways():
            number = state.new_number()
            same = replace(branch, number=number, parent=branch.number, surgery="identity")
            others: dict[str, Any] = {"rate": rate, "uses_made": uses_made and search.has_made_rows, "is_trained": True}
            parameters = branch.network.parameter_count
            jobs.append(Job(same, start, stop, TRAINED, branch.accuracy, parameters, (start, stop), **others))
        trained = search.train_all(state, jobs)
        if not trained:
            return None
        trained.sort(key=lambda pair: (_rank(*pair), pair[1].branch.number))
        for _, loser in trained[1:]:
            search.measured(loser.branch, state)
            search.drop(loser.branch.number)
        job, done = trained[0]
        after = f"{len(trained)} after {epochs} epochs"
        self._tell(done.branch, job.rate, job.uses_made, after, done.branch.history[-1].loss)
        return job, done

    def rate(self) -> float:
        """The factor of the learning rate for a run of a few epochs: where these have steps enough, what wins a race.

        Copies that nobody keeps are trained for a part of an epoch, down to a rate of 0.
        """
        search, branch = self.search, self.state.branches[0]
        steps = int(SHARE * self.left * search.batches_per_epoch)
        if steps < FEWEST_STEPS:
            return RATES[-1]
        start, _ = search.window(self.state, 0)
        stop, parameters = start + steps, branch.network.parameter_count
        options: dict[str, Any] = {**search.job_options(self.state), "is_trained": True, "cycle": (start, stop)}
        found: list[tuple[float, float]] = []
        for rate in RATES:
            job = Job(branch, start, stop, TRAINED, branch.accuracy, parameters, **{**options, "rate": rate})
            done = search.tried(job)
            if done.finite:
                found.append((done.branch.history[-1].loss, rate))
        if not found:
            return RATES[-1]
        loss, rate = min(found)
        self._tell(branch, rate, options["uses_made"], f"{len(found)} rates after {steps} steps", loss)
        return rate

    def _ways(self) -> list[tuple[Branch, float, bool]]:
        """What races: networks, each with a factor of the learning rate, and whether on rows that were made too.

        Networks that lack a block try a higher rate too, since what the block did has to be learned again. One trial: a
        residual network without its second block, at half the latency, six epochs on Fashion-MNIST, had 0.812 of the
        test rows right at a learning rate of 0.001 and 0.851 at 0.004.
        """
        branches, blocks = self.state.branches, len(self.search.given_branch.network.blocks)
        ways = [(branch, RATES[0], True) for branch in branches]
        ways += [(branches[0], rate, True) for rate in RATES[1:]]
        ways += [(branch, RELEARNED, True) for branch in branches if len(branch.network.blocks) < blocks]
        if self.search.has_made_rows:
            ways += [(branches[0], rate, False) for rate in RATES]
        return ways

    def _tell(self, branch: Branch, rate: float, uses_made: bool, after: str, loss: float) -> None:
        search = self.search
        search.tell(
            Chosen(
                event="chosen",
                branch=branch.number,
                learning_rate=rate * search.settings.rate_of(branch.network.parameter_count),
                uses_made=uses_made,
                reason=f"the least loss of {after}: {loss:.4g}",
            )
        )


def _rank(job: Job, done: JobResult) -> float:
    """The loss that a race goes by: rows that were made pay later than a race is long."""
    loss = -done.branch.score
    return loss * PAYS if job.uses_made and loss > 0 else loss
