"""The layers of one network and the layers of another that came from them: the result of any alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Group(NamedTuple):
    """Layers that belong together, as positions in ``Network.layers``; one side may be empty, not both.

    Attributes:
        before: positions in the first network.
        after: positions in the second.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


def in_order(groups: Sequence[Group]) -> list[Group]:
    """The groups in the second network's order; groups that only the first has keep their place."""
    placed = sorted((group for group in groups if group.after), key=lambda group: group.after)
    for group in sorted((group for group in groups if not group.after), reverse=True):
        index = next((i for i, other in enumerate(placed) if other.before > group.before), len(placed))
        placed.insert(index, group)
    return placed


def by_origin(count: int, origins: Sequence[frozenset[int]]) -> list[Group]:
    """Groups by the layers, among the ``count`` of the first network, from which each layer of the second descends."""
    found: list[tuple[set[int], list[int]]] = []
    for position, origin in enumerate(origins):
        related = [entry for entry in found if entry[0] & origin]
        before, after = set(origin), [position]
        for entry in related:
            before |= entry[0]
            after += entry[1]
            found.remove(entry)
        found.append((before, after))
    groups = [Group(tuple(sorted(before)), tuple(sorted(after))) for before, after in found]
    left = set(range(count)).difference(*(group.before for group in groups))
    return in_order([*groups, *(Group((position,), ()) for position in left)])
