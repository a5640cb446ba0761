"""The flow of tensors through a canonical graph, computed once and then looked up."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.flowing import READS_SHAPES, is_still
from onnxsurgeon.graph.glue import data_inputs
from onnxsurgeon.graph.normal_form import ordered


class Flow:
    """A canonical graph and its readers; nodes and tensors are known by their ids.

    Attributes:
        graph: it.
        order: its nodes, each after what it reads.
        places: where each stands in that order.
        read: of each node all tensors that it reads, inside of its bodies too.
        inputs: of each node the tensors whose values it computes with.
        sources: the nodes that write these.
        outputs: tensors that are the model's outputs.
        readers: for each tensor, the nodes that read it.
        moved: tensors that depend on the model's inputs.
        still: nodes whose outputs no tensor's values change.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.order, read = ordered(graph)
        self.places = {id(node): place for place, node in enumerate(self.order)}
        self.outputs = {id(tensor) for tensor in graph.outputs}
        self.read: dict[int, list[gs.Tensor]] = {}
        self.inputs: dict[int, list[gs.Tensor]] = {}
        self.sources: dict[int, list[int]] = {}
        self.readers: dict[int, list[gs.Node]] = {}
        self.moved = set(map(id, graph.inputs))
        self.still: set[int] = set()
        for node, tensors in zip(self.order, read, strict=True):
            key, op = id(node), node.op
            if op == "Softmax":  # the default depends on the opset, which a node does not know
                node.attrs.setdefault("axis", -1 if int(graph.opset or 0) >= 13 else 1)
            self.read[key] = tensors
            self.inputs[key] = given = data_inputs(node, tensors)
            self.sources[key] = [id(producer) for tensor in given for producer in tensor.inputs]
            is_moved = False
            for tensor in tensors:
                found = id(tensor)
                is_moved = is_moved or found in self.moved
                if found in self.readers:
                    self.readers[found].append(node)
                else:
                    self.readers[found] = [node]
            if is_moved and op not in READS_SHAPES:
                self.moved.update(map(id, node.outputs))
            if is_still(node):
                self.still.add(key)
        self._before: dict[tuple[int, ...], frozenset[int]] = {}

    def downstream(self, start: Iterable[int]) -> set[int]:
        """Nodes that depend on the output of a node of ``start``, those themselves included."""
        found = set(start)
        for key, sources in self.sources.items():
            if key not in found and not found.isdisjoint(sources):
                found.add(key)
        return found

    def moved_by(self, dense: Iterable[int]) -> set[int]:
        """Nodes whose outputs a weight of these dense layers moves, the layers themselves included."""
        found = set(dense)
        for key, sources in self.sources.items():
            if not found.isdisjoint(sources) and key not in found and key not in self.still:
                found.add(key)
        return found

    @cached_property
    def alive(self) -> set[int]:
        """Nodes whose values flow into an output."""
        return self.upstream(iter(self.graph.outputs))

    def before(self, dense: Mapping[int, gs.Node]) -> frozenset[int]:
        """Nodes that what these nodes read depends on; looked up once for the same nodes."""
        key = tuple(dense)
        if key not in self._before:
            self._before[key] = frozenset(self.upstream(t for node in dense.values() for t in node.inputs))
        return self._before[key]

    def upstream(self, tensors: Iterator[gs.Tensor], seen: set[int] | None = None) -> set[int]:
        """Nodes on which the tensors depend, without those in ``seen``; the new ones are added to ``seen``."""
        found: set[int] = set()
        seen = set() if seen is None else seen
        sources = self.sources
        todo = [id(producer) for tensor in tensors for producer in tensor.inputs]
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                found.add(key)
                todo += sources[key]
        return found

    def is_joined(self, node: gs.Node, trained: set[int]) -> bool:
        """Whether the node's result is later combined with a trained tensor that does not depend on it.

        Nodes are looked at in order, so everything that a node reads has been classified when its turn comes.
        """
        behind = {id(node)}
        todo = [self.places[id(reader)] for tensor in node.outputs for reader in self.readers.get(id(tensor), ())]
        heapq.heapify(todo)
        while todo:
            other = self.order[heapq.heappop(todo)]
            if id(other) in behind:
                continue
            sources = self.sources[id(other)]
            if behind.isdisjoint(sources):
                continue  # it reads a shape, not the values
            if any(source in trained and source not in behind for source in sources):
                return True
            behind.add(id(other))
            for tensor in other.outputs:
                for reader in self.readers.get(id(tensor), ()):
                    heapq.heappush(todo, self.places[id(reader)])
        return False

    def by_value(self, tensor: gs.Tensor) -> Iterator[gs.Node]:
        """The nodes that compute with a tensor's values."""
        for node in self.readers.get(id(tensor), ()):
            if any(given is tensor for given in self.inputs[id(node)]):
                yield node

    def only_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        """The one node that reads a tensor; None where there are several, or the tensor is an output of the model."""
        readers = self.readers.get(id(tensor), [])
        return readers[0] if len(readers) == 1 and id(tensor) not in self.outputs else None
