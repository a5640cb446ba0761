"""A network with another residual block behind one that it has, which adds nothing at first.

The branch is copied in the file: its nodes, and the weights of its layers under names of their own. The last of these
is zero in the copy. Where an idempotent activation stands behind the sum, the copy has one behind its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.errors import ModelError, SurgeryError
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.cut import Known
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import from_parts
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.graph.without_block import fresh, last_layer, stream_in, sum_in, with_values
from onnxsurgeon.graph.writer import to_parts


def with_block(network: Network, number: int) -> tuple[Network, dict[str, str]]:
    """The network with another block behind block ``number``, and for each new weight's name that of its original.

    Args:
        network: in which no weight is another's transpose (``Network.parted``).
        number: of the block, from 1.

    Raises:
        SurgeryError: there is no such block, or it cannot be repeated; says why.
    """
    block = network.block(number)
    require_repeatable(network, block)
    last = last_layer(network, block)
    parts = to_parts(network)
    graph = parts.skeleton.graph
    flow = Known.of(graph)
    node = sum_in(graph, block)
    stream = stream_in(network, block, flow, node)
    (branch,) = [name for name in node.input if name != stream]
    own = flow.needed([branch], {stream}).nodes - flow.needed([stream], set()).nodes
    end, activation = _end(network, block, graph)
    layers = [layer for each in block.segments for layer in network.segments[each].layers]
    before, begin = fresh(graph, f"{end}/before"), _source(graph, flow, stream)
    read = {name for place in own for name in graph.node[place].input} | {stream}
    names = {name: before for name in read if _source(graph, flow, name) == begin}
    copies: dict[str, str] = {}
    for layer in layers:
        for name, _ in layer.parameters_in_file():
            if name not in names:
                names[name] = copies[name] = fresh(graph, f"{name}/again", parts.arrays)
                old = parts.arrays[name]
                is_silent = layer is last and name in (layer.names.weight, layer.names.bias)
                parts.arrays[names[name]] = np.zeros_like(old) if is_silent else np.array(old)
    made = []
    for place in sorted(own):
        copied = onnx.NodeProto()
        copied.CopyFrom(graph.node[place])
        copied.name = f"{copied.name}/again" if copied.name else ""
        for name in copied.output:
            names[name] = fresh(graph, f"{name}/again")
        _rename(copied.input, names)
        _rename(copied.output, names)
        made.append(copied)
    total = end if activation is None else fresh(graph, f"{end}/sum")
    made.append(helper.make_node("Add", [before, names[branch]], [total], f"{node.name}/again"))
    if activation is not None:
        behind = onnx.NodeProto()
        behind.CopyFrom(activation)
        behind.name = f"{activation.name}/again"
        behind.input[0] = total
        made.append(behind)
    place = flow.producers[end]
    _rename(graph.node[place].output, {end: before})
    for copied in reversed(made):
        graph.node.insert(place + 1, copied)
    try:
        found = from_parts(parts, name=network.name, source=network.name)
    except ModelError as error:
        raise SurgeryError(f"block {number} cannot be repeated: {error}", "block-stays") from error
    if len(found.blocks) != len(network.blocks) + 1:
        raise SurgeryError(f"block {number} cannot be repeated: the copy would not be read as one", "block-stays")
    return with_values(network, found), {new: old for old, new in copies.items()}


def require_repeatable(network: Network, block: Block) -> None:
    """Raise SurgeryError where x does not come to the sum as it is, or the branch does not end in a layer."""
    why = ""
    if block.is_projected:
        why = "what it is added to goes through layers of its own"
    elif last_layer(network, block) is None:
        why = "its branch ends in no layer"
    if why:
        raise SurgeryError(f"block {block.number} cannot be repeated: {why}", "block-stays")


def _end(network: Network, block: Block, graph: onnx.GraphProto) -> tuple[str, onnx.NodeProto | None]:
    """The tensor that the copy goes behind: the sum, or what an idempotent activation makes of it and it alone."""
    outputs = {value.name for value in graph.output}
    readers = [node for node in graph.node if block.total in node.input]
    steps = [each for each in network.frame.trunk.steps if not isinstance(each, int) and block.total in each.inputs]
    if len(readers) != 1 or len(steps) != 1 or block.total in outputs or steps[0].op != "Activation":
        return block.total, None
    activation = steps[0].attributes.get("activation")
    is_plain = (
        isinstance(activation, Activation) and activation.is_idempotent and readers[0].output[0] == steps[0].output
    )
    return (steps[0].output, readers[0]) if is_plain else (block.total, None)


def _source(graph: onnx.GraphProto, flow: Known, name: str) -> str:
    """The tensor that this one is, past nodes that hand it on as it is."""
    while name in flow.producers and graph.node[flow.producers[name]].op_type in ("Identity", "Cast"):
        name = graph.node[flow.producers[name]].input[0]
    return name


def _rename(field: list[str], names: Mapping[str, str]) -> None:
    for position, name in enumerate(field):
        field[position] = names.get(name, name)
