"""What a canonical graph's nodes say: the activation that a node stands for, and who reads what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation
from onnxsurgeon.graph.bodies import READ_INSIDE
from onnxsurgeon.graph.canonical import clip_bounds, constant_values, name_in_file


def activation_of(node: gs.Node, units: int | None = None, dtype: Any = None) -> Activation:
    """The activation that ``node`` applies, PRelu's slopes spread to (units,) where that number is given.

    Raises:
        ModelError: PRelu's slopes or Clip's bounds are not constant, or do not fit; the text starts with "node".
    """
    known = ACTIVATIONS[node.op]
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


UNLIFTED = "one row's "  # stands before the operator of a node of which it is not told what it does of many rows
HELD = "Held"  # the operator of a node that does nothing in the reading aid, and that no layer goes through
NOT_TOLD = "the model has no batch axis, and what this does of many rows at once is not told"


def operator(node: gs.Node) -> str:
    """What notes and messages call the node's operator."""
    return str(node.op).removeprefix(UNLIFTED)


def label(node: gs.Node) -> str:
    """What notes and messages call a node: its name, or the tensor's that it writes where the file gives it none."""
    return str(node.name) or name_in_file(next((str(tensor.name) for tensor in node.outputs), ""))


def reads(node: gs.Node) -> list[Any]:
    """Tensors that a node reads, those read inside its subgraphs included."""
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
    nodes = [node for node in graph.nodes if node.outputs]
    producers = {id(tensor): node for node in nodes for tensor in node.outputs}
    if _are_in_order(nodes, producers):
        return nodes
    order: list[gs.Node] = []
    state: dict[int, int] = {}
    for root in nodes:
        stack = [(root, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
                state[id(node)] = 2
            elif id(node) not in state:
                state[id(node)] = 1
                stack.append((node, True))
                needed = [producers[id(tensor)] for tensor in reads(node) if id(tensor) in producers]
                stack.extend((needs, False) for needs in reversed(needed) if id(needs) not in state)
    return order


def _are_in_order(nodes: Sequence[gs.Node], producers: Mapping[int, gs.Node]) -> bool:
    seen: set[int] = set()
    for node in nodes:
        if any(id(tensor) in producers and id(tensor) not in seen for tensor in reads(node)):
            return False
        seen.update(id(tensor) for tensor in node.outputs)
    return True
