"""A user's wishes for the result: limits, and the choice among the networks found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnxsurgeon.recommend.resources import Bounds
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.surgeon.settings import SurgeonSettings


@dataclass(frozen=True)
class Given:
    """The given network's parameter count and accuracy on the rows that decide, to which some wishes are relative.

    These wishes are ``shrink`` and ``lose``; others need none of it.
    """

    parameters: int
    accuracy: float


@dataclass(frozen=True)
class Limits:
    """Upper bounds of the result; None where there is no bound."""

    parameters: int | None = None
    size: int | None = None
    latency: float | None = None
    multiplications: int | None = None
    memory: int | None = None

    @classmethod
    def of(cls, settings: SurgeonSettings, given: Given | None = None) -> Limits:
        """The limits in the settings, including one relative to the ``given`` network."""
        parameters = settings.max_parameters
        if settings.shrink is not None and given is not None:
            parameters = int(given.parameters / settings.shrink)
        return cls(parameters, settings.max_size, settings.max_latency, settings.max_macs, settings.max_memory)

    @property
    def are_any(self) -> bool:
        """Whether there is any limit."""
        return self != Limits()

    @property
    def bounds(self) -> Bounds:
        """The limits that follow from widths, and that no number of parameters stands for."""
        return Bounds(self.multiplications, self.memory)

    def excess(self, entry: Entry) -> float:
        """By how much the network is too large: the largest of its measures as fractions of their limits."""
        pairs = (
            (entry.parameters, self.parameters),
            (entry.size, self.size),
            (entry.latency or 0.0, self.latency),
            (entry.multiplications or 0, self.multiplications),
            (entry.memory or 0, self.memory),
        )
        return max((have / limit for have, limit in pairs if limit), default=0.0)

    def admits(self, entry: Entry) -> bool:
        """Whether the network is within all of them."""
        return self.excess(entry) <= 1


def front(entries: Iterable[Entry], limits: Limits | None = None) -> list[Entry]:
    """The entries that no other dominates, by descending parameter count; only those within ``limits``."""
    every = list({entry.branch: entry for entry in entries}.values())
    limits = limits or Limits()

    def yields(entry: Entry, other: Entry) -> bool:
        is_fair = limits.admits(other) or not limits.admits(entry)
        return other != entry and is_fair and entry.is_dominated_by(other)

    kept = [entry for entry in every if not any(yields(entry, other) for other in every)]
    return sorted(kept, key=lambda entry: (-entry.parameters, entry.branch))


def least_accuracy(entries: Iterable[Entry], settings: SurgeonSettings, given: Given | None = None) -> float | None:
    """The accuracy above which the smallest network is wanted; None: the most accurate is."""
    if settings.min_accuracy is not None:
        return settings.min_accuracy
    if settings.lose is not None and given is not None:
        return given.accuracy - settings.lose
    if settings.tolerance is None:
        return None
    limits = Limits.of(settings, given)
    return max((entry.accuracy for entry in entries if limits.admits(entry)), default=1.0) - settings.tolerance


def choose(
    entries: Sequence[Entry],
    settings: SurgeonSettings,
    given: Given | None = None,
    is_good: Callable[[Entry], bool] | None = None,
) -> Entry:
    """The entry that the settings ask for.

    Among those within the limits it is the smallest with at least ``min_accuracy``; or the smallest that is at most
    ``lose`` less accurate than the given network; or the smallest within ``tolerance`` of the best accuracy; or, with
    ``is_good``, the smallest for which that is true; or the most accurate. Where none is within the limits, it is the
    one that comes nearest; where none is accurate enough, the most accurate.
    """
    limits = Limits.of(settings, given)
    within = [entry for entry in entries if limits.admits(entry)]
    if not within:
        return min(entries, key=lambda entry: (limits.excess(entry), entry.branch))
    least = least_accuracy(within, settings, given)
    good = [entry for entry in within if entry.accuracy >= (math.inf if least is None else least)]
    if is_good is not None:
        good = list(filter(is_good, within))
    if good:
        return min(good, key=lambda entry: (entry.parameters, -entry.accuracy, entry.branch))
    return most_accurate(within)


def most_accurate(entries: Iterable[Entry]) -> Entry:
    """The entry of the best accuracy; of equal ones, the one with the least loss, then the smallest."""
    return min(entries, key=lambda entry: (-entry.accuracy, entry.loss, entry.parameters, entry.branch))


def shortfall(entry: Entry, settings: SurgeonSettings, given: Given | None = None) -> str:
    """The wishes in the settings that the network does not meet, in words; "" where it meets all."""
    missed = []
    for name, have in (
        ("max_parameters", entry.parameters),
        ("max_size", entry.size),
        ("max_latency", entry.latency),
        ("max_macs", entry.multiplications),
        ("max_memory", entry.memory),
    ):
        limit = getattr(settings, name)
        if limit is not None and have is not None and have > limit:
            shown = f"{have:,}" if isinstance(have, int) else f"{have:.4g}"
            missed.append(f"--{name.replace('_', '-')} {limit:,} (it has {shown})")
    limit = Limits.of(settings, given).parameters
    if settings.shrink is not None and limit is not None and entry.parameters > limit:
        missed.append(f"--shrink {settings.shrink:g}, {limit:,} parameters (it has {entry.parameters:,})")
    if settings.lose is not None and given is not None and entry.accuracy < given.accuracy - settings.lose:
        missed.append(f"--lose {settings.lose:g} (it has {entry.accuracy:.4f}, the given {given.accuracy:.4f})")
    if settings.min_accuracy is not None and entry.accuracy < settings.min_accuracy:
        missed.append(f"--min-accuracy {settings.min_accuracy} (it has {entry.accuracy:.4f})")
    return f"no network was found with {' and '.join(missed)}" if missed else ""
