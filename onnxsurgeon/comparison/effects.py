"""The layers of a network and their widths after a surgery, and those from which it may have made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from onnxsurgeon.surgery import Surgery
from onnxsurgeon.surgery.effects import (
    Absorbed,
    Effect,
    Followed,
    Kept,
    Multiplied,
    Narrowed,
    Preceded,
    Widened,
)


class Layer(NamedTuple):
    """A layer on the way.

    Its width, None where it does not follow, and the first branch's layers from which it comes.
    """

    units: int | None
    origin: frozenset[int]


Segments = tuple[tuple[Layer, ...], ...]
# For each width that several segments share, the segments whose last layers write it.
Ends = Sequence[Sequence[int]]


def back(segments: Segments, surgeries: list[Surgery], ends: Ends) -> Iterator[Segments]:
    """Every network from which these surgeries, in order, may have made this one."""
    if not surgeries:
        yield segments
        return
    effect, layer = surgeries[-1].effect, surgeries[-1].layer
    if isinstance(effect, Multiplied):
        parted = _parted(segments, effect.times)
        if parted is not None:
            yield from back(parted, surgeries[:-1], ends)
        return
    if isinstance(effect, Followed | Preceded):
        before = _without_end(segments, layer, ends, effect)
        if before is not None:
            yield from back(before, surgeries[:-1], ends)
            return
    tied = _ends_at(segments, layer, ends) if isinstance(effect, Widened | Narrowed) else None
    if tied is not None:
        less = -effect.added if isinstance(effect, Widened) else None
        yield from back(_with_ends(segments, tied, less), surgeries[:-1], ends)
        return
    for number, position in _sites(segments, layer, effect):
        layers = _undone(segments[number], position, effect)
        if layers is not None:
            yield from back((*segments[:number], layers, *segments[number + 1 :]), surgeries[:-1], ends)


def _sites(segments: Segments, layer: int, effect: Effect) -> Iterator[tuple[int, int]]:
    """The possible places of the surgery's hidden layer: segment and position.

    After a merge at a segment's end, both sides.
    """
    left = layer - 1
    for number, segment in enumerate(segments):
        hidden = len(segment) - 1
        if 0 <= left < hidden + isinstance(effect, Absorbed):
            yield number, left
        left -= hidden


def _undone(layers: tuple[Layer, ...], i: int, effect: Effect) -> tuple[Layer, ...] | None:
    """A segment before the surgery on its layer ``i``; None where it cannot have come from that."""
    here = layers[i]
    match effect:
        case Kept():
            return layers
        case Absorbed():  # its width is lost
            return (*layers[:i], Layer(None, here.origin), *layers[i:])
        case Widened(added):
            units = None if here.units is None else here.units - added
            return None if units is not None and units < 1 else _resized(layers, i, units)
        case Narrowed(kept):  # the former number of units is not known
            return _resized(layers, i, None) if kept is None or here.units in (None, kept) else None
    following = layers[i + 1]
    if i + 1 == len(layers) - 1:
        return None  # an inserted layer, or a second factor, is hidden
    if isinstance(effect, Followed):
        same = None in (here.units, following.units) or here.units == following.units
        return (*layers[: i + 1], *layers[i + 2 :]) if same else None
    assert isinstance(effect, Preceded)
    whole = following._replace(origin=here.origin | following.origin)
    return (*layers[:i], whole, *layers[i + 2 :]) if here.units in (None, effect.units) else None


def _resized(layers: tuple[Layer, ...], i: int, units: int | None) -> tuple[Layer, ...]:
    return (*layers[:i], layers[i]._replace(units=units), *layers[i + 1 :])


def _parted(segments: Segments, times: int) -> Segments | None:
    """One of ``times`` equal networks that stand side by side; None where they cannot."""
    if times < 1 or any(
        layer.units is not None and layer.units % times for segment in segments for layer in segment[:-1]
    ):
        return None
    return tuple(
        (*(layer._replace(units=layer.units and layer.units // times) for layer in segment[:-1]), segment[-1])
        for segment in segments
    )


def _ends_at(segments: Segments, layer: int, ends: Ends) -> Sequence[int] | None:
    """The segments whose last layers write a width that several share; None where the number is a hidden layer's."""
    number = layer - 1 - sum(len(segment) - 1 for segment in segments)
    return ends[number] if 0 <= number < len(ends) else None


def _with_ends(segments: Segments, tied: Sequence[int], more: int | None) -> Segments:
    """The segments with ``more`` units more in their last layers; with None the number is unknown."""
    found = list(segments)
    for number in tied:
        *before, last = found[number]
        units = None if more is None or last.units is None else last.units + more
        found[number] = (*before, last._replace(units=units))
    return tuple(found)


def _without_end(segments: Segments, layer: int, ends: Ends, effect: Followed | Preceded) -> Segments | None:
    """Before a layer was put behind the one that writes a shared width, or before it; None: it cannot have been."""
    number = layer - 1 - sum(len(segment) - 1 for segment in segments) + 1  # then there was a hidden layer less
    if not 0 <= number < len(ends) or len(ends[number]) != 1 or len(segments[ends[number][0]]) < 2:
        return None
    (at,) = ends[number]
    *others, here, end = segments[at]
    if isinstance(effect, Preceded):
        if here.units not in (None, effect.units):
            return None
        whole = end._replace(origin=here.origin | end.origin)
        return (*segments[:at], (*others, whole), *segments[at + 1 :])
    if None not in (here.units, end.units) and here.units != end.units:
        return None
    return (*segments[:at], (*others, here), *segments[at + 1 :])


def _with_another_end(segments: Segments, tied: Sequence[int], effect: Followed | Preceded) -> Segments | None:
    """With a layer behind the one that writes a shared width, or before it; None: several layers write it."""
    if len(tied) != 1:
        return None
    (at,) = tied
    *others, last = segments[at]
    if isinstance(effect, Preceded):
        return (*segments[:at], (*others, Layer(effect.units, last.origin), last), *segments[at + 1 :])
    return (*segments[:at], (*segments[at], Layer(last.units, frozenset())), *segments[at + 1 :])


def forth(segments: Segments, surgery: Surgery, ends: Ends) -> Segments | None:
    """The network after the surgery; None where there is no such layer."""
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
    if isinstance(effect, Followed | Preceded):
        return _with_another_end(segments, tied, effect)
    return _with_ends(segments, tied, effect.added if isinstance(effect, Widened) else None)


def _done(layers: tuple[Layer, ...], i: int, effect: Effect) -> tuple[Layer, ...]:
    here, following = layers[i], layers[i + 1]
    new: tuple[Layer, ...]
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
            new = (here, Layer(here.units, frozenset()), following)
        case Preceded(units):
            new = (Layer(units, here.origin), here, following)
        case _:
            raise AssertionError(effect)
    return (*layers[:i], *new, *layers[i + 2 :])
