"""The networks that race at the size of the limits: the best of each kind of plan, measured without training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.reduction import BOTH, LAYERS, RANKS, UNITS, kind_of, reductions, without_blocks
from onnxsurgeon.recommend.shrinking import shrinkage
from onnxsurgeon.runs.branch import Branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.fitting import PLANS_SHARE, Fitting
from onnxsurgeon.surgeon.objective import Limits
from onnxsurgeon.surgeon.pruning_search import PruningSearch

FINALISTS = 3


@dataclass(frozen=True)
class Finalists:
    """The plans that are measured for the size of the limits, and which of them race.

    Attributes:
        search: makes, measures and tells of them.
        state: of the run, which is not changed but for the front and the next number.
        base: the branch that they are made of: the given one, or what is left of it without units to no purpose.
    """

    search: PruningSearch
    state: State
    base: Branch

    def best(self, path: Sequence[Branch]) -> list[Branch]:
        """The best network of each kind at the size of the limits, the least loss first.

        ``path`` are the networks that units were taken from step by step, from ``base`` on.
        """
        search = self.search
        straight = next((branch for branch in path if search.is_allowed(branch)), path[-1])
        if straight is self.base or self._is_late:
            return [straight]
        found = {kind_of(straight.surgery): straight}
        for made in self._of_each_kind(straight):
            kind = kind_of(made.surgery)
            if search.is_allowed(made) and (kind not in found or made.score > found[kind].score):
                found[kind] = made
        limit = search.limits.latency
        for made in [] if limit is None else self._fitting.in_blocks(self.base, limit):
            is_met = search.is_allowed(found[UNITS])
            if search.is_allowed(made) and (made.score > found[UNITS].score or not is_met):
                found[UNITS] = made
        shallower = list(self._without_blocks())
        every = [*found.values(), *shallower]
        # Units alone may not be enough: of a transformer only the feed-forward widths are free.
        within = [branch for branch in every if search.is_allowed(branch)]
        ranked = sorted(within or every, key=_by_score)[:FINALISTS]
        if shallower and not any(branch in ranked for branch in shallower):
            # What a block did is missing all at once, and soon learned again: untrained, it would never win.
            ranked.append(min(shallower, key=_by_score))
        return ranked

    @property
    def _is_late(self) -> bool:
        return self.search.is_late(self.state, self.search.plan_seconds, PLANS_SHARE)

    @property
    def _fitting(self) -> Fitting:
        return Fitting(self.search, self.state)

    def _of_each_kind(self, straight: Branch) -> Iterator[Branch]:
        """Networks of all kinds of plans, as large as the limits allow; ``straight`` is the one of units alone."""
        search, state, base = self.search, self.state, self.base
        most, bounds = straight.network.parameter_count, search.limits.bounds
        if search.limits.latency is None:
            most = search.most(base if bounds.are_any else straight) or most
        # How many parameters bounds alone allow differs from kind to kind: ranks of convolutions save other things.
        end = None if search.limits == Limits(**asdict(bounds)) else most
        kinds = (UNITS, RANKS, BOTH, LAYERS)
        plans = reductions(base.network, search.calibrated, end, base.number, kinds, bounds)
        plain = self._plain(most)
        for candidate in plans:
            made = search.untrained(state, candidate, base)
            if made is not None:
                yield self._fitting.fitted(made, base, straight)
        made = None if plain is None else search.plainly_made(state, plain, search.given_branch)
        if made is not None:
            yield made

    def _plain(self, most: int) -> Candidate | None:
        """The given network pruned in one go to the limits, or to ``most`` parameters, as ``operate prune`` does it."""
        given, limits, plan = self.search.given_branch, self.search.limits, None
        moments = calibrate(given.network, self.search.train, self.search.sample)
        if limits.bounds.are_any:  # how many parameters these allow depends on which units go
            plan = shrinkage(given.network, moments, None, given.number, limits.bounds)
        if plan is not None and ((limits.parameters, limits.size) == (None, None) or plan.parameters <= most):
            return plan
        return shrinkage(given.network, moments, most, given.number, limits.bounds)

    def _without_blocks(self) -> Iterator[Branch]:
        """Networks without branches of residual blocks, one for each number of them, pruned where that is not enough.

        Fewer layers leave more units, above all where latency is the limit: calls of nodes take much of it. They are
        measured before units go too, since then only their files say how large they are and how long they take.
        """
        search = self.search
        most = search.most(self.base)
        for candidate, _ in without_blocks(self.base.network, search.calibrated, self.base.number, most):
            if self._is_late:
                return
            shallower = search.untrained(self.state, candidate, self.base)
            if shallower is None:
                continue
            within = [each for each in self._fitting.to_the_limits(shallower) if search.is_allowed(each)]
            if within:
                yield min(within, key=_by_score)


def _by_score(branch: Branch) -> tuple[float, int]:
    """The best first."""
    return -branch.score, branch.number
