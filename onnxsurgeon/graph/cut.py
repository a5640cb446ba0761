"""Cutting a model: which nodes and tensors belong to the segments alone, and where the segments go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from onnxsurgeon.graph.declared import inputs_of

_FEW = 64  # up to this number, nodes are taken out one by one, and the others stay where they are


@dataclass(frozen=True)
class Ends:
    """The two ends of a segment in the file.

    The tensor that its first layer reads, and the one that its last layer writes.
    """

    entry: str
    output: str


@dataclass(frozen=True)
class Cut:
    """What is left of a model without its segments.

    Attributes:
        model: the rest, its nodes and tensors unchanged.
        positions: for each segment, where in the list of nodes it belongs.
        prefix: positions of the nodes that the features depend on.
        removed: the nodes that are gone.
        gone: names of the tensors that are gone.
        writes: names that each node of the rest writes.
    """

    model: onnx.ModelProto
    positions: tuple[int, ...]
    prefix: tuple[int, ...]
    removed: list[onnx.NodeProto]
    gone: frozenset[str]
    writes: list[list[str]]


def cut(model: onnx.ModelProto, flow: Known, segments: Sequence[Ends], features: Sequence[str]) -> Cut:
    """``model`` without the nodes and tensors that only its segments need.

    ``flow`` is what is known of its nodes. Segments come in the order of computation. What nothing needed before stays.
    """
    graph = model.graph
    outputs = [value.name for value in graph.output]
    stops = {ends.output for ends in segments}
    entries = [ends.entry for ends in segments]
    before = flow.needed(outputs, set())
    kept = flow.needed([*outputs, *entries, *features], stops)
    prefix = flow.needed(features, stops)
    removed = before.nodes - kept.nodes
    gone = before.tensors - kept.tensors

    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    kept_nodes = [index for index in range(len(graph.node)) if index not in removed]
    places = {index: position for position, index in enumerate(kept_nodes)}
    if len(removed) <= _FEW:
        for index in sorted(removed, reverse=True):
            del rest.graph.node[index]
    else:
        del rest.graph.node[:]
        rest.graph.node.extend(graph.node[index] for index in kept_nodes)
    for field in (rest.graph.initializer, rest.graph.sparse_initializer, rest.graph.value_info):
        stay = [entry for entry in field if _name(entry) not in gone]
        del field[:]
        field.extend(stay)
    stay = [value for value in rest.graph.input if value.name not in gone]
    del rest.graph.input[:]
    rest.graph.input.extend(stay)

    first_reader: dict[str, int] = {}
    for index in kept_nodes:
        for name in flow.reads[index]:
            first_reader.setdefault(name, places[index])
    made: dict[str, int] = {}
    last = 0
    for ends in segments:
        # A segment goes right behind the node whose output it reads, since readers of its output stood further back;
        # but never before a segment that comes first, so that the written file is read in the same order.
        producer = None if ends.entry in made else flow.producers.get(ends.entry)
        behind = 0 if producer is None else places[producer] + 1
        behind = made.get(ends.entry, behind)
        last = made[ends.output] = max(behind, min(last, first_reader.get(ends.output, len(kept_nodes))))
    positions = tuple(made[ends.output] for ends in segments)
    prefix_positions = tuple(sorted(places[index] for index in prefix.nodes))
    nodes, writes = [graph.node[index] for index in sorted(removed)], [flow.writes[index] for index in kept_nodes]
    return Cut(rest, positions, prefix_positions, nodes, frozenset(gone), writes)


def _name(entry: onnx.TensorProto | onnx.SparseTensorProto | onnx.ValueInfoProto) -> str:
    return entry.values.name if isinstance(entry, onnx.SparseTensorProto) else str(entry.name)


@dataclass
class Needed:
    """What is needed of a graph: positions of nodes, and names of tensors."""

    nodes: set[int]
    tensors: set[str]


@dataclass(frozen=True)
class Known:
    """What each node reads and writes, and which node writes a tensor: asked of the protobuf once.

    Attributes:
        reads: names that each node reads, inside of its bodies too.
        writes: names that each node writes.
        producers: position of the node that writes each tensor.
    """

    reads: list[list[str]]
    writes: list[list[str]]
    producers: dict[str, int]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> Known:
        """What is known of the nodes of ``graph``."""
        reads = [inputs_of(node) for node in graph.node]
        writes = [list(node.output) for node in graph.node]
        return cls(reads, writes, {name: index for index, names in enumerate(writes) for name in names if name})

    @cached_property
    def tensors(self) -> set[str]:
        """Names of the tensors that nodes read or write."""
        return set().union(*self.reads, *self.writes)

    def needed(self, wanted: Sequence[str], stops: set[str]) -> Needed:
        """Nodes and tensors on which the wanted tensors depend, without looking behind the tensors ``stops``."""
        nodes: set[int] = set()
        tensors: set[str] = set()
        todo = list(wanted)
        while todo:
            name = todo.pop()
            if name in tensors:
                continue
            tensors.add(name)
            if name in stops or name not in self.producers:
                continue
            index = self.producers[name]
            if index not in nodes:
                nodes.add(index)
                tensors.update(self.writes[index])
                todo += self.reads[index]
        return Needed(nodes, tensors)
