"""Which hidden layer became which along a lineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.quantities import whole
from onnxsurgeon.runs.branch import START
from onnxsurgeon.runs.family import Member
from onnxsurgeon.surgery import parse
from onnxsurgeon.surgery.effects import Absorbed, BehindPool, Effect, Followed, Preceded, Removed, Repeated


@dataclass(frozen=True)
class Stage:
    """A network of the lineage, from the decision point that made it to the next.

    Attributes:
        number: counted from 0, the given model.
        member: the branch.
        start: epoch at which it was made.
        end: epoch of its last measurement.
        widths: widths of all its layers, the input's and the output's included.
        layers: width of each hidden layer, by a number that it keeps through surgeries, from the input on.
        changed: the layers that the surgery made, or gave another width.
        into_output: whether the surgery merged a hidden layer into the output layer of the last segment.
        last: whether no other surgery follows.
    """

    number: int
    member: Member
    start: float
    end: float
    widths: tuple[int, ...]
    layers: dict[int, int]
    changed: frozenset[int]
    into_output: bool = False
    last: bool = False


def stages(lineage: Sequence[Member]) -> list[Stage]:
    """Stages of a lineage, with branches that were only trained joined to those from which they come."""
    found: list[Stage] = []
    fresh = 0
    for member in lineage:
        widths = _widths(member.topology)
        if widths is None:
            continue
        end = max((point.epoch for point in member.points), default=member.epoch)
        count = len(_hidden(member.topology))
        if found and member.operation == "identity":
            found[-1] = replace(found[-1], end=end)
            continue
        order = list(found[-1].layers) if found else []
        counts = (_counts(found[-1].member.topology), _counts(member.topology)) if found else ([], [])
        order = _after(member.surgery, order, fresh, *counts) if member.surgery != START else []
        if found and any(isinstance(_effect(surgery), Removed | Repeated) for surgery in member.surgery.split("+")):
            order = _beside(list(found[-1].layers.items()), _hidden(member.topology), fresh)
        if len(order) != count:  # the given model; or the earlier layers cannot be read
            order = list(range(fresh, fresh + count))
        fresh = max([fresh, *(layer + 1 for layer in order)])
        layers = dict(zip(order, _hidden(member.topology), strict=True))
        before = found[-1].layers if found else {}
        changed = frozenset(layer for layer, width in layers.items() if before.get(layer) != width)
        into_output = False
        if found and not changed:  # a merge leaves the others as they are: the changed layer is the one that took it in
            changed = frozenset(order[_position(member.surgery) : _position(member.surgery) + 1])
            into_output = not changed
        found.append(Stage(len(found), member, member.epoch, end, widths, layers, changed, into_output))
    if found:
        found[-1] = replace(found[-1], last=True)
    return found


def _after(
    surgeries: str, layers: list[int], fresh: int, counts: Sequence[int] = (), wanted: Sequence[int] = ()
) -> list[int]:
    """The hidden layers after surgeries, given those before; ``fresh`` is the number of the first new one.

    ``counts`` are the hidden layers of each segment before, ``wanted`` those after all: what is put behind a segment's
    last layer, or before it, is put there where one is missing; and what is put behind a pool, in a segment of its own
    where there is one more, as far behind as can be, else at the beginning of one.
    """
    have = list(counts)
    for surgery in surgeries.split("+"):
        effect, i = _effect(surgery), _position(surgery)
        if isinstance(effect, BehindPool):
            at = next((n for n in reversed(range(len(have) + 1)) if _fit([*have[:n], 0, *have[n:]], wanted)), None)
            if at is not None:
                have.insert(at, 0)
                continue
            at = next((n for n, (few, many) in enumerate(zip(have, wanted, strict=False)) if few < many), None)
            if at is not None:
                begin = sum(have[:at])
                have[at] += 1
                layers, fresh = [*layers[:begin], fresh, *layers[begin:]], fresh + 1
        elif isinstance(effect, Followed | Preceded) and i >= len(layers):
            at = next((n for n, (few, many) in enumerate(zip(have, wanted, strict=False)) if few < many), None)
            if at is not None:
                have[at] += 1
                end = sum(have[: at + 1]) - 1
                layers, fresh = [*layers[:end], fresh, *layers[end:]], fresh + 1
        elif isinstance(effect, Followed):
            layers, fresh = [*layers[: i + 1], fresh, *layers[i + 1 :]], fresh + 1
        elif isinstance(effect, Preceded):
            layers, fresh = [*layers[:i], fresh, *layers[i:]], fresh + 1
        elif isinstance(effect, Absorbed):
            layers = [*layers[:i], *layers[i + 1 :]]
    return layers


def _fit(have: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether there are as many segments as there are to be, and in none too many hidden layers."""
    return len(have) == len(wanted) and all(few <= many for few, many in zip(have, wanted, strict=True))


def _beside(layers: Sequence[tuple[int, int]], widths: Sequence[int], fresh: int) -> list[int]:
    """Numbers of the hidden layers, given with their widths before, where neighbours went or came; [] if not told."""
    gone = max(0, len(layers) - len(widths))
    new = max(0, len(widths) - len(layers))
    for begin in reversed(range(min(len(layers), len(widths)) + 1)):
        numbers = [number for number, _ in (*layers[:begin], *layers[begin + gone :])]
        left = [width for _, width in (*layers[:begin], *layers[begin + gone :])]
        if left == [*widths[:begin], *widths[begin + new :]]:
            return [*numbers[:begin], *range(fresh, fresh + new), *numbers[begin:]]
    return []


def _effect(surgery: str) -> Effect | None:
    """The effect of a surgery on the layers; None for "identity" and other entries that are no known surgery."""
    try:
        return parse(surgery).effect
    except SurgeryError:
        return None


def _position(surgery: str) -> int:
    """Index of the hidden layer that a surgery names, the first of several."""
    number = surgery.partition("+")[0].partition(":")[2].partition(":")[0]
    found = whole(number)
    return found - 1 if found is not None and 0 < found < 10_000 else 0


def _widths(topology: str) -> tuple[int, ...] | None:
    """Widths, such as (784, 10, 10) of "784-10-10", or (1, 8, 392, 10) of "c1-c8+392-10"; None for no topology."""
    parts = [part.removeprefix("c") for part in topology.replace("+", "-").split("-")]
    widths = [whole(part) for part in parts]
    known = tuple(width for width in widths if width and width < 10**9)
    return known if len(parts) > 1 and len(known) == len(parts) else None


def _counts(topology: str) -> list[int]:
    """How many hidden layers each segment has."""
    return [max(0, segment.count("-") - 1) for segment in topology.split("+")]


def _hidden(topology: str) -> list[int]:
    """Widths of the hidden layers of all segments."""
    inner = (width for segment in topology.split("+") for width in segment.split("-")[1:-1])
    return [int(width.removeprefix("c")) for width in inner]
