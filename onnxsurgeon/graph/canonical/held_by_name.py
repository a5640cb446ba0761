"""What rewriting must leave: tensors whose names have to stay, and constants that are separated before it begins."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import onnx_graphsurgeon as gs

from onnxsurgeon.graph import makers
from onnxsurgeon.graph.bodies import READ_INSIDE

MANY_READERS, SMALL = 16, 4096


def pinned_tensors(graph: gs.Graph) -> dict[int, Any]:
    """Outputs of the graph, and every tensor that a subgraph reads, by id; their names have to stay."""
    pinned = {id(tensor): tensor for tensor in graph.outputs}
    marked = [node for node in graph.nodes if node.attrs]
    for node in marked:
        pinned.update((id(tensor), tensor) for tensor in node.attrs.get(READ_INSIDE, ()))
    todo, seen = [inner for node in marked for inner in _subgraphs(node)], set()
    while todo:
        inner = todo.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        pinned.update((id(tensor), tensor) for tensor in inner.outputs)
        for node in inner.nodes:
            pinned.update((id(tensor), tensor) for tensor in node.inputs)
            todo.extend(_subgraphs(node))
    return pinned


def untie_small_constants(graph: gs.Graph, pinned: Collection[int]) -> list[gs.Constant]:
    """Give each of the nodes that read one scalar a copy of its own.

    With many readers of one constant, each removal would search the whole list of readers.

    Returns:
        The constants that nothing reads any more. They have to be kept alive, since tensors are identified by their
        ids.
    """
    found: dict[int, gs.Constant] = {}
    for node in graph.nodes:
        for position, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant) and len(tensor.outputs) > MANY_READERS and id(tensor) not in pinned:
                if id(tensor) not in found:
                    if math.prod(tensor.shape) > SMALL:
                        continue
                    found[id(tensor)] = tensor
                own = makers.constant(tensor.name, tensor.values)
                list.__setitem__(node.inputs, position, own)
                list.append(own.outputs, node)
    for tensor in found.values():
        list.clear(tensor.outputs)
    return list(found.values())


def _subgraphs(node: gs.Node) -> Iterator[gs.Graph]:
    for value in node.attrs.values():
        for entry in value if isinstance(value, list) else (value,):
            if isinstance(entry, gs.Graph):
                yield entry
