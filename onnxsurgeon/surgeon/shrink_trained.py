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

One file: a search, whose phases hand a network and its position in the run to one another.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import DivergedError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.blocks import removals
from onnxsurgeon.recommend.reduction import (
    BOTH,
    BRANCHES,
    LAYERS,
    RANKS,
    UNITS,
    by_units,
    kind_of,
    reductions,
    without_duplicates,
)
from onnxsurgeon.recommend.shrinking import least_count, shrinkage
from onnxsurgeon.recommend.trials import with_trials
from onnxsurgeon.runs.branch import TRAINED, Branch, file_of, read_branch
from onnxsurgeon.runs.checkpoint import DONE, PRUNE, RACE, SHRINK, State
from onnxsurgeon.runs.events import Chosen
from onnxsurgeon.surgeon.cycles import OVERHEAD, Cycle
from onnxsurgeon.surgeon.evolve import register
from onnxsurgeon.surgeon.fields import OwnSettings
from onnxsurgeon.surgeon.front_search import SEGMENT, SMALLEST, FrontSearch
from onnxsurgeon.surgeon.jobs import Job, JobResult
from onnxsurgeon.surgeon.log import logger
from onnxsurgeon.surgeon.objective import Limits
from onnxsurgeon.surgeon.own_settings import SHRINK_TRAINED, ShrinkTrainedSettings
from onnxsurgeon.surgeon.trainer import train_branch
from onnxsurgeon.surgery import Operated, Prune, Surgery
from onnxsurgeon.surgery.base import Needs
from onnxsurgeon.training.teaching import head_outputs

STEP = 0.8  # share of the parameters that a step of straight pruning keeps
BEHIND = 3  # steps that pruning goes on behind the last network that is accurate enough
FINALISTS = 3
RATES = (1.0, 0.25)  # factors of the learning rate that race; of a run too short for that, the last
RACE_SHARE = 1 / 8  # of the epochs left
SHORT = 4  # epochs of a run that has no time for a race of networks
FEWEST_STEPS = 200  # of a race of rates alone: of fewer little can be told
FIRST_SHARE = 0.3  # of the epochs left after the race, that the first cycle takes
SLOWEST = 1 / 16  # factor of the learning rate below which no cycle is tried
PAYS = 0.95  # times the loss with made rows, below which training on the given ones alone wins: in the end they overfit
NEAR = 1.1  # ratio of a network that is accurate enough to one that is not, at which the smallest is found
REMEMBERED = 3  # networks whose moments are kept
PRUNING_SHARE = 1 / 3  # of the time there is, that pruning to a limit may take
PLANS_SHARE = 1 / 2  # the same of it and the plans beside it: on white rows ranks are worth more than time is
WALKING_SHARE = 2 / 3  # the same of pruning where no limit is: much of what is looked for is found by it
ADJUSTED = 3  # sizes that a plan is tried for, where the limit is one on latency
FINE = 0.02  # of such a limit: what is faster by less is as large as it can be
BLOCKS = (8, 16)  # units of a convolution that a processor computes side by side
BLOCK_STEP = 0.6  # share of the parameters that a step of pruning in such blocks keeps
RELEARNED = 4.0  # factor of the rate that networks race by too that lack a block: what it did has to be learned again
PLANS = 8  # times as long as a step of pruning several plans take, as long as it was not measured


@register
class ShrinkTrained(FrontSearch):
    """The search for trained starts; see the module."""

    name: ClassVar[str] = SHRINK_TRAINED
    settings_type: ClassVar[type[OwnSettings]] = ShrinkTrainedSettings
    races_made_rows: ClassVar[bool] = True
    first_phase: ClassVar[str] = PRUNE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._known: list[tuple[Network, Moments]] = []
        self._shared: Moments | None = None
        self._is_plain = False
        self._took: dict[str, float] = {}  # seconds of the longest step of pruning, and of several plans

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
        is_within = self.limits.admits(self._entry(branch))
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
        finalists = self._finalists(state, base, path)
        state.search = replace(state.search, phase=RACE, top=finalists[0].network.parameter_count)
        return finalists

    def _path(self, state: State, base: Branch) -> list[Branch]:
        """The given network and what becomes of it by pruning units step by step."""
        path = [base]
        while self._goes_on(state, path):
            branch = path[-1]
            have, limit = branch.network.parameter_count, self.most(branch)
            share = WALKING_SHARE if limit is None or limit >= have else PRUNING_SHARE
            is_late = self._is_late(state, self._step_seconds, share)
            if is_late and (limit is None or limit >= have):
                break
            step = 0 if is_late else int(STEP * have)  # where time is short, in one step to the limit
            most = int(STEP * have) if limit is None or limit >= have else max(limit, step)
            with self._timed("step"):
                candidate = by_units(
                    branch.network, self._calibrated(branch.network), most, branch.number, self.limits.bounds
                )
                made = None if candidate is None else self.untrained(state, candidate, branch)
            if made is None or made.network.parameter_count >= have:
                break
            path.append(made)
        return path

    def _is_late(self, state: State, seconds: float, share: float = 1.0) -> bool:
        """Whether what takes so many seconds would end behind that share of the time there is."""
        return self.elapsed(state) + seconds > share * self.deadline

    @property
    def _step_seconds(self) -> float:
        return self._took.get("step", 0.0)

    @property
    def _plan_seconds(self) -> float:
        return self._took.get("plans", PLANS * self._step_seconds)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begun = perf_counter()
        yield
        self._took[what] = max(self._took.get(what, 0.0), perf_counter() - begun)

    def _goes_on(self, state: State, path: Sequence[Branch]) -> bool:
        if not self.limits.admits(self._entry(path[-1])):
            return True
        if not self.is_walk or path[-1].network.parameter_count <= SMALLEST * self.given.parameters:
            return False
        is_good = self.good_enough(state)
        if is_good is None or len(path) <= BEHIND:
            return True
        return any(is_good(self._entry(branch)) for branch in path[-BEHIND:])

    def _is_reached(self, state: State, path: Sequence[Branch]) -> bool:
        """Whether smaller networks than the limits ask for are wanted, and one within these is accurate enough.

        Where none is, the best plan for the size of the limits is wanted first.
        """
        is_good = self.good_enough(state) if self.is_walk else None
        if is_good is None or not self.limits.are_any:
            return self.is_walk
        entries = map(self._entry, path)
        return any(self.limits.admits(entry) and is_good(entry) for entry in entries)

    def _walkers(self, state: State, path: Sequence[Branch]) -> list[Branch]:
        """Where the way to ever smaller networks begins.

        It is in the middle of the sizes from that of the smallest network that is accurate enough without training down
        to the floor; where the front is wanted, it is the largest within the limits.
        """
        within = [branch for branch in path if self.limits.admits(self._entry(branch))] or [path[-1]]
        is_good = self.good_enough(state)
        good = [] if is_good is None else [branch for branch in within if is_good(self._entry(branch))]
        begin = good[-1] if good else within[0]
        state.search = replace(state.search, phase=RACE, top=begin.network.parameter_count)
        if is_good is None:
            return [begin]
        if self._is_late(state, self._plan_seconds):
            return [begin]
        smaller = self._smaller(state, begin, _middle(begin.network.parameter_count, self.floor(state)))
        return [smaller or begin]

    def _finalists(self, state: State, base: Branch, path: Sequence[Branch]) -> list[Branch]:
        """The best network of each kind at the size of the limits, the least loss first."""
        within = (branch for branch in path if self.limits.admits(self._entry(branch)))
        straight = next(within, path[-1])
        if straight is base or self._is_late(state, self._plan_seconds, PLANS_SHARE):
            return [straight]
        found = {kind_of(straight.surgery): straight}
        most, bounds = straight.network.parameter_count, self.limits.bounds
        if self.limits.latency is None:
            most = self.most(base if bounds.are_any else straight) or most
        # How many parameters bounds alone allow differs from kind to kind: ranks of convolutions save other things.
        end = None if self.limits == Limits(**asdict(bounds)) else most
        kinds = (UNITS, RANKS, BOTH, LAYERS)
        plans = reductions(base.network, self._calibrated, end, base.number, kinds, bounds)
        given = self.given_branch
        moments = calibrate(given.network, self.train, self.sample)
        plain = self._plain(given, moments, most)
        for candidate in [*plans, *([plain] if plain is not None else [])]:
            self._is_plain = candidate is plain  # what ``operate prune`` would do
            made = self.untrained(state, candidate, given if self._is_plain else base)
            self._is_plain = False
            if made is not None and kind_of(made.surgery) != UNITS and self.limits.latency is not None:
                made = self._as_fast(state, base, straight, made, self.limits.latency)
            elif made is not None and kind_of(made.surgery) != UNITS and bounds.are_any:
                made = self._within_limits(state, base, made)
            if made is None or not self.limits.admits(self._entry(made)):
                continue
            kind = kind_of(made.surgery)
            if kind not in found or made.score > found[kind].score:
                found[kind] = made
        if self.limits.latency is not None:
            for made in self._in_blocks(state, base, self.limits.latency):
                is_met = self.limits.admits(self._entry(found[UNITS]))
                if self.limits.admits(self._entry(made)) and (made.score > found[UNITS].score or not is_met):
                    found[UNITS] = made
        shallower = list(self._without_blocks(state, base))
        ranked = sorted([*found.values(), *shallower], key=_by_score)[:FINALISTS]
        if shallower and not any(branch in ranked for branch in shallower):
            # What a block did is missing all at once, and soon learned again: untrained, it would never win.
            ranked.append(min(shallower, key=_by_score))
        return ranked

    def _without_blocks(self, state: State, base: Branch) -> Iterator[Branch]:
        """Networks without branches of residual blocks, one for each number of them, pruned where that is not enough.

        Fewer layers leave more units, above all where latency is the limit: calls of nodes take much of it.
        """
        network = base.network
        for surgeries, left in removals(network, self._calibrated(network)) if network.blocks else ():
            if self._is_late(state, self._plan_seconds, PLANS_SHARE):
                return
            reason = f"{BRANCHES}: {len(surgeries)} without their branches"
            plan = Candidate(surgeries[0], 0.0, left.parameter_count, reason, base.number, surgeries[1:])
            shallower = self.untrained(state, plan, base)
            if shallower is None:
                continue
            within = [each for each in self._to_the_limits(state, shallower) if self.limits.admits(self._entry(each))]
            if within:
                yield min(within, key=_by_score)

    def _to_the_limits(self, state: State, branch: Branch) -> Iterator[Branch]:
        """A branch, or what it is pruned to where it is beyond the limits."""
        if self.limits.admits(self._entry(branch)):
            yield branch
            return
        network = branch.network
        plan = by_units(network, self._calibrated(network), self.most(branch), branch.number, self.limits.bounds)
        made = None if plan is None else self.untrained(state, plan, branch)
        if made is not None:
            yield made
        if self.limits.latency is not None:
            yield from self._in_blocks(state, branch, self.limits.latency)

    def _in_blocks(self, state: State, base: Branch, limit: float) -> Iterator[Branch]:
        """Networks with units of convolutions in multiples that ONNX Runtime computes side by side, fast enough.

        What lies between two multiples takes as long as the upper one, or longer. How small that has to be is told from
        the given network; it is pruned to it step by step, and a few times further where that is not fast enough.

        A residual network of 28,266 parameters and widths of 16 and 32, at three quarters of its latency, without
        training: units one by one 5,529 parameters, cross-entropy 0.581; in blocks of 16 11,930 parameters, 0.321. With
        a unit less in each width it is slower than it was, by two thirds.
        """
        network, moments = base.network, self._calibrated(base.network)
        for block in BLOCKS if has_convolutions(network) else ():

            def plan(most: int, block: int = block) -> Candidate | None:
                return by_units(network, moments, most, base.number, self.limits.bounds, block)

            most = self._latencies.within(limit, network, moments, plan, least_count(network))
            branch, further = base, 0
            while not self.limits.admits(self._entry(branch)):
                have = branch.network.parameter_count
                further += have <= most
                if further > ADJUSTED or self._is_late(state, self._plan_seconds, PLANS_SHARE):
                    break
                step = int(BLOCK_STEP * have) if have <= most else max(most, int(BLOCK_STEP * have))
                known = self._calibrated(branch.network)
                candidate = by_units(branch.network, known, step, branch.number, self.limits.bounds, block)
                made = None if candidate is None else self.untrained(state, candidate, branch)
                if made is None:
                    break
                branch = made
            yield branch

    def _plain(self, given: Branch, moments: Moments, most: int) -> Candidate | None:
        """The given network pruned in one go to the limits, or to ``most`` parameters, as ``operate prune`` does it."""
        limits, plan = self.limits, None
        if limits.bounds.are_any:  # how many parameters these allow depends on which units go
            plan = shrinkage(given.network, moments, None, given.number, limits.bounds)
        if plan is not None and ((limits.parameters, limits.size) == (None, None) or plan.parameters <= most):
            return plan
        return shrinkage(given.network, moments, most, given.number, limits.bounds)

    def _as_fast(self, state: State, base: Branch, straight: Branch, made: Branch, limit: float) -> Branch:
        """A plan of the kind of ``made`` at the latency of the limit: more layers take longer, fewer allow more units.

        What a parameter takes is told from the given network and the pruned one; it is tried for ``ADJUSTED`` sizes.
        """
        slow, fast = (self._entry(each) for each in (base, straight))
        for _ in range(ADJUSTED):
            excess = (self._entry(made).latency or limit) - limit
            each = ((slow.latency or limit) - (fast.latency or limit)) / (slow.parameters - fast.parameters)
            if each <= 0 or -FINE * limit <= excess <= 0:
                break
            have = made.network.parameter_count
            most = min(have - math.ceil(excess / each), base.network.parameter_count - 1)
            if self._is_late(state, self._plan_seconds, PLANS_SHARE) or most < 1 or most == have:
                break
            kinds = [kind_of(made.surgery)]
            plans = reductions(base.network, self._calibrated, most, base.number, kinds, self.limits.bounds)
            other = self.untrained(state, plans[0], base) if plans else None
            if other is None or other.network.parameter_count == have:
                break
            if not self.limits.admits(self._entry(other)) and self.limits.admits(self._entry(made)):
                break
            made = other
        return made

    def _within_limits(self, state: State, base: Branch, made: Branch) -> Branch:
        """A plan of the kind of ``made`` that is within the limits: a number of parameters allows it more than units.

        It is tried for ``ADJUSTED`` sizes, each smaller by as much as the last one was too large.
        """
        for _ in range(ADJUSTED):
            have = made.network.parameter_count
            most = int(have / self.limits.excess(self._entry(made)))
            if most >= have or most < 1 or self._is_late(state, self._plan_seconds, PLANS_SHARE):
                break
            kinds = [kind_of(made.surgery)]
            plans = reductions(base.network, self._calibrated, most, base.number, kinds, self.limits.bounds)
            other = self.untrained(state, plans[0], base) if plans else None
            if other is None or other.network.parameter_count >= have:
                break
            made = other
        return made

    # Training.

    def _race(self, state: State) -> tuple[list[Branch], int]:
        """Train the finalists for a while, the best in several ways; the winner goes on, in the way that it won by."""
        self.probe(state)
        left = self.left(state)
        best = state.branches[0]
        epochs = self._affordable(state, max(1, round(RACE_SHARE * left)))
        if left <= SHORT or not epochs:
            state.branches = [best]
            rate = self._rate_for(state, best, left) if epochs else RATES[-1]  # 0: there is no time for a race
            state.search = replace(state.search, phase=SHRINK, rate=rate)
            return self.advance(state)
        start, stop = self.window(state, epochs)
        jobs = []
        for branch, rate, uses_made in self._ways(state):
            number, state.next_number = state.next_number, state.next_number + 1
            same = replace(branch, number=number, parent=branch.number, surgery="identity")
            others: dict[str, Any] = {"rate": rate, "uses_made": uses_made and self.has_made_rows, "is_trained": True}
            parameters = branch.network.parameter_count
            jobs.append(Job(same, start, stop, TRAINED, branch.accuracy, parameters, (start, stop), **others))
        trained = self.train_all(state, jobs)
        if not trained:
            state.branches = [best]
            return self._end(state, "training diverged: no weights stayed finite; try a smaller --learning-rate")
        trained.sort(key=lambda pair: (_rank(*pair), pair[1].branch.number))
        for _, loser in trained[1:]:
            self.measured(loser.branch, state)
            self.drop(loser.branch.number)
        job, done = trained[0]
        state.search = replace(
            state.search,
            phase=SHRINK,
            rate=job.rate,
            uses_made=job.uses_made,
            begin=state.epoch,
            end=state.epoch + epochs,
        )
        self.tell(
            Chosen(
                event="chosen",
                branch=done.branch.number,
                learning_rate=job.rate * self.settings.rate_of(done.branch.network.parameter_count),
                uses_made=job.uses_made,
                reason=f"the least loss of {len(trained)} after {epochs} epochs: {done.branch.history[-1].loss:.4g}",
            )
        )
        return [done.branch], epochs

    def _rate_for(self, state: State, branch: Branch, left: int) -> float:
        """The factor of the learning rate for a run of a few epochs: where these have steps enough, what wins a race.

        Copies that nobody keeps are trained for a part of an epoch, down to a rate of 0.
        """
        steps = int(RACE_SHARE * left * self.batches_per_epoch)
        if steps < FEWEST_STEPS:
            return RATES[-1]
        start, _ = self.window(state, 0)
        stop, parameters = start + steps, branch.network.parameter_count
        options: dict[str, Any] = {**self.job_options(state), "is_trained": True, "cycle": (start, stop)}
        found: list[tuple[float, float]] = []
        with tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder:
            for rate in RATES:
                job = Job(branch, start, stop, TRAINED, branch.accuracy, parameters, **{**options, "rate": rate})
                done = train_branch(job, self.context, Path(folder))
                if done.finite:
                    found.append((done.branch.history[-1].loss, rate))
        if not found:
            return RATES[-1]
        loss, rate = min(found)
        self.tell(
            Chosen(
                event="chosen",
                branch=branch.number,
                learning_rate=rate * self.settings.rate_of(parameters),
                uses_made=options["uses_made"],
                reason=f"the least loss of {len(found)} rates after {steps} steps: {loss:.4g}",
            )
        )
        return rate

    @property
    def has_made_rows(self) -> bool:
        """Whether some training rows were made of the given ones."""
        return self.given_rows is not None and self.given_rows < self.train.rows

    def _affordable(self, state: State, epochs: int) -> int:
        """How many epochs of a race there is time for."""
        if self.settings.time_limit is None:
            return epochs
        turns = -(-len(self._ways(state)) // self.workers.count)
        seconds = 2 * RACE_SHARE * (self.deadline - self.elapsed(state)) / turns
        return int(min(epochs, self._pace.epochs(state.branches[0].network.parameter_count, seconds)))

    def _ways(self, state: State) -> list[tuple[Branch, float, bool]]:
        """What races: networks, each with a factor of the learning rate, and whether on rows that were made too.

        Networks that lack a block try a higher rate too, since what the block did has to be learned again. One trial: a
        residual network without its second block, at half the latency, six epochs on Fashion-MNIST, had 0.812 of the
        test rows right at a learning rate of 0.001 and 0.851 at 0.004.
        """
        best, blocks = state.branches[0], len(self.given_branch.network.blocks)
        ways = [(branch, RATES[0], True) for branch in state.branches]
        ways += [(best, rate, True) for rate in RATES[1:]]
        ways += [(branch, RELEARNED, True) for branch in state.branches if len(branch.network.blocks) < blocks]
        if self.has_made_rows:
            ways += [(best, rate, False) for rate in RATES]
        return ways

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
            if self._is_late(state, self._plan_seconds):
                state.search = replace(state.search, phase=DONE)
                return [branch], 0
            smaller = self._smaller(state, branch, cycle.most)
        state.branches = [smaller or branch]
        state.search = replace(state.search, begin=state.epoch, end=state.epoch + cycle.epochs)
        return self.go_on(state)

    def next_cycle(self, state: State) -> Cycle | None:
        """As of every search; where an accuracy is wanted, the next size to try, or None."""
        (branch,), search = state.branches, state.search
        is_good = self.good_enough(state) if self.is_walk and self.settings.objective != "pareto" else None
        if is_good is None or not self.limits.admits(self._entry(branch)):
            return super().next_cycle(state)
        smallest, have = self.result(state), branch.network.parameter_count
        if not is_good(self._entry(smallest)):  # none is accurate enough yet, and smaller ones will not be
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

    def _smaller(self, state: State, branch: Branch, most: int) -> Branch | None:
        """The best of several plans for that size, measured as they are."""
        with self._timed("plans"):
            made = [
                self.untrained(state, candidate, branch)
                for candidate in reductions(
                    branch.network, self._calibrated, most, branch.number, bounds=self.limits.bounds
                )
            ]
        found = [each for each in made if each is not None]
        return max(found, key=lambda each: (each.score, -each.number), default=None)

    # What surgeries go by.

    def moments_of(self, network: Network) -> Moments:
        """With sensitivities."""
        return self._calibrated(network)

    def plan(self, network: Network, most: int | None) -> Candidate | None:
        """By what units cost at the outputs."""
        return by_units(network, self._calibrated(network), most, bounds=self.limits.bounds)

    def moments_for(self, surgery: Surgery, network: Network) -> Moments | None:
        """Moments with sensitivities; of a network that was calibrated last, those of then."""
        if self._is_plain or surgery.needs != Needs.MOMENTS:
            return super().moments_for(surgery, network)
        if not isinstance(surgery, Prune):
            return calibrate(network, self.train, self.sample)
        return self._calibrated(network) if self._shared is None else self._shared

    def searching(self, given: Branch) -> float:
        """Of pruning step by step, as the first step takes, and of the plans at the size of a limit."""
        begun, have = perf_counter(), given.network.parameter_count
        candidate = by_units(given.network, self._calibrated(given.network), int(STEP * have), 0, self.limits.bounds)
        if candidate is None:
            return 0.0
        made = self._operate(given, candidate, 1, 0)
        self.engine.evaluate(made.network, self.validation)
        step, (least, _) = perf_counter() - begun, self.sizes(given)
        steps = max(1, math.ceil(math.log(least / have) / math.log(STEP)))
        parts = [(have * STEP**number + OVERHEAD) / (have + OVERHEAD) for number in range(steps)]
        # The plans are made of the given network, however small they are to be.
        return step * (sum(parts) + (PLANS if self.limits.are_any else 0))

    def _operate(self, parent: Branch, candidate: Candidate, number: int, epoch: int) -> Branch:
        """As of every search; units of all layers go by one calibration, that of the network before."""
        only_units = all(isinstance(surgery, Prune) for surgery in candidate.surgeries)
        self._shared = self._calibrated(parent.network) if only_units and not self._is_plain else None
        branch = super()._operate(parent, candidate, number, epoch)
        return replace(branch, lineage=_without_steps(branch.lineage))

    def heed(self, operated: Operated) -> None:
        """The calibration that all go by is of the units that are left."""
        if self._shared is not None:
            self._shared = operated.follow(self._shared)

    def _calibrated(self, network: Network) -> Moments:
        """Moments with sensitivities; of the networks that were calibrated last, those of then."""
        for known, moments in self._known:
            if known is network:
                return moments
        moments = calibrate(network, self.train, self.sample)
        moments = with_sensitivities(moments, network, self.train, self.sample, self.settings.seed)
        if has_convolutions(network):
            moments = with_trials(moments, network, self.train, self.sample, self._outputs)
        self._known = [(network, moments), *self._known[: REMEMBERED - 1]]
        return moments

    def _outputs(self, network: Network, examples: Examples) -> tuple[Array, ...]:
        return head_outputs(network, examples, self.engine)


def has_convolutions(network: Network) -> bool:
    """Whether some of its layers are convolutions."""
    return any(segment.is_convolution for segment in network.segments)


def _by_score(branch: Branch) -> tuple[float, int]:
    """The best first."""
    return -branch.score, branch.number


def _rank(job: Job, done: JobResult) -> float:
    """The loss that a race goes by: rows that were made pay later than a race is long."""
    loss = -done.branch.score
    return loss * PAYS if job.uses_made and loss > 0 else loss


def _middle(most: int, least: int) -> int:
    """The geometric mean of two numbers of parameters."""
    return int(math.sqrt(most * least))


def _tries(most: int, least: int) -> int:
    """How many sizes between two are tried before they are as near as a tenth; 0 where they are."""
    between = math.log(most / least) / math.log(NEAR) if most > least else 0.0
    return max(0, math.ceil(math.log2(between))) if between > 0 else 0


def _without_steps(lineage: Sequence[str]) -> tuple[str, ...]:
    """The surgeries without prunes of a layer that was pruned further with no other kind in between.

    A path of many steps would take more bytes of a small file than its weights.
    """
    kept: list[str] = []
    behind: set[str] = set()  # layers that are pruned further on
    for each in reversed(lineage):
        operation, _, rest = each.partition(":")
        if operation != Prune.operation:
            behind.clear()
        elif rest.partition(":")[0] in behind:
            continue
        else:
            behind.add(rest.partition(":")[0])
        kept.append(each)
    return tuple(reversed(kept))
