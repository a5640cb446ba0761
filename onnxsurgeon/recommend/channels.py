"""Growth of a network with convolutions: where another one goes, and how many channels each has beside the others.

A channel's price depends on its readers: behind a Flatten, a dense layer has a row of weights for each of its
positions. And a convolution in front of a pool costs more multiplications, as it has more positions.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.behind_pool import pooled
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgery import InsertBehindPool, InsertIdentity, Surgery, operate

DEEPEST = 4  # a segment with this many convolutions gets no further one
AT_ONCE = 2  # convolutions that are put into one segment at a time
DEAR = 0.5  # share of the channels where a dense layer reads them at many positions


def is_of_channels(network: Network, i: int) -> bool:
    """Whether convolutions write group ``i``."""
    writers, _ = network.layers_of(i)
    return all(layer.geometry is not None for layer in writers)


def channels(network: Network) -> list[int]:
    """Groups that convolutions write and whose number is free, and not normalised over."""
    groups = range(1, network.group_count + 1)
    return [i for i in groups if is_of_channels(network, i) and not network.group(i).normalised]


def deeper_convolutions(network: Network) -> Iterator[tuple[list[Surgery], Network]]:
    """Networks with convolutions more, and the surgeries.

    One in every segment that can have it, one or two in the last, and none; and where the last pool has no convolution
    behind it, one or two there, and one there and in every segment.
    """
    segments = [number for number, segment in enumerate(network.segments) if segment.is_convolution]
    open_ones = [number for number in segments if _end_of(network, number) is not None]
    within = [open_ones[-1:], open_ones[-1:] * AT_ONCE, open_ones, []]
    behind = _last_pooled(network)
    ways: list[tuple[bool, list[int]]] = [(False, each) for each in within]
    if behind is not None:
        fresh = network.place(behind)[0] + 1
        ways += [(True, []), (True, [fresh]), (True, [*open_ones, fresh])]
    seen = set()
    for is_behind, wanted in ways:
        if (is_behind, *wanted) in seen:
            continue
        seen.add((is_behind, *wanted))
        surgeries: list[Surgery] = []
        deeper = network
        if is_behind and behind is not None:
            surgeries.append(InsertBehindPool(behind))
            deeper = operate(deeper, surgeries[-1]).network
        for number in wanted:
            end = _end_of(deeper, number)
            if end is not None:
                surgeries.append(InsertIdentity(end))
                deeper = operate(deeper, surgeries[-1]).network
        if len(surgeries) == len(wanted) + is_behind:
            yield surgeries, deeper


def _last_pooled(network: Network) -> int | None:
    """The width behind whose pool a convolution would be the last; None where one is there, or none can be."""
    found = None
    for i in channels(network):
        group = network.group(i)
        _, readers = network.layers_of(i)
        if group.is_hidden or any(layer.geometry is not None for layer in readers):
            continue
        try:
            site = pooled(network, i)
        except SurgeryError:
            continue
        found = i if site.activation and site.geometry.taps > 1 else found
    return found


def _end_of(network: Network, number: int) -> int | None:
    """The group behind which a segment of convolutions can have another one: its last, or its last hidden layer's."""
    segment = network.segments[number]
    if len(segment.layers) >= DEEPEST:
        return None
    ends = [(number, position) for position in range(len(segment.layers) - 1, max(-1, len(segment.layers) - 3), -1)]
    places = {_place(network, i): i for i in channels(network)}
    return next((places[place] for place in ends if place in places), None)


def _place(network: Network, i: int) -> tuple[int, int] | None:
    try:
        return network.place(i)
    except SurgeryError:  # several layers write it
        return None


def profiles_of_channels(network: Network) -> dict[str, dict[int, float]]:
    """Relative numbers of units of the groups, by number.

    *Even* gives all convolutions the same number. *Rising* gives them as many more channels as the sides of the maps
    are shorter. Channels that a dense layer reads at many positions are fewer. Dense layers keep their width in
    relation to the channels.
    """
    of_channels = channels(network)
    groups = [i for i in range(1, network.group_count + 1) if not network.group(i).normalised]
    present = {i: float(network.group(i).units) for i in groups}
    mean = sum(present[i] for i in of_channels) / len(of_channels)
    dear = {i: DEAR if _is_dear(network, i) else 1.0 for i in of_channels}
    shorter = _shortness(network, of_channels)
    dense = {i: present[i] / mean for i in groups if i not in dear}
    even = {i: dense.get(i) or dear[i] for i in groups}
    rising = {i: dense.get(i) or dear[i] * shorter[i] for i in groups}
    return {"even": even, "rising": rising}


def _is_dear(network: Network, i: int) -> bool:
    """Whether a channel costs more in the dense layers that read it than where it is computed."""
    group, (writers, readers) = network.group(i), network.layers_of(i)
    read = zip(group.readers, readers, strict=True)
    weights = sum(port.outer * port.inner * layer.units for port, layer in read if layer.geometry is None)
    return weights > sum(layer.inputs for layer in writers)


def _shortness(network: Network, groups: list[int]) -> dict[int, float]:
    """How many times the sides of the maps that hold each group are shorter than the longest."""
    positions = {}
    for i in groups:
        port = network.group(i).writers[0]
        segment = network.segments[port.segment]
        count = segment.multiplications()[port.layer]
        rank = segment.rank - 2
        weight = segment.layers[port.layer].weight
        positions[i] = 1.0 if count is None else (count / weight.size) ** (1 / rank)
    longest = max(positions.values())
    return {i: longest / max(1.0, each) for i, each in positions.items()}
