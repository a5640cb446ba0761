"""Ranks of a network's weights, from each where the next loses least for what it saves: parameters, or MACs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend.resources import Bounds
from onnxsurgeon.recommend.trials import corrected
from onnxsurgeon.surgery import FactorizeData
from onnxsurgeon.surgery.factorize_data import factorization_costs
from onnxsurgeon.surgery.written import written_by

STEP = 50  # a rank falls by such a part of itself at a time


def factorized(
    network: Network, moments: Moments, most: int | None, bounds: Bounds
) -> tuple[list[FactorizeData], int, float]:
    """Ranks of the weights, where they save anything; the parameters that are left; what it costs.

    ``most`` and ``bounds`` are those of ``ranks_for``. From the last layer to the first: a factorization adds a hidden
    layer before those behind it, and so before all widths that segments share. Nothing where ``most`` is not given and
    the bounds cannot be met.
    """
    costs: dict[int, Array] = {}
    for i in range(1, network.group_count + 1):
        try:
            costs[i] = corrected(moments, FactorizeData.operation, i, factorization_costs(network, i, moments))
        except SurgeryError:
            continue
    ranks = ranks_for(network, costs, most, bounds)
    saved = {i: _saved(network, i, rank) for i, rank in ranks.items()}
    saving = sorted((i for i in ranks if saved[i] > 0), key=lambda i: written_by(network, i)[0], reverse=True)
    if most is None and not _is_within(network, ranks, bounds):
        return [], network.parameter_count, 0.0
    chosen = [FactorizeData(i if i <= network.hidden_count else i + done, ranks[i]) for done, i in enumerate(saving)]
    cost = sum(float(costs[i][ranks[i] - 1]) for i in saving)
    return chosen, network.parameter_count - sum(saved[i] for i in saving), cost


def ranks_for(network: Network, costs: Mapping[int, Array], most: int | None, bounds: Bounds) -> dict[int, int]:
    """Rank of each layer's weight that has ``costs``, by the layer's number; the largest where none is better.

    Greedy, from the largest rank that saves anything on: whatever layer loses least for a parameter saved gives the
    next; as long as there are more MACs than ``bounds`` allow, whatever loses least for one of these: a convolution has
    as many for each parameter as there are positions. Of a bound on memory nothing is known here.

    Args:
        network: whose layers they are.
        costs: for each layer what is lost at rank 1, 2, …, the largest.
        most: parameter count at which it ends, whether the bounds are met or not; None: it ends where they are.
        bounds: of what the network takes besides parameters.
    """
    ranks = {i: len(curve) for i, curve in costs.items()}

    def parameters(i: int, rank: int) -> int:
        return max(0, _saved(network, i, rank))

    def macs(i: int, rank: int) -> int:
        return parameters(i, rank) * _positions(network, i)

    def best(saves: Callable[[int, int], int]) -> tuple[int, int] | None:
        """The layer whose rank falls next, and to what."""
        found: tuple[float, int, int] | None = None
        for i, curve in costs.items():
            lower = _next_rank(network, i, ranks[i])
            if lower < 1:
                continue
            gain = saves(i, lower) - saves(i, ranks[i])
            loss = float(curve[lower - 1] - curve[ranks[i] - 1])
            if gain > 0 and (found is None or (loss / gain, i) < found[:2]):
                found = loss / gain, i, lower
        return None if found is None else found[1:]

    while most is None or network.parameter_count - sum(parameters(i, rank) for i, rank in ranks.items()) > most:
        given = None if _is_within(network, ranks, bounds) else best(macs)
        if given is None and most is not None:
            given = best(parameters)
        if given is None:
            break
        ranks[given[0]] = given[1]
    return ranks


def spelled_ranks(surgeries: Sequence[FactorizeData]) -> str:
    """The ranks of the ``surgeries``, of which those of the last layers come first, as a text."""
    return ", ".join(f"layer {each.layer}: rank {each.rank}" for each in reversed(surgeries))


def _next_rank(network: Network, i: int, rank: int) -> int:
    """The next lower rank that saves parameters, in steps of a fiftieth."""
    _, layer = written_by(network, i)
    saving = (layer.weight.size - 1) // (layer.inputs + layer.units)
    return min(rank - max(1, round(rank / STEP)), saving)


def _saved(network: Network, i: int, rank: int) -> int:
    """Parameters; the layer is applied at as many positions before and after."""
    _, layer = written_by(network, i)
    return int(layer.weight.size) - rank * (layer.inputs + layer.units)


def _is_within(network: Network, ranks: Mapping[int, int], bounds: Bounds) -> bool:
    """Whether there are few enough MACs; what cannot be told is."""
    have, most = network.multiplications, bounds.multiplications
    if have is None or most is None:
        return True
    saved = sum(max(0, _saved(network, i, rank)) * _positions(network, i) for i, rank in ranks.items())
    return have - saved <= most


def _positions(network: Network, i: int) -> int:
    """At how many positions the layer that writes a width is applied; 1 where that is not known."""
    (number, place), layer = written_by(network, i)
    count = network.segments[number].multiplications()[place]
    return 1 if count is None else count // max(1, layer.weight.size)
