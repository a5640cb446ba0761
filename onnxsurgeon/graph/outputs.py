"""The tensors from which a model's outputs are computed: which take targets, in which order, and which do not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.flow import Flow
from onnxsurgeon.graph.notes import listed

NO_TARGETS = "no targets"  # what notes say of outputs that have none
READ_ON = "trained layers are computed from"  # and why of those that training moves all the same


def heads_of(flow: Flow, trunk: Collection[int], dense: Mapping[int, gs.Node]) -> list[gs.Variable]:
    """The trained tensors that the outputs are computed from, in the order in which the model declares its outputs.

    Heads of one output are in the order of its nodes' inputs; the order in which the file lists its nodes does not
    matter. A tensor from which trained layers are computed is no head, since it is already trained through them, and
    neither is a tensor that no trained weight changes.

    Args:
        flow: the canonical graph.
        trunk: ids of the nodes that are trained, or trained through.
        dense: by their ids those among them that are dense layers.
    """
    leading, moved = flow.before(dense) | dense.keys(), flow.moved_by(dense)
    heads: list[gs.Variable] = []
    todo, seen = list(reversed(flow.graph.outputs)), set()
    while todo:
        tensor = todo.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        for producer in tensor.inputs:
            if id(producer) not in trunk or id(producer) not in moved:
                todo.extend(() if id(producer) in flow.still else reversed(flow.inputs[id(producer)]))
            elif not any(id(node) in leading for node in flow.by_value(tensor)):
                heads.append(tensor)
    return heads


def without_targets(flow: Flow, heads: Sequence[gs.Variable], dense: Mapping[int, gs.Node]) -> Iterator[str]:
    """Which outputs take no targets, and why: no weight moves them, or trained layers are computed from them.

    Args:
        flow: the canonical graph.
        heads: the trained tensors that take targets.
        dense: the dense layers by their ids.
    """
    follows, own = {id(head) for head in heads}, {id(node) for head in heads for node in head.inputs}
    for node in flow.order:
        if (
            id(node) not in own
            and id(node) not in flow.still
            and not follows.isdisjoint(map(id, flow.inputs[id(node)]))
        ):
            follows.update(map(id, node.outputs))
    left = {tensor.name: tensor for tensor in flow.graph.outputs if id(tensor) not in follows}
    moved = flow.moved_by(dense) if left else ()
    inside = [name for name, tensor in left.items() if any(id(node) in moved for node in tensor.inputs)]
    still = [name for name, tensor in left.items() if name not in inside and id(tensor) in flow.moved]
    if still:
        one = len(still) == 1
        yield f"no trained weight moves {_outputs(still)}: {'it takes' if one else 'they take'} {NO_TARGETS}"
    if inside:
        one = len(inside) == 1
        whom = "it" if one else "them"
        yield f"{_outputs(inside)} {'takes' if one else 'take'} {NO_TARGETS}: {READ_ON} {whom}"


def _outputs(names: Sequence[str]) -> str:
    return f"{'output' if len(names) == 1 else 'outputs'} {listed(names)}"
