"""The graph under rewriting: the few edits that rules make, and the list of nodes to look at again.

onnx-graphsurgeon's own lists compare whole nodes at every removal; these edits go by identity, and each touches only
the nodes next to it, so that a graph of 100,000 nodes is rewritten in linear time.

One file: a class whose edits all keep the same lists of readers, writers and nodes in step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from onnxsurgeon.graph import makers
from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.canonical.held_by_name import pinned_tensors, untie_small_constants
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.queries import dtype_of, producer_of
from onnxsurgeon.linear_algebra import Array

# Its warnings go to standard output, where --json must stay clean.
G_LOGGER.severity = G_LOGGER.ERROR

PRODUCTS = ("Gemm", "MatMul", "Einsum", "Conv", "com.microsoft::FusedGemm", "com.microsoft::FusedMatMul")
# The fewest inputs of the operators that rules look at; 1 for those that are not listed.
INPUTS = {
    "Constant": 0,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Gather", "GatherND", "PRelu", *PRODUCTS), 2),
    "Where": 3,
}


class Rewriter:
    """A graph, what has to stay of it, and the nodes to look at.

    Attributes:
        graph: the onnx-graphsurgeon graph.
        opset: version of the standard operators.
        reads: names that each product read in the file, by the node's id; no-op nodes are bypassed later.
        spread: tensors, by id, that are constant but for their shape, and the values that are laid out to it.
        lost: names of products that nothing reads any more, since their values do not count.
        steps: for a tensor's id, how far back an activation may begin; forgotten at every edit.
    """

    def __init__(self, graph: gs.Graph, allowance: Allowance | None = None) -> None:
        self.graph, self._allowance = graph, allowance or Allowance()
        self.opset = int(graph.opset or 0)
        for node in graph.nodes:
            if node.domain not in (None, "", "ai.onnx"):
                node.op = f"{node.domain}::{node.op}"  # a custom Relu is not ONNX's
                node.domain = None
        self.reads: dict[int, list[str]] = {id(n): [t.name for t in n.inputs] for n in graph.nodes if n.op in PRODUCTS}
        self.spread: dict[int, tuple[Any, Array]] = {}
        self.lost: list[str] = []
        self.steps: dict[int, tuple[int, bool]] = {}
        self._pinned = pinned_tensors(graph)
        self._kept = [graph, *untie_small_constants(graph, self._pinned)]
        self._file = {id(t): t for n in graph.nodes for t in (*n.inputs, *n.outputs)}
        self._file.update((id(t), t) for t in (*graph.inputs, *graph.outputs))
        self._inserted: dict[int, list[gs.Node]] = {}
        self._queue: deque[gs.Node] = deque()
        self._queued: set[int] = set()
        self._malformed: dict[int, gs.Node] = {}
        self._fresh = 0

    # --- what stays -----------------------------------------------------------------------------------------

    def is_pinned(self, tensor: Any) -> bool:
        """Whether the tensor is an output of the graph or is read inside a subgraph."""
        return id(tensor) in self._pinned

    def is_original(self, tensor: Any) -> bool:
        """Whether the tensor is one of the file's; it then has the file's value too."""
        return id(tensor) in self._file and bool(tensor.name)

    def entry(self, node: gs.Node, position: int) -> str | None:
        """The name of the tensor that the product read in the file.

        The one that it reads now where that is not known.
        """
        if id(node) in self.reads:
            return self.reads[id(node)][position]
        return str(node.inputs[position].name) if self.is_original(node.inputs[position]) else None

    def allow(self, node: gs.Node, size: int, *, made: bool = True) -> None:
        """Count ``size`` bytes of constants that are made for the node; unless ``made``, only ask whether they may be.

        Raises:
            ModelError: they are more than may be made.
        """
        named = label(node)
        (self._allowance.take if made else self._allowance.require)(size, f"node '{named}' ({node.op})")

    # --- edits ----------------------------------------------------------------------------------------------

    def set_input(self, node: gs.Node, position: int, tensor: Any) -> None:
        """Make ``tensor`` the node's input ``position``."""
        old = node.inputs[position]
        if old is tensor:
            return
        self.steps.clear()
        _discard(old.outputs, node)
        list.__setitem__(node.inputs, position, tensor)
        list.append(tensor.outputs, node)
        self.touch(node, *tensor.inputs)
        self._orphaned(old)

    def set_inputs(self, node: gs.Node, tensors: Sequence[Any]) -> None:
        """Make the node read exactly ``tensors``."""
        self.steps.clear()
        old = list(node.inputs)
        for tensor in old:
            _discard(tensor.outputs, node)
        list.clear(node.inputs)
        for tensor in tensors:
            list.append(node.inputs, tensor)
            list.append(tensor.outputs, node)
            self.touch(*tensor.inputs)
        self.touch(node)
        for tensor in old:
            self._orphaned(tensor)

    def set_output(self, node: gs.Node, tensor: Any) -> None:
        """Make the node write ``tensor`` as its first output; nothing else may write that tensor any more."""
        self.steps.clear()
        _discard(node.outputs[0].inputs, node)
        list.__setitem__(node.outputs, 0, tensor)
        list.append(tensor.inputs, node)
        self.touch(node, *tensor.outputs)

    def release_output(self, node: gs.Node) -> None:
        """Take the node's first output from it, for another to write; the node is to be removed then."""
        self.steps.clear()
        _discard(node.outputs[0].inputs, node)
        list.__delitem__(node.outputs, 0)

    def become(
        self, node: gs.Node, op: str, inputs: Sequence[Any], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Turn the node into another operator that writes the same first output."""
        node.op = op
        node.attrs.clear()
        node.attrs.update(attributes or {})
        for tensor in node.outputs[1:]:
            _discard(tensor.inputs, node)
        list.__delitem__(node.outputs, slice(1, None))
        self.set_inputs(node, inputs)
        self.touch(*node.outputs[0].outputs)

    def bypass(self, node: gs.Node, x: Any | None = None) -> bool:
        """Let every reader of the node's first output read ``x``, which is its first input unless given.

        Where the file has the output but not ``x``, the two become one tensor under the output's name.
        """
        x, y = node.inputs[0] if x is None else x, node.outputs[0]
        source = producer_of(x)
        if source is not None and source.outputs[0] is x and not self.is_original(x) and self.is_original(y):
            if source is node or any(tensor is y for tensor in (*source.inputs, *node.inputs)):
                return False
            # The node writes elsewhere before it goes, and its inputs keep their reader until then.
            self.set_output(node, self.variable(y))
            self.set_output(source, y)
            self.redirect(x, y)
            self.remove(node)
            return True
        if self.is_pinned(y) or x is y or any(tensor is y for tensor in node.inputs):
            return False
        self.redirect(y, x)
        self.remove(node)
        return True

    def redirect(self, y: Any, x: Any) -> None:
        """Let every reader of ``y`` read ``x``."""
        self.steps.clear()
        readers = list(y.outputs)
        list.clear(y.outputs)
        for reader in readers:
            for position, tensor in enumerate(reader.inputs):
                if tensor is y:
                    list.__setitem__(reader.inputs, position, x)
                    list.append(x.outputs, reader)
        self.touch(*readers, *x.inputs)

    def remove(self, node: gs.Node) -> None:
        """Detach the node, and every node whose outputs nothing reads then."""
        self.steps.clear()
        todo = [node]
        while todo:
            gone = todo.pop()
            if gone.op in (*PRODUCTS, "Dense", "Convolution"):
                self.lost.append(label(gone))
            inputs = list(gone.inputs)
            for tensor in inputs:
                _discard(tensor.outputs, gone)
            for tensor in gone.outputs:
                _discard(tensor.inputs, gone)
            list.clear(gone.inputs)
            list.clear(gone.outputs)
            for tensor in inputs:
                self.touch(*tensor.outputs[:2])
                todo.extend(p for p in self._unread(tensor) if p.outputs)

    def insert(self, anchor: gs.Node, op: str, inputs: Sequence[Any], y: Any, attributes: Mapping[str, Any]) -> gs.Node:
        """Insert a new node that writes ``y``, listed next to ``anchor``."""
        self.steps.clear()
        node = gs.Node(op, f"{anchor.name}.{op}" if anchor.name else "", dict(attributes))
        list.extend(node.inputs, inputs)
        for tensor in inputs:
            list.append(tensor.outputs, node)
        list.append(node.outputs, y)
        list.append(y.inputs, node)
        self._inserted.setdefault(id(anchor), []).append(node)
        self._kept.append(anchor)
        self.touch(node, *y.outputs)
        return node

    def variable(self, like: Any, shape: Sequence[Any] | None = None) -> gs.Variable:
        """Return a new tensor of ``like``'s type, named after it."""
        self._fresh += 1
        return makers.variable(
            f"{like.name}.canonical{self._fresh}", dtype_of(like), None if shape is None else list(shape)
        )

    def _orphaned(self, tensor: Any) -> None:
        for producer in self._unread(tensor):
            self.remove(producer)
        self.touch(*tensor.inputs, *tensor.outputs[:2])

    def _unread(self, tensor: Any) -> Iterator[gs.Node]:
        """Yield the node that writes ``tensor``, if nothing reads any of its outputs."""
        for producer in list(tensor.inputs):
            if not any(y.outputs or self.is_pinned(y) for y in producer.outputs):
                yield producer

    # --- worklist -------------------------------------------------------------------------------------------

    def touch(self, *nodes: gs.Node) -> None:
        """Look at these nodes again."""
        for node in nodes:
            if id(node) not in self._queued and node.outputs:
                self._queued.add(id(node))
                self._queue.append(node)

    def drain(self, rules: Mapping[str, Sequence[Rule]], budget: int) -> bool:
        """Apply rules to the nodes of the worklist until none applies; whether any did."""
        changed, queue, queued, malformed = False, self._queue, self._queued, self._malformed
        while queue and budget > 0:
            node = queue.popleft()
            queued.discard(id(node))
            if len(node.inputs) < INPUTS.get(node.op, 1):
                continue  # malformed
            if id(node) not in malformed and self._apply_one(rules.get(node.op, ()), node):
                changed = True
                budget -= 1
                self.touch(node)
                for tensor in node.outputs:
                    self.touch(*tensor.outputs)
                for tensor in node.inputs:
                    self.touch(*tensor.inputs)
        return changed

    def _apply_one(self, rules: Sequence[Rule], node: gs.Node) -> bool:
        """Apply the first rule that applies; a malformed node is left for the checker to name."""
        for rule in rules:
            try:
                if node.outputs and rule(self, node):
                    return True
            except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
                self._malformed[id(node)] = node
        return False

    def touch_all(self, rules: Container[str]) -> None:
        """Look at every node again that there are ``rules`` for."""
        queue, queued, inserted = self._queue, self._queued, self._inserted
        for node in self.graph.nodes:
            if node.op in rules and id(node) not in queued and node.outputs:
                queued.add(id(node))
                queue.append(node)
            if id(node) in inserted:
                self.touch(*(each for each in inserted[id(node)] if each.op in rules))

    def finish(self) -> None:
        """List the nodes that are left, with new nodes next to those for which they were made."""
        nodes = []
        todo = list(reversed(self.graph.nodes))
        while todo:
            node = todo.pop()
            if node.outputs:
                nodes.append(node)
            todo.extend(reversed(self._inserted.pop(id(node), [])))
        self.graph.nodes[:] = nodes


Rule = Callable[[Rewriter, gs.Node], bool]


def _discard(entries: list[Any], wanted: Any) -> None:
    for index, entry in enumerate(entries):
        if entry is wanted:
            list.__delitem__(entries, index)
            return
