"""Declarations of a graph's tensors, also in the bodies of its nodes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import GraphProto, TypeProto


def subgraphs(attribute: onnx.AttributeProto) -> list[GraphProto]:
    """Graphs held by a node's attribute (bodies of If, Loop and Scan)."""
    return [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)


def inputs_of(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those read inside its subgraphs included."""
    found = list(node.input)
    if "" in found:
        found = [name for name in found if name]
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                found += inputs_of(inner)
            found += [value.name for value in graph.output]
    return found


def forget_negative_sizes(graph: GraphProto) -> None:
    """Remove sizes below zero from the declarations of ``graph`` and its subgraphs.

    Exporters write −1 for a size that is not known, and ONNX Runtime takes any size below zero as unknown.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        for tensor in tensor_types(value.type):
            for dim in tensor.shape.dim:
                if dim.HasField("dim_value") and dim.dim_value < 0:
                    dim.ClearField("dim_value")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                for subgraph in subgraphs(attribute):
                    forget_negative_sizes(subgraph)


def tensor_types(kind: TypeProto) -> Iterator[TypeProto.Tensor]:
    """The tensor types within a type, also inside sequences, optionals and maps."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        yield kind.tensor_type
    elif which in ("sequence_type", "optional_type"):
        yield from tensor_types(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from tensor_types(kind.map_type.value_type)
