"""The flow of tensors through a canonical graph, computed once and then looked up."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.glue import data_inputs
from onnxsurgeon.graph.normal_form import in_order, reads
from onnxsurgeon.graph.notes import depends_on_input


class Flow:
    """A canonical graph and its readers; nodes and tensors are known by their ids.

    Attributes:
        graph: the graph.
        order: its nodes, each after those whose outputs it reads.
        places: the place of each node in that order.
        inputs: for each node, the tensors with whose values it computes.
        sources: the nodes that write these.
        outputs: tensors that are the model's outputs.
        readers: for each tensor, the nodes that read it.
        moved: tensors that depend on the model's inputs.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.order = in_order(graph)
        read = {id(node): reads(node) for node in self.order}
        self.places = {id(node): place for place, node in enumerate(self.order)}
        self.inputs = {id(node): data_inputs(node, read[id(node)]) for node in self.order}
        self.sources = {
            key: [id(producer) for tensor in tensors for producer in tensor.inputs]
            for key, tensors in self.inputs.items()
        }
        self.outputs = {id(tensor) for tensor in graph.outputs}
        self.readers: dict[int, list[gs.Node]] = {}
        for node in self.order:
            if node.op == "Softmax":  # the default depends on the opset, which a node does not know
                node.attrs.setdefault("axis", -1 if int(graph.opset or 0) >= 13 else 1)
            for tensor in read[id(node)]:
                self.readers.setdefault(id(tensor), []).append(node)
        self.moved = depends_on_input(graph, self.order)

    def downstream(self, start: dict[int, gs.Node]) -> set[int]:
        """Nodes that depend on the output of a node of ``start``, including those of ``start``."""
        found = set(start)
        for key, sources in self.sources.items():
            if key not in found and not found.isdisjoint(sources):
                found.add(key)
        return found

    def upstream(self, tensors: Iterator[gs.Tensor], seen: set[int] | None = None) -> set[int]:
        """Nodes on which the tensors depend, without those in ``seen``; the new ones are added to ``seen``."""
        found: set[int] = set()
        seen = set() if seen is None else seen
        todo = [id(producer) for tensor in tensors for producer in tensor.inputs]
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                found.add(key)
                todo += self.sources[key]
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

    def only_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        """The one node that reads a tensor; None where there are several, or the tensor is an output of the model."""
        readers = self.readers.get(id(tensor), [])
        return readers[0] if len(readers) == 1 and id(tensor) not in self.outputs else None
