"""Residual blocks: sums y = x + f(x) of the trunk whose branch f can be taken out.

Where x goes through layers of its own on its way to the sum, as a projection to more channels, the longer of both ways
is the branch, and the other stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TypeGuard

from onnxsurgeon.graph.frame import Trunk
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.groups import Groups
from onnxsurgeon.graph.layers import DenseChain

# What the tensors that a sum reads depend on: the first of them, the second, or both.
_FIRST, _SECOND, _BOTH = 1, 2, 3
# Steps that are looked at for all sums together: ways of many sums may each be as long as the trunk, and their number
# times its length is without bound. Sums beyond are no blocks.
_LOOKED_AT = 2**19
# Glue that hands values on as they are, along the axes that it has them.
_THROUGH = ("Activation", "Affine", "Dropout", "Identity")


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        number: counted from 1, in the order in which the sums are computed.
        total: name of the sum's tensor, y.
        stream: of what the branch is added to, x or what a projection makes of it.
        branch: of what the branch puts out, f(x).
        segments: numbers of the branch's segments.
        glue: names of the tensors that the branch's glue writes.
        node: what messages call the sum's node.
        is_projected: whether the other way has a layer or another node of its own.
        axis: along which the units are in the branch's tensor; None where that is not known.
        reason: why the branch stays; "" where nothing in the trunk speaks against its going.
    """

    number: int
    total: str
    stream: str
    branch: str
    segments: tuple[int, ...]
    glue: tuple[str, ...]
    node: str
    is_projected: bool
    axis: int | None
    reason: str = ""


def find_blocks(segments: Sequence[DenseChain], trunk: Trunk, units: Groups) -> tuple[Block, ...]:
    """All residual blocks of a trunk, in the order of their sums."""
    if not any(_is_sum(step, trunk) for step in trunk.steps):
        return ()
    return tuple(_Search(segments, trunk, units).blocks())


def _is_sum(step: int | Glue, trunk: Trunk) -> TypeGuard[Glue]:
    """Whether a step adds two tensors, neither of which is a constant."""
    if isinstance(step, int) or step.op != "Add" or len(step.inputs) != 2:
        return False
    return step.inputs[0] != step.inputs[1] and not any(name in trunk.constants for name in step.inputs)


class _Search:
    def __init__(self, segments: Sequence[DenseChain], trunk: Trunk, units: Groups) -> None:
        self.segments, self.trunk = segments, trunk
        self.axes = {
            name: places[0].axis
            for group in units.free
            for name, places in group.places.items()
            if places and places[0].outer * places[0].inner == 1
        }
        self.makers: dict[str, int] = {}
        self.readers: dict[str, list[int]] = {}
        for number in range(len(trunk.steps)):
            for name in self._written(number):
                self.makers[name] = number
            for name in dict.fromkeys(self._read(number)):
                self.readers.setdefault(name, []).append(number)
        self.heads = {head.tensor for head in trunk.heads}
        self.left = _LOOKED_AT

    def blocks(self) -> Iterator[Block]:
        number = 1
        for place, step in enumerate(self.trunk.steps):
            if not _is_sum(step, self.trunk):
                continue
            found = self._block(number, place, step)
            if self.left < 0:
                return
            if found is not None:
                yield found
                number += 1

    def _block(self, number: int, place: int, step: Glue) -> Block | None:
        ways = self._ways(step)
        counts = [self._layers(way) for way in ways]
        if counts[0] == counts[1]:
            return None
        longer = 0 if counts[0] > counts[1] else 1
        way, other = ways[longer], ways[1 - longer]
        branch, stream = step.inputs[longer], step.inputs[1 - longer]
        entries = self._entries(way)
        if stream not in entries and (not other or counts[1 - longer] > 1 or entries.isdisjoint(self._entries(other))):
            return None
        own = [self.trunk.steps[each] for each in sorted(way)]
        return Block(
            number,
            step.output,
            stream,
            branch,
            tuple(each for each in own if isinstance(each, int)),
            tuple(each.output for each in own if not isinstance(each, int)),
            step.node,
            bool(other),
            self._axis(branch),
            self._reason(place, step, way, branch, stream),
        )

    def _ways(self, step: Glue) -> tuple[set[int], set[int]]:
        """The steps that one of the sum's tensors alone depends on, of either; back to where they meet.

        Steps are gone through from the last to the first: what each is needed for is known when its turn comes.
        """
        needed: dict[int, int] = {}
        queue: list[int] = []

        def need(name: str, by: int) -> None:
            maker = self.makers.get(name)
            if maker is not None:
                if maker not in needed:
                    heappush(queue, -maker)
                needed[maker] = needed.get(maker, 0) | by

        for name, by in zip(step.inputs, (_FIRST, _SECOND), strict=True):
            need(name, by)
        ways: tuple[set[int], set[int]] = set(), set()
        while self.left >= 0 and any(needed[-each] != _BOTH for each in queue):
            self.left -= 1 + len(queue)
            place = -heappop(queue)
            by = needed[place]
            if by != _BOTH:
                ways[by - 1].add(place)
            for name in self._read(place):
                need(name, by)
        return ways

    def _layers(self, way: set[int]) -> int:
        steps = (self.trunk.steps[place] for place in way)
        return sum(len(self.segments[step].layers) for step in steps if isinstance(step, int))

    def _entries(self, way: set[int]) -> set[str]:
        """What the steps read and do not make."""
        made = {name for place in way for name in self._written(place)}
        return {name for place in way for name in self._read(place)} - made

    def _reason(self, place: int, step: Glue, way: set[int], branch: str, stream: str) -> str:
        shapes = dict(zip(step.inputs, step.shapes, strict=True))
        if shapes[stream] != step.shape:
            return f"what it is added to has other sizes than the sum '{step.output}'"
        for own in sorted(way):
            for name in self._written(own):
                if name in self.heads:
                    return f"its tensor '{name}' is trained towards targets"
                others = [each for each in self.readers.get(name, ()) if each not in way]
                if name == branch:
                    others.remove(place)
                if others:
                    return f"its tensor '{name}' is read by {self._called(others[0])} too"
        return ""

    def _called(self, place: int) -> str:
        step = self.trunk.steps[place]
        return f"'{self.segments[step].layers[0].names.node if isinstance(step, int) else step.node}'"

    def _axis(self, name: str) -> int | None:
        """The axis of the units in a tensor, counted from 0 or, −1, the last."""
        if name in self.axes:
            return self.axes[name]
        maker = self.makers.get(name)
        step = None if maker is None else self.trunk.steps[maker]
        if isinstance(step, int):
            return self.segments[step].unit_axis
        if step is None:
            return None
        if step.op == "Transpose":
            axis, order = self._axis(step.inputs[0]), list(step.attributes["order"])
            return None if axis is None else order.index(axis % len(order))
        return self._axis(step.inputs[0]) if step.op in _THROUGH else None

    def _read(self, place: int) -> Sequence[str]:
        step = self.trunk.steps[place]
        return (self.segments[step].input_name,) if isinstance(step, int) else step.inputs

    def _written(self, place: int) -> Sequence[str]:
        step = self.trunk.steps[place]
        return (self.segments[step].output_name,) if isinstance(step, int) else (step.output,)
