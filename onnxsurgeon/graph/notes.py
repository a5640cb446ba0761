"""Notes for the reader of the model: widths that stay, and inputs and outputs that do not depend on one another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical import geometry_of, is_dense, is_output
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.flow import Flow
from onnxsurgeon.graph.flowing import READS_SHAPES
from onnxsurgeon.graph.links import Link
from onnxsurgeon.graph.normal_form import operator

NAMED = 8  # of more layers, or nodes, with the same reason the first are named and the others counted
FEW = 3  # so many notes of one kind are sentences of their own
# What a node that reads a layer's output does to it that fixes the number of its units.
_JOINS = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "Where")
_DOES = {
    **dict.fromkeys(_JOINS, "joins {its} units with others, one by one"),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization"), "computes over all {its} units together"),
    **dict.fromkeys(("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"), "lays {its} output out anew"),
    **dict.fromkeys(("Slice", "Split", "Gather"), "takes parts of {its} output"),
    "a grouped convolution": "reads {its} units in groups",
    "the next layer": "works along another axis than {its} units",
    "a layer whose weights others have too": "reads or writes {its} units",
    "a Reshape": "splits {its} units over several axes",
    "Concat": "puts {its} output beside others'",
    "a mean": "is taken over all {its} units",
}
_IN_A_ROW = "more than one activation"
_GROUPS, _ACROSS, _SPLIT = "a grouped convolution", "the next layer", "a Reshape"
_MEAN = "a mean"
_TIED = "a layer whose weights others have too"
_FAR = 64  # nodes behind a layer that are looked at
_STANDS = "stands between {it} and the next layer"


def listed(names: Sequence[str]) -> str:
    """The names in quotation marks; of many, only the first ones and the number of the others."""
    shown = ", ".join(f"'{name}'" for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def pinned_widths(
    graph: gs.Graph,
    segments: Sequence[Sequence[Link]],
    readers: Mapping[int, Sequence[gs.Node]],
    leading: Collection[int],
    tied: Collection[int],
    free: Collection[int],
    reasons: Mapping[int, str],
) -> Iterator[str]:
    """Say why the width of a segment's last layer stays; one sentence for all with the same reason.

    Nothing is said of the layers whose nodes' ids are in ``free``. ``tied`` has the ids of those whose weights others
    have too. ``reasons`` says by such an id what was found to hold the units; where that is another node than those
    that read the layer, as it is where sums tie it to others, it is told.

    Layers that write what the model is for need no note. The notes are on layers with a trained layer behind them,
    whose nodes' ids are in ``leading``, and on layers whose output is also read elsewhere.
    """
    outputs: list[tuple[str, str]] = []
    shared: list[tuple[str, Sequence[gs.Node]]] = []
    held: dict[str, list[tuple[str, str]]] = {}
    grouped: list[str] = []
    far: dict[str, tuple[list[str], list[str]]] = {}
    for links in (each for each in segments if id(each[-1].dense) not in free):
        last = links[-1].dense
        tensor, behind = last.outputs[0], _by_value(readers, last.outputs[0])
        activation: gs.Node | None = None
        while len(behind) == 1 and behind[0].op in ACTIVATIONS and not is_output(graph, tensor):
            activation = behind[0]
            tensor = activation.outputs[0]
            behind = _by_value(readers, tensor)
        if behind and is_output(graph, tensor):
            outputs.append((label(last), tensor.name))
        elif id(last) not in leading:
            continue
        elif _is_grouped(last):
            grouped.append(label(last))
        elif reason := _far_away(reasons.get(id(last), ""), behind):
            before, node, after = reason.split("'", 2)
            names, nodes = far.setdefault(f"{before}{{}}{after}", ([], []))
            names.append(label(last))
            nodes.append(node)
        elif len(behind) > 1 and not _normalised_in_parts(behind):
            shared.append((label(last), behind))
        elif behind:
            op, holder = _holder(behind, activation)
            if is_dense(behind[0]) and op != _GROUPS and (id(last) in tied or id(behind[0]) in tied):
                op, holder = _TIED, behind[0]
            held.setdefault(op, []).append((label(last), label(holder)))
    yield from _of_outputs_and_groups(outputs, grouped)
    yield from _of_shared(shared)
    for reason, (names, nodes) in far.items():
        told = list(dict.fromkeys(nodes))
        several = reason if len(told) == 1 else reason.replace("node {}", "nodes {}")
        yield f"{_stay(names)}: as for {'its' if len(names) == 1 else 'their'} units, {several.format(listed(told))}"
    for op, found in held.items():
        names, nodes = [name for name, _ in found], list(dict.fromkeys(node for _, node in found))
        one = len(names) == 1
        does = _DOES.get(op, _STANDS).format(its="its" if one else "their", it="it" if one else "each")
        yield f"{_stay(names)}: {op} {does} ({'node' if len(nodes) == 1 else 'nodes'} {listed(nodes)})"


def _far_away(reason: str, behind: Sequence[gs.Node]) -> str:
    """The reason, where the node that it names is none of those that read a layer which sums or several others read."""
    is_joined = len(behind) > 1 or any(node.op in _JOINS for node in behind)
    names = reason.split("'")[1::2]
    return reason if is_joined and len(names) == 1 and names[0] not in map(label, behind) else ""


def _holder(behind: Sequence[gs.Node], activation: gs.Node | None) -> tuple[str, gs.Node]:
    """What holds a width, as ``_DOES`` calls it, and the node, which reads the layer or stands before it."""
    first = behind[0]
    if is_dense(first) and _is_grouped(first):
        return _GROUPS, first
    if is_dense(first):
        return (_ACROSS, first) if activation is None else (_IN_A_ROW, activation)
    if first.op == "Reshape" and _splits_last_axis(first):
        return _SPLIT, first
    normalised = _normalised_in_parts(behind) if len(behind) > 1 else None
    if normalised is None:
        return operator(first), first
    squared = [node for centred in behind if centred.op == "Sub" for node in centred.outputs[0].outputs]
    is_whole = any(node.op == "Pow" or (node.op == "Mul" and node.inputs[0] is node.inputs[1]) for node in squared)
    return "LayerNormalization" if is_whole else _MEAN, normalised


def _splits_last_axis(node: gs.Node) -> bool:
    """Whether a node that changes a tensor's layout makes several axes of its last one."""
    have, made = node.inputs[0].shape, node.outputs[0].shape
    if not have or not made or len(made) <= len(have) or not isinstance(have[-1], int):
        return False
    last = made[len(have) - 1 :]
    return all(isinstance(size, int) for size in last) and prod(last) == have[-1]


def _of_outputs_and_groups(outputs: Sequence[tuple[str, str]], grouped: Sequence[str]) -> Iterator[str]:
    if outputs:
        names, tensors = [name for name, _ in outputs], [tensor for _, tensor in outputs]
        what = "is also an output" if len(outputs) == 1 else "are also outputs"
        yield f"{_stay(names)}: {'tensor' if len(outputs) == 1 else 'tensors'} {listed(tensors)} {what} of the model"
    if grouped:
        one = len(grouped) == 1
        what = "it is a grouped convolution, whose" if one else "they are grouped convolutions, whose"
        yield f"{_stay(grouped)}: {what} units are tied to {'its' if one else 'their'} channels"


def _of_shared(shared: Sequence[tuple[str, Sequence[gs.Node]]]) -> Iterator[str]:
    if len(shared) == 1:
        (name, several), *_ = shared
        yield f"{_stay([name])}: it is read by {listed(list(dict.fromkeys(label(node) for node in several)))}"
    elif shared:
        yield f"{_stay([name for name, _ in shared])}: each is read by several nodes"


def _is_grouped(node: gs.Node) -> bool:
    geometry = geometry_of(node)
    return geometry is not None and geometry.is_grouped


def summed_widths(
    graph: gs.Graph,
    segments: Sequence[Sequence[Link]],
    readers: Mapping[int, Sequence[gs.Node]],
    leading: Collection[int],
) -> Iterator[str]:
    """Say why the width of a last layer stays although no output has it: a node behind it sums over its units."""
    held: dict[str, list[str]] = {}
    for links in segments:
        last = links[-1]
        if id(last.dense) not in leading and not is_output(graph, last.output):
            node = _summed_over(graph, last.output, readers, int(last.dense.inputs[1].shape[1]))
            if node is not None:
                held.setdefault(f"node '{label(node)}' ({operator(node)})", []).append(label(last.dense))
    for who, names in held.items():
        yield f"{_stay(names)}: {who} sums over all {'its' if len(names) == 1 else 'their'} units"


def _summed_over(
    graph: gs.Graph, tensor: gs.Tensor, readers: Mapping[int, Sequence[gs.Node]], units: int
) -> gs.Node | None:
    """The node behind a last layer that sums over its units, as a scalar product of two layers' outputs does."""
    todo = list(_by_value(readers, tensor))
    seen: set[int] = set()
    while todo and len(seen) < _FAR:
        node = todo.pop(0)
        if id(node) in seen or not node.outputs:
            continue
        seen.add(id(node))
        made = node.outputs[0].shape
        if node.op in ("Einsum", "MatMul", "ReduceSum", "ReduceMean") and made is not None and units not in made[1:]:
            return node
        if not is_output(graph, node.outputs[0]):
            todo += _by_value(readers, node.outputs[0])
    return None


def _normalised_in_parts(readers: Sequence[gs.Node]) -> gs.Node | None:
    """The node x − mean x of a layer normalisation that an exporter wrote in parts, where ``readers`` are x's."""
    means = {id(y) for node in readers if node.op == "ReduceMean" for y in node.outputs}
    centred = [node for node in readers if node.op == "Sub" and any(id(x) in means for x in node.inputs)]
    # Some exporters compute x − mean x twice, and some the variance from x itself.
    others = [node for node in readers if node.op not in ("ReduceMean", "Sub", "Mul", "Pow")]
    return centred[0] if centred and not others else None


def _by_value(readers: Mapping[int, Sequence[gs.Node]], tensor: gs.Tensor) -> Sequence[gs.Node]:
    """The nodes that read a tensor's values; those that read only its shape where there are no others."""
    found = readers.get(id(tensor), ())
    return [node for node in found if node.op not in READS_SHAPES] or found


def _stay(names: Sequence[str]) -> str:
    return f"the width of {listed(names)} stays" if len(names) == 1 else f"the widths of {listed(names)} stay"


def own_copies(copies: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Say that layers get their own copies of tensors that others read too; each copy is (tensor, layer, its name)."""
    if len(copies) <= FEW:
        for given, layer, copy in copies:
            yield f"'{given}' is read elsewhere too: '{layer}' has its own copy, '{copy}'"
    else:
        tensors, owners, made = (list(dict.fromkeys(column)) for column in zip(*copies, strict=True))
        yield f"{listed(tensors)} are read elsewhere too: {listed(owners)} have their own copies, {listed(made)}"


def idle_ends(flow: Flow) -> Iterator[str]:
    """Inputs that no output depends on, as tracing leaves where it bakes an example's values in; and the reverse."""
    graph, needed = flow.graph, set(flow.outputs)
    several = len(needed) > 1
    for node in reversed(flow.order):
        if node.op not in READS_SHAPES and not needed.isdisjoint(map(id, node.outputs)):
            needed.update(map(id, flow.read[id(node)]))
    idle = [tensor.name for tensor in graph.inputs if id(tensor) not in needed]
    who = "no output depends" if several else "the output does not depend"
    yield from (f"{who} on {'input' if len(names) == 1 else 'inputs'} {listed(names)}" for names in _apart(idle))
    if several and graph.inputs:
        still = list(dict.fromkeys(tensor.name for tensor in graph.outputs if id(tensor) not in flow.moved))
        for names in _apart(still):
            one = len(names) == 1
            yield f"{'output' if one else 'outputs'} {listed(names)} {'depends' if one else 'depend'} on no input"


def _apart(names: list[str]) -> list[list[str]]:
    """Few names one by one, many names together."""
    return [[name] for name in names] if len(names) <= FEW else [names]
