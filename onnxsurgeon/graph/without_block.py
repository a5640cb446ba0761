"""A network without the branch of a residual block: the file is written so, and read again.

What is left is then numbered as whoever reads the file will number it. y = x + f(x) becomes y = x, or y = x + m for a
constant m with a value for each unit, which goes into the bias of the layer that writes x, where one does and nothing
else reads that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.errors import ModelError, SurgeryError
from onnxsurgeon.graph.cut import Known
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.parts import Parts
from onnxsurgeon.graph.reader import from_parts
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.linear_algebra import Array

_SUMS = ("Add", "Sum")


def without_block(network: Network, number: int, mean: Array | None = None) -> Network:
    """The network without the branch of residual block ``number``; weights that stay are shared with it.

    Args:
        network: in which no weight is another's transpose (``Network.parted``).
        number: of the block, from 1.
        mean: what is added in the branch's place, (units,); None: nothing.

    Raises:
        SurgeryError: there is no such block, or it has to stay; says why.
    """
    block = network.block(number)
    require_removable(network, block)
    parts = to_parts(network)
    rank = next(len(s.shape) for s in network.frame.trunk.steps if not isinstance(s, int) and s.output == block.total)
    _edit(network, block, parts.skeleton, None if mean is None else _spread(network, block, mean, rank))
    smaller = _without_idle(network, block, parts)
    try:
        found = from_parts(smaller, name=network.name, source=network.name)
    except ModelError as error:
        raise SurgeryError(f"block {number} stays: without it {error}", "block-stays") from error
    trunk, before = found.frame.trunk, network.frame.trunk
    if dict(trunk.features) != dict(before.features):
        raise SurgeryError(f"block {number} stays: nothing that is trained would be before it", "block-stays")
    if [(head.width, head.rank) for head in trunk.heads] != [(head.width, head.rank) for head in before.heads]:
        raise SurgeryError(f"block {number} stays: other tensors would be trained towards targets", "block-stays")
    return with_values(network, found)


def require_removable(network: Network, block: Block) -> None:
    """Raise SurgeryError where something in the trunk, or what is frozen, speaks against the branch's going."""
    reason = block.reason
    names = {layer.names.node for number in block.segments for layer in network.segments[number].layers}
    if not reason and names.intersection(network.frame.frozen.layers):
        reason = "a layer of it is frozen"
    if reason:
        raise SurgeryError(f"block {block.number} stays: {reason}", "block-stays")


def last_layer(network: Network, block: Block) -> DenseLayer | None:
    """The layer that writes what a block's branch puts out, however its axes are turned; None: something else does."""
    name, trunk = block.branch, network.frame.trunk
    made = {step.output: step for step in trunk.steps if not isinstance(step, int)}
    while name in made and made[name].op in ("Transpose", "Reshape"):
        name = made[name].inputs[0]
    segments = (network.segments[number] for number in block.segments)
    return next((each.layers[-1] for each in segments if each.output_name == name and not each.readers), None)


def _spread(network: Network, block: Block, mean: Array, rank: int) -> Array:
    """The constant as it is added to a tensor of that rank, of the file's type."""
    if block.axis is None:
        raise SurgeryError(f"block {block.number}: along which axis its units are is not known", "unlike-layer")
    behind = 0 if block.axis == -1 else rank - 1 - block.axis
    dtype = network.segments[block.segments[-1]].file_dtype
    return mean.astype(dtype).reshape(-1, *[1] * behind)


def _edit(network: Network, block: Block, model: onnx.ModelProto, constant: Array | None) -> None:
    """Let what reads the block's sum read what the branch was added to, plus the constant."""
    graph, flow = model.graph, Known.of(model.graph)
    node = sum_in(graph, block)
    stream = stream_in(network, block, flow, node)
    gone = _idle_without(flow, graph, block.total, stream)
    if constant is not None:
        values = numpy_helper.from_array(constant, fresh(graph, f"{block.total}/mean"))
        graph.initializer.append(values)
        reader, name = _place_of_shift(flow, graph, block.total, stream, gone)
        if reader == block.total:
            node.op_type = "Add"
            del node.input[:]
            node.input.extend([stream, values.name])
            return
        shifted = fresh(graph, f"{name}/shifted")
        at = flow.producers[reader]
        _rename(graph.node[at], {name: shifted})
        graph.node.insert(at, helper.make_node("Add", [name, values.name], [shifted], f"{name}/shift"))
        node = next(each for each in graph.node if block.total in each.output)
    held = {value.name for value in graph.output}
    held.update(name for each in graph.node for name in set(inputs_of(each)) - set(each.input))
    if block.total in held:
        node.op_type = "Identity"
        del node.input[:]
        node.input.append(stream)
        return
    graph.node.remove(node)
    for each in graph.node:
        _rename(each, {block.total: stream})
    kept = [value for value in graph.value_info if value.name != block.total]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def sum_in(graph: onnx.GraphProto, block: Block) -> onnx.NodeProto:
    """The node of a block's sum.

    Raises:
        SurgeryError: the file has it in another form.
    """
    node: onnx.NodeProto | None = next((each for each in graph.node if block.total in each.output), None)
    if node is None or node.op_type not in _SUMS or len(node.input) != 2:
        raise SurgeryError(
            f"block {block.number} stays: '{block.total}' is no sum of two tensors in the file", "block-stays"
        )
    return node


def stream_in(network: Network, block: Block, flow: Known, node: onnx.NodeProto) -> str:
    """Which of the sum's tensors in the file does not come from the branch."""
    ends = {end for number in block.segments for end in network.segments[number].ends}
    found = [name for name in node.input if ends.isdisjoint(flow.needed([name], set()).tensors)]
    if len(found) != 1:
        raise SurgeryError(f"block {block.number} stays: the file has its sum in another form", "block-stays")
    return str(found[0])


def _idle_without(flow: Known, graph: onnx.GraphProto, total: str, stream: str) -> set[int]:
    """Positions of the nodes that no output needs where the sum is what the stream is."""
    outputs = [value.name for value in graph.output]
    before, after = flow.needed(outputs, set()), flow.needed([*outputs, stream], {total})
    return before.nodes - after.nodes


def _place_of_shift(flow: Known, graph: onnx.GraphProto, total: str, stream: str, gone: set[int]) -> tuple[str, str]:
    """Where a constant that is added to the sum's other tensor is added: what the node writes that reads it, and which.

    As far before the sum as sums go that nothing else reads, so that it comes to a layer's bias where it can.
    """
    readers: dict[str, list[int]] = {}
    for place, names in enumerate(flow.reads):
        for name in names:
            readers.setdefault(name, []).append(place)
    outputs = {value.name for value in graph.output}
    reader, name = total, stream
    is_alone = gone.issuperset(readers[name]) and name not in outputs
    while is_alone:
        place = flow.producers.get(name, -1)
        if place < 0 or graph.node[place].op_type != "Add":
            break
        own = list(graph.node[place].input)
        has_constant = any(term not in flow.producers for term in own)
        terms = [term for term in own if _is_layers(flow, graph, term, has_bias=not has_constant)]
        terms = [term for term in terms if readers[term] == [place] and term not in outputs]
        if not terms:
            break
        reader, name = name, terms[-1]
    return reader, name


def _is_layers(flow: Known, graph: onnx.GraphProto, name: str, *, has_bias: bool) -> bool:
    """Whether a tensor is what a layer puts out, its bias added, or another sum."""
    place = flow.producers.get(name)
    ops = ("Add", "Gemm", "Conv", "MatMul") if has_bias else ("Add", "Gemm", "Conv")
    return place is not None and graph.node[place].op_type in ops


def fresh(graph: onnx.GraphProto, name: str, arrays: Collection[str] = ()) -> str:
    """A name like this one that no tensor of the graph bears."""
    taken = {tensor.name for tensor in graph.initializer} | {each for node in graph.node for each in node.output}
    while name in taken or name in arrays:
        name += "_"
    return name


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for position, name in enumerate(node.input):
        node.input[position] = names.get(name, name)


def _without_idle(network: Network, block: Block, parts: Parts) -> Parts:
    """Without the nodes and tensors that were needed for the branch alone.

    Raises:
        SurgeryError: a layer of it is needed elsewhere, or what is needed for it alone has to stay.
    """
    graph = parts.skeleton.graph
    outputs = [value.name for value in graph.output]
    before = Known.of(to_parts(network).skeleton.graph)
    flow = Known.of(graph)
    was, kept = before.needed(outputs, set()), flow.needed(outputs, set())
    gone = was.tensors - kept.tensors
    for number in block.segments:
        for end in network.segments[number].ends:
            if end not in gone:
                raise SurgeryError(
                    f"block {block.number} stays: its tensor '{end}' is needed elsewhere too", "block-stays"
                )
    given = {tensor.name for tensor in graph.initializer} | set(parts.arrays)
    alone = [value.name for value in graph.input if value.name in gone - given]
    if alone:
        raise SurgeryError(
            f"block {block.number} stays: nothing else reads the model's input '{alone[0]}'", "block-stays"
        )
    held = gone.intersection(network.frame.frozen.before)
    if held:
        raise SurgeryError(f"block {block.number} stays: what '{min(held)}' is computed from is frozen", "block-stays")
    idle = {name for place in was.nodes for name in before.writes[place] if name} - kept.tensors
    nodes = [node for node in graph.node if not node.output or not idle.issuperset(n for n in node.output if n)]
    del graph.node[:]
    graph.node.extend(nodes)
    for field in (graph.initializer, graph.sparse_initializer, graph.value_info, graph.input):
        stay = [entry for entry in field if _name(entry) not in gone]
        del field[:]
        field.extend(stay)
    arrays = {name: values for name, values in parts.arrays.items() if name not in gone}
    return Parts(parts.skeleton, arrays, parts.external, parts.headers)


def _name(entry: onnx.ValueInfoProto | onnx.TensorProto | onnx.SparseTensorProto) -> str:
    return entry.values.name if isinstance(entry, onnx.SparseTensorProto) else str(entry.name)


def with_values(network: Network, found: Network) -> Network:
    """What was read with the values of the network before: these are not rounded to the file's type, and shared."""
    known: dict[str, Array] = {}
    stored: dict[str, Array] = {}
    for segment in network.segments:
        for name, values in segment.parameters():
            known[name], stored[name] = values, values.astype(segment.held_dtype(name, values)).astype(values.dtype)
    made = [
        known[name] if name in known and np.array_equal(stored[name], values, equal_nan=True) else values
        for name, values in found.parameters()
    ]
    return replace(found.with_parameters(made), metadata=network.metadata)
