"""The journal's lines, and values taken from an event only if they are what they should be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from onnxsurgeon.runs import lines
from onnxsurgeon.runs.journal import Event, read_own_file

# Finite, and far beyond anything a run counts: damage must not reach the axes of a picture.
_LARGEST = 1e15
FINITE = 1e300  # of what may have diverged


@dataclass(frozen=True)
class Lines:
    """A journal, line by line.

    Attributes:
        events: the events that can be read, each with its line's number, counted from 1.
        damaged: numbers of the other lines.
        cut_off: whether the last line has no end: it is being written, or the run was killed in that moment. It is
            not counted among the damaged.
    """

    events: tuple[tuple[int, Event], ...]
    damaged: tuple[int, ...]
    cut_off: bool


def read_lines(journal: Path) -> Lines:
    """The lines of ``journal``; none where there is no such file yet.

    Raises:
        RunError: it cannot be read.
    """
    found = list(lines.read_lines(read_own_file(journal) if os.path.lexists(journal) else b""))
    return Lines(
        tuple((line.number, line.event) for line in found if line.event is not None),
        tuple(line.number for line in found if line.event is None and not line.is_cut_off),
        any(line.is_cut_off for line in found),
    )


def number(event: Event, key: str, least: float = -_LARGEST, most: float = _LARGEST) -> float:
    """A number between ``least`` and ``most``.

    Raises:
        KeyError: there is none.
        TypeError: it is no number.
        ValueError: it lies outside, or is NaN.
    """
    return _number(event[key], least, most)


def numbers(event: Event, key: str, least: float = -_LARGEST, most: float = _LARGEST) -> tuple[float, ...]:
    """A list of numbers; raises what ``number`` does."""
    return tuple(_number(value, least, most) for value in _list(event[key]))


def integer(event: Event, key: str) -> int:
    """An integer from 0 on; raises what ``number`` does."""
    return _integer(event[key])


def integers(event: Event, key: str) -> tuple[int, ...]:
    """A list of integers from 0 on; raises what ``number`` does."""
    return tuple(_integer(value) for value in _list(event[key]))


def text(event: Event, key: str) -> str:
    """A text; raises what ``number`` does."""
    return _text(event[key])


def texts(event: Event, key: str) -> tuple[str, ...]:
    """A list of texts; raises what ``number`` does."""
    return tuple(_text(value) for value in _list(event[key]))


def entries(event: Event, key: str) -> list[Event | None]:
    """A list of records, or of None in their places; raises what ``number`` does."""
    found = _list(event[key])
    if not all(each is None or isinstance(each, dict) for each in found):
        raise TypeError("no record")
    return found  # type: ignore[return-value]


def table(event: Event, key: str, width: int) -> list[tuple[float, ...]]:
    """A list of rows of so many numbers; raises what ``number`` does."""
    rows = [tuple(_number(value, -_LARGEST, _LARGEST) for value in _list(row)) for row in _list(event[key])]
    if any(len(row) != width for row in rows):
        raise ValueError(f"{key}: expected rows of {width} numbers")
    return rows


def _number(value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    if not least <= value <= most:
        raise ValueError(f"{value} is out of range")
    return float(value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("no integer")
    if not 0 <= value <= _LARGEST:
        raise ValueError("out of range")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value.encode(errors="replace").decode()  # damage can hold half of a surrogate pair


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value
