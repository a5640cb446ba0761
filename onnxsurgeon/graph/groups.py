"""Units that come and go together: which layers write them, which read them, and why some must stay.

Every unit of every segment's last layer is followed through the trunk. An Add makes the units that it adds one by one
the same; a Concat puts them beside others; a Flatten gives each several places. Units that are written and read by the
same layers everywhere are a group: its number of units is free. What is not in the table of rules fixes the units that
reach it, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.linear_algebra import Array


@dataclass(frozen=True)
class Writer:
    """Columns of a layer that write a group's units: ``units`` of them, from ``begin`` on."""

    segment: int
    layer: int
    begin: int


@dataclass(frozen=True)
class Reader:
    """Rows of a layer that read a group's units.

    The rows are (outer, all units at hand, inner): a layer behind a Flatten of (C, H, W) has H · W inner rows for each
    unit, one behind a Flatten of (H, W, C) as many outer ones, a convolution has its taps as inner ones.
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


@dataclass(frozen=True)
class UnitGroup:
    """Units that come and go together.

    Attributes:
        units: how many.
        writers: what writes them; several where their values are added.
        readers: what reads them.
        followers: constants of the file with a value for each unit.
        each: segments of one convolution that works on each unit by itself (depthwise).
        normalised: name of a node that normalises over the units; "" where none does.
        places: for each tensor of the trunk that holds the units, along which axis and from where on; empty of a hidden
            layer of one segment, around which nothing changes with it.
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
        """How many layers write or read it."""
        return len(self.writers) + len(self.readers) + len(self.each)


class Place(NamedTuple):
    """Where a tensor holds a group's units: along which axis, from which unit on, and how that axis is made up.

    The axis is (outer, units, inner), as ``Reader`` has it.
    """

    axis: int
    begin: int
    outer: int
    inner: int


class Pinned(NamedTuple):
    """Units whose number must stay: those of a layer, and why."""

    segment: int
    units: int
    reason: str


class LayerSize(NamedTuple):
    """A layer's numbers of inputs and units, in terms of groups.

    Attributes:
        inputs: rows that no free group has.
        rows: (group, rows for each unit of it).
        units: columns that no free group has.
        columns: groups whose units are columns.
        each: values for each unit besides its weights: bias and slope.
    """

    inputs: int
    rows: tuple[tuple[int, int], ...]
    units: int
    columns: tuple[int, ...]
    each: int


class Groups(NamedTuple):
    """What was found: hidden layers first, segment by segment, then groups that several segments share."""

    free: tuple[UnitGroup, ...]
    pinned: tuple[Pinned, ...]


def find_groups(segments: Sequence[DenseChain], frame: Frame) -> Groups:
    """The groups of units of a network of these ``segments`` in this ``frame``."""
    hidden = [
        UnitGroup(
            segment.layers[i].units,
            (Writer(number, i, 0),),
            (Reader(number, i + 1, 0, inner=segment.layers[i + 1].inputs // segment.layers[i].units),),
        )
        for number, segment in enumerate(segments)
        for i in range(segment.hidden_count)
    ]
    if len(segments) == 1 and all(isinstance(step, int) for step in frame.trunk.steps):
        return Groups(tuple(hidden), ())
    walk = _Walk(segments, frame)
    walk.run()
    shared, pinned = walk.groups()
    return Groups((*hidden, *shared), pinned)


def layer_sizes(segments: Sequence[DenseChain], groups: Sequence[UnitGroup]) -> list[LayerSize]:
    """Sizes of all layers, segment by segment; groups are counted from 1."""
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
        for position, own in enumerate(segment.layers):
            read, written = rows.get((number, position), []), columns.get((number, position), [])
            slopes = own.activation is not None and own.activation.slope is not None
            found.append(
                LayerSize(
                    own.inputs - sum(groups[i - 1].units * taps for i, taps in read),
                    tuple(read),
                    own.units - sum(groups[i - 1].units for i in written),
                    tuple(written),
                    (own.bias is not None) + slopes,
                )
            )
    return found


class _Axis(NamedTuple):
    """A tensor's axis of units: (outer, ids, inner); ``ids`` number the units of all writers."""

    axis: int
    ids: Array
    outer: int = 1
    inner: int = 1


class _Walk:
    """Follows units through the trunk, once, in the order of computation."""

    def __init__(self, segments: Sequence[DenseChain], frame: Frame) -> None:
        self.segments, self.frame = segments, frame
        self.count = 0
        self.parent = np.zeros(0, np.int64)
        self.reasons: dict[int, str] = {}
        self.writers: list[tuple[int, int, int]] = []  # segment, first id, units
        self.readers: list[tuple[int, _Axis]] = []
        self.followers: list[tuple[str, int, Array]] = []
        self.each: list[tuple[int, Array]] = []
        self.normalised: list[tuple[str, Array]] = []
        self.tensors: dict[str, _Axis] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}

    def run(self) -> None:
        for step in self.frame.trunk.steps:
            if isinstance(step, int):
                self._segment(step)
            else:
                self._glue(step)
        for head in self.frame.trunk.heads:
            self.pin_tensor(head.tensor, "it is what the model is trained for")
        for name, why in _read_elsewhere(self.frame, self.segments, self.tensors).items():
            self.pin_tensor(name, why)

    # What units are.

    def new(self, units: int) -> Array:
        """Numbers for units that nothing has met yet."""
        ids = np.arange(self.count, self.count + units)
        self.count += units
        self.parent = np.concatenate([self.parent, ids])
        return ids

    def find(self, ids: Array) -> Array:
        """What stands for each."""
        roots = self.parent[ids]
        while True:
            above = self.parent[roots]
            if np.array_equal(above, roots):
                return roots
            roots = above

    def tie(self, first: Array, second: Array) -> None:
        """Make units one, pair by pair."""
        while True:
            a, b = self.find(first), self.find(second)
            if np.array_equal(a, b):
                return
            np.minimum.at(self.parent, np.maximum(a, b), np.minimum(a, b))

    def pin(self, ids: Array, reason: str) -> None:
        """Say why the number of these units must stay; the first reason counts."""
        for unit in ids.tolist():
            self.reasons.setdefault(unit, reason)

    def pin_tensor(self, name: str, reason: str) -> None:
        """The same of the units that a tensor holds."""
        if name in self.tensors:
            self.pin(self.tensors[name].ids, reason)

    # Steps.

    def _segment(self, number: int) -> None:
        segment = self.segments[number]
        first, last = segment.layers[0], segment.layers[-1]
        read = self.tensors.get(segment.input_name)
        geometry = first.geometry
        axis = 1 if geometry is not None else segment.rank - 1
        if read is not None and read.axis != axis:
            self.pin(read.ids, f"'{first.names.node}' works along another axis than theirs")
            read = None
        if geometry is not None and geometry.groups > 1:
            units = last.units
            if read is not None and geometry.groups == units == len(read.ids) and len(segment.layers) == 1:
                self.each.append((number, read.ids))
                self.tensors[segment.output_name] = read
                return
            if read is not None:
                self.pin(read.ids, f"'{first.names.node}' reads them in {geometry.groups} groups")
            ids = self.new(units)
            self.writers.append((number, int(ids[0]), units))
            self.pin(ids, f"'{last.names.node}' computes them in {geometry.groups} groups")
            self.tensors[segment.output_name] = _Axis(1, ids)
            return
        if read is not None:
            taps = 1 if geometry is None else geometry.taps
            self.readers.append((number, read._replace(inner=read.inner * taps)))
        ids = self.new(last.units)
        self.writers.append((number, int(ids[0]), last.units))
        self.tensors[segment.output_name] = _Axis(axis, ids)

    def _glue(self, step: Glue) -> None:
        read = [self.tensors.get(name) for name in step.inputs]
        if all(each is None for each in read):
            return
        rule = RULES.get(step.op)
        if rule is None:
            self.pin_all(read, f"there is no rule for what {step.op} does to them ({_node(step)})")
            return
        found = rule(self, step, read)
        if found is not None:
            self.tensors[step.output] = found

    def pin_all(self, read: Sequence[_Axis | None], reason: str) -> None:
        """Say why the units of several tensors must stay."""
        for each in read:
            if each is not None:
                self.pin(each.ids, reason)

    def follow(self, step: Glue, name: str, shape: Sequence[int | None], at: _Axis, rank: int) -> None:
        """A constant beside the units of a tensor of ``rank`` axes: a follower, where it has a value for each."""
        axis = at.axis - (rank - len(shape))
        if axis < 0 or shape[axis] == 1:
            return
        if at.outer * at.inner > 1 or shape[axis] != len(at.ids):
            self.pin(at.ids, f"'{name}' has values for places and not for units ({_node(step)})")
        elif name not in self.constants:
            self.pin(at.ids, f"'{name}', which has a value for each, is computed in the file ({_node(step)})")
        else:
            self.followers.append((name, axis - len(shape), at.ids))

    @cached_property
    def constants(self) -> dict[str, int]:
        """The file's constants, and how many nodes read each."""
        return _constants(self.frame)

    def _tie_followers(self) -> None:
        """A constant that several nodes read can be cut where it follows the same units in all of them."""
        given: dict[str, list[tuple[int, Array]]] = {}
        for name, axis, ids in self.followers:
            given.setdefault(name, []).append((axis, ids))
        for name, uses in given.items():
            same = {(axis, self.find(ids).tobytes()) for axis, ids in uses}
            if len(uses) < self.constants[name] or len(same) > 1:
                for _, ids in uses:
                    self.pin(ids, f"'{name}', which has a value for each, is read elsewhere too")

    # Groups.

    def groups(self) -> tuple[list[UnitGroup], tuple[Pinned, ...]]:
        self._tie_followers()
        roots = self.find(np.arange(self.count))
        pinned: dict[int, str] = {}
        for unit, reason in sorted(self.reasons.items()):
            pinned.setdefault(int(roots[unit]), reason)
        # Each tensor's units as roots; a group's must lie side by side in the same order everywhere.
        at = {name: (axis, roots[axis.ids]) for name, axis in self.tensors.items()}
        seen: dict[int, list[tuple[int, int]]] = {}
        holders = list(at)
        for number, name in enumerate(holders):
            for place, root in enumerate(at[name][1].tolist()):
                seen.setdefault(root, []).append((number, place))
        # Neighbours with the same holders, and in each the next place, belong together.
        runs: list[list[int]] = []
        for root in sorted(seen):
            before = runs[-1][-1] if runs else -1
            step = [(number, place - 1) for number, place in seen[root]]
            if runs and seen[before] == step and (before in pinned) == (root in pinned):
                runs[-1].append(root)
            else:
                runs.append([root])
        found, stuck = [], []
        for run in runs:
            group = self._group(run, roots, at)
            reason = next((pinned[root] for root in run if root in pinned), "")
            if not reason and (not group.writers or not group.readers):
                continue
            if reason:
                stuck += [Pinned(writer.segment, group.units, reason) for writer in group.writers]
            else:
                found.append(group)
        return found, tuple(stuck)

    def _group(self, run: list[int], roots: Array, at: dict[str, tuple[_Axis, Array]]) -> UnitGroup:
        first, units = run[0], len(run)

        def begins(ids: Array) -> list[int]:
            return [int(i) for i in np.flatnonzero(ids == first)]

        writers = []
        for segment, begin, width in self.writers:
            last = len(self.segments[segment].layers) - 1
            writers += [Writer(segment, last, place) for place in begins(roots[begin : begin + width])]
        readers = [
            Reader(segment, 0, place, axis.outer, axis.inner)
            for segment, axis in self.readers
            for place in begins(roots[axis.ids])
        ]
        followers = dict.fromkeys(
            Follower(name, axis, place) for name, axis, ids in self.followers for place in begins(roots[ids])
        )
        each = [(segment, place) for segment, ids in self.each for place in begins(roots[ids])]
        normalised = next((node for node, ids in self.normalised if first in roots[ids]), "")
        places = {
            name: tuple(Place(axis.axis, place, axis.outer, axis.inner) for place in begins(ids))
            for name, (axis, ids) in at.items()
            if first in ids
        }
        return UnitGroup(units, tuple(writers), tuple(readers), tuple(followers), tuple(each), normalised, places)


def _node(step: Glue) -> str:
    return f"node '{step.node}'"


Rule = Callable[[_Walk, Glue, Sequence[_Axis | None]], _Axis | None]


def _same(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    """Works on each unit by itself; a second input is a constant with a value for each."""
    at = read[0]
    if at is None:
        return None
    for name, shape in list(zip(step.inputs, step.shapes, strict=True))[1:]:
        walk.follow(step, name, shape, at, len(step.shapes[0]))
    return at


def _spatial(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    """Works on each channel by itself."""
    at = read[0]
    if at is not None and at.axis != 1:
        walk.pin(at.ids, f"{step.op} works on places, which they are here ({_node(step)})")
        return None
    return at


def _together(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    """Adds, multiplies, … one by one: the units of both are the same."""
    rank = len(step.shape)
    known: list[_Axis] = []
    for at, name, shape in zip(read, step.inputs, step.shapes, strict=True):
        if at is not None:
            known.append(at._replace(axis=at.axis + rank - len(shape)))
        elif name not in walk.frame.trunk.constants:
            axis = next(each for each in read if each is not None).axis  # the other's
            own = axis - (rank - len(shape))
            if own >= 0 and shape[own] != 1:
                walk.pin_all(read, f"{step.op} joins them with '{name}', which no trained layer writes ({_node(step)})")
    wide = [at for at in known if _size(at) > 1] or known
    for other in wide[1:]:
        if not _alike(other, wide[0]):
            walk.pin_all(known, f"{step.op} joins them with others along another axis ({_node(step)})")
            return None
        walk.tie(wide[0].ids, other.ids)
    for at, name, shape in zip(read, step.inputs, step.shapes, strict=True):
        if at is None and name in walk.frame.trunk.constants:
            walk.follow(step, name, shape, wide[0], rank)
    return wide[0]


def _alike(first: _Axis, second: _Axis) -> bool:
    return (first.axis, first.outer, first.inner, len(first.ids)) == (
        second.axis,
        second.outer,
        second.inner,
        len(second.ids),
    )


def _size(at: _Axis) -> int:
    return at.outer * len(at.ids) * at.inner


def _concat(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    axis, known = step.attributes["axis"], [at for at in read if at is not None]
    if all(at.axis == axis for at in known):
        if any(at.outer * at.inner > 1 for at in known):
            walk.pin_all(known, f"Concat puts places of theirs beside others ({_node(step)})")
            return None
        parts = []
        for at, size in zip(read, step.attributes["sizes"], strict=True):
            ids = walk.new(int(size)) if at is None else at.ids
            if at is None:
                walk.pin(ids, "no trained layer writes them")
            parts.append(ids)
        return _Axis(axis, np.concatenate(parts))
    if len(known) < len(read) or any(not _alike(at, known[0]) or at.axis == axis for at in known):
        walk.pin_all(known, f"Concat joins them with others along another axis ({_node(step)})")
        return None
    for at in known[1:]:
        walk.tie(known[0].ids, at.ids)
    return known[0]


def _piece(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at = read[0]
    if at is None or step.attributes["axis"] != at.axis:
        return at
    if at.outer * at.inner > 1:
        walk.pin(at.ids, f"Slice takes places of theirs ({_node(step)})")
        return None
    if not _is_told(walk, step):
        walk.pin(at.ids, f"which part of them {_node(step)} takes is computed in the file")
    return _Axis(at.axis, at.ids[step.attributes["begin"] : step.attributes["end"]])


def _is_told(walk: _Walk, step: Glue) -> bool:
    """Whether a node of the file is told which part it takes by constants, or no node of the file takes it."""
    node = next((node for node in walk.frame.model.graph.node if step.output in node.output), None)
    if node is None:  # a layer that reads the same as others writes it
        return any(step.output in segment.ends for segment in walk.segments)
    if node.op_type == "Split":
        return len(node.input) < 2 or own_values(walk.frame, node.input[1]) is not None
    bounds = node.input[1:3]
    return node.op_type == "Slice" and all(own_values(walk.frame, name) is not None for name in bounds)


def _reduced(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at, axes = read[0], step.attributes["axes"]
    if at is None:
        return None
    if at.axis in axes:
        walk.pin(at.ids, f"{step.op} computes over all of them together ({_node(step)})")
        return None
    return at if step.attributes["keepdims"] else at._replace(axis=at.axis - sum(axis < at.axis for axis in axes))


def _transposed(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at = read[0]
    return None if at is None else at._replace(axis=step.attributes["order"].index(at.axis))


def _reshaped(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    """Whose places are one axis afterwards: (outer, units, inner) of it."""
    at = read[0]
    if at is None:
        return None
    have, made = step.shapes[0], step.shape
    if None not in have[1:] and None not in made[1:]:
        sizes, wanted = [int(n or 0) for n in have[1:]], [int(n or 0) for n in made[1:]]
        stride = prod(sizes[at.axis :]) * at.inner
        span = stride * len(at.ids)
        for axis in range(len(wanted)):
            step_of = prod(wanted[axis + 1 :])
            if stride % step_of == 0 and step_of * wanted[axis] % span == 0:
                found = _Axis(axis + 1, at.ids, step_of * wanted[axis] // span, stride // step_of)
                if not _follows(walk.frame, step, found, wanted[axis]):
                    walk.pin(at.ids, f"the shape that {_node(step)} makes holds their number")
                return found
    walk.pin(at.ids, f"{_node(step)} lays them out over several axes")
    return None


def _follows(frame: Frame, step: Glue, found: _Axis, size: int) -> bool:
    """Whether the file's shape for a Reshape goes along with another number of units, or can be made to."""
    node = next((node for node in frame.model.graph.node if step.output in node.output), None)
    if node is None or node.op_type in ("Flatten", "Squeeze", "Unsqueeze"):
        return True
    given = own_values(frame, node.input[1]) if len(node.input) > 1 else None
    if node.op_type != "Reshape" or given is None or given.shape != (len(step.shape),):
        return False
    return int(given[found.axis]) in (-1, 0, size)


def _normalised(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at = read[0]
    if at is None or at.axis != len(step.shapes[0]) - 1:
        return at
    walk.normalised.append((step.node, at.ids))
    for name in step.attributes.get("constants", ("",)):
        walk.follow(step, name, (len(at.ids) * at.outer * at.inner,), at, len(step.shapes[0]))
    return at


def _per_channel(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at = read[0]
    if at is None or at.axis != 1:
        return at
    for name in step.attributes.get("constants", ("",)):
        walk.follow(step, name, (len(at.ids) * at.outer * at.inner,), at._replace(axis=0), 1)
    return at


def _in_groups(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    """Channels that are normalised each by itself are free."""
    at, groups = read[0], step.attributes["groups"]
    if at is not None and (at.axis != 1 or groups != len(at.ids) or at.outer * at.inner > 1):
        walk.pin(at.ids, f"they are normalised in {groups} groups ({_node(step)})")
        return None
    return _per_channel(walk, step, read)


def _padded(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at, pads = read[0], step.attributes["pads"]
    if at is not None and (pads[at.axis] or pads[at.axis + len(pads) // 2]):
        walk.pin(at.ids, f"Pad adds others to them ({_node(step)})")
        return None
    return at


def _softmax(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    at = read[0]
    if at is not None and at.axis == len(step.shapes[0]) - 1:
        walk.pin(at.ids, f"Softmax computes over all of them together ({_node(step)})")
        return None
    return at


def _product(walk: _Walk, step: Glue, read: Sequence[_Axis | None]) -> _Axis | None:
    walk.pin_all(read, f"they are multiplied with others that are computed ({_node(step)})")
    return None


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Activation", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Reciprocal", "Pow", "Identity"), _same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _together),
    **dict.fromkeys(("MaxPool", "AveragePool", "Repeat", "Resample"), _spatial),
    "Pad": _padded,
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduced),
    "Affine": _per_channel,
    "GroupNormalization": _in_groups,
    "Concat": _concat,
    "Slice": _piece,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "LayerNormalization": _normalised,
    "Softmax": _softmax,
    "Einsum": _product,
}


def _constants(frame: Frame) -> dict[str, int]:
    """Initializers, and outputs of Constant nodes, and how many nodes read each; a body's nodes count for theirs."""
    graph = frame.model.graph
    read: dict[str, int] = {}
    for node in graph.node:
        for name in inputs_of(node):
            read[name] = read.get(name, 0) + 1
    given = {tensor.name for tensor in graph.initializer} | set(frame.arrays)
    given |= {node.output[0] for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"}
    return {name: read.get(name, 0) for name in given}


def own_values(frame: Frame, name: str) -> Array | None:
    """Values of a constant of the file, an initializer or a Constant node's; None where it is no such thing."""
    if name in frame.arrays:
        return frame.arrays[name]
    for tensor in frame.model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in frame.model.graph.node:
        if node.op_type == "Constant" and name in node.output and node.attribute[0].name == "value":
            return numpy_helper.to_array(node.attribute[0].t)
    return None


def _read_elsewhere(frame: Frame, segments: Sequence[DenseChain], tensors: Mapping[str, _Axis]) -> dict[str, str]:
    """Tensors whose values reach an output of the model by nodes that are not trained through, and why they stay."""
    graph = frame.model.graph
    stops = {step.output for step in frame.trunk.steps if not isinstance(step, int)}
    stops |= {segment.input_name for segment in segments} | {segment.file_input for segment in segments}
    stops |= {head.tensor for head in frame.trunk.heads}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in inputs_of(node):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    found: dict[str, str] = {}
    for name in tensors:
        if name in outputs:
            found[name] = f"tensor '{name}' is also an output of the model"
            continue
        todo, seen = [name], {name}
        while todo and name not in found:
            for node in readers.get(todo.pop(), ()):
                for output in node.output:
                    if output in outputs and output not in stops:
                        found.setdefault(name, f"'{output}', an output of the model, is computed from them elsewhere")
                    if output not in stops and output not in seen:
                        seen.add(output)
                        todo.append(output)
    return found
