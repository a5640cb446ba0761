"""The largest network that is fast enough, found by measuring, since a call takes time that fewer units do not save."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.writer import save
from onnxsurgeon.randomness import generator
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.surgeon.latency import Yardstick
from onnxsurgeon.surgery import operate

FINE = 1.05  # the search ends at this ratio of a network that is too slow to one that is fast enough


class Latencies:
    """The latencies of a run's networks, in ms for a row, each measured beside the given one.

    Networks of one shape take the same time, however the clock wavers, so they are measured once.

    Args:
        given: path of the given model.
    """

    def __init__(self, given: Path) -> None:
        self._given = given
        self._yardstick: Yardstick | None = None
        self._known: dict[str, float] = {}

    def of(self, network: Network, path: Path | None = None) -> float:
        """The latency of a network, which is in the file at ``path`` or in none.

        Raises:
            EngineError: ONNX Runtime cannot run it.
        """
        kernels = [str(layer.geometry) for layer in network.layers if layer.geometry is not None]
        shape = " ".join([network.topology, *kernels])
        if shape not in self._known:
            self._yardstick = self._yardstick or Yardstick(self._given)
            if path is not None:
                self._known[shape] = self._yardstick.latency_of(path)
            else:
                with tempfile.TemporaryDirectory(prefix="onnxsurgeon-") as folder:
                    save(network, Path(folder) / "network.onnx")
                    self._known[shape] = self._yardstick.latency_of(Path(folder) / "network.onnx")
        return self._known[shape]

    def within(
        self, limit: float, network: Network, moments: Moments, plan: Callable[[int], Candidate | None], least: int
    ) -> int:
        """The number of parameters that a plan may leave of ``network`` so that the result takes at most ``limit`` ms.

        Args:
            limit: ms for a row.
            network: the network that is too slow.
            moments: its moments, for the plans' surgeries.
            plan: makes a candidate of at most a number of parameters, or as near as possible; None where nothing can
                go.
            least: parameters below which no plan goes; this is the answer where all larger networks are too slow.
        """

        def measure(candidate: Candidate) -> float:
            smaller, known = network, moments
            for surgery in candidate.surgeries:
                operated = operate(smaller, surgery, generator(0, "latency"), moments=known)
                smaller, known = operated.network, operated.follow(known)
            return self.of(smaller)

        return largest_within(limit, network.parameter_count, least, plan, measure)


def largest_within(
    limit: float,
    have: int,
    least: int,
    plan: Callable[[int], Candidate | None],
    measure: Callable[[Candidate], float],
) -> int:
    """The same by bisection, whatever is measured: ``have`` parameters are too many, ``least`` are few enough."""
    found, slow = max(1, min(least, have)), have
    while slow > FINE * found:
        candidate = plan(math.isqrt(slow * found))
        if candidate is None or not found < candidate.parameters < slow:
            break
        if measure(candidate) > limit:
            slow = candidate.parameters
        else:
            found = candidate.parameters
    return found
