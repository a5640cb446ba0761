"""How many threads a session trains with, where cores are free.

The main way to use cores is a branch on each. Where fewer branches than cores are left, the matrix products of one
branch are shared out between threads; their results do not depend on how, and that is not taken on trust.

Threads meet some ten times a step, which costs microseconds each time: small networks get slower. Two threads against
one on two cores of an AMD EPYC, batch 16: 784-10-10, 0.5 MFLOP a step, 1.0 times as fast; 784-128-128-10, 8 MFLOP, 1.2;
784-300-100-100-10, 19 MFLOP, 1.36; 3072-300-100-100-10, 63 MFLOP, 1.5. tools/benchmark.py measures it again.

So a thread must have ``FLOPS`` of a step to itself. Whether it then pays depends on the machine and on what else runs
there: the first steps of an epoch are run both ways, and the rest goes the faster way. Both ways must give the same
bits, else the network is trained with one thread from there on: how a product is split between threads is ONNX
Runtime's choice, and the bytes of a result must not depend on the number of workers.

Imports neither numpy nor onnx: the command line's help reads the settings, which name this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.linear_algebra import Array

FLOPS = 4e6
# Steps that are run both ways: one in so many, but at least so many, and none of fewer than so many.
ONE_IN, AT_LEAST, TOO_FEW = 64, 8, 128
# Several threads must be this much faster: they take cores from whatever else runs.
GAIN = 1.1

# What trains: from a number of threads, the parameters before and a part of the steps, to outputs, parameters first.
Run: TypeAlias = "Callable[[int, Sequence[Array], slice], list[Array]]"


def one_thread() -> int:
    """Where nobody has said how many threads are free."""
    return 1


def useful_threads(network: Network, batch_size: int, free: int) -> int:
    """How many of ``free`` threads a training step of ``network`` can be shared out between."""
    products = [count for segment in network.segments for count in segment.multiplications()]
    weights = [layer.weight.size if n is None else n for layer, n in zip(network.layers, products, strict=True)]
    # Forward, ∂L/∂W and, but for the first layer, ∂L/∂x: a product each, of two operations a weight and row.
    flops = 2 * batch_size * (3 * sum(weights) - weights[0])
    return max(1, min(free, int(flops / FLOPS)))


class Threads:
    """Trains with as many threads as pay. May be used from several threads."""

    def __init__(self) -> None:
        self._differ: set[Hashable] = set()

    def run(
        self, run: Run, parameters: Sequence[Array], steps: int, threads: int, key: Hashable
    ) -> Iterator[list[Array]]:
        """Train for ``steps`` with one thread or ``threads``; yields the outputs of one part after the other.

        ``key`` is the same for what trains alike.
        """
        tried = max(steps // ONE_IN, AT_LEAST)
        if threads == 1 or steps < TOO_FEW or key in self._differ:
            yield run(1, parameters, slice(0, steps))
            return
        outputs, alone = _timed(run, 1, parameters, slice(0, tried))
        others, together = _timed(run, threads, parameters, slice(0, tried))
        same = all(a.tobytes() == b.tobytes() for a, b in zip(outputs, others, strict=True))
        if not same:
            self._differ.add(key)
        yield outputs
        pays = same and together * GAIN < alone
        yield run(threads if pays else 1, outputs[: len(parameters)], slice(tried, steps))


def _timed(run: Run, threads: int, parameters: Sequence[Array], part: slice) -> tuple[list[Array], float]:
    start = time.perf_counter()
    outputs = run(threads, parameters, part)
    return outputs, time.perf_counter() - start
