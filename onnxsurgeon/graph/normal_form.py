"""Questions to nodes of a canonical graph: the activation that a node stands for, its name, and who reads what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation
from onnxsurgeon.graph.bodies import READ_INSIDE
from onnxsurgeon.graph.canonical import clip_bounds, constant_values
from onnxsurgeon.graph.canonical.names import label


def activation_of(node: gs.Node, units: int | None = None, dtype: Any = None) -> Activation:
    """The activation that ``node`` applies, PRelu's slopes spread to (units,) where that number is given.

    Raises:
        ModelError: PRelu's slopes or Clip's bounds are not constant, or do not fit; the text starts with "node".
    """
    known = ACTIVATIONS[node.op]
    if not node.attrs and node.op not in ("PRelu", "Clip"):
        return _plain(node.op)
    if node.op == "PRelu":
        slope = constant_values(node.inputs[1])
        if slope is None or (units is not None and slope.size not in (1, units)):
            raise ModelError(
                f"node '{label(node)}': PRelu's slope is not one value, or one for each unit", "unsupported-form"
            )
        if units is None:
            return Activation(node.op, slope=slope)
        return Activation(node.op, slope=np.broadcast_to(slope.reshape(-1), (units,)).astype(dtype))
    attributes: dict[str, Any] = {name: value for name, value in node.attrs.items() if name in known.attributes}
    if node.op == "Clip":
        low, high = clip_bounds(node)
        if low is None or high is None:
            raise ModelError(f"node '{label(node)}': Clip's bounds are not constant", "unsupported-form")
        attributes = {"min": low, "max": high}
    changed = {name: value for name, value in attributes.items() if value != known.attributes[name]}
    return Activation(node.op, changed)


@cache
def _plain(op: str) -> Activation:
    """The activation with ONNX's own parameters: a file may have 100,000 of them."""
    return Activation(op)


UNLIFTED = "one row's "  # stands before the operator of a node of which it is not told what it does of many rows
HELD = "Held"  # the operator of a node that does nothing in the reading aid, and that no layer goes through
NOT_TOLD = "the model has no batch axis, and what this does of many rows at once is not told"


def operator(node: gs.Node) -> str:
    """The name of the node's operator in notes and messages."""
    return str(node.op).removeprefix(UNLIFTED)


def reads(node: gs.Node) -> list[Any]:
    """Tensors that a node reads, including those that its subgraphs read."""
    found = [tensor for tensor in node.inputs if tensor.name]
    if not node.attrs:
        return found
    if READ_INSIDE in node.attrs:
        return found + list(node.attrs[READ_INSIDE])
    for value in node.attrs.values():
        for graph in value if isinstance(value, list) else (value,):
            if isinstance(graph, gs.Graph):
                for inner in graph.nodes:
                    found += reads(inner)
                # An outer tensor may be a subgraph's output as it is.
                found += graph.outputs
    return found


def in_order(graph: gs.Graph) -> list[gs.Node]:
    """Nodes in an order in which each comes after what it reads."""
    return ordered(graph)[0]


def ordered(graph: gs.Graph) -> tuple[list[gs.Node], list[list[Any]]]:
    """The same, and what each of them ``reads``."""
    nodes = [node for node in graph.nodes if node.outputs]
    read = [reads(node) for node in nodes]
    producers = {id(tensor): number for number, node in enumerate(nodes) for tensor in node.outputs}
    if _are_in_order(nodes, read, producers):
        return nodes, read
    order: list[int] = []
    state: dict[int, int] = {}
    for root in range(len(nodes)):
        stack = [(root, False)]
        while stack:
            number, done = stack.pop()
            if done:
                order.append(number)
                state[number] = 2
            elif number not in state:
                state[number] = 1
                stack.append((number, True))
                needed = [producers[id(tensor)] for tensor in read[number] if id(tensor) in producers]
                stack.extend((needs, False) for needs in reversed(needed) if needs not in state)
    return [nodes[number] for number in order], [read[number] for number in order]


def _are_in_order(nodes: Sequence[gs.Node], read: Sequence[Sequence[Any]], producers: Collection[int]) -> bool:
    seen: set[int] = set()
    for node, tensors in zip(nodes, read, strict=True):
        for tensor in tensors:
            if id(tensor) not in seen and id(tensor) in producers:
                return False
        seen.update(map(id, node.outputs))
    return True
