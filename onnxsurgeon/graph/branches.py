"""If nodes whose condition is a constant: the branch that is always taken replaces them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.notes import listed


def without_constant_branches(model: ModelProto, taken: Collection[str] = ()) -> tuple[ModelProto, list[str]]:
    """Replace If nodes with a constant condition by their branch, also inside of it.

    Return the model and a note on them. ``model`` is not changed. A branch stays in its If where the graph has its
    names already, or where they are ``taken``.
    """
    if not any(node.op_type == "If" for node in model.graph.node):
        return model, []
    graph = model.graph
    given = {value.name for value in graph.input}
    known = {t.name: bool(numpy_helper.to_array(t).any()) for t in graph.initializer if _is_truth(t)}
    known = {name: value for name, value in known.items() if name not in given}
    names = {*taken, *given, *(tensor.name for tensor in graph.initializer), *_written(graph.node)}
    nodes: list[NodeProto] = []
    branches: list[GraphProto] = []
    replaced: list[str] = []
    read: set[str] = set()
    todo = list(reversed(graph.node))
    while todo:
        node = todo.pop()
        _learn(node, known)
        branch = _taken(node, known)
        made = set() if branch is None else {*(t.name for t in branch.initializer), *_written(branch.node)}
        if branch is None or made & names:
            nodes.append(node)
            continue
        names |= made
        known |= {t.name: bool(numpy_helper.to_array(t).any()) for t in branch.initializer if _is_truth(t)}
        branches.append(branch)
        replaced.append(node.name or node.output[0])
        read.add(node.input[0])
        ends = [
            helper.make_node("Identity", [inner.name], [outer])
            for inner, outer in zip(branch.output, node.output, strict=True)
            if outer
        ]
        todo += [*reversed(ends), *reversed(branch.node)]
    if not replaced:
        return model, []
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    for branch in branches:
        changed.graph.initializer.extend(branch.initializer)
        changed.graph.value_info.extend(branch.value_info)
    # A condition that nothing reads any more goes too.
    read -= {name for node in nodes for name in inputs_of(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in changed.graph.initializer if tensor.name not in read]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(kept)
    one = len(replaced) == 1
    return changed, [
        f"{listed(replaced)} (If) always {'takes' if one else 'take'} the same branch: "
        f"{'it is' if one else 'they are'} written as that branch alone"
    ]


def _written(nodes: Iterable[NodeProto]) -> Iterator[str]:
    yield from (name for node in nodes for name in node.output if name)


def _is_truth(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.BOOL and tensor.data_location == TensorProto.DEFAULT


def _learn(node: NodeProto, known: dict[str, bool]) -> None:
    """Note a truth value that the node writes, where it is a constant or follows from one."""
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return
    if node.op_type == "Constant":
        values = [entry.t for entry in node.attribute if entry.name == "value" and entry.type == AttributeProto.TENSOR]
        if values and _is_truth(values[0]):
            known[node.output[0]] = bool(numpy_helper.to_array(values[0]).any())
    elif node.op_type in ("Not", "Identity") and len(node.input) == 1 and node.input[0] in known:
        known[node.output[0]] = known[node.input[0]] ^ (node.op_type == "Not")


def _taken(node: NodeProto, known: dict[str, bool]) -> GraphProto | None:
    """The branch that an If always takes; None where that is not known."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx") or len(node.input) != 1:
        return None
    if node.input[0] not in known:
        return None
    wanted = "then_branch" if known[node.input[0]] else "else_branch"
    branch = next((entry.g for entry in node.attribute if entry.name == wanted and entry.HasField("g")), None)
    fits = branch is not None and len(branch.output) == len(node.output) and not branch.sparse_initializer
    return branch if fits and branch is not None and not branch.input else None
