"""Align the layers of two branches by the surgeries between them, which their files tell.

Back from the first branch to the ancestor that both share, and forth from there to the second. Of every layer on the
way it is known which of the first branch's it has to do with, and its width, as far as that follows. Widths that do not
come out as they are in the file show that the two are not related in that way. Where blocks came or went, layers are
known by the names of their weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import NamedTuple

from onnxsurgeon.comparison.groups import Group, by_origin
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import METADATA_PREFIX
from onnxsurgeon.surgery import Surgery, parse
from onnxsurgeon.surgery.effects import (
    Absorbed,
    Effect,
    Followed,
    Kept,
    Multiplied,
    Narrowed,
    Preceded,
    Removed,
    Repeated,
    Widened,
)


@dataclass(frozen=True)
class Kinship:
    """How two branches are related.

    Attributes:
        undone: the first one's surgeries since their last common ancestor.
        done: the second one's since then.
        groups: the layers, aligned.
    """

    undone: tuple[str, ...]
    done: tuple[str, ...]
    groups: list[Group]


class _Layer(NamedTuple):
    """A layer on the way: its width, None where it does not follow, and the first branch's layers it comes from."""

    units: int | None
    origin: frozenset[int]


_Segments = tuple[tuple[_Layer, ...], ...]
# For each width that several segments share, the segments whose last layers write it.
_Ends = Sequence[Sequence[int]]


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
    """How two branches are related, where their lineages tell it and their widths bear it out; else None."""
    old, new = lineage_of(first), lineage_of(second)
    if old is None and new is None:
        return None
    old, new = old or (), new or ()
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    # Branches of one run; one whose model the other's run began with; or the other way round.
    for undone, done in dict.fromkeys(((old[shared:], new[shared:]), ((), new), (old, ()))):
        is_rebuilt = any(isinstance(parse(text).effect, Removed | Repeated) for text in (*undone, *done))
        for origins in _by_name(first, second) if is_rebuilt else _ways(first, second, undone, done):
            return Kinship(undone, done, by_origin(len(first.layers), origins))
    return None


def _by_name(first: Network, second: Network) -> Iterator[list[frozenset[int]]]:
    """What each of the second's layers descends from where blocks came or went: what has a weight of its name.

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
    """For each way that leads from the one to the other: what each of the second's layers descends from."""
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
        tuple(_Layer(layer.units, frozenset([begins[n] + i])) for i, layer in enumerate(first.segments[n].layers))
        for n in own
    )
    wanted = [[layer.units for layer in second.segments[number].layers] for number in own]
    for ancestor in _back(start, [parse(text) for text in undone], ends):
        found: _Segments | None = ancestor
        for surgery in (parse(text) for text in done):
            found = None if found is None else _forth(found, surgery, ends)
        if found is not None and _fits(found, wanted):
            yield [
                frozenset(origin - begins[whose] + begins[number] for origin in layer.origin)
                for number, whose in ((n, first.tied.get(n, n)) for n in range(len(first.segments)))
                for layer in found[place[whose]]
            ]


def _fits(found: _Segments, wanted: list[list[int]]) -> bool:
    return [len(segment) for segment in found] == [len(widths) for widths in wanted] and all(
        layer.units in (None, width)
        for segment, widths in zip(found, wanted, strict=True)
        for layer, width in zip(segment, widths, strict=True)
    )


def _back(segments: _Segments, surgeries: list[Surgery], ends: _Ends) -> Iterator[_Segments]:
    """Every network that these surgeries, in order, may have made this one of."""
    if not surgeries:
        yield segments
        return
    effect, layer = surgeries[-1].effect, surgeries[-1].layer
    if isinstance(effect, Multiplied):
        parted = _parted(segments, effect.times)
        if parted is not None:
            yield from _back(parted, surgeries[:-1], ends)
        return
    if isinstance(effect, Followed):
        before = _without_end(segments, layer, ends)
        if before is not None:
            yield from _back(before, surgeries[:-1], ends)
            return
    tied = _ends_at(segments, layer, ends) if isinstance(effect, Widened | Narrowed) else None
    if tied is not None:
        less = -effect.added if isinstance(effect, Widened) else None
        yield from _back(_with_ends(segments, tied, less), surgeries[:-1], ends)
        return
    for number, position in _sites(segments, layer, effect):
        layers = _undone(segments[number], position, effect)
        if layers is not None:
            yield from _back((*segments[:number], layers, *segments[number + 1 :]), surgeries[:-1], ends)


def _sites(segments: _Segments, layer: int, effect: Effect) -> Iterator[tuple[int, int]]:
    """Where the surgery's hidden layer stands: segment and position; after a merge at a segment's end, either side."""
    left = layer - 1
    for number, segment in enumerate(segments):
        hidden = len(segment) - 1
        if 0 <= left < hidden + isinstance(effect, Absorbed):
            yield number, left
        left -= hidden


def _undone(layers: tuple[_Layer, ...], i: int, effect: Effect) -> tuple[_Layer, ...] | None:
    """A segment before the surgery on its layer ``i``; None: it cannot have come of that."""
    here = layers[i]
    match effect:
        case Kept():
            return layers
        case Absorbed():  # its width is lost
            return (*layers[:i], _Layer(None, here.origin), *layers[i:])
        case Widened(added):
            units = None if here.units is None else here.units - added
            return None if units is not None and units < 1 else _resized(layers, i, units)
        case Narrowed(kept):  # how many units there were is not told
            return _resized(layers, i, None) if kept is None or here.units in (None, kept) else None
    following = layers[i + 1]
    if i + 1 == len(layers) - 1:
        return None  # what was inserted, or is the second factor, is hidden
    if isinstance(effect, Followed):
        same = None in (here.units, following.units) or here.units == following.units
        return (*layers[: i + 1], *layers[i + 2 :]) if same else None
    assert isinstance(effect, Preceded)
    whole = following._replace(origin=here.origin | following.origin)
    return (*layers[:i], whole, *layers[i + 2 :]) if here.units in (None, effect.units) else None


def _resized(layers: tuple[_Layer, ...], i: int, units: int | None) -> tuple[_Layer, ...]:
    return (*layers[:i], layers[i]._replace(units=units), *layers[i + 1 :])


def _parted(segments: _Segments, times: int) -> _Segments | None:
    """One of so many equal networks that stand side by side; None: they cannot."""
    if times < 1 or any(
        layer.units is not None and layer.units % times for segment in segments for layer in segment[:-1]
    ):
        return None
    return tuple(
        (*(layer._replace(units=layer.units and layer.units // times) for layer in segment[:-1]), segment[-1])
        for segment in segments
    )


def _ends_at(segments: _Segments, layer: int, ends: _Ends) -> Sequence[int] | None:
    """The segments whose last layers write a width that several share; None where a hidden layer is meant."""
    number = layer - 1 - sum(len(segment) - 1 for segment in segments)
    return ends[number] if 0 <= number < len(ends) else None


def _with_ends(segments: _Segments, tied: Sequence[int], more: int | None) -> _Segments:
    """With so many units more in the last layers of segments; None: how many there are is not told."""
    found = list(segments)
    for number in tied:
        *before, last = found[number]
        units = None if more is None or last.units is None else last.units + more
        found[number] = (*before, last._replace(units=units))
    return tuple(found)


def _without_end(segments: _Segments, layer: int, ends: _Ends) -> _Segments | None:
    """Before a layer was put behind the one that writes a shared width; None: it cannot have been."""
    number = layer - 1 - sum(len(segment) - 1 for segment in segments) + 1  # then there was a hidden layer less
    if not 0 <= number < len(ends) or len(ends[number]) != 1 or len(segments[ends[number][0]]) < 2:
        return None
    (at,) = ends[number]
    *others, here, end = segments[at]
    if None not in (here.units, end.units) and here.units != end.units:
        return None
    return (*segments[:at], (*others, here), *segments[at + 1 :])


def _with_another_end(segments: _Segments, tied: Sequence[int]) -> _Segments | None:
    """With a layer behind the one that writes a shared width; None: several layers write it."""
    if len(tied) != 1:
        return None
    (at,) = tied
    last = segments[at][-1]
    return (*segments[:at], (*segments[at], _Layer(last.units, frozenset())), *segments[at + 1 :])


def _forth(segments: _Segments, surgery: Surgery, ends: _Ends) -> _Segments | None:
    """The network after the surgery; None: there is no such layer."""
    effect, left = surgery.effect, surgery.layer - 1
    if isinstance(effect, Multiplied):
        return tuple(
            (*(layer._replace(units=layer.units and layer.units * effect.times) for layer in segment[:-1]), segment[-1])
            for segment in segments
        )
    for number, segment in enumerate(segments):
        if 0 <= left < len(segment) - 1:
            return (*segments[:number], _done(segment, left, effect), *segments[number + 1 :])
        left -= len(segment) - 1
    tied = _ends_at(segments, surgery.layer, ends)
    if tied is None:
        return None
    if isinstance(effect, Followed):
        return _with_another_end(segments, tied)
    return _with_ends(segments, tied, effect.added if isinstance(effect, Widened) else None)


def _done(layers: tuple[_Layer, ...], i: int, effect: Effect) -> tuple[_Layer, ...]:
    here, following = layers[i], layers[i + 1]
    new: tuple[_Layer, ...]
    match effect:
        case Kept():
            new = (here, following)
        case Absorbed():
            new = (following._replace(origin=here.origin | following.origin),)
        case Widened(added):
            new = (here._replace(units=None if here.units is None else here.units + added), following)
        case Narrowed(kept):
            new = (here._replace(units=kept), following)
        case Followed():
            new = (here, _Layer(here.units, frozenset()), following)
        case Preceded(units):
            new = (_Layer(units, here.origin), here, following)
        case _:
            raise AssertionError(effect)
    return (*layers[:i], *new, *layers[i + 2 :])
