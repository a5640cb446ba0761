"""Grow, anneal, then shrink along the front: the search behind the objectives accuracy and pareto.

A run has three phases. While layers grow, every few epochs there is a competition of several shapes to which the
network could grow; each rung of training ends with the learning rate at 0, and the half with the larger losses is given
up (successive halving: Jamieson and Talwalkar, AISTATS 2016). Growth ends at the limit, or at ``PARAMETERS_PER_ROW``.
Then the network settles: the learning rate falls to 0. Where only accuracy counts, several copies settle, each on
batches of its own, and become one network; if that is the result, they settle once more, on all rows (``ensemble``).
Where a limit, a tolerance or the front ask for smaller networks, units are pruned by their worth on the data, and each
time the learning rate rises and falls once more (SGDR: Loshchilov and Hutter, ICLR 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.channels import channels
from onnxsurgeon.recommend.growth import growths
from onnxsurgeon.recommend.shrinking import shrinkage
from onnxsurgeon.runs.branch import RECUPERATED, TRAINED, Branch, read_branch
from onnxsurgeon.runs.checkpoint import DONE, GROW, REFIT, SETTLE, SHRINK, CyclePosition, State
from onnxsurgeon.surgeon.cycles import settling
from onnxsurgeon.surgeon.ensemble import joined, refitted
from onnxsurgeon.surgeon.fields import OwnSettings
from onnxsurgeon.surgeon.front_search import FEWEST, FrontSearch
from onnxsurgeon.surgeon.jobs import Job
from onnxsurgeon.surgeon.own_settings import GROW_AND_SHRINK, GrowAndShrinkSettings
from onnxsurgeon.surgeon.paced_search import SEGMENT
from onnxsurgeon.surgeon.registry import register
from onnxsurgeon.surgeon.untrained import standardised_start
from onnxsurgeon.surgery.join import reason_against

# The number of parameters for each training row up to which a network grows where no limit is below that; or the number
# for each input, as in a layer of a hundred units, where rows are few and inputs many. A competition of the network
# with the grown ones ended growth too soon: after few epochs small networks are ahead (on Fashion-MNIST, 784-38-38-10
# was).
PARAMETERS_PER_ROW, UNITS = 5, 100
UNASKED = 20_000  # where no ensemble or front is asked for, it grows no larger than this, or than the number of rows
COMPETITORS = 2  # networks that are trained for a competition, when each rung is counted by its length


@register
class GrowAndShrink(FrontSearch):
    """The search for untrained starts, and for networks that are to become larger; the module's text describes it."""

    name: ClassVar[str] = GROW_AND_SHRINK
    settings_type: ClassVar[type[OwnSettings]] = GrowAndShrinkSettings

    def sizes(self, given: Branch) -> tuple[int, int]:
        """The sizes up to which layers grow."""
        smallest, count = super().sizes(given)
        return smallest, max(count, self._most(given)) if self.settings.growth else count

    def has_several(self, position: CyclePosition, epoch: int) -> bool:
        """An ensemble's members settle side by side."""
        return position.phase == SETTLE and 0 < epoch < position.end

    def effort(self) -> float:
        """Competitors while layers grow, and an ensemble's members afterwards."""
        return self.settings.growth * COMPETITORS + (1 - self.settings.growth) * (self.settings.ensemble or 1)

    def advance(self, state: State) -> tuple[list[Branch], int]:
        """Let shapes to grow to compete, or train the next part of a cycle."""
        search = state.search
        self._look_back(state)
        if not state.epoch:
            standardised_start(self, state)
        if not self.probe(state):
            state.search = replace(search, phase=DONE)
            return state.branches, 0
        if search.phase == GROW:
            left = self._growth_left(state)
            candidates = self._growths(state, left) if left > 0 else []
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
        """Note the pace, and keep within the time; growths are noted by their jobs."""
        settles = state.search.phase == SETTLE and self._is_to_shrink(state)
        self.look_back(state, 1 - self.settings.shrinkage if settles else 1.0)
        if state.search.phase == GROW:
            self._mark = None

    def _growth_left(self, state: State) -> int:
        settings = self.settings
        if settings.time_limit is not None and self.elapsed(state) >= settings.growth * self.deadline:
            return 0
        return round(settings.growth * settings.epochs) - state.epoch

    def _growths(self, state: State, left: int) -> list[Candidate]:
        """Shapes to grow to.

        A network with convolutions reaches its limit in the epochs that are left for growing, with larger steps where
        these are few: to 200,000 parameters in 12 epochs, two of which are for growing, it came to 142,000 otherwise.
        """
        (branch,) = state.branches
        end, count, times = self._most(branch), branch.network.parameter_count, self.settings.growth_factor
        if channels(branch.network):
            times = max(times, (end / count) ** (1 / left) * (1 + 1e-9))
        most = min(end, int(times * count))
        bounds = self.limits.bounds.times(self._overgrowth(self.most(branch)))
        return growths(branch.network, most, mode=self.settings.widen, branch=branch.number, bounds=bounds)

    def _growth_epochs(self, state: State, left: int) -> int:
        """Epochs for this growth: an equal share of those that are left for growing."""
        (branch,) = state.branches
        ratio = self._most(branch) / branch.network.parameter_count
        rounds = max(1, math.ceil(math.log(ratio) / math.log(self.settings.growth_factor) - 1e-9))
        return max(1, min(left // rounds, self._affordable(state, rounds)))

    def _affordable(self, state: State, rounds: int) -> int:
        """The number of epochs that a growth can have in the time for it; 1 as long as the pace is not known."""
        settings, (branch,) = self.settings, state.branches
        if settings.time_limit is None:
            return settings.epochs
        seconds = (settings.growth * self.deadline - self.elapsed(state)) / rounds
        size = int(settings.growth_factor * branch.network.parameter_count)
        epochs = self.pace.epochs(size, seconds / COMPETITORS)
        return int(epochs) if epochs < math.inf else 1

    def _most(self, branch: Branch) -> int:
        """Parameter count up to which the network grows.

        ``overgrowth`` times a limit, or the number that fits the rows. A limit above that does not count. Of 14 tables
        of 130 to 1,800 rows, three seeds, 9 came out worse where networks grew to three times 10,000 parameters and
        were pruned to these: R² of diabetes 0.43 and not 0.53, of Housing 0.58 and not 0.63. A hundred units are for
        images: 2,000 of Fashion-MNIST had 0.818 with 9,000 parameters, two seeds, 0.824 with 20,000.
        """
        limit, settings, rows, enough = self.most(branch), self.settings, self.train.rows, self._enough
        if limit is None:
            is_asked = settings.ensemble or settings.objective == "pareto"
            return enough if is_asked else min(enough, max(UNASKED, rows))
        if settings.objective == "pareto":  # the front begins at the limit
            return limit
        times = self._overgrowth(limit)
        return min(limit, enough) if times == 1 else int(limit * times)

    @property
    def _enough(self) -> int:
        """The number of parameters for which there are enough rows."""
        features = self.given_branch.network.frame.trunk.features.values()
        inputs = sum(math.prod(size or 1 for size in shape) for shape in features)
        return max(PARAMETERS_PER_ROW * self.train.rows, UNITS * inputs)

    def _overgrowth(self, limit: int | None) -> float:
        """How many times as large as a limit allows the network grows, to be pruned to it.

        Networks with convolutions do not overgrow: epochs of three times the multiplications are as much longer, and
        dense networks gain little by it.
        """
        settings = self.settings
        is_plain = limit is None or limit >= self._enough or settings.shrinkage == 0 or settings.epochs < FEWEST
        is_plain = is_plain or bool(channels(self.given_branch.network))
        return 1.0 if is_plain or settings.objective == "pareto" else settings.overgrowth

    def _settling(self, state: State) -> int:
        """The number of epochs for which the network settles.

        Where smaller ones are wanted, at least one is left for them.
        """
        left = self.left(state)
        if not self._is_to_shrink(state):
            return left
        return max(0, min(settling(self.settings, left), left - 1)) if left else 0

    def _is_to_shrink(self, state: State) -> bool:
        """Whether smaller networks than the settled one are wanted."""
        return self.is_walk or not self.is_allowed(state.branches[0])

    def _grow(self, state: State, candidates: Sequence[Candidate], epochs: int) -> tuple[list[Branch], int]:
        """Let grown networks compete; return the winner, and its epochs."""
        start, stop = self.window(state, epochs)
        return [self._compete(state, candidates, start, stop, None)], epochs

    def _compete(
        self, state: State, candidates: Sequence[Candidate], start: int, stop: int, cycle: tuple[int, int] | None
    ) -> Branch:
        """Successive halving: return the candidate that is left, trained from ``start`` to ``stop``.

        Each rung is as long as all before it. Where no candidate's weights stay finite, it is the network as it is.
        """
        until = min(stop, start + max(1, round(self.settings.trial * (stop - start))))
        options = self.job_options(state)
        jobs = [
            Job(branch, start, until, RECUPERATED, parent.accuracy, parent.network.parameter_count, cycle, **options)
            for _, parent, branch in self.operated(state, candidates)
        ]
        begin = start
        while len(jobs) > 1 and until < stop:
            jobs = [replace(job, cycle=cycle or (begin, until)) for job in jobs]
            done = [replace(job, branch=each.branch, start=until) for job, each in self.train_all(state, jobs)]
            done.sort(key=lambda job: (-job.branch.score, job.branch.network.parameter_count, job.branch.number))
            begin, until = until, min(stop, until + (until - start))
            jobs = done[: -(-len(done) // 2) if until < stop else 1]
            for job in done[len(jobs) :]:
                self.drop(job.branch.number)
            jobs = [replace(job, stop=until) for job in jobs]
        jobs = [replace(job, stop=stop, stage=TRAINED, cycle=cycle or (begin, stop)) for job in jobs]
        trained = self.train_all(state, jobs)
        trained.sort(key=lambda pair: -pair[1].branch.score)  # several where there was no room for a rung
        for _, loser in trained[1:]:
            self.drop(loser.branch.number)
        if not trained:
            epochs = (stop - start) // self.batches_per_epoch
            return self.train_on(state, state.branches, epochs, what="every branch", cycle=cycle)[0]
        return trained[0][1].branch

    def _members(self, state: State) -> int:
        """The number of networks that settle side by side: as many as are asked for, if they can be joined."""
        return 1 if reason_against([state.branches[0].network]) else self.settings.ensemble or 1

    def _is_free(self, state: State) -> bool:
        """Whether only accuracy counts."""
        return not self.limits.are_any and not self._is_to_shrink(state)

    def _go_on(self, state: State) -> tuple[list[Branch], int]:
        """Train the next part of a cycle; an ensemble's members become one network at its end."""
        epochs = min(SEGMENT, state.search.end - state.epoch)
        cycle = self.cycle(state)
        trained = self.train_on(state, state.branches, epochs, what="the network", cycle=cycle, are_members=True)
        if state.search.phase == SETTLE and state.epoch + epochs >= state.search.end:
            is_free = self._is_free(state)
            if len(trained) > 1 and not is_free:
                for branch in trained:
                    self.measured(branch, state)
            settled = joined(self, state, trained, replaces=is_free)
            trained = [self._refitted(state, settled, len(trained)) if is_free else settled]
        return trained, epochs

    def _refitted(self, state: State, settled: Branch, members: int) -> Branch:
        """Train the network once more on all rows, if it is to be the result and there is no time limit."""
        settings = self.settings
        if not settings.refit or not self.is_held_out or settings.time_limit is not None:
            return settled
        self.measured(settled, state)
        best = self.result(state)
        is_settling = members == 1 and state.search.begin < best.history[-1].epoch < state.search.end
        if best.number != settled.number and not is_settling:
            return settled
        branch = refitted(self, state, best, members)
        if branch.number != best.number:
            state.search = replace(state.search, phase=REFIT)
        return branch

    def lengthen(self, state: State) -> None:
        """Add another cycle; a cycle in which the network settles becomes longer."""
        search, end = state.search, self.settings.epochs
        if search.phase == GROW:
            return
        if search.phase in (DONE, REFIT) or state.epoch >= search.end:
            # A refitted network has seen the rows that decide.
            branch = read_branch(self.run.branches / self._chosen(state).file)
            phase = SHRINK if self._is_to_shrink(state) else SETTLE
            begin = replace(search, phase=phase, begin=state.epoch, root=branch.number, halvings=0)
            top = search.top or branch.network.parameter_count
            state.branches = [branch]
            state.search = replace(begin, end=state.epoch if phase == SHRINK else end, top=top)
        elif not self._is_to_shrink(state):
            state.search = replace(search, end=end)

    def _shrink(self, state: State) -> tuple[list[Branch], int]:
        """Take parameters away and begin a cycle with the rest; nothing goes unasked."""
        if not self._is_to_shrink(state):
            state.search = replace(state.search, phase=DONE)
            return state.branches, 0
        if state.search.phase != SHRINK:
            state.search = replace(state.search, phase=SHRINK, top=state.branches[0].network.parameter_count)
        cycle = self.next_cycle(state)
        (branch,) = state.branches
        if cycle is None:
            state.search = replace(state.search, phase=DONE)
            return state.branches, 0
        state.search = replace(state.search, begin=state.epoch, end=state.epoch + cycle.epochs)
        candidate = None
        if cycle.most < branch.network.parameter_count:
            moments = calibrate(branch.network, self.train, self.sample)
            candidate = shrinkage(branch.network, moments, cycle.most, branch.number, self.limits.bounds)
        if candidate is None:
            return self._go_on(state)
        part = min(SEGMENT, cycle.epochs)
        start, stop = self.window(state, part)
        return [self._compete(state, [candidate], start, stop, self.cycle(state))], part
