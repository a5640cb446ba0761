"""Align the layers of two branches by the surgeries between them, which their files tell.

The way leads back from the first branch to the last common ancestor, and forth from there to the second. For every
layer on the way, the layers of the first branch to which it is related are known, and its width, as far as that
follows. If the final widths are not those of the file, the two are not related in that way. Where blocks came or
went, or a layer came behind a pool, layers are known by the names of their weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile

from onnxsurgeon.comparison.effects import Layer, Segments, back, forth
from onnxsurgeon.comparison.groups import Group, by_origin
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import METADATA_PREFIX
from onnxsurgeon.surgery import parse
from onnxsurgeon.surgery.effects import REBUILT


@dataclass(frozen=True)
class Kinship:
    """The relation of two branches.

    Attributes:
        undone: the first one's surgeries since their last common ancestor.
        done: the second one's since then.
        groups: the layers, aligned.
    """

    undone: tuple[str, ...]
    done: tuple[str, ...]
    groups: list[Group]


def lineage_of(network: Network) -> tuple[str, ...] | None:
    """The surgeries since the given model, as a branch's file tells them; None where it tells none that can be read."""
    try:
        lineage = json.loads(network.metadata[METADATA_PREFIX + "lineage"])
        if not isinstance(lineage, list) or not all(isinstance(surgery, str) for surgery in lineage):
            return None
        for surgery in lineage:
            parse(surgery)
    except (KeyError, ValueError, SurgeryError):
        return None
    return tuple(lineage)


def kinship(first: Network, second: Network) -> Kinship | None:
    """The relation of two branches, if their lineages tell it and their widths confirm it; else None."""
    old, new = lineage_of(first), lineage_of(second)
    if old is None and new is None:
        return None
    old, new = old or (), new or ()
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    # Branches of one run; or one whose model the other's run began with; or the other way round.
    for undone, done in dict.fromkeys(((old[shared:], new[shared:]), ((), new), (old, ()))):
        is_rebuilt = any(isinstance(parse(text).effect, REBUILT) for text in (*undone, *done))
        for origins in _by_name(first, second) if is_rebuilt else _ways(first, second, undone, done):
            return Kinship(undone, done, by_origin(len(first.layers), origins))
    return None


def _by_name(first: Network, second: Network) -> Iterator[list[frozenset[int]]]:
    """What each of the second's layers descends from where segments came or went: what has a weight of its name.

    Which segments are left, and which of them are one then, no surgery's text tells. Weights keep their names.
    """
    places: dict[str, list[int]] = {}
    for place, layer in enumerate(first.layers):
        places.setdefault(layer.names.weight, []).append(place)
    known = [places.get(layer.names.weight, []) for layer in second.layers]
    if any(known):
        # Of weights that are applied several times each has its own, as far as there are as many.
        yield [frozenset([found.pop(0) if len(found) > 1 else found[0]]) if found else frozenset() for found in known]


def _ways(
    first: Network, second: Network, undone: tuple[str, ...], done: tuple[str, ...]
) -> Iterator[list[frozenset[int]]]:
    """For each way from the one to the other: the layers from which each of the second's layers descends."""
    if first.tied != second.tied or len(first.segments) != len(second.segments):
        return
    # Of segments that share their weights the first stands for all.
    own = [number for number in range(len(first.segments)) if number not in first.tied]
    place = {number: i for i, number in enumerate(own)}
    shared = [group for group in first.units.free if not group.is_hidden]
    read = {port.segment for group in shared for port in group.readers}
    fixed = [[each.segments[number].widths[0] for number in own if number not in read] for each in (first, second)]
    if fixed[0] != fixed[1]:
        return
    ends = [[place[port.segment] for port in group.writers] for group in shared]
    begins = [0, *accumulate(len(segment.layers) for segment in first.segments)]
    start = tuple(
        tuple(Layer(layer.units, frozenset([begins[n] + i])) for i, layer in enumerate(first.segments[n].layers))
        for n in own
    )
    wanted = [[layer.units for layer in second.segments[number].layers] for number in own]
    for ancestor in back(start, [parse(text) for text in undone], ends):
        found: Segments | None = ancestor
        for surgery in (parse(text) for text in done):
            found = None if found is None else forth(found, surgery, ends)
        if found is not None and _fits(found, wanted):
            yield [
                frozenset(origin - begins[whose] + begins[number] for origin in layer.origin)
                for number, whose in ((n, first.tied.get(n, n)) for n in range(len(first.segments)))
                for layer in found[place[whose]]
            ]


def _fits(found: Segments, wanted: list[list[int]]) -> bool:
    return [len(segment) for segment in found] == [len(widths) for widths in wanted] and all(
        layer.units in (None, width)
        for segment, widths in zip(found, wanted, strict=True)
        for layer, width in zip(segment, widths, strict=True)
    )
