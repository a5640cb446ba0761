"""What the searches with a front share: every network of a checkpoint enters it, and the result is read off it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.graph.network import Network
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.shrinking import least_count, shrinkage
from onnxsurgeon.runs.branch import (
    RECUPERATED,
    TRAINED,
    Branch,
    Measurement,
    digests,
    given_file,
    read_branch,
    write_branch,
)
from onnxsurgeon.runs.checkpoint import REFIT, State
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.surgeon.computed import asked_of, parameters_within_bounds
from onnxsurgeon.surgeon.cycles import Cycle, along_the_front, to_the_limit
from onnxsurgeon.surgeon.fast_enough import Latencies
from onnxsurgeon.surgeon.file_size import parameters_within
from onnxsurgeon.surgeon.good_enough import Judge
from onnxsurgeon.surgeon.objective import Given, Limits, choose, front
from onnxsurgeon.surgeon.paced_search import PacedSearch
from onnxsurgeon.surgeon.significance import is_better

FEWEST = 8  # epochs of a run that makes networks larger or smaller than it has to; fewer are for training alone
SMALLEST = 1 / 30  # of the parameters with which shrinking begins; the front ends there, or at a smaller given model
FINEST = 0.98  # share of the parameters: where a step would keep more, the smallest network is found
METADATA = 256  # bytes by which a file's metadata may grow while the network is trained


class FrontSearch(PacedSearch):
    """A search with a front, and the steps that all such searches share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.latencies = Latencies(given_file(self.run.branches))
        self._fast_enough: dict[int, int] = {}
        self._moments: tuple[Network, Moments] | None = None
        self._within: tuple[Network, int] | None = None

    # What is wanted.

    @cached_property
    def given_branch(self) -> Branch:
        """The given model, measured."""
        return read_branch(given_file(self.run.branches))

    @cached_property
    def given(self) -> Given:
        """The values to which some wishes are relative."""
        return self.judge.given

    @cached_property
    def limits(self) -> Limits:
        """Upper bounds of the result."""
        return Limits.of(self.settings, self.given)

    @cached_property
    def has_accuracy(self) -> bool:
        """Whether an accuracy is asked for, so that the smallest network that has it is wanted."""
        settings = self.settings
        return any(each is not None for each in (settings.min_accuracy, settings.tolerance, settings.lose))

    @property
    def is_to_be_small(self) -> bool:
        """Whether nothing is asked for, so that the smallest network that is no worse is wanted.

        For an untrained network an accurate one is wanted: half of the time spent on smaller ones, and then the
        smallest within a standard error, cost 0.02 of accuracy on diamonds' cuts.
        """
        return self.settings.has_no_wish and self.is_trained

    @cached_property
    def is_walk(self) -> bool:
        """Whether smaller networks are looked for than any limit asks for."""
        settings = self.settings
        return (
            settings.objective == "pareto" or self.has_accuracy or (self.is_to_be_small and settings.epochs >= FEWEST)
        )

    def most(self, branch: Branch) -> int | None:
        """The limits as a number of parameters of networks like this one; None: there is none.

        For a limit on latency it is the number of the largest network that is fast enough as measured, found by
        bisection.
        """
        found = [self.limits.parameters]
        if self.limits.size is not None:
            found.append(parameters_within(self.limits.size - METADATA, branch))
        if self.limits.latency is not None:
            latency = self.entry_of(branch).latency or 0.0
            if latency > self.limits.latency:
                found.append(self._within_latency(branch, self.limits.latency))
        if self.limits.bounds.are_any:
            found.append(self._within_bounds(branch.network))
        least = min((each for each in found if each is not None), default=None)
        # The graph alone may have nearly as many bytes as the file may.
        return None if least is None else max(1, least)

    def _within_latency(self, branch: Branch, limit: float) -> int:
        """The number of parameters to which a branch that is too slow is pruned to be fast enough."""
        network, depth = branch.network, branch.network.hidden_count
        have, least = network.parameter_count, least_count(network)
        # The finding for a larger network of as many layers is tried first.
        if self._fast_enough.get(depth, have) >= have:
            moments = self.moments_of(network)
            found = self.latencies.within(limit, network, moments, lambda most: self.plan(network, most), least)
            self._fast_enough[depth] = found
        return self._fast_enough[depth]

    def _within_bounds(self, network: Network) -> int:
        """The limits on computation as a number of parameters; the last network's number is kept."""
        if self._within is None or self._within[0] is not network:
            found = parameters_within_bounds(network, self.limits.bounds, lambda each: self.plan(each, None))
            self._within = network, found
        return self._within[1]

    def moments_of(self, network: Network) -> Moments:
        """The moments for pruning all layers; the last network's are kept."""
        if self._moments is None or self._moments[0] is not network:
            self._moments = network, calibrate(network, self.train, self.sample)
        return self._moments[1]

    def plan(self, network: Network, most: int | None) -> Candidate | None:
        """A candidate with units taken from all layers for at most ``most`` parameters, or as near to that as possible.

        None: until the limits on computation are met.
        """
        return shrinkage(network, self.moments_of(network), most, bounds=self.limits.bounds)

    def limit(self, given: Branch) -> int | None:
        """The limits as a number of parameters."""
        return self.most(given)

    def sizes(self, given: Branch) -> tuple[int, int]:
        """From the size that the limits ask for, or where the front would end, to the given network."""
        count = given.network.parameter_count
        least = int(count * SMALLEST) if self.is_walk else count
        return max(1, min(count, self.most(given) or count, least)), count

    @cached_property
    def judge(self) -> Judge:
        """Which networks are accurate enough."""
        return Judge(
            self.settings,
            self.given_branch,
            self.run.branches,
            self.engine,
            self.validation,
            is_held_out=self.is_held_out,
            is_to_be_small=self.is_to_be_small,
        )

    def good_enough(self, state: State) -> Callable[[Entry], bool] | None:
        """A test for networks that are accurate enough, where the smallest such is wanted.

        None: the most accurate is.
        """
        return self.judge.test([entry for entry in state.front if self.limits.admits(entry)] or state.front)

    # The front.

    def is_allowed(self, branch: Branch) -> bool:
        """Whether a branch is within the limits."""
        return self.limits.admits(self.entry_of(branch))

    def measured(self, branch: Branch, state: State) -> None:
        """Enter a branch into the front."""
        state.front = front([*state.front, self.entry_of(branch)], self.limits)

    def entry_of(self, branch: Branch) -> Entry:
        """What the front says of a branch, whose file is written."""
        path = self.run.branches / branch.file_name
        latency = None
        if self.settings.objective == "pareto" or self.settings.max_latency is not None:
            latency = self.latencies.of(branch.network, path)
        return Entry(
            branch.number,
            branch.file_name,
            digests(path)["digest"],
            branch.network.topology,
            branch.accuracy,
            branch.history[-1].loss,
            branch.network.parameter_count,
            size_on_disk(path),
            latency,
            **asked_of(branch.network, self.settings),
        )

    def result(self, state: State) -> Branch:
        """The branch that is read off the front.

        A given model that was trained stays, where that is allowed, unless a network has a better metric by more than
        chance: few rows decide little. (Of diabetes' 442 rows 35 decided; a network that was better on these by 0.05
        was worse on the test rows by 0.02.) Where nothing is asked for, it also stays unless another is surely as good
        (``Judge``).
        """
        if state.search.phase == REFIT:
            return state.branches[0]
        chosen = self._chosen(state)
        branch = read_branch(self.run.branches / chosen.file)
        is_told = self.has_accuracy or self.settings.target_accuracy is not None
        if self.settings.has_no_wish:
            is_good = self.good_enough(state)
            is_told = is_good is not None and is_good(chosen)
        if not branch.number or is_told or not self.is_trained:
            return branch
        if not self.is_allowed(self.given_branch):
            return branch
        return branch if is_better(self.judge.scores(chosen), self.judge.given_scores) else self.given_branch

    def _chosen(self, state: State) -> Entry:
        settings = self.settings
        is_good = self.good_enough(state) if settings.has_no_wish or settings.lose is not None else None
        return choose(state.front, settings, self.given, is_good)

    def leading(self, state: State) -> float:
        """The best accuracy within the limits, by more than chance or not."""
        return choose(state.front, self.settings, self.given).accuracy

    def job_options(self, state: State) -> dict[str, Any]:
        """Options by which nothing is dropped out unasked where the given network was trained."""
        return {"is_trained": self.is_trained}

    # Cycles.

    def next_cycle(self, state: State) -> Cycle | None:
        """The next cycle of shrinking; where the network has lost too much, it goes on from the last one that had not.

        None: the smallest network is found.
        """
        settings, (branch,) = self.settings, state.branches
        most, have = self.most(branch), branch.network.parameter_count
        if most is not None and have > most:
            return to_the_limit(settings, self.left(state), have, have / max(1, most), is_last=not self.is_walk)
        is_good = None if settings.objective == "pareto" else self.good_enough(state)
        if is_good is not None and not is_good(self.entry_of(branch)):
            state.branches = [branch] = [self.result(state)]
            have = branch.network.parameter_count
            if not is_good(self.entry_of(branch)):  # none is accurate enough yet, and smaller ones will not be
                return Cycle(self.left(state), have)
            state.search = replace(state.search, halvings=state.search.halvings + 1)
        floor, halvings = self.floor(state), state.search.halvings
        cycle = along_the_front(settings, self.left(state), have, floor, 0.5**halvings)
        return None if halvings and cycle.most > FINEST * have else cycle

    def floor(self, state: State) -> int:
        """Number of parameters below which no network is looked for, unless a limit asks for it."""
        return max(1, min(self.given.parameters, int(state.search.top * SMALLEST)))

    # Networks that are measured as they are.

    def untrained(self, state: State, candidate: Candidate, parent: Branch) -> Branch | None:
        """The candidate made of ``parent``, measured without training and entered into the front.

        None: it cannot be made.
        """
        for _, _, branch in self.operated(state, [candidate], parents=[parent]):
            metrics = self.engine.evaluate(branch.network, self.validation)
            position, epoch = self.window(state, 0)[0], float(state.epoch)
            measurement = Measurement(position, epoch, RECUPERATED, metrics.accuracy, metrics.loss)
            trained = tuple(each for each in branch.history if each.stage == TRAINED)  # of the others one is enough
            branch = replace(branch, history=trained)
            made = branch.measured(branch.network, branch.state, measurement, -metrics.loss)
            write_branch(made, self.run.branches)
            self.tell_measured(made, parent.accuracy)
            self.measured(made, state)
            return made
        return None

    def conclude(self, state: State) -> None:
        """As a last resort, bring the network within the limits without training."""
        if any(map(self.limits.admits, state.front)):
            return
        branch = read_branch(self.run.branches / self._chosen(state).file)
        while not any(map(self.limits.admits, state.front)):
            most, have = self.most(branch), branch.network.parameter_count
            if most is None:
                return
            moments = calibrate(branch.network, self.train, self.sample)
            most = min(most, have - 1)
            candidate = shrinkage(branch.network, moments, most, branch.number, self.limits.bounds)
            made = None if candidate is None else self.untrained(state, candidate, branch)
            if made is None or made.network.parameter_count >= have:
                return
            self.decide(state, [made], state.epoch)
            branch = made  # and not the one nearest to the limit: a smaller network need not be faster
