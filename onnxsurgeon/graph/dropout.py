"""Dropout that was exported in training form, which would go on dropping units at random."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from onnxsurgeon.graph.notes import listed


def without_random_dropout(model: ModelProto) -> tuple[ModelProto, list[str]]:
    """Return the model with every such node in inference form, y = x, and a note on them; ``model`` is not changed.

    While units are dropped at random, nothing can be computed once for each row, compared or judged.
    """
    if not any(True for _ in _random(model.graph)):
        return model, []
    changed = ModelProto()
    changed.CopyFrom(model)
    names = []
    for node in _random(changed.graph):
        del node.input[2]  # training_mode, false where it is not given
        names.append(node.name or node.output[0])
    was, are = ("was", "it is") if len(names) == 1 else ("were", "they are")
    return changed, [
        f"{listed(names)} (Dropout) {was} in training form, dropping at random: {are} written in inference form"
    ]


def _random(graph: GraphProto) -> Iterator[NodeProto]:
    """Dropout nodes whose training_mode is constantly true."""
    if all(node.op_type != "Dropout" for node in graph.node):
        return
    true = {tensor.name for tensor in graph.initializer if tensor.data_type == tensor.BOOL and _holds_true(tensor)}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            values = [a.t for a in node.attribute if a.name == "value" and a.t.data_type == a.t.BOOL]
            true.update(node.output[0] for tensor in values if _holds_true(tensor))
    for node in list(graph.node):
        if (
            node.op_type == "Dropout"
            and node.domain in ("", "ai.onnx")
            and len(node.input) > 2
            and node.input[2] in true
        ):
            yield node


def _holds_true(tensor: object) -> bool:
    return bool(numpy_helper.to_array(tensor).any())  # type: ignore[arg-type]
