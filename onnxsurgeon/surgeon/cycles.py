"""The length of a search's cycles, and how much each takes away: plain arithmetic on epochs and parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsurgeon.surgeon.settings import SurgeonSettings

# The cost of a training step besides its parameters, in parameters.
OVERHEAD = 10_000
KEPT = 2**-0.5  # share of the parameters that a cycle along the front keeps
MOST_AT_ONCE = 0.5  # share that a cycle keeps at least, however few cycles there are
SPARE = 0.05  # share of the time left that is not planned


class Pace:
    """How fast networks are trained, as measured in this process."""

    def __init__(self) -> None:
        self._cost: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether it was measured."""
        return self._cost is not None

    def note(self, parameters: int, epochs: float, seconds: float) -> None:
        """Note that a network was trained alone for ``epochs`` in ``seconds``; 0 seconds: before a resume."""
        if epochs > 0 and seconds > 0:
            self._cost = seconds / (epochs * (parameters + OVERHEAD))

    def epochs(self, parameters: int, seconds: float) -> float:
        """The number of epochs for which a network can be trained in that time; ∞ before the first measurement."""
        return math.inf if self._cost is None else (1 - SPARE) * seconds / (self._cost * (parameters + OVERHEAD))


@dataclass(frozen=True)
class Cycle:
    """The next cycle of the learning rate.

    Attributes:
        epochs: its length.
        most: number of parameters that the network may keep.
    """

    epochs: int
    most: int


def settling(settings: SurgeonSettings, left: int) -> int:
    """The number of the epochs left in which a grown network settles, where smaller ones are wanted after it."""
    ahead = 1 - settings.growth
    share = max(0.0, ahead - settings.shrinkage) / ahead if ahead > 0 else 0.0
    return min(left, max(1, round(share * left)))


def to_the_limit(settings: SurgeonSettings, left: int, have: int, excess: float, is_last: bool | None = None) -> Cycle:
    """The next of the fewest cycles that bring a network to 1/``excess`` of its size, none by more than a half.

    There are no more cycles than epochs left. The last takes all of these, unless the front goes on below the limit
    (``is_last``; by default where the front is the objective).
    """
    cycles = min(max(1, math.ceil(math.log2(excess) - 1e-9)), max(1, left))
    ends = settings.objective != "pareto" if is_last is None else is_last
    epochs = left if cycles == 1 and ends else max(1, min(settings.shrink_step, left // cycles))
    return Cycle(epochs, int(have * excess ** (-1 / cycles)))


def along_the_front(settings: SurgeonSettings, left: int, have: int, floor: int, share: float = 1.0) -> Cycle:
    """The next of the cycles that are left down to ``floor`` parameters, in equal ratios, or a share of such a step.

    They are as few as keep ``KEPT`` or more each time, but none is shorter than ``shrink_step``: long cycles on a
    network of one size lead further than short ones on many.
    """
    ratio = min(floor, have) / have
    needed = math.ceil(math.log(ratio) / math.log(KEPT) - 1e-9)
    cycles = max(1, min(left // settings.shrink_step, needed))
    return Cycle(left // cycles, int(have * max(ratio ** (share / cycles), MOST_AT_ONCE)))
