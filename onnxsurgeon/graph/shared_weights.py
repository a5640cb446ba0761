"""Layers of a canonical graph that share their weights, while segments are being found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import constant_values, geometry_of, name_in_file
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.notes import listed


class SharedWeights(NamedTuple):
    """Layers that share their weights, by their nodes' ids.

    Attributes:
        alike: for layers that have the same weight, a number that is the same for all of them.
        one: the same for layers that have a weight or its transpose.
        turned: the layers that have the transpose of the first layer's weight.
    """

    alike: dict[int, int]
    one: dict[int, int]
    turned: frozenset[int]


def sharing_weights(layers: Sequence[gs.Node]) -> SharedWeights:
    """Find the layers that share their weights.

    Two weights are one if they have one name and the same values and serve the same kind of layer, or if they are a
    matrix and its transpose. A weight into which a normalisation is folded has other values, and is another weight.
    """
    by_name: dict[str, list[gs.Node]] = {}
    for node in layers:
        by_name.setdefault(name_in_file(node.inputs[1].name), []).append(node)
    alike: dict[int, int] = {}
    one: dict[int, int] = {}
    turned: set[int] = set()
    for nodes in by_name.values():
        kinds: list[list[gs.Node]] = []
        for node in nodes if len(nodes) > 1 else ():
            known = next((kind for kind in kinds if _are_alike(kind[0], node)), None)
            if known is None:
                kinds.append([node])
            else:
                known.append(node)
        for kind in kinds:
            if len(kind) > 1:
                alike |= dict.fromkeys(map(id, kind), id(kind[0]))
        whole = [kind for kind in kinds[1:] if _is_transpose(kind[0], kinds[0][0])]
        turned.update(id(node) for kind in whole for node in kind)
        for kind in kinds:
            if len(kind) > 1 or whole:
                first = kinds[0][0] if kind in whole else kind[0]
                one |= dict.fromkeys(map(id, kind), id(first))
    return SharedWeights(alike, one, frozenset(turned))


def _is_transpose(second: gs.Node, first: gs.Node) -> bool:
    """Whether the second layer's weight is the transpose of the first one's; never for convolutions."""
    a, b = constant_values(first.inputs[1]), constant_values(second.inputs[1])
    if a is None or b is None or geometry_of(first) is not None or geometry_of(second) is not None:
        return False
    return a.dtype == b.dtype and bool(np.array_equal(a.T, b))


def _are_alike(first: gs.Node, second: gs.Node) -> bool:
    a, b = constant_values(first.inputs[1]), constant_values(second.inputs[1])
    if a is None or b is None or geometry_of(first) != geometry_of(second) or a.dtype != b.dtype:
        return False
    return a is b or bool(np.array_equal(a, b))


def read_by_gathers(order: Sequence[gs.Node], layers: Sequence[gs.Node], moved: Collection[int]) -> dict[int, gs.Node]:
    """Layers, by id, whose weight is also a table of which a node takes rows, and that node.

    Args:
        order: all nodes.
        layers: those that are layers.
        moved: ids of the tensors that depend on the model's inputs.
    """
    tables = {
        name_in_file(node.inputs[0].name): node
        for node in order
        if node.op == "Gather" and isinstance(node.inputs[0], gs.Constant) and id(node.outputs[0]) in moved
    }
    named = ((node, tables.get(name_in_file(node.inputs[1].name))) for node in layers)
    return {id(node): taker for node, taker in named if taker is not None}


def ends_of_sharing(
    following: Mapping[int, int], shared: Mapping[int, int], looks: Callable[[int], object]
) -> set[int]:
    """The layers at which a segment must end, since layers with the same weights are not followed in the same way.

    Args:
        following: for each layer the one that would follow it in its segment.
        shared: ``SharedWeights.alike`` for the layers that are trained.
        looks: what must be equal for layers with the same weights in one segment, besides these.
    """
    members: dict[int, list[int]] = {}
    for key, number in shared.items():
        members.setdefault(number, []).append(key)
    alike = {number: len({looks(key) for key in keys}) == 1 for number, keys in members.items()}
    everyone = {number: set[int | None](keys) for number, keys in members.items()}
    goals = {number: {following.get(key) for key in keys} for number, keys in members.items()}

    def goes_on(key: int) -> bool:
        mine, others = shared.get(key), shared.get(following[key])
        if mine is None or others is None:
            return mine == others
        return mine != others and alike[mine] and alike[others] and goals[mine] == everyone[others]

    return {key for key in following if not goes_on(key)}


def sharing_with_frozen(layers: Sequence[gs.Node], others: Sequence[gs.Node]) -> str:
    """Say that layers stay since others with the same weights do."""
    names, firsts = [label(node) for node in layers], list(dict.fromkeys(label(node) for node in others))
    stays = "stays as it is: it has" if len(names) == 1 else "stay as they are: they have"
    does = "which does" if len(firsts) == 1 else "which do"
    return f"{listed(names)} {stays} the weights of {listed(firsts)}, {does}"


def sharing_with_tables(layers: Sequence[gs.Node], takers: Sequence[gs.Node]) -> str:
    """Say that layers stay since their weights are tables from which rows are taken."""
    names, nodes = [label(node) for node in layers], list(dict.fromkeys(label(node) for node in takers))
    stays = "stays as it is: its weight is a table" if len(names) == 1 else "stay as they are: their weights are tables"
    return f"{listed(names)} {stays} that {'node' if len(nodes) == 1 else 'nodes'} {listed(nodes)} (Gather) reads too"


def of_turned(segments: Sequence[DenseChain]) -> list[str]:
    """Say that layers have other layers' weights transposed."""
    layers = [layer for segment in segments for layer in segment.layers]
    firsts = {layer.names.weight: layer.names.node for layer in layers if not layer.is_turned}
    return [
        f"'{layer.names.node}' has the weight of '{firsts[layer.names.weight]}', transposed: they are trained as one; "
        "surgeries make two of it"
        for layer in layers
        if layer.is_turned
    ]
