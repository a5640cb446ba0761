"""What a model's outputs are computed from: which trained tensors take targets, in which order, and which do not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.glue import data_inputs
from onnxsurgeon.graph.notes import READS_SHAPES, listed

NO_TARGETS = "no targets"  # what notes say of outputs that have none
READ_ON = "trained layers are computed from"  # and why of those that training moves all the same
_DEEPEST = 8  # nodes that are looked behind for zeros
_MOST = 2**16  # elements that are looked through
_KEEPS_ZEROS = frozenset({"Expand", "Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Neg", "Tile"})


def heads_of(
    graph: gs.Graph, order: Sequence[gs.Node], trunk: Collection[int], dense: Collection[int]
) -> list[gs.Variable]:
    """The trained tensors that the outputs are computed from, in the order in which the model declares its outputs.

    Of those from which one output is computed, the order is that of its nodes' inputs: neither depends on the order in
    which the file lists its nodes. No heads are tensors that trained layers are computed from, since what those predict
    is trained through them already, and tensors that no trained weight moves.

    Args:
        graph: in canonical form.
        order: its nodes, each after what it reads.
        trunk: ids of the nodes that are trained, or trained through.
        dense: ids of those among them that are dense layers.
    """
    leading, moved = _leading(order, dense), _moved(order, dense)
    heads: list[gs.Variable] = []
    todo, seen = list(reversed(graph.outputs)), set()
    while todo:
        tensor = todo.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        for producer in tensor.inputs:
            if id(producer) not in trunk or id(producer) not in moved:
                todo.extend(reversed(flowing(producer)))
            elif id(tensor) not in leading:
                heads.append(tensor)
    return heads


def without_targets(
    graph: gs.Graph,
    order: Sequence[gs.Node],
    heads: Sequence[gs.Variable],
    dense: Collection[int],
    depending: Collection[int],
) -> Iterator[str]:
    """Which outputs take no targets, and why: no weight moves them, or trained layers are computed from them.

    Args:
        graph: in canonical form.
        order: its nodes, each after what it reads.
        heads: the trained tensors that take targets.
        dense: ids of the dense layers.
        depending: ids of the tensors that depend on an input.
    """
    follows, own = {id(head) for head in heads}, {id(node) for head in heads for node in head.inputs}
    for node in order:
        if id(node) not in own and any(id(tensor) in follows for tensor in flowing(node)):
            follows.update(id(tensor) for tensor in node.outputs)
    left = {tensor.name: tensor for tensor in graph.outputs if id(tensor) not in follows}
    moved = _moved(order, dense) if left else ()
    inside = [name for name, tensor in left.items() if any(id(node) in moved for node in tensor.inputs)]
    still = [name for name, tensor in left.items() if name not in inside and id(tensor) in depending]
    if still:
        one = len(still) == 1
        yield f"no trained weight moves {_outputs(still)}: {'it takes' if one else 'they take'} {NO_TARGETS}"
    if inside:
        one = len(inside) == 1
        whom = "it" if one else "them"
        yield f"{_outputs(inside)} {'takes' if one else 'take'} {NO_TARGETS}: {READ_ON} {whom}"


def _outputs(names: Sequence[str]) -> str:
    return f"{'output' if len(names) == 1 else 'outputs'} {listed(names)}"


def _leading(order: Sequence[gs.Node], dense: Collection[int]) -> set[int]:
    """Ids of the tensors that a dense layer depends on."""
    found: set[int] = set()
    for node in reversed(order):
        if id(node) in dense or any(id(tensor) in found for tensor in node.outputs):
            found.update(id(tensor) for tensor in data_inputs(node))
    return found


def _moved(order: Sequence[gs.Node], dense: Collection[int]) -> set[int]:
    """Ids of the nodes whose outputs a weight of these dense layers moves, the layers themselves included."""
    found = set(dense)
    tensors: set[int] = set()
    for node in order:
        if id(node) in found or any(id(tensor) in tensors for tensor in flowing(node)):
            found.add(id(node))
            tensors.update(id(tensor) for tensor in node.outputs)
    return found


def flowing(node: gs.Node) -> list[gs.Tensor]:
    """Tensors whose values change what the node writes.

    Nothing does that is multiplied by zeros, as exporters write a deviation that is a constant: sigma = 0 · mu + c.
    """
    if node.op in READS_SHAPES or node.op == "ConstantOfShape":
        return []
    if node.op == "Mul" and any(map(is_zero, node.inputs)):
        return []
    return data_inputs(node)


def is_zero(tensor: gs.Tensor) -> bool:
    """Whether a tensor holds nothing but zeros: a constant, made for its shape, or multiplied by zeros."""
    for _ in range(_DEEPEST):
        if isinstance(tensor, gs.Constant):
            return _holds_zeros(tensor)
        node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        if node is not None and node.op == "ConstantOfShape":
            given = node.attrs.get("value")
            return given is None or _holds_zeros(given)
        if node is None or not node.inputs:
            return False
        if node.op == "Mul":
            return any(isinstance(factor, gs.Constant) and _holds_zeros(factor) for factor in node.inputs)
        if node.op not in _KEEPS_ZEROS:
            return False
        tensor = node.inputs[0]
    return False


def _holds_zeros(constant: gs.Constant) -> bool:
    return int(np.prod(constant.shape)) <= _MOST and not np.any(constant.values)
