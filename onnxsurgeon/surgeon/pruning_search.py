"""What a search goes by that prunes a trained network: what units cost at its outputs, and what time pruning takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.reduction import by_units, reductions
from onnxsurgeon.recommend.trials import with_trials
from onnxsurgeon.runs.branch import Branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.cycles import OVERHEAD
from onnxsurgeon.surgeon.front_search import FrontSearch
from onnxsurgeon.surgery import Operated, Prune, Surgery
from onnxsurgeon.surgery.base import Needs
from onnxsurgeon.training.teaching import head_outputs

STEP = 0.8  # share of the parameters that a step of straight pruning keeps
REMEMBERED = 3  # networks whose moments are kept
PLANS = 8  # times as long as a step of pruning several plans take, as long as it was not measured


class PruningSearch(FrontSearch):
    """A search with a front that prunes by what units cost at the outputs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._known: list[tuple[Network, Moments]] = []
        self._shared: Moments | None = None
        self._is_plain = False
        self._took: dict[str, float] = {}  # seconds of the longest step of pruning, and of several plans

    # Time.

    def is_late(self, state: State, seconds: float, share: float = 1.0) -> bool:
        """Whether what takes so many seconds would end behind that share of the time there is."""
        return self.elapsed(state) + seconds > share * self.deadline

    @property
    def step_seconds(self) -> float:
        """Seconds that a step of pruning takes; 0 before the first."""
        return self._took.get("step", 0.0)

    @property
    def plan_seconds(self) -> float:
        """Seconds that several plans for one size take."""
        return self._took.get("plans", PLANS * self.step_seconds)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long a "step" of pruning takes, or several "plans"."""
        begun = time.perf_counter()
        yield
        self._took[what] = max(self._took.get(what, 0.0), time.perf_counter() - begun)

    def searching(self, given: Branch) -> float:
        """Of pruning step by step, as the first step takes, and of the plans at the size of a limit."""
        begun, have = time.perf_counter(), given.network.parameter_count
        candidate = self.plan(given.network, int(STEP * have))
        if candidate is None:
            return 0.0
        made = self._operate(given, candidate, 1, 0)
        self.engine.evaluate(made.network, self.validation)
        step, (least, _) = time.perf_counter() - begun, self.sizes(given)
        steps = max(1, math.ceil(math.log(least / have) / math.log(STEP)))
        parts = [(have * STEP**number + OVERHEAD) / (have + OVERHEAD) for number in range(steps)]
        # The plans are made of the given network, however small they are to be.
        return step * (sum(parts) + (PLANS if self.limits.are_any else 0))

    # Plans.

    def plan(self, network: Network, most: int | None, branch: int = 0, block: int = 1) -> Candidate | None:
        """By what units cost at the outputs; ``block`` is that of ``widths_for``."""
        return by_units(network, self.calibrated(network), most, branch, self.limits.bounds, block)

    def pruned(self, state: State, branch: Branch, most: int | None, block: int = 1) -> Branch | None:
        """A branch without some of its units, measured as it is; None where none can go."""
        candidate = self.plan(branch.network, most, branch.number, block)
        return None if candidate is None else self.untrained(state, candidate, branch)

    def plainly_made(self, state: State, candidate: Candidate, parent: Branch) -> Branch | None:
        """As ``untrained``, each surgery by moments of the network before it, as ``operate`` does it."""
        self._is_plain = True
        made = self.untrained(state, candidate, parent)
        self._is_plain = False
        return made

    def smaller(self, state: State, branch: Branch, most: int) -> Branch | None:
        """The best of several plans for that size, measured as they are."""
        with self.timed("plans"):
            made = [
                self.untrained(state, candidate, branch)
                for candidate in reductions(
                    branch.network, self.calibrated, most, branch.number, bounds=self.limits.bounds
                )
            ]
        found = [each for each in made if each is not None]
        return max(found, key=lambda each: (each.score, -each.number), default=None)

    # What surgeries go by.

    def calibrated(self, network: Network) -> Moments:
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

    def moments_of(self, network: Network) -> Moments:
        """With sensitivities."""
        return self.calibrated(network)

    def moments_for(self, surgery: Surgery, network: Network) -> Moments | None:
        """Moments with sensitivities; of a network that was calibrated last, those of then."""
        if self._is_plain or surgery.needs != Needs.MOMENTS:
            return super().moments_for(surgery, network)
        if not isinstance(surgery, Prune):
            return calibrate(network, self.train, self.sample)
        return self.calibrated(network) if self._shared is None else self._shared

    def _operate(self, parent: Branch, candidate: Candidate, number: int, epoch: int) -> Branch:
        """As of every search; units of all layers go by one calibration, that of the network before."""
        only_units = all(isinstance(surgery, Prune) for surgery in candidate.surgeries)
        self._shared = self.calibrated(parent.network) if only_units and not self._is_plain else None
        branch = super()._operate(parent, candidate, number, epoch)
        return replace(branch, lineage=without_steps(branch.lineage))

    def heed(self, operated: Operated) -> None:
        """The calibration that all go by is of the units that are left."""
        if self._shared is not None:
            self._shared = operated.follow(self._shared)


def has_convolutions(network: Network) -> bool:
    """Whether some of its layers are convolutions."""
    return any(segment.is_convolution for segment in network.segments)


def without_steps(lineage: Sequence[str]) -> tuple[str, ...]:
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
