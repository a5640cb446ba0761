"""Grow, anneal, then shrink along the front: the search behind the objectives accuracy and pareto.

A run has three phases. While layers grow, every few epochs there is a competition of several shapes that the network
could grow to; each rung of training ends with the learning rate at 0, and the half with the larger losses is given up
(successive halving: Jamieson and Talwalkar, AISTATS 2016). Growth ends at the limit, or at ``PARAMETERS_PER_ROW``.
Then the network settles: the learning rate falls to 0. Where only accuracy counts, several copies do, each on batches
of its own, and become one network; if that is the result, they do so once more, on all rows (``ensemble``). Where a
limit, a tolerance or the front ask for smaller networks, units are pruned by what the data say they are worth, and each
time the learning rate rises and falls once more (SGDR: Loshchilov and Hutter, ICLR 2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.growth import growths
from onnxsurgeon.recommend.shrinking import shrinkage
from onnxsurgeon.surgeon.branch import RECUPERATED, START, TRAINED, Branch, digests, read_branch
from onnxsurgeon.surgeon.checkpoint import DONE, GROW, REFIT, SETTLE, SHRINK, State
from onnxsurgeon.surgeon.cycles import Cycle, Pace, along_the_front, settling, to_the_limit
from onnxsurgeon.surgeon.ensemble import MEMBERS, joined, refitted
from onnxsurgeon.surgeon.evolve import Surgeon
from onnxsurgeon.surgeon.latency import latency_of
from onnxsurgeon.surgeon.objective import Entry, Limits, choose, front, least_accuracy
from onnxsurgeon.surgeon.significance import is_better, row_scores
from onnxsurgeon.surgeon.trainer import Done, Job
from onnxsurgeon.surgeon.untrained import standardised_start
from onnxsurgeon.surgery.join import reason_against

# Parameters for each training row that a network without a limit grows up to. Letting it compete with the grown ones
# ended growth too soon: after few epochs small networks are ahead (on Fashion-MNIST, 784-38-38-10 was).
PARAMETERS_PER_ROW = 5
SEGMENT = 5  # epochs between two checkpoints of a cycle
SMALLEST = 1 / 30  # of the settled network's parameters: where the front ends, if the given model is not smaller
COMPETITORS = 2  # networks that are trained for a competition, when each rung is counted by its length
FINEST = 0.98  # share of the parameters: where a step would keep more, the smallest network is found


class GrowAndShrink(Surgeon):
    """See the module."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._pace = Pace()
        self._mark: tuple[int, float] | None = None  # epoch and seconds when the last part of a cycle began

    def advance(self, state: State) -> tuple[list[Branch], int]:
        """A competition of shapes to grow to, or the next part of a cycle."""
        search = state.search
        self._look_back(state)
        if search.phase == GROW:
            if not state.epoch:
                standardised_start(self, state)
            left = self._growth_left(state)
            candidates = self._growths(state) if left > 0 else []
            if candidates:
                return self._grow(state, candidates, self._growth_epochs(state, left))
            state.branches = state.branches * self._members(state)
            end = state.epoch + self._settling(state)
            root = state.branches[0].number
            state.search = search = replace(search, phase=SETTLE, begin=state.epoch, end=end, root=root)
        if state.epoch < search.end:
            return self._go_on(state)
        return self._shrink(state)

    def _look_back(self, state: State) -> None:
        """Note the pace of the last part of a cycle with all that its checkpoint took; keep within the time."""
        settings, search, branch = self.settings, state.search, state.branches[0]
        now, parameters = self.elapsed(state), branch.network.parameter_count
        if self._mark is not None:
            epoch, seconds = self._mark
            self._pace.note(parameters, state.epoch - epoch, (now - seconds) / self._turns(state))
        self._mark = None if search.phase == GROW else (state.epoch, now)
        if settings.time_limit is None or state.epoch >= search.end:
            return
        share = 1 - settings.shrinkage if search.phase == SETTLE and self._is_to_shrink(state) else 1.0
        seconds = (share * settings.time_limit - now) / self._turns(state)
        left = max(1, int(min(search.end, self._pace.epochs(parameters, seconds))))
        state.search = replace(search, end=min(search.end, state.epoch + left))

    def _turns(self, state: State) -> int:
        """How many networks each worker trains one after the other."""
        return -(-len(state.branches) // self.workers.count)

    def _growth_left(self, state: State) -> int:
        settings = self.settings
        if settings.time_limit is not None and self.elapsed(state) >= settings.growth * settings.time_limit:
            return 0
        return round(settings.growth * settings.epochs) - state.epoch

    def _left(self, state: State) -> int:
        """How many more epochs the network is trained: those of the run, or fewer in the time that is left."""
        settings, parameters = self.settings, state.branches[0].network.parameter_count
        left = settings.epochs - state.epoch
        if settings.time_limit is None:
            return left
        seconds = max(0.0, settings.time_limit - self.elapsed(state)) / self._turns(state)
        return max(1, int(min(left, self._pace.epochs(parameters, seconds))))

    def _growths(self, state: State) -> list[Candidate]:
        (branch,) = state.branches
        most = min(self._most(branch), int(self.settings.growth_factor * branch.network.parameter_count))
        return growths(branch.network, most, mode=self.settings.widen, branch=branch.number)

    def _growth_epochs(self, state: State, left: int) -> int:
        """How many of the epochs left for growth this one gets: as many as each of those that there will be."""
        (branch,) = state.branches
        ratio = self._most(branch) / branch.network.parameter_count
        rounds = max(1, math.ceil(math.log(ratio) / math.log(self.settings.growth_factor) - 1e-9))
        return max(1, min(left // rounds, self._affordable(state, rounds)))

    def _affordable(self, state: State, rounds: int) -> int:
        """How many epochs a growth can have in the time for it; 1 as long as the pace is not known."""
        settings, (branch,) = self.settings, state.branches
        if settings.time_limit is None:
            return settings.epochs
        seconds = (settings.growth * settings.time_limit - self.elapsed(state)) / rounds
        size = int(settings.growth_factor * branch.network.parameter_count)
        epochs = self._pace.epochs(size, seconds / COMPETITORS)
        return int(epochs) if epochs < math.inf else 1

    def _most(self, branch: Branch) -> int:
        """Parameter count up to which the network grows."""
        limit = self._limit(branch)
        if limit is None:
            return PARAMETERS_PER_ROW * self.train.rows
        settings = self.settings
        if settings.objective == "pareto" or settings.shrinkage == 0:  # the front begins at the limit
            return limit
        return int(limit * settings.overgrowth)

    def _limit(self, branch: Branch) -> int | None:
        """The limits as a number of parameters."""
        settings = self.settings
        limits = [settings.max_parameters]
        limits.append(settings.max_size and settings.max_size // branch.network.dtype.itemsize)
        return min((limit for limit in limits if limit), default=None)

    def _settling(self, state: State) -> int:
        """For how many epochs the network settles."""
        left = self._left(state)
        return settling(self.settings, left) if self._is_to_shrink(state) else left

    def _is_to_shrink(self, state: State) -> bool:
        """Whether smaller networks than the settled one are wanted."""
        settings, branch = self.settings, state.branches[0]
        if settings.objective == "pareto" or settings.tolerance is not None or settings.min_accuracy is not None:
            return True
        return not Limits.of(settings).admits(self._entry(branch))

    def _grow(self, state: State, candidates: Sequence[Candidate], epochs: int) -> tuple[list[Branch], int]:
        """Let grown networks compete; the winner, and its epochs."""
        start, stop = self.window(state, epochs)
        return [self._compete(state, candidates, start, stop, None)], epochs

    def _compete(
        self, state: State, candidates: Sequence[Candidate], start: int, stop: int, cycle: tuple[int, int] | None
    ) -> Branch:
        """Successive halving: the candidate that is left, trained from ``start`` to ``stop``.

        Each rung is as long as all before it. Where no candidate's weights stay finite, it is the network as it is.
        """
        until = min(stop, start + max(1, round(self.settings.trial * (stop - start))))
        jobs = [
            Job(branch, start, until, RECUPERATED, parent.accuracy, parent.network.parameter_count, cycle)
            for _, parent, branch in self.operated(state, candidates)
        ]
        begin = start
        while len(jobs) > 1 and until < stop:
            jobs = [replace(job, cycle=cycle or (begin, until)) for job in jobs]
            done = [replace(job, branch=each.branch, start=until) for job, each in self.perform(state, jobs)]
            done.sort(key=lambda job: (-job.branch.score, job.branch.network.parameter_count, job.branch.number))
            begin, until = until, min(stop, until + (until - start))
            jobs = done[: -(-len(done) // 2) if until < stop else 1]
            for job in done[len(jobs) :]:
                self.tell(event="dropped", branch=job.branch.number, reason="score")
            jobs = [replace(job, stop=until) for job in jobs]
        jobs = [replace(job, stop=stop, stage=TRAINED, cycle=cycle or (begin, stop)) for job in jobs]
        trained = self.perform(state, jobs)
        trained.sort(key=lambda pair: -pair[1].branch.score)  # several where there was no room for a rung
        for _, loser in trained[1:]:
            self.tell(event="dropped", branch=loser.branch.number, reason="score")
        if not trained:
            epochs = (stop - start) // self.batches_per_epoch
            return self.train_on(state, state.branches, epochs, what="every branch", cycle=cycle)[0]
        return trained[0][1].branch

    def _members(self, state: State) -> int:
        """How many networks settle side by side: several where only accuracy counts, and if they can be joined."""
        settings, (branch,) = self.settings, state.branches
        if reason_against([branch.network]):
            return 1
        if settings.ensemble is not None:
            return settings.ensemble
        return MEMBERS if self._is_free(state) else 1

    def _is_free(self, state: State) -> bool:
        """Whether nothing but accuracy counts."""
        return Limits.of(self.settings) == Limits() and not self._is_to_shrink(state)

    def _go_on(self, state: State) -> tuple[list[Branch], int]:
        """The next part of a cycle; an ensemble's members become one network at its end."""
        epochs = min(SEGMENT, state.search.end - state.epoch)
        branches, cycle = state.branches, self._cycle(state)
        trained = self.train_on(state, branches, epochs, what="the network", cycle=cycle, are_members=True)
        if state.search.phase == SETTLE and state.epoch + epochs >= state.search.end:
            is_free = self._is_free(state)
            if len(trained) > 1 and not is_free:
                for branch in trained:
                    self.measured(branch, state)
            settled = joined(self, state, trained, replaces=is_free)
            trained = [self._refitted(state, settled, len(trained)) if is_free else settled]
        return trained, epochs

    def _refitted(self, state: State, settled: Branch, members: int) -> Branch:
        """Trained once more on all rows, if it is to be the result, and time plays no part."""
        settings = self.settings
        if not settings.refit or not self.is_held_out or settings.time_limit is not None:
            return settled
        self.measured(settled, state)
        if self.result(state).number != settled.number:
            return settled
        branch = refitted(self, state, settled, members)
        if branch.number != settled.number:
            state.search = replace(state.search, phase=REFIT)
        return branch

    def _cycle(self, state: State) -> tuple[int, int]:
        per_epoch = self.batches_per_epoch
        return state.search.begin * per_epoch, state.search.end * per_epoch

    def _shrink(self, state: State) -> tuple[list[Branch], int]:
        """Take parameters away and begin a cycle with what is left."""
        if state.search.phase != SHRINK:
            top = state.branches[0].network.parameter_count
            state.search = replace(state.search, phase=SHRINK, top=top)
        cycle = self._next_cycle(state)
        (branch,) = state.branches
        if cycle.most > FINEST * branch.network.parameter_count and state.search.halvings:
            state.search = replace(state.search, phase=DONE)
            return state.branches, 0
        state.search = replace(state.search, begin=state.epoch, end=state.epoch + cycle.epochs)
        candidate = None
        if cycle.most < branch.network.parameter_count:
            candidate = shrinkage(
                branch.network, calibrate(branch.network, self.train, self.sample), cycle.most, branch.number
            )
        if candidate is None:
            return self._go_on(state)
        part = min(SEGMENT, cycle.epochs)
        start, stop = self.window(state, part)
        return [self._compete(state, [candidate], start, stop, self._cycle(state))], part

    def _next_cycle(self, state: State) -> Cycle:
        """How the run goes on; where the network has lost too much, with the last one that had not."""
        settings, (branch,) = self.settings, state.branches
        excess = Limits.of(settings).excess(self._entry(branch))
        if excess > 1:
            return to_the_limit(settings, self._left(state), branch.network.parameter_count, excess)
        least = least_accuracy(state.front, settings)
        if least is not None and settings.objective != "pareto" and branch.accuracy < least:
            state.branches = [branch] = [self.result(state)]
            state.search = replace(state.search, halvings=state.search.halvings + 1)
        have = branch.network.parameter_count
        floor = max(1, min(self._given, int(state.search.top * SMALLEST)))
        return along_the_front(settings, self._left(state), have, floor, 0.5**state.search.halvings)

    def perform(self, state: State, jobs: Iterable[Job]) -> list[tuple[Job, Done]]:
        """As of every search; a job that is done alone tells the pace."""
        performed = super().perform(state, jobs)
        if len(performed) == 1:
            ((job, done),) = performed
            epochs = done.steps / self.batches_per_epoch
            self._pace.note(job.branch.network.parameter_count, epochs, done.seconds)
        return performed

    @property
    def _given(self) -> int:
        return read_branch(self.run.branches / f"0000-{START}.onnx").network.parameter_count

    def measured(self, branch: Branch, state: State) -> None:
        """Enter a branch into the front."""
        state.front = front([*state.front, self._entry(branch)])

    def _entry(self, branch: Branch) -> Entry:
        path = self.run.branches / branch.file_name
        latency = None
        if self.settings.objective == "pareto" or self.settings.max_latency is not None:
            latency = latency_of(path)
        return Entry(
            branch.number,
            branch.file_name,
            digests(path)["digest"],
            branch.network.topology,
            branch.accuracy,
            branch.history[-1].loss,
            branch.network.parameter_count,
            path.stat().st_size,
            latency,
        )

    def result(self, state: State) -> Branch:
        """What is read off the front.

        The given model stays, where that is allowed, unless what has a better metric has it by more than chance: few
        rows decide little. (Of diabetes' 442 rows 35 decide; what was better on these by 0.05 was worse on the test
        rows by 0.02.)
        """
        if state.search.phase == REFIT:
            return state.branches[0]
        branch = read_branch(self.run.branches / choose(state.front, self.settings).file)
        settings = self.settings
        is_told = least_accuracy(state.front, settings) is not None or settings.target_accuracy is not None
        if not branch.number or is_told:  # an accuracy that is asked for is reached or not
            return branch
        start = read_branch(self.run.branches / f"0000-{START}.onnx")
        if not Limits.of(self.settings).admits(self._entry(start)):
            return branch
        return branch if is_better(self._scores(branch), self._start_scores) else start

    def leading(self, state: State) -> float:
        """The best accuracy within the limits, by more than chance or not."""
        return choose(state.front, self.settings).accuracy

    def _scores(self, branch: Branch) -> Array:
        return row_scores(branch.network, self.engine, self.validation)

    @cached_property
    def _start_scores(self) -> Array:
        return self._scores(read_branch(self.run.branches / f"0000-{START}.onnx"))
