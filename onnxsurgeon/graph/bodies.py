"""Bodies of If, Loop and Scan, which are taken out while a graph is read, since no layer in them is operated on.

onnx-graphsurgeon and onnx's shape inference copy a table of all tensors for each body, which is ten thousand copies for
ten thousand bodies. All that matters of a body here is which tensors of the graph it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import onnx_graphsurgeon as gs
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from onnxsurgeon.graph.declared import inputs_of

READ_INSIDE = "onnxsurgeon.read_inside"  # attribute of a node in the graph that is read: the tensors its bodies read
LAYERS_INSIDE = "onnxsurgeon.layers_inside"  # and another: names of the products with a constant in its bodies
FOREIGN = "onnxsurgeon.bodies"  # domain of the stand-ins for nodes with bodies while shapes are inferred
# Shapes are inferred through bodies up to this number of bodies times nodes.
MOST_INFERRED = 2**20


def has_body(node: NodeProto) -> bool:
    """Whether the node holds graphs."""
    given = node.attribute
    return bool(given) and any(attribute.HasField("g") or len(attribute.graphs) for attribute in given)


def branching(nodes: Iterable[NodeProto], inputs: Collection[str]) -> list[str]:
    """What messages call the If nodes whose condition depends on ``inputs``.

    They take one branch for all rows of a batch.
    """
    moved, found = set(inputs), []
    for node in nodes:
        if node.op_type == "If" and node.input[:1] and node.input[0] in moved:
            found.append(node.name or node.output[0])
        if node.op_type not in ("Shape", "Size") and not moved.isdisjoint(inputs_of(node)):
            moved.update(node.output)
    return found


class Taken(NamedTuple):
    """What matters of a node's bodies.

    Attributes:
        read: names of the tensors that it reads, inside too.
        layers: names of the products with a constant inside; for one without a name, the tensor that it writes.
    """

    read: tuple[str, ...]
    layers: tuple[str, ...]


def without_bodies(model: ModelProto, constants: Collection[str], products: Collection[str]) -> dict[int, Taken]:
    """Take the bodies out of ``model``'s nodes; return what matters of them, by the nodes' positions.

    ``constants`` are the names of tensors that are constant, apart from outputs of Constant nodes; ``products`` are the
    operators that a layer can be.
    """
    known = {*constants, *(name for node in model.graph.node if node.op_type == "Constant" for name in node.output)}
    taken = {}
    for position, node in enumerate(model.graph.node):
        if has_body(node):
            taken[position] = Taken(tuple(dict.fromkeys(inputs_of(node))), tuple(_layers(node, [known], products)))
            kept = [attribute for attribute in node.attribute if not attribute.HasField("g") and not attribute.graphs]
            del node.attribute[:]
            node.attribute.extend(kept)
    return taken


def _layers(node: NodeProto, known: list[Collection[str]], products: Collection[str]) -> Iterator[str]:
    for attribute in node.attribute:
        for graph in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
            own = {tensor.name for tensor in graph.initializer}
            own.update(name for inner in graph.node if inner.op_type == "Constant" for name in inner.output)
            for inner in graph.node:
                if inner.op_type in products and any(
                    name in some for name in inner.input[:2] for some in (own, *known)
                ):
                    yield inner.name or next(iter(inner.output), "")
                yield from _layers(inner, [own, *known], products)


def mark_bodies(graph: gs.Graph, taken: Mapping[int, Taken]) -> None:
    """Tell the imported ``graph`` what mattered of the bodies that were taken out before."""
    if not taken:
        return
    tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.inputs}
    for node in graph.nodes:
        tensors.update((tensor.name, tensor) for tensor in (*node.inputs, *node.outputs))
    for position, each in taken.items():
        graph.nodes[position].attrs[READ_INSIDE] = [tensors[name] for name in each.read if name in tensors]
        graph.nodes[position].attrs[LAYERS_INSIDE] = list(each.layers)


def are_many(model: ModelProto) -> bool:
    """Whether there are so many bodies that shapes are better not inferred through them."""
    return sum(map(has_body, model.graph.node)) * len(model.graph.node) > MOST_INFERRED


def as_foreign(model: ModelProto) -> ModelProto:
    """Copy the model, with stand-ins for nodes with bodies that tell only the types that the bodies declare.

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
