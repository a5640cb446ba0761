"""Multiplications and memory of a network of other widths for one row, and limits on these.

Both are computed from widths, without a network that has them, so that a plan can be made step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from onnxsurgeon.graph.memory import Liveness, liveness
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgery.apply import cut_to


@dataclass(frozen=True)
class Bounds:
    """Upper bounds of a network's computation and memory for one row; None where there is no bound.

    Attributes:
        multiplications: with weights (MACs).
        memory: bytes of the tensors that are in memory at once (``graph.memory``).
    """

    multiplications: int | None = None
    memory: int | None = None

    @property
    def are_any(self) -> bool:
        """Whether there is any bound."""
        return self != Bounds()

    def times(self, factor: float) -> Bounds:
        """Bounds that are wider by that factor."""
        scaled = (None if each is None else int(factor * each) for each in (self.multiplications, self.memory))
        return Bounds(*scaled)


class Budget:
    """How far a network of other widths would be beyond bounds.

    A resource of the network that is not known counts as within them.
    """

    def __init__(self, network: Network, bounds: Bounds) -> None:
        self._network = network
        self._bounds = bounds
        self._positions = None if bounds.multiplications is None else _positions(network)
        self._memory = None if bounds.memory is None else memory_model(network)
        self._present = present_units(network)

    def excess(self, widths: Mapping[int, int]) -> float:
        """By how much the bounds are exceeded, as a fraction of them; 0 where they are met.

        All nodes with too much memory count: a change that takes some away at one of several nodes is nearer to the
        bound, although the largest value stays as it was.
        """
        found = 0.0
        if self._positions is not None and self._bounds.multiplications is not None:
            limit = self._bounds.multiplications
            found += max(0, _count(self._network, self._positions, widths) - limit) / limit
        if self._memory is not None and self._bounds.memory is not None:
            beyond = self._memory.over(widths, self._present) - self._bounds.memory
            found += float(beyond[beyond > 0].sum()) / self._bounds.memory
        return found


def multiplications_of(network: Network, widths: Mapping[int, int]) -> int | None:
    """Multiplications with weights for one row (MACs) with these numbers of units in the groups, by number.

    Groups that are left out keep theirs. None where a size that they depend on is not known.
    """
    positions = _positions(network)
    return None if positions is None else _count(network, positions, widths)


def memory_of(network: Network, widths: Mapping[int, int]) -> int | None:
    """Bytes of the tensors that are in memory at once for one row, with ``widths`` as in ``multiplications_of``."""
    model = memory_model(network)
    return None if model is None else round(model.over(widths, present_units(network)).max(initial=0))


def _count(network: Network, positions: Sequence[int], widths: Mapping[int, int]) -> int:
    present = {i: network.group(i).units for i in range(1, network.group_count + 1)} | dict(widths)
    count = 0
    for size, times in zip(network.layer_sizes, positions, strict=True):
        inputs = size.inputs + sum(present[i] * taps for i, taps in size.rows)
        count += (size.units + sum(present[i] for i in size.columns)) * inputs * times
    return count


def _positions(network: Network) -> list[int] | None:
    """The number of positions at which each layer is applied; None where one of them is not known."""
    found = []
    for segment in network.segments:
        for layer, count in zip(segment.layers, segment.multiplications(), strict=True):
            if count is None:
                return None
            found.append(count // max(1, layer.weight.size))
    return found


class Memory(NamedTuple):
    """Bytes in memory at each node in terms of widths: ``base`` + ``slopes`` · (units in each group).

    Attributes:
        base: (nodes,).
        slopes: (nodes, groups).
    """

    base: Array
    slopes: Array

    def over(self, widths: Mapping[int, int], present: Array) -> Array:
        """Bytes at each node (nodes,), where groups that are left out have their ``present`` units."""
        units = present.copy()
        for i, count in widths.items():
            units[i - 1] = count
        return np.asarray(self.base + self.slopes @ units)


def memory_model(network: Network) -> Memory | None:
    """How the tensors in memory depend on widths; None where a size is not known.

    The tensors' sizes are linear in the units of each group. A network with one or two units more or fewer shows how
    much a unit takes.
    """
    found = liveness(network)
    if found is None:
        return None
    slopes = np.zeros((len(found.names), network.group_count))
    for i in range(1, network.group_count + 1):
        units = network.group(i).units
        other = _other(network, i)
        if other is None or other[1].names != found.names:
            return None
        slopes[:, i - 1] = (found.sizes - other[1].sizes) / (units - other[0])
    base = found.sizes - slopes @ present_units(network)
    return Memory(found.at_nodes(base), found.at_nodes(slopes))


def _other(network: Network, i: int) -> tuple[int, Liveness] | None:
    """Another number of units of a group, and when tensors are in memory with that number."""
    units = network.group(i).units
    count = 1 if units > 1 else 2
    found = liveness(cut_to(network, i, count))
    return None if found is None else (count, found)


def present_units(network: Network) -> Array:
    """Units of each group (groups,)."""
    return np.array([network.group(i).units for i in range(1, network.group_count + 1)], dtype=float)
