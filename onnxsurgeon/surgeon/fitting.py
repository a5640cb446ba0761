"""Plans brought to limits on which parameters alone say too little: size, latency, what is computed.

How far a plan of a kind is from a limit is measured on the network that it makes, and the plan is made anew for a
number of parameters corrected by that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.reduction import UNITS, by_units, kind_of, reductions
from onnxsurgeon.recommend.shrinking import least_count
from onnxsurgeon.runs.branch import Branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.pruning_search import PruningSearch, has_convolutions

PLANS_SHARE = 1 / 2  # of the time there is, that plans may take: on white rows ranks are worth more than time is
ADJUSTED = 3  # sizes that a plan is tried for
FINE = 0.02  # of a limit on latency: what is faster by less is as large as it can be
BLOCKS = (8, 16)  # units of a convolution that a processor computes side by side
BLOCK_STEP = 0.6  # share of the parameters that a step of pruning in such blocks keeps


@dataclass(frozen=True)
class Fitting:
    """Brings plans to the limits of a search.

    Attributes:
        search: makes, measures and tells of networks, and has the limits.
        state: of the run, which is not changed but for the front and the next number.
    """

    search: PruningSearch
    state: State

    def fitted(self, made: Branch, base: Branch, straight: Branch) -> Branch:
        """What ``base`` was made into by a plan, or, where that misses a limit, by one of its kind for another size.

        ``straight`` is what ``base`` becomes within the limits by units alone.
        """
        limits = self.search.limits
        if kind_of(made.surgery) == UNITS:
            return made
        if limits.latency is not None:
            return self._as_fast(made, base, straight, limits.latency)
        return self._within_limits(made, base) if limits.bounds.are_any else made

    @property
    def _is_late(self) -> bool:
        return self.search.is_late(self.state, self.search.plan_seconds, PLANS_SHARE)

    def _another(self, made: Branch, base: Branch, most: int) -> Branch | None:
        """What a plan of the kind of ``made`` makes for that size."""
        kinds, search = [kind_of(made.surgery)], self.search
        plans = reductions(base.network, search.calibrated, most, base.number, kinds, search.limits.bounds)
        return search.untrained(self.state, plans[0], base) if plans else None

    def _as_fast(self, made: Branch, base: Branch, straight: Branch, limit: float) -> Branch:
        """A plan of the kind of ``made`` at the latency of the limit: more layers take longer, fewer allow more units.

        What a parameter takes is told from the given network and the pruned one; it is tried for ``ADJUSTED`` sizes.
        """
        search = self.search
        slow, fast = (search.entry_of(each) for each in (base, straight))
        for _ in range(ADJUSTED):
            excess = (search.entry_of(made).latency or limit) - limit
            each = ((slow.latency or limit) - (fast.latency or limit)) / (slow.parameters - fast.parameters)
            if each <= 0 or -FINE * limit <= excess <= 0:
                break
            have = made.network.parameter_count
            most = min(have - math.ceil(excess / each), base.network.parameter_count - 1)
            if self._is_late or most < 1 or most == have:
                break
            other = self._another(made, base, most)
            if other is None or other.network.parameter_count == have:
                break
            if not search.is_allowed(other) and search.is_allowed(made):
                break
            made = other
        return made

    def _within_limits(self, made: Branch, base: Branch) -> Branch:
        """A plan of the kind of ``made`` that is within the limits: a number of parameters allows it more than units.

        It is tried for ``ADJUSTED`` sizes, each smaller by as much as the last one was too large.
        """
        for _ in range(ADJUSTED):
            have = made.network.parameter_count
            most = int(have / self.search.limits.excess(self.search.entry_of(made)))
            if most >= have or most < 1 or self._is_late:
                break
            other = self._another(made, base, most)
            if other is None or other.network.parameter_count >= have:
                break
            made = other
        return made

    def to_the_limits(self, branch: Branch) -> Iterator[Branch]:
        """A branch, or what it is pruned to where it is beyond the limits."""
        search = self.search
        if search.is_allowed(branch):
            yield branch
            return
        made = search.pruned(self.state, branch, search.most(branch))
        if made is not None:
            yield made
        if search.limits.latency is not None:
            yield from self.in_blocks(branch, search.limits.latency)

    def in_blocks(self, base: Branch, limit: float) -> Iterator[Branch]:
        """Networks with units of convolutions in multiples that ONNX Runtime computes side by side, fast enough.

        What lies between two multiples takes as long as the upper one, or longer. How small that has to be is told from
        the given network; it is pruned to it step by step, and a few times further where that is not fast enough.

        A residual network of 28,266 parameters and widths of 16 and 32, at three quarters of its latency, without
        training: units one by one 5,529 parameters, cross-entropy 0.581; in blocks of 16 11,930 parameters, 0.321. With
        a unit less in each width it is slower than it was, by two thirds.
        """
        search, network = self.search, base.network
        moments = search.calibrated(network)
        for block in BLOCKS if has_convolutions(network) else ():

            def plan(most: int, block: int = block) -> Candidate | None:
                return by_units(network, moments, most, base.number, search.limits.bounds, block)

            most = search.latencies.within(limit, network, moments, plan, least_count(network))
            branch, further = base, 0
            while not search.is_allowed(branch):
                have = branch.network.parameter_count
                further += have <= most
                if further > ADJUSTED or self._is_late:
                    break
                step = int(BLOCK_STEP * have) if have <= most else max(most, int(BLOCK_STEP * have))
                made = search.pruned(self.state, branch, step, block)
                if made is None:
                    break
                branch = made
            yield branch
