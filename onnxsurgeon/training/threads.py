"""The number of threads with which a session trains, where cores are free.

The main way to use cores is to train one branch on each. Where fewer branches than cores are left, the matrix products
of one branch are shared out between threads. Their results should not depend on the number of threads, and this is
checked.

Threads meet some ten times a step, which costs microseconds each time: small networks get slower. Two threads against
one on two cores of an AMD EPYC, batch 16: 784-10-10, 0.5 MFLOP a step, 1.0 times as fast; 784-128-128-10, 8 MFLOP, 1.2;
784-300-100-100-10, 19 MFLOP, 1.36; 3072-300-100-100-10, 63 MFLOP, 1.5. tools/benchmark.py measures it again.

So a thread must have ``FLOPS`` of a step to itself. Whether it then pays depends on the machine and on what else runs
there: some steps of an epoch are run one way, as many the other, and the rest goes the faster way. The first time that
a network is met, the first steps are run both ways and must give the same bits; otherwise it is trained with one thread
from there on. How a product is split between threads is ONNX Runtime's choice, and the bytes of a result must not
depend on the number of workers. Where there are too few steps to try anything, the last finding for the same network
holds.

This module imports neither numpy nor onnx, since the command line's help reads the settings, which name it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.linear_algebra import Array

FLOPS = 4e6
# Steps that are run one way and the other: one in ONE_IN, but at least AT_LEAST, and none if there are fewer than
# TOO_FEW. Where these would be more operations than TRIED_FLOPS, as for convolutions, fewer steps do, but at least
# FEWEST: the first steps are slow, since they ask for memory.
ONE_IN, AT_LEAST, TOO_FEW = 64, 8, 128
TRIED_FLOPS, FEWEST = 5e8, 3
# Several threads must be faster by this factor, since they take cores from whatever else runs.
GAIN = 1.1

# Trains a part of the steps: from a number of threads, the parameters before and the part, to outputs, parameters
# first.
Run: TypeAlias = "Callable[[int, Sequence[Array], slice], list[Array]]"


def one_thread() -> int:
    """The number of free threads where nobody has said another."""
    return 1


def step_flops(network: Network, batch_size: int) -> float:
    """Operations of the products of a training step: forward, ∂L/∂W and, but for the first layer, ∂L/∂x."""
    products = [count for segment in network.segments for count in segment.multiplications()]
    weights = [layer.weight.size if n is None else n for layer, n in zip(network.layers, products, strict=True)]
    return 2.0 * batch_size * (3 * sum(weights) - weights[0])


def useful_threads(flops: float, free: int) -> int:
    """The number of ``free`` threads between which a training step of ``flops`` operations can be shared out."""
    return max(1, min(free, int(flops / FLOPS)))


class Threads:
    """Trains with as many threads as pay. Several threads may use it at once."""

    def __init__(self) -> None:
        self._same: dict[Hashable, bool] = {}
        self._pays: dict[Hashable, bool] = {}

    def run(
        self, run: Run, parameters: Sequence[Array], steps: int, threads: int, key: Hashable, flops: float = 0.0
    ) -> Iterator[list[Array]]:
        """Train for ``steps`` steps with one thread or ``threads``; yield the outputs of one part after the other.

        ``key`` is the same for runs that train alike, ``flops`` are a step's operations.
        """
        key = (key, threads)
        least = min(AT_LEAST, max(FEWEST, math.ceil(TRIED_FLOPS / flops))) if flops else AT_LEAST
        if threads == 1 or not self._same.get(key, True):
            yield run(1, parameters, slice(0, steps))
            return
        if steps < TOO_FEW // AT_LEAST * least:
            yield run(threads if self._pays.get(key) else 1, parameters, slice(0, steps))
            return
        tried, done = max(steps // ONE_IN, least), 0
        if key not in self._same:
            outputs, others = (run(count, parameters, slice(0, tried)) for count in (1, threads))
            self._same[key] = all(a.tobytes() == b.tobytes() for a, b in zip(outputs, others, strict=True))
            yield outputs
            parameters, done = outputs[: len(parameters)], tried
        count, seconds = 1, []
        for number in (1, threads) if self._same[key] else ():
            begun = time.perf_counter()
            outputs = run(number, parameters, slice(done, done + tried))
            seconds.append(time.perf_counter() - begun)
            yield outputs
            parameters, done = outputs[: len(parameters)], done + tried
        if seconds:
            self._pays[key] = seconds[1] * GAIN < seconds[0]
            count = threads if self._pays[key] else 1
        yield run(count, parameters, slice(done, steps))
