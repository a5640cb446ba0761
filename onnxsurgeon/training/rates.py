"""Learning-rate schedules: a factor for every batch, which depends only on the batch's position in the run.

The command line lists them, so this module must not import numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxsurgeon.linear_algebra import Array

ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 25e4
STEPS, STEP_FACTOR = (0.5, 0.75), 0.1


def constant(x: float) -> float:
    """1."""
    return 1.0


def cosine(x: float) -> float:
    """(1 + cos πx) / 2 (Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * x))


def linear(x: float) -> float:
    """1 − x."""
    return 1 - x


def step(x: float) -> float:
    """A tenth after half of the run, a hundredth after three quarters (Huang et al., "DenseNet", CVPR 2017, 4.2)."""
    return STEP_FACTOR ** sum(x >= at for at in STEPS)


def one_cycle(x: float) -> float:
    """From 1/25 up to 1 in three tenths of the run, then down to 1/250,000, along cosines.

    Smith and Topin, "Super-convergence" (2017), with the numbers and curves of PyTorch's OneCycleLR.
    """
    if x < ONE_CYCLE_RISE:
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - cosine(x / ONE_CYCLE_RISE))
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * cosine((x - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "step": step,
    "one-cycle": one_cycle,
}


@dataclass(frozen=True)
class RateSchedule:
    """The factors of the learning rate, batch by batch.

    Attributes:
        kind: a key of ``SCHEDULES``, a function of the fraction of the batches behind the warm-up that are done.
        total: number of batches in the run; later positions count as its end.
        warmup: number of batches over which the rate rises in equal steps, the first one above 0.
        begin: position at which the course begins.
    """

    kind: str = "constant"
    total: int = 0
    warmup: int = 0
    begin: int = 0

    def factors(self, start: int, count: int) -> Array:
        """Factors of the batches at positions ``start`` to ``start + count`` − 1, shape (count,), float64.

        A batch gets the same factor however a run is cut into pieces.
        """
        import numpy as np

        if self.kind == "constant" and start - self.begin >= self.warmup:
            return np.ones(count)
        return np.array([self.factor(position) for position in range(start, start + count)])

    def factor(self, position: int) -> float:
        """The factor of one batch, without numpy, whose cosine may depend on a value's place in an array."""
        position -= self.begin
        if position < self.warmup:
            return (position + 1) / (self.warmup + 1)
        length = self.total - self.warmup
        return SCHEDULES[self.kind](min((position - self.warmup) / length, 1.0) if length > 0 else 0.0)
