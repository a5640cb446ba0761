"""A stranger's journal: its lines, and events whose entries are accepted only if they fit their types."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from onnxsurgeon.bounds import MAX_JOURNAL_BYTES, bound
from onnxsurgeon.runs import lines
from onnxsurgeon.runs.events import EVENTS, Bounds, Event
from onnxsurgeon.runs.lines import Record
from onnxsurgeon.runs.own_files import read_own_file


@dataclass(frozen=True)
class Lines:
    """A journal, line by line.

    Attributes:
        records: the lines that can be read, each with its number, counted from 1.
        damaged: numbers of the other lines.
        cut_off: whether the last line has no end: it is being written, or the run was killed in that moment. It is
            not counted among the damaged.
    """

    records: tuple[tuple[int, Record], ...]
    damaged: tuple[int, ...]
    cut_off: bool


def read_lines(journal: Path) -> Lines:
    """The lines of ``journal``; none where there is no such file yet.

    Raises:
        RunError: it cannot be read, or is larger than any run makes it.
    """
    content = read_own_file(journal, bound(MAX_JOURNAL_BYTES)) if os.path.lexists(journal) else b""
    found = list(lines.read_lines(content))
    return Lines(
        tuple((line.number, line.record) for line in found if line.record is not None),
        tuple(line.number for line in found if line.record is None and not line.is_cut_off),
        any(line.is_cut_off for line in found),
    )


def event_of(record: Record) -> Event:
    """The event in a line; its entries are checked one by one, when they are read.

    So a reader gets what it needs from a line that an older version wrote, or that is damaged in other places. Reading
    an entry raises KeyError where it is missing, TypeError where it is of another type, and ValueError where it is out
    of its bounds, or NaN.
    """
    return cast(Event, _Checked(record, EVENTS[record["event"]]))


class _Checked(dict[str, Any]):
    """A record whose entries are checked against the hints of a typed dict when they are read."""

    def __init__(self, record: Mapping[str, Any], kind: type) -> None:
        super().__init__(record)
        self._hints = _hints(kind)

    def __getitem__(self, key: str) -> Any:
        return _fit(super().__getitem__(key), self._hints[key])

    def get(self, key: str, default: Any = None) -> Any:
        """The entry of that name, or ``default`` where there is none."""
        if key not in self:
            return default
        return self[key]


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _fit(value: object, hint: Any) -> Any:
    """The value, where it is what the hint says; else TypeError or ValueError."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return _fit(value, inner[0])
    if origin in (Union, types.UnionType):
        return _one_of(value, inner)
    if origin is Literal:
        if not isinstance(value, str) or value not in inner:
            raise ValueError(f"{value!r}: expected one of {inner}")
        return value
    if origin is list:
        return [_fit(each, inner[0]) for each in _of(value, list)]
    if origin is dict:
        return _of(value, dict)
    if is_typeddict(hint):
        return _Checked(_of(value, dict), hint)
    kind, bounds = (inner[0], inner[1]) if origin is Annotated else (hint, None)
    if kind is int:
        return _within(_of(value, int), bounds or Bounds(0))
    if kind is float:
        return float(_within(_of(value, int, float), bounds or Bounds()))
    if kind is str:
        return _of(value, str).encode(errors="replace").decode()  # damage can leave half of a surrogate pair
    return _of(value, kind)


def _one_of(value: object, kinds: tuple[Any, ...]) -> Any:
    """A value that may be None, or a record of one of several kinds, which their "kind" tells apart."""
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) > 1:
        wanted = _of(value, dict)["kind"]
        others = [kind for kind in others if wanted in get_args(_hints(kind)["kind"])]
        if not others:
            raise ValueError(f"unknown kind: {wanted!r}")
    return _fit(value, others[0])


def _of(value: object, *kinds: type) -> Any:
    """The value, if it is of one of these types; true and false do not count as numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"no {kinds[-1].__name__}")
    return value


def _within(value: float, bounds: Bounds) -> float:
    if not bounds.least <= value <= bounds.most:
        raise ValueError(f"{value} is out of range")
    return value
