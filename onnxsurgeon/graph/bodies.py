"""Bodies of If, Loop and Scan, kept out of the way while a graph is read: nothing in them is operated on.

onnx-graphsurgeon copies a table of all tensors for each body, and so does onnx's shape inference: of ten thousand
bodies that is ten thousand times. What of a body matters here is which tensors of the graph it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from onnxsurgeon.graph.declared import inputs_of

READ_INSIDE = "onnxsurgeon.read_inside"  # attribute of a node in the graph that is read: the tensors its bodies read
FOREIGN = "onnxsurgeon.bodies"  # domain of nodes that stand for nodes with bodies where shapes are inferred
# Bodies times nodes, up to which shapes are inferred through them.
MOST_INFERRED = 2**20


def has_body(node: NodeProto) -> bool:
    """Whether the node holds graphs."""
    return any(attribute.HasField("g") or len(attribute.graphs) for attribute in node.attribute)


def without_bodies(model: ModelProto) -> dict[int, tuple[str, ...]]:
    """Take the bodies out of ``model``'s nodes; by the nodes' positions, the names that each reads, inside too."""
    taken = {}
    for position, node in enumerate(model.graph.node):
        if has_body(node):
            taken[position] = tuple(dict.fromkeys(inputs_of(node)))
            kept = [attribute for attribute in node.attribute if not attribute.HasField("g") and not attribute.graphs]
            del node.attribute[:]
            node.attribute.extend(kept)
    return taken


def mark_bodies(graph: gs.Graph, taken: Mapping[int, tuple[str, ...]]) -> None:
    """Tell the imported ``graph`` what the bodies read that were taken out before."""
    if not taken:
        return
    tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.inputs}
    for node in graph.nodes:
        tensors.update((tensor.name, tensor) for tensor in (*node.inputs, *node.outputs))
    for position, names in taken.items():
        graph.nodes[position].attrs[READ_INSIDE] = [tensors[name] for name in names if name in tensors]


def are_many(model: ModelProto) -> bool:
    """Whether there are so many bodies that shapes are better not inferred through them."""
    return sum(map(has_body, model.graph.node)) * len(model.graph.node) > MOST_INFERRED


def as_foreign(model: ModelProto) -> ModelProto:
    """A copy whose nodes with bodies tell the types of what they write, as far as the bodies declare them, and no more.

    onnx infers nothing for operators of a domain that it does not know.
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    known = {value.name for value in (*changed.graph.value_info, *changed.graph.output)}
    for node in changed.graph.node:
        if has_body(node):
            for name, kind in _declared(node).items():
                if name not in known:
                    changed.graph.value_info.add(name=name).type.CopyFrom(kind)
            del node.attribute[:]
            node.domain = FOREIGN
    changed.opset_import.add(domain=FOREIGN, version=1)
    return changed


def _declared(node: NodeProto) -> dict[str, TypeProto]:
    """Types that both branches of an If declare for an output."""
    graphs: list[GraphProto] = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    if node.op_type != "If" or len(graphs) != 2:
        return {}
    pairs = zip(node.output, graphs[0].output, graphs[1].output, strict=False)
    return {name: a.type for name, a, b in pairs if name and a.type == b.type and a.type.tensor_type.HasField("shape")}
