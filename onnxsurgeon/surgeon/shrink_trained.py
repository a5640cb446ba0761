"""Shrink a trained network without harm: the search for trained starts, which are not grown before.

First the given network is pruned by data, without training, to sizes down to the wanted one (``STEP``). Each network is
measured and enters the front, so that the result is no worse than the best of these. At the size that a limit asks for,
plans of several kinds (units, ranks, a layer less), all of equal size, are measured alike. The best of each kind race:
each is trained for a part of the run, down to a learning rate of 0, the best also at other rates, and with and without
rows that were made; in a run of a few epochs, rates alone race for some steps. The winner is trained for the rest of
the run, or for as long as the loss on the rows that decide falls from cycle to cycle. Where an accuracy is asked for,
the smallest network that has it is sought by bisection: a size between the smallest that is accurate enough and the
largest that was trained and was not is pruned and trained next. Where the front is asked for, networks are pruned
further and trained in turn.

This file has the phases; ``finalists`` and ``fitting`` the plans at the size of a limit, ``race`` the race, and
``pruning_search`` what pruning goes by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from onnxsurgeon.errors import DivergedError
from onnxsurgeon.recommend.reduction import without_duplicates
from onnxsurgeon.runs.branch import Branch, file_of, read_branch
from onnxsurgeon.runs.checkpoint import DONE, PRUNE, RACE, SHRINK, CyclePosition, State
from onnxsurgeon.surgeon.cycles import Cycle
from onnxsurgeon.surgeon.fields import OwnSettings
from onnxsurgeon.surgeon.finalists import Finalists
from onnxsurgeon.surgeon.front_search import SMALLEST
from onnxsurgeon.surgeon.log import logger
from onnxsurgeon.surgeon.own_settings import SHRINK_TRAINED, ShrinkTrainedSettings
from onnxsurgeon.surgeon.paced_search import SEGMENT
from onnxsurgeon.surgeon.pruning_search import STEP, PruningSearch
from onnxsurgeon.surgeon.race import RATES, SHORT, Race
from onnxsurgeon.surgeon.registry import register

BEHIND = 3  # steps that pruning goes on behind the last network that is accurate enough
FIRST_SHARE = 0.3  # of the epochs left after the race, that the first cycle takes
SLOWEST = 1 / 16  # factor of the learning rate below which no cycle is tried
NEAR = 1.1  # ratio of a network that is accurate enough to one that is not, at which the smallest is found
PRUNING_SHARE = 1 / 3  # of the time there is, that pruning to a limit may take
WALKING_SHARE = 2 / 3  # the same of pruning where no limit is: much of what is looked for is found by it


@register
class ShrinkTrained(PruningSearch):
    """The search for trained starts: prune without training, let the best plans race, train the winner in cycles."""

    name: ClassVar[str] = SHRINK_TRAINED
    settings_type: ClassVar[type[OwnSettings]] = ShrinkTrainedSettings
    races_made_rows: ClassVar[bool] = True
    removes_blocks: ClassVar[bool] = True
    first_phase: ClassVar[str] = PRUNE

    def has_several(self, position: CyclePosition, epoch: int) -> bool:
        """Networks that were pruned in several ways race."""
        return position.phase == RACE

    def advance(self, state: State) -> tuple[list[Branch], int]:
        """Straight pruning, the race, or the next part of a cycle."""
        phase = state.search.phase
        if phase == PRUNE:
            return self._begin(state), 0
        if phase == RACE:
            return self._race(state)
        self.look_back(state)
        if state.epoch < state.search.end:
            return self.go_on(state)
        (branch,) = state.branches
        if not self.has_epoch(state):
            state.search = replace(state.search, phase=DONE)
            return [branch], 0
        is_within = self.is_allowed(branch)
        return self._refine(state) if is_within and not self.is_walk else self._shrink(state)

    # Straight pruning.

    def _begin(self, state: State) -> list[Branch]:
        """Prune to a path of sizes; the networks that race."""
        (given,) = state.branches
        exact = without_duplicates(given.network, given.number)
        base = (None if exact is None else self.untrained(state, exact, given)) or given
        path = self._path(state, base)
        if self._is_reached(state, path):
            return self._walkers(state, path)
        finalists = Finalists(self, state, base).best(path)
        state.search = replace(state.search, phase=RACE, top=finalists[0].network.parameter_count)
        return finalists

    def _path(self, state: State, base: Branch) -> list[Branch]:
        """The given network and what becomes of it by pruning units step by step."""
        path = [base]
        while self._goes_on(state, path):
            branch = path[-1]
            have, limit = branch.network.parameter_count, self.most(branch)
            share = WALKING_SHARE if limit is None or limit >= have else PRUNING_SHARE
            is_late = self.is_late(state, self.step_seconds, share)
            if is_late and (limit is None or limit >= have):
                break
            step = 0 if is_late else int(STEP * have)  # where time is short, in one step to the limit
            most = int(STEP * have) if limit is None or limit >= have else max(limit, step)
            with self.timed("step"):
                made = self.pruned(state, branch, most)
            if made is None or made.network.parameter_count >= have:
                break
            path.append(made)
        return path

    def _goes_on(self, state: State, path: Sequence[Branch]) -> bool:
        if not self.is_allowed(path[-1]):
            return True
        if not self.is_walk or path[-1].network.parameter_count <= SMALLEST * self.given.parameters:
            return False
        is_good = self.good_enough(state)
        if is_good is None or len(path) <= BEHIND:
            return True
        return any(is_good(self.entry_of(branch)) for branch in path[-BEHIND:])

    def _is_reached(self, state: State, path: Sequence[Branch]) -> bool:
        """Whether smaller networks than the limits ask for are wanted, and one within these is accurate enough.

        Where none is, the best plan for the size of the limits is wanted first.
        """
        is_good = self.good_enough(state) if self.is_walk else None
        if is_good is None or not self.limits.are_any:
            return self.is_walk
        entries = map(self.entry_of, path)
        return any(self.limits.admits(entry) and is_good(entry) for entry in entries)

    def _walkers(self, state: State, path: Sequence[Branch]) -> list[Branch]:
        """Where the way to ever smaller networks begins.

        It is in the middle of the sizes from that of the smallest network that is accurate enough without training down
        to the floor; where the front is wanted, it is the largest within the limits.
        """
        within = [branch for branch in path if self.is_allowed(branch)] or [path[-1]]
        is_good = self.good_enough(state)
        good = [] if is_good is None else [branch for branch in within if is_good(self.entry_of(branch))]
        begin = good[-1] if good else within[0]
        state.search = replace(state.search, phase=RACE, top=begin.network.parameter_count)
        if is_good is None:
            return [begin]
        if self.is_late(state, self.plan_seconds):
            return [begin]
        smaller = self.smaller(state, begin, _middle(begin.network.parameter_count, self.floor(state)))
        return [smaller or begin]

    # Training.

    def _race(self, state: State) -> tuple[list[Branch], int]:
        """Train the finalists for a while, the best in several ways; the winner goes on, in the way that it won by."""
        self.probe(state)
        left = self.left(state)
        race, best = Race(self, state, left), state.branches[0]
        epochs = race.epochs()
        if left <= SHORT or not epochs:
            state.branches = [best]
            rate = race.rate() if epochs else RATES[-1]  # 0: there is no time for a race
            state.search = replace(state.search, phase=SHRINK, rate=rate)
            return self.advance(state)
        winner = race.winner(epochs)
        if winner is None:
            state.branches = [best]
            return self._end(state, "training diverged: no weights stayed finite; try a smaller --learning-rate")
        job, done = winner
        state.search = replace(
            state.search,
            phase=SHRINK,
            rate=job.rate,
            uses_made=job.uses_made,
            begin=state.epoch,
            end=state.epoch + epochs,
        )
        return [done.branch], epochs

    def job_options(self, state: State) -> dict[str, Any]:
        """The learning rate and rows that won."""
        search = state.search
        return {**super().job_options(state), "rate": search.rate, "uses_made": search.uses_made and self.has_made_rows}

    def go_on(self, state: State) -> tuple[list[Branch], int]:
        """The next part of a cycle; the run ends where it diverges: there is what was pruned, and perhaps trained."""
        try:
            return super().go_on(state)
        except DivergedError as error:
            return self._end(state, str(error))

    def lengthen(self, state: State) -> None:
        """Another cycle, from the network that it ended with."""
        if state.search.phase == DONE:
            state.search = replace(state.search, phase=SHRINK, end=state.epoch, halvings=0)

    def _end(self, state: State, reason: str) -> tuple[list[Branch], int]:
        """Training fails: the run ends with what it has."""
        logger.warning(reason)
        state.search = replace(state.search, phase=DONE)
        return state.branches, 0

    def _refine(self, state: State) -> tuple[list[Branch], int]:
        """The next cycle of a network that is small enough: a part of what is left, then, if that gained, the rest.

        A cycle that gained nothing is taken back, and gone through at a lower rate.
        """
        (branch,), search, left = state.branches, state.search, self.left(state)
        is_first, rate, root = search.least is None, search.rate, branch
        if search.least is not None and branch.history[-1].loss >= search.least:
            root = read_branch(file_of(self.run.branches, search.root))
            rate, is_first = rate * RATES[-1], True
            if rate < SLOWEST:
                state.search = replace(search, phase=DONE)
                return [branch], 0
        epochs = round(FIRST_SHARE * left) if is_first and left >= 2 * SEGMENT else left
        least, end = root.history[-1].loss, state.epoch + epochs
        state.branches = [root]
        state.search = replace(search, rate=rate, root=root.number, least=least, begin=state.epoch, end=end)
        return self.go_on(state)

    def _shrink(self, state: State) -> tuple[list[Branch], int]:
        """Take parameters away and begin a cycle with what is left."""
        cycle = self.next_cycle(state)
        (branch,) = state.branches
        if cycle is None:
            state.search = replace(state.search, phase=DONE)
            return [branch], 0
        smaller: Branch | None = None
        if cycle.most < branch.network.parameter_count:
            if self.is_late(state, self.plan_seconds):
                state.search = replace(state.search, phase=DONE)
                return [branch], 0
            smaller = self.smaller(state, branch, cycle.most)
        state.branches = [smaller or branch]
        state.search = replace(state.search, begin=state.epoch, end=state.epoch + cycle.epochs)
        return self.go_on(state)

    def next_cycle(self, state: State) -> Cycle | None:
        """As of every search; where an accuracy is wanted, the next size to try, or None."""
        (branch,), search = state.branches, state.search
        is_good = self.good_enough(state) if self.is_walk and self.settings.objective != "pareto" else None
        if is_good is None or not self.is_allowed(branch):
            return super().next_cycle(state)
        smallest, have = self.result(state), branch.network.parameter_count
        if not is_good(self.entry_of(smallest)):  # none is accurate enough yet, and smaller ones will not be
            return Cycle(self.left(state), have)
        is_found = smallest.network.parameter_count <= have
        if not is_found and search.tries:
            search = replace(search, failed=have)
        floor, most = search.failed or self.floor(state), smallest.network.parameter_count
        tries = _tries(most, floor)
        if not tries:
            return None
        state.search = replace(search, tries=search.tries + 1)
        epochs = max(1, self.left(state) // tries)
        if not is_found and not search.tries:  # it was trained no longer than a race is
            return Cycle(epochs, have)
        state.branches = [smallest]
        return Cycle(epochs, _middle(most, floor))


def _middle(most: int, least: int) -> int:
    """The geometric mean of two numbers of parameters."""
    return int(math.sqrt(most * least))


def _tries(most: int, least: int) -> int:
    """How many sizes between two are tried before they are as near as a tenth; 0 where they are."""
    between = math.log(most / least) / math.log(NEAR) if most > least else 0.0
    return max(0, math.ceil(math.log2(between))) if between > 0 else 0
