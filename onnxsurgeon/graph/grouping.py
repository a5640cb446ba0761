"""Finds the groups of a network's units.

Every unit of every segment's last layer is followed through the trunk. An Add makes the units that it adds one by one
the same; a Concat puts them beside others; a Flatten gives each several places. Layers that share their weights write
the same units, and the units that they read are the same too. Units that the same layers write and read everywhere are
a group, whose number of units is free. An operator that is not in the table of rules pins the units that reach it, and
says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx

from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.group_rules import RULES, alike
from onnxsurgeon.graph.group_units import Axis, Units, node_of
from onnxsurgeon.graph.groups import Follower, Groups, Pinned, Place, Reader, UnitGroup, Writer
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.tied import tied_segments
from onnxsurgeon.linear_algebra import Array


def find_groups(segments: Sequence[DenseChain], frame: Frame) -> Groups:
    """The groups of units of a network of these ``segments`` in this ``frame``."""
    tied = tied_segments(segments)
    hidden = [
        UnitGroup(
            segment.layers[i].units,
            (Writer(number, i, 0),),
            (Reader(number, i + 1, 0, inner=segment.layers[i + 1].inputs // segment.layers[i].units),),
        )
        for number, segment in enumerate(segments)
        if number not in tied
        for i in range(segment.hidden_count)
    ]
    if len(segments) == 1 and all(isinstance(step, int) for step in frame.trunk.steps):
        return Groups(tuple(hidden), ())
    walk = _Walk(segments, frame)
    walk.run()
    shared, pinned = walk.groups()
    return Groups((*hidden, *shared), pinned)


class _Walk(Units):
    """Follows units through the trunk, once, in the order of computation."""

    def __init__(self, segments: Sequence[DenseChain], frame: Frame) -> None:
        super().__init__(segments, frame)
        self.writers: list[tuple[int, int, int]] = []  # segment, first id, units
        self.readers: list[tuple[int, Axis]] = []
        self.each: list[tuple[int, Array]] = []
        self.tied = tied_segments(segments)
        self.entered: dict[int, Axis | None] = {}  # what the first of several segments with the same weights reads
        self.written: dict[int, Array] = {}  # and writes

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
        for name, node in self.sizes.bypassed().items():
            self.pin_tensor(name, f"the shape that node '{node}' makes holds their number")
        for name, sizes, node in self.sizes.laid_out():
            at = self.tensors.get(name)
            behind = 0 if at is None else self.sizes.ranks.get(name, at.axis + 1) - at.axis  # axes from the last one
            if 0 < behind <= len(sizes) and sizes[-behind] != 1:
                self.pin_tensor(name, f"the shape that node '{node}' makes holds their number")
        for name, node in self.sizes.turned().items():
            self.pin_tensor(name, f"the file computes shapes from their number (node '{node}')")
        for name in (name for name in self.tensors if name in self.frame.turned):
            # Constants, numbers of places and cuts there belong to the file's order of axes, not to the trunk's.
            self.pin_tensor(name, f"the file has them in another order of axes ('{name}')")

    def _segment(self, number: int) -> None:
        segment = self.segments[number]
        first, last = segment.layers[0], segment.layers[-1]
        read = self.tensors.get(segment.input_name)
        geometry = first.geometry
        axis = 1 if geometry is not None else segment.rank - 1
        if read is not None and read.axis != axis:
            self.pin(read.ids, f"'{first.names.node}' works along another axis than theirs")
            read = None
        if number in self.tied:
            self._again(number, read, axis)
            return
        self.entered[number] = read
        if geometry is not None and geometry.groups > 1:
            units = last.units
            if read is not None and geometry.groups == units == len(read.ids) and len(segment.layers) == 1:
                self.each.append((number, read.ids))
                self.tensors[segment.output_name], self.written[number] = read, read.ids
                return
            if read is not None:
                self.pin(read.ids, f"'{first.names.node}' reads them in {geometry.groups} groups")
            ids = self.new(units)
            self.writers.append((number, int(ids[0]), units))
            self.pin(ids, f"'{last.names.node}' computes them in {geometry.groups} groups")
            self.tensors[segment.output_name], self.written[number] = Axis(1, ids), ids
            return
        if read is not None:
            taps = 1 if geometry is None else geometry.taps
            self.readers.append((number, read._replace(inner=read.inner * taps)))
        ids = self.new(last.units)
        self.writers.append((number, int(ids[0]), last.units))
        self.tensors[segment.output_name], self.written[number] = Axis(axis, ids), ids

    def _again(self, number: int, read: Axis | None, axis: int) -> None:
        """Tie the units of a segment that has the weights of an earlier one.

        Both write the same units and read the same. If only one of the two reads units of layers, their number must
        stay.
        """
        segment, first = self.segments[number], self.tied[number]
        before = self.entered[first]
        if read is not None and before is not None and alike(read, before):
            self.tie(before.ids, read.ids)
        else:
            names = self.segments[first].layers[0].names.node, segment.layers[0].names.node
            self.pin_all((read, before), f"'{names[0]}' and '{names[1]}' read them and others with the same weights")
        self.tensors[segment.output_name] = Axis(axis, self.written[first])

    def _glue(self, step: Glue) -> None:
        read = [self.tensors.get(name) for name in step.inputs]
        if all(each is None for each in read):
            return
        rule = RULES.get(step.op)
        if rule is None:
            self.pin_all(read, f"there is no rule for what {step.op} does to them ({node_of(step)})")
            return
        found = rule(self, step, read)
        if found is not None:
            self.tensors[step.output] = found

    def groups(self) -> tuple[list[UnitGroup], tuple[Pinned, ...]]:
        self.tie_followers()
        roots = self.find(np.arange(self.count))
        pinned: dict[int, str] = {}
        for unit, reason in sorted(self.reasons.items()):
            pinned.setdefault(int(roots[unit]), reason)
        # Each tensor's units as roots; a group's units must lie side by side in the same order everywhere. Many
        # tensors, such as a row of a hundred thousand nodes, hold the same units.
        at = {axis.ids.tobytes(): roots[axis.ids] for axis in self.tensors.values()}
        seen: dict[int, list[tuple[int, int]]] = {}
        for number, held in enumerate(at.values()):
            for place, root in enumerate(held.tolist()):
                seen.setdefault(root, []).append((number, place))
        # Neighbours that the same tensors hold, in each at the next place, belong together.
        runs: list[list[int]] = []
        for root in sorted(seen):
            before = runs[-1][-1] if runs else -1
            step = [(number, place - 1) for number, place in seen[root]]
            if runs and seen[before] == step and (before in pinned) == (root in pinned):
                runs[-1].append(root)
            else:
                runs.append([root])
        found, stuck = [], []
        for run, ports in zip(runs, self._ports([run[0] for run in runs], roots), strict=True):
            reason = next((pinned[root] for root in run if root in pinned), "")
            if reason:
                stuck += [Pinned(writer.segment, len(run), reason) for writer in ports.writers]
            elif ports.writers and ports.readers:
                followers = tuple(dict.fromkeys(ports.followers))
                places = {name: tuple(places) for name, places in ports.places.items()}
                writers, readers, each = tuple(ports.writers), tuple(ports.readers), tuple(ports.each)
                found.append(UnitGroup(len(run), writers, readers, followers, each, ports.normalised, places))
        return found, tuple(stuck)

    def _ports(self, firsts: list[int], roots: Array) -> list[_Ports]:
        """For each run of units, by its first unit: where it is written, read and held."""
        numbers = np.full(self.count, -1)
        numbers[firsts] = np.arange(len(firsts))
        found = _Found([_Ports([], [], [], [], {}) for _ in firsts], numbers[roots])
        for segment, begin, width in self.writers:
            last = len(self.segments[segment].layers) - 1
            for ports, place in found.begins(np.arange(begin, begin + width)):
                ports.writers.append(Writer(segment, last, place))
        for segment, axis in self.readers:
            for ports, place in found.begins(axis.ids):
                ports.readers.append(Reader(segment, 0, place, axis.outer, axis.inner))
        for segment, ids in self.each:
            for ports, place in found.begins(ids):
                ports.each.append((segment, place))
        self._add_frame(found)
        return found.ports

    def _add_frame(self, found: _Found) -> None:
        """Add the constants of the file that hold the units."""
        for name, number, ids in self.followers:
            for ports, place in found.begins(ids):
                ports.followers.append(Follower(name, number, place))
        for node, ids in reversed(self.normalised):
            for ports, _ in found.begins(ids):
                ports.normalised = node
        begins: dict[bytes, list[tuple[_Ports, int]]] = {}
        for name, axis in self.tensors.items():
            key = axis.ids.tobytes()
            if key not in begins:
                begins[key] = list(found.begins(axis.ids))
            for ports, place in begins[key]:
                ports.places.setdefault(name, []).append(Place(axis.axis, place, axis.outer, axis.inner))


@dataclass(eq=False)
class _Ports:
    """The ports of units that become a group; see ``UnitGroup``."""

    writers: list[Writer]
    readers: list[Reader]
    followers: list[Follower]
    each: list[tuple[int, int]]
    places: dict[str, list[Place]]
    normalised: str = ""


class _Found(NamedTuple):
    """Ports of all runs of units, and the run that begins with each unit, −1 for none."""

    ports: list[_Ports]
    runs: Array

    def begins(self, ids: Array) -> Iterator[tuple[_Ports, int]]:
        """Yield the runs that begin among some units, and where."""
        runs = self.runs[ids]
        for place in np.flatnonzero(runs >= 0).tolist():
            yield self.ports[runs[place]], place


def _read_elsewhere(frame: Frame, segments: Sequence[DenseChain], tensors: Mapping[str, Axis]) -> dict[str, str]:
    """Tensors whose values reach an output of the model by nodes that are not trained through, and the reasons."""
    graph = frame.model.graph
    stops = {step.output for step in frame.trunk.steps if not isinstance(step, int)}
    stops |= {segment.input_name for segment in segments} | {segment.file_input for segment in segments}
    stops |= {head.tensor for head in frame.trunk.heads}
    outputs = {value.name for value in graph.output}
    leading = _leading(graph, outputs, stops)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node if leading else ():
        for name in inputs_of(node):
            readers.setdefault(name, []).append(node)
    found: dict[str, str] = {}
    for name in tensors:
        if name in outputs:
            found[name] = f"tensor '{name}' is also an output of the model"
            continue
        if name not in leading:
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


def _leading(graph: onnx.GraphProto, outputs: set[str], stops: set[str]) -> set[str]:
    """Tensors from which an output can be reached without passing through or ending at any of ``stops``."""
    todo = list(outputs - stops)
    makers = {name: node for node in graph.node for name in node.output} if todo else {}
    found: set[str] = set()
    while todo:
        node = makers.get(todo.pop())
        for name in () if node is None else inputs_of(node):
            if name not in found:
                found.add(name)
                if name not in stops:
                    todo.append(name)
    return found
