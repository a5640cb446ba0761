"""Notes on layers that are not worked on, each with its reason, so that nothing is left alone in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from shlex import quote
from typing import Any, NamedTuple

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.bodies import LAYERS_INSIDE
from onnxsurgeon.graph.canonical import FLOATS, LAYERS, PRODUCTS, constant_values, explain, is_dense
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.queries import dtype_of
from onnxsurgeon.graph.normal_form import NOT_TOLD, UNLIFTED, operator, reads
from onnxsurgeon.graph.notes import listed

_BY_WEIGHT = frozenset((*PRODUCTS, *LAYERS, "ConvTranspose"))


class Stop(NamedTuple):
    """A node that cannot be trained through, the reason, and the names of the layers that it freezes."""

    node: gs.Node
    why: str
    frozen: list[str]


def asked_to_stay(layers: Sequence[gs.Node]) -> Iterator[str]:
    """Say that layers are frozen because the user asked for it."""
    if layers:
        names = [label(node) for node in layers]
        yield f"{listed(names)} {stay(names)}: {'it is' if len(names) == 1 else 'they are'} frozen, as was asked for"


def frozen_layers(stops: Sequence[Stop]) -> Iterator[str]:
    """Say that layers stay because of a node behind them that cannot be trained through.

    One sentence for one reason.
    """
    by_reason: dict[tuple[str, str], list[Stop]] = {}
    for stop in stops:
        by_reason.setdefault((operator(stop.node), stop.why), []).append(stop)
    for found in by_reason.values():
        names = [name for stop in found for name in stop.frozen]
        yield f"{listed(names)} {stay(names)}: {why_frozen(found)}"


def open_sizes(graph: gs.Graph, stops: Sequence[Stop]) -> Iterator[str]:
    """Say that more could be trained if the file fixed how many steps, rows of an image and the like an input has."""
    # A state (layers, batch, units) has the batch elsewhere; a file with a fixed batch would serve nobody.
    rows = {tensor.shape[0] for tensor in (*graph.inputs, *graph.outputs) if tensor.shape}
    names = {
        size: tensor.name
        for tensor in graph.inputs
        for size in (tensor.shape or ())[1:]
        if isinstance(size, str) and size and not size.startswith("unk__") and size not in rows
    }
    if stops and names:
        size, name = next(iter(names.items()))
        yield (
            f"input '{name}' leaves the size '{size}' open; with a number in its place, more may be trained through: "
            f"python -m onnxruntime.tools.make_dynamic_shape_fixed --dim_param {quote(size)} --dim_value N MODEL FIXED"
        )


def why_frozen(stops: Sequence[Stop]) -> str:
    """Name the nodes behind the layers that are frozen, all for the same reason."""
    names = [name for stop in stops for name in stop.frozen]
    behind = listed(names) if len(stops) == 1 else "them"
    return f"{_nodes([stop.node for stop in stops])} behind {behind} cannot be trained through: {stops[0].why}"


def ends_of_training(found: Sequence[tuple[gs.Node, str]]) -> Iterator[str]:
    """Say what stops training behind the last layers; one sentence for one reason."""
    by_reason: dict[tuple[str, str], list[gs.Node]] = {}
    for node, why in found:
        by_reason.setdefault((operator(node), why), []).append(node)
    for (_, why), nodes in by_reason.items():
        whose = "its" if len(nodes) == 1 else "their"
        yield f"{_nodes(nodes)} cannot be trained through: {why}; {whose} inputs take the targets"


def _nodes(nodes: Sequence[gs.Node]) -> str:
    word = "node" if len(nodes) == 1 else "nodes"
    return f"{word} {listed([label(node) for node in nodes])} ({operator(nodes[0])})"


def not_layers(
    order: Sequence[gs.Node],
    dense: Collection[int],
    alive: Collection[int],
    moved: Collection[int],
    outputs: Sequence[gs.Tensor],
) -> Iterator[str]:
    """Name products with a weight that are no layers here, layers that no output depends on, and layers inside bodies.

    Args:
        order: nodes of a canonical graph, each after those whose outputs it reads.
        dense: ids of the nodes that are layers in normal form.
        alive: ids of the nodes whose values flow into an output.
        moved: ids of the tensors that depend on an input.
        outputs: the graph's outputs.
    """
    held: dict[str, list[str]] = {}
    lost = {id(node) for node in order if id(node) in dense and id(node) not in alive}
    read = _read(outputs) if lost else ()
    for node in order:
        if id(node) in lost:
            what = "nothing but indices, sizes or the like depends" if id(node) in read else "no output depends"
            why = f"{what} on {{it}}"
            held.setdefault(why, []).append(label(node))
        elif id(node) not in dense and _has_weight(node, moved):
            held.setdefault(_why_none(node), []).append(label(node))
    for reason, names in held.items():
        yield f"{listed(names)} {stay(names)}: {reason.format(it='it' if len(names) == 1 else 'them')}"
    yield from _inside(order)


def _read(tensors: Sequence[gs.Tensor]) -> set[int]:
    """Ids of the nodes on which tensors depend in any way."""
    found: set[int] = set()
    todo = list(tensors)
    while todo:
        for producer in todo.pop().inputs:
            if id(producer) not in found:
                found.add(id(producer))
                todo += reads(producer)
    return found


def _has_weight(node: gs.Node, moved: Collection[int]) -> bool:
    """Whether one factor of a product depends on an input and the other, of floats, does not."""
    if operator(node) not in _BY_WEIGHT or is_dense(node) or len(node.inputs) < 2:
        return False
    factors = node.inputs[:2]
    weights = [tensor for tensor in factors if id(tensor) not in moved]
    return len(weights) == 1 and all(_is_float(tensor) for tensor in weights)


def _is_float(tensor: Any) -> bool:
    if isinstance(tensor, gs.Constant):
        values = constant_values(tensor)
        return values is not None and values.dtype in FLOATS and values.ndim > 0
    kind = dtype_of(tensor)
    return kind is None or kind.kind in "fV"


def _why_none(node: gs.Node) -> str:
    return NOT_TOLD if str(node.op).startswith(UNLIFTED) else explain(node)


def _inside(order: Sequence[gs.Node]) -> Iterator[str]:
    """Name the layers in the bodies of If, Loop and Scan."""
    held: dict[str, tuple[list[str], list[str]]] = {}
    for node in order:
        names = node.attrs.get(LAYERS_INSIDE, [])
        if names:
            layers, owners = held.setdefault(operator(node), ([], []))
            layers += names
            owners.append(label(node))
    for op, (layers, owners) in held.items():
        they = "it stands" if len(layers) == 1 else "they stand"
        body = f"node {listed(owners)}" if len(owners) == 1 else f"nodes {listed(owners)}"
        yield f"{listed(layers)} {stay(layers)}: {they} inside {body} ({op})"


def stay(names: Sequence[str]) -> str:
    """The verb of a sentence about these layers."""
    return "stays as it is" if len(names) == 1 else "stay as they are"
