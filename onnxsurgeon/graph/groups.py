"""Groups: units that come and go together, the layers that write and read them, and why some must stay."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from onnxsurgeon.graph.layers import DenseChain


@dataclass(frozen=True)
class Writer:
    """Columns of a layer that write a group's units: ``units`` of them, from ``begin`` on."""

    segment: int
    layer: int
    begin: int


@dataclass(frozen=True)
class Reader:
    """Rows of a layer that read a group's units.

    The rows are (outer, all units at hand, inner). A layer behind a Flatten of (C, H, W) has H · W inner rows for each
    unit, and one behind a Flatten of (H, W, C) has as many outer ones. The inner rows of a convolution are its taps.
    """

    segment: int
    layer: int
    begin: int
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True)
class Follower:
    """A constant of the file with a value for each unit at hand: a scale, a shift, slopes.

    Attributes:
        tensor: its name.
        axis: the units' axis in it, counted from the last, which is −1.
        begin: where the group's units begin along that axis.
    """

    tensor: str
    axis: int
    begin: int


class Place(NamedTuple):
    """Where a tensor holds a group's units: along which axis, from which unit on, and how that axis is made up.

    The axis is (outer, units, inner), as in ``Reader``.
    """

    axis: int
    begin: int
    outer: int
    inner: int


@dataclass(frozen=True)
class UnitGroup:
    """Units that come and go together.

    Attributes:
        units: their number.
        writers: the layers that write them; there are several where their values are added.
        readers: the layers that read them.
        followers: constants of the file with a value for each unit.
        each: segments of one convolution that works on each unit by itself (depthwise).
        normalised: name of a node that normalises over the units; "" where none does.
        places: for each tensor of the trunk that holds the units, the axis and the first unit there. It is empty for a
            hidden layer of one segment, since nothing around the segment changes with it.
    """

    units: int
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    followers: tuple[Follower, ...] = ()
    each: tuple[tuple[int, int], ...] = ()
    normalised: str = ""
    places: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)

    @property
    def is_hidden(self) -> bool:
        """Whether it lies between two layers of one segment."""
        return not self.places

    @property
    def ports(self) -> int:
        """Number of layers that write or read the group."""
        return len(self.writers) + len(self.readers) + len(self.each)


class Pinned(NamedTuple):
    """Units of a layer whose number must stay, and the reason."""

    segment: int
    units: int
    reason: str


class LayerSize(NamedTuple):
    """A layer's numbers of inputs and units, in terms of groups.

    Attributes:
        inputs: rows that belong to no free group.
        rows: (group, rows for each unit of it).
        units: columns that belong to no free group.
        columns: groups whose units are columns.
        each: values for each unit besides its weights: bias and slope.
        is_own: whether its weights are counted here; layers that share weights have them counted at the first.
    """

    inputs: int
    rows: tuple[tuple[int, int], ...]
    units: int
    columns: tuple[int, ...]
    each: int
    is_own: bool = True

    def parameters(self, inputs: int, units: int) -> int:
        """The number of parameters for these numbers of inputs and units."""
        return units * (self.is_own * inputs + self.each)


class ParameterCounts:
    """How many parameters there are with other numbers of units: asked of the layers alone that these are of."""

    def __init__(self, sizes: Sequence[LayerSize], units: Sequence[int]) -> None:
        """``units`` has the numbers of units of the groups that are called 1, 2, … in ``sizes``."""
        self._sizes, self._units = sizes, dict(enumerate(units, start=1))
        self._layers: dict[int, set[int]] = {}
        for number, size in enumerate(sizes):
            for group in (*size.columns, *(group for group, _ in size.rows)):
                self._layers.setdefault(group, set()).add(number)
        self._own = [self._count(size, self._units) for size in sizes]
        self._total = sum(self._own)

    def of(self, widths: Mapping[int, int]) -> int:
        """How many with these numbers of units in the groups; those left out keep theirs."""
        changed = {number for group in widths for number in self._layers.get(group, ())}
        units = ChainMap(dict(widths), self._units)
        return self._total + sum(self._count(self._sizes[number], units) - self._own[number] for number in changed)

    @staticmethod
    def _count(size: LayerSize, units: Mapping[int, int]) -> int:
        inputs = size.inputs + sum(units[group] * taps for group, taps in size.rows)
        return size.parameters(inputs, size.units + sum(units[group] for group in size.columns))


class Groups(NamedTuple):
    """The groups that were found: hidden layers first, segment by segment, then groups that several segments share."""

    free: tuple[UnitGroup, ...]
    pinned: tuple[Pinned, ...]


def layer_sizes(
    segments: Sequence[DenseChain], groups: Sequence[UnitGroup], tied: Mapping[int, int]
) -> list[LayerSize]:
    """Sizes of all layers, segment by segment; groups are counted from 1.

    ``tied`` maps each segment that applies another's weights to that one.
    """
    rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    columns: dict[tuple[int, int], list[int]] = {}
    for i, group in enumerate(groups, start=1):
        for reader in group.readers:
            rows.setdefault((reader.segment, reader.layer), []).append((i, reader.outer * reader.inner))
        for number, layer in [
            *((each.segment, each.layer) for each in group.writers),
            *((n, 0) for n, _ in group.each),
        ]:
            columns.setdefault((number, layer), []).append(i)
    found = []
    for number, segment in enumerate(segments):
        first = tied.get(number, number)
        for position, own in enumerate(segment.layers):
            read, written = rows.get((first, position), []), columns.get((first, position), [])
            counted = {} if first == number else dict(segments[first].layers[position].parameters())
            each = sum(name not in counted for name, _ in own.parameters() if name != own.names.weight)
            found.append(
                LayerSize(
                    own.inputs - sum(groups[i - 1].units * taps for i, taps in read),
                    tuple(read),
                    own.units - sum(groups[i - 1].units for i in written),
                    tuple(written),
                    each,
                    first == number,
                )
            )
    return found
