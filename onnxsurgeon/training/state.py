"""The optimizer's memory of a network's past gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array


@dataclass(frozen=True, eq=False)
class OptimizerState:
    """Moments of the gradients, in the order of ``Network.parameters()`` and in the type of training.

    A moment is a set of arrays like the parameters, so it is treated as a network of the same topology: what maps
    networks (surgeries, units) maps moments too.

    Attributes:
        steps: number of batches the moments have seen.
        moments: the first moments (running sums of gradients) and, with adamw, the second (of their squares).
    """

    steps: int
    moments: tuple[tuple[Array, ...], ...]

    @classmethod
    def zeros(cls, network: Network, count: int) -> OptimizerState:
        """The state before the first batch of an optimizer with ``count`` moments."""
        shapes = [values.shape for _, values in network.parameters()]
        return cls(0, tuple(tuple(np.zeros(shape, network.dtype) for shape in shapes) for _ in range(count)))

    @property
    def is_finite(self) -> bool:
        """Whether every value is finite."""
        return all(bool(np.isfinite(values).all()) for moment in self.moments for values in moment)

    def fits(self, network: Network, count: int) -> bool:
        """Whether these are ``count`` moments of arrays shaped like the network's parameters."""
        shapes = [values.shape for _, values in network.parameters()]
        return len(self.moments) == count and all([a.shape for a in moment] == shapes for moment in self.moments)

    def mapped(self, network: Network, change: Callable[[Network, int], Network]) -> OptimizerState:
        """The state of the network that ``change`` makes: it is called with each moment, as a network, and its power.

        The power is 1 for first moments and 2 for second ones: where a parameter is multiplied by c, the moments are
        multiplied by c and c².
        """
        changed = (change(network.with_parameters(moment), power) for power, moment in enumerate(self.moments, start=1))
        dtype = network.dtype
        return replace(
            self,
            moments=tuple(
                tuple(values.astype(dtype, copy=False) for _, values in each.parameters()) for each in changed
            ),
        )


def initial_state(network: Network, state: OptimizerState | None, count: int) -> OptimizerState:
    """The given state, or zeros where there is none.

    Raises:
        EngineError: it belongs to another network or optimizer.
    """
    if state is None:
        return OptimizerState.zeros(network, count)
    if not state.fits(network, count):
        raise EngineError(
            f"'{network.name}': the optimizer's state belongs to another network or optimizer", "exchanged"
        )
    return state
