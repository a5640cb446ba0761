"""Checks of a model's structure before onnx's own code, which recurses without a limit, sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from onnxsurgeon.bounds import ADVICE, MAX_SUBGRAPH_DEPTH, bound
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.declared import subgraphs
from onnxsurgeon.graph.external import is_external
from onnxsurgeon.graph.tensors import check_tensor

_STRING, _MESSAGE = 9, 11  # field types of protobuf's descriptors


def describe(node: NodeProto) -> str:
    """A node's name in messages, or that of its first output."""
    label = f"'{node.name}'" if node.name else f"that writes '{next(iter(node.output), '')}'"
    return f"node {label} ({node.op_type})"


def tensors(model: ModelProto, name: str, *, skip_initializers: bool = False) -> list[tuple[TensorProto, str]]:
    """List every tensor of the model with its place; each text is checked on the way.

    With ``skip_initializers``, those of the main graph are left out.

    Raises:
        ModelError: a text is not UTF-8, subgraphs are nested too deeply, or there is a sparse tensor.
    """
    found: list[tuple[TensorProto, str]] = []
    _walk(model, 0, name, name, skip_initializers, found)
    return found


def _walk(
    message: Message, depth: int, where: str, name: str, skip: bool, found: list[tuple[TensorProto, str]]
) -> None:
    if isinstance(message, GraphProto):
        depth += 1
        if depth > bound(MAX_SUBGRAPH_DEPTH) + 1:
            raise ModelError(
                f"{where}: its subgraphs are nested more than {MAX_SUBGRAPH_DEPTH} deep; {ADVICE}", "too-large"
            )
    elif isinstance(message, onnx.SparseTensorProto):
        raise ModelError(f"{where}: has a sparse tensor, which is not supported", "unsupported-form")
    for field, value in message.ListFields():
        if field.type == _STRING:
            _check_texts((value,) if isinstance(value, str | bytes) else value, f"{where}: its {field.name}")
        elif field.type == _MESSAGE and not (skip and depth == 1 and field.name == "initializer"):
            for part in (value,) if isinstance(value, Message) else value:
                if isinstance(part, NodeProto):
                    _walk_node(part, depth, name, skip, found)
                elif isinstance(part, TensorProto):
                    found.append((part, tensor_place(part, field.name, where)))
                else:
                    _walk(part, depth, where, name, skip, found)


def _walk_node(node: NodeProto, depth: int, name: str, skip: bool, found: list[tuple[TensorProto, str]]) -> None:
    """The same for a node, of which a model may have very many."""
    texts = (node.name, node.op_type, node.domain, node.doc_string, *node.input, *node.output)
    given, remarks = node.attribute, node.metadata_props
    if not given and not remarks and bytes not in map(type, texts):
        return
    label = node.name or next(iter(node.output), "")
    where = f"{name}: node '{label}'" if isinstance(label, str) else f"{name}: a node"
    _check_texts(texts, where)
    for attribute in given:
        _walk(attribute, depth, where, name, skip, found)
    for entry in remarks:
        _check_texts((entry.key, entry.value), where)


def _check_texts(texts: Iterable[str | bytes], what: str) -> None:
    # Protobuf gives bytes where it could not decode a string.
    for text in texts:
        if isinstance(text, bytes):
            raise ModelError(f"{what}: a text is not valid UTF-8: {text[:40]!r}", "damaged-model")


def tensor_place(tensor: TensorProto, field: str, where: str) -> str:
    """The place of a tensor, for messages.

    Raises:
        ModelError: one of its texts is not UTF-8.
    """
    texts = [tensor.name, tensor.doc_string]
    for entry in (*tensor.external_data, *tensor.metadata_props):
        texts += (entry.key, entry.value)
    _check_texts(texts, f"{where}: its tensor")
    return f"{where}: {'initializer' if field == 'initializer' else 'tensor'} '{tensor.name}'"


def check_tensors(model: ModelProto, name: str) -> None:
    """Check every tensor and every text of the model, and the depth of its subgraphs.

    Raises:
        ModelError: the text starts with ``name``.
    """
    for tensor, where in tensors(model, name):
        if is_external(tensor):
            raise ModelError(f"{where}: its external data has not been loaded", "external-data")
        check_tensor(tensor, where)


def check_order(model: ModelProto, name: str) -> None:
    """Check that every tensor has one name and one source, which comes before whatever reads it.

    The model's own outputs may list a tensor more than once.

    Raises:
        ModelError: a name is missing or taken twice, a tensor is read that nothing writes, or nodes form a cycle
            or are out of order; the text starts with ``name``.
    """
    _check_graph(model.graph, [], name)
    for function in model.functions:
        where = f"{name}: local function '{function.name}'"
        known = _unique(function.input, "input", where)
        _check_nodes(function.node, [known], where)
        _check_outputs(function.output, [known], where)


def _check_graph(graph: GraphProto, outer: Sequence[set[str]], where: str) -> None:
    inputs = _unique((value.name for value in graph.input), "input", where)
    known = inputs | _unique((tensor.name for tensor in graph.initializer), "initializer", where)
    if "" in known:
        raise ModelError(f"{where}: an input or initializer has no name", "damaged-model")
    scopes = [*outer, known]
    _check_nodes(graph.node, scopes, where)
    outputs = [value.name for value in graph.output]
    # ONNX Runtime returns a tensor as often as a model lists it among its outputs; for a body, it loses all but one.
    _check_outputs(outputs if outer else list(dict.fromkeys(outputs)), scopes, where)


def _unique(names: Iterable[str], what: str, where: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        if name in found:
            raise ModelError(f"{where}: two {what}s are called '{name}'", "damaged-model")
        found.add(name)
    return found


def _check_outputs(outputs: Sequence[str], scopes: Sequence[set[str]], where: str) -> None:
    _unique(outputs, "output", where)
    for output in outputs:
        if not any(output in known for known in scopes):
            raise ModelError(f"{where}: nothing produces output '{output}'", "damaged-model")


def _check_nodes(nodes: Sequence[NodeProto], scopes: Sequence[set[str]], where: str) -> None:
    known = scopes[-1]
    for node in nodes:
        for read in node.input:
            if read and read not in known and not any(read in scope for scope in scopes):
                raise ModelError(f"{where}: {_why_unknown(nodes, node, read)}", "damaged-model")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                for graph in subgraphs(attribute):
                    _check_graph(graph, scopes, f"{where}: {describe(node)}")
        for written in node.output:
            if written and written in known:
                raise ModelError(
                    f"{where}: {describe(node)} writes '{written}', which exists already; where the export named an "
                    "output so, give it another name there",
                    "damaged-model",
                )
            known.add(written)
    known.discard("")


def _why_unknown(nodes: Sequence[NodeProto], reader: NodeProto, read: str) -> str:
    """Why ``read`` is not known where ``reader`` reads it: nothing writes it, a cycle, or the order."""
    writers = {written: index for index, node in enumerate(nodes) for written in node.output if written}
    if read not in writers:
        return f"{describe(reader)} reads '{read}', which nothing produces"
    # Does the node that writes it depend on the reader?
    own, todo, seen = set(reader.output) - {""}, [writers[read]], {writers[read]}
    while todo:
        node = nodes[todo.pop()]
        if own & set(node.input) or node is reader or own & set(node.output):
            return f"{describe(reader)} reads '{read}', which depends on its own output: the graph has a cycle"
        new = {writers[name] for name in node.input if name in writers} - seen
        seen |= new
        todo.extend(new)
    writer = describe(nodes[writers[read]])
    return f"{describe(reader)} reads '{read}' before {writer} writes it: the nodes are out of order"
