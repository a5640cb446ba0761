"""From a network back to a model and to a file: the user's frame with the segments in their places."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.graph.files import Parts, join, write_parts
from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.graph.frozen import KEY as FROZEN
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.nodes import chain_nodes
from onnxsurgeon.linear_algebra import Array

IR_WITH_FREE_INITIALIZERS = 4  # before it, every initializer has to be listed among the graph's inputs


def save(
    network: Network, path: str | os.PathLike[str], *, overwrite: bool = False, flush: bool = True
) -> tuple[str, ...]:
    """Write ``network`` to ``path``, complete or not at all; with external data where the file read had it.

    ``flush`` brings it to the disk at once, so that even a power failure leaves the old or the new file. External data
    goes to ``NAME.data`` beside it; with ``overwrite``, an older data file that nothing else refers to is removed.

    Returns:
        Sentences on files of external data: whether the data has another name, and why.

    Raises:
        ModelError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    return write_parts(to_parts(network), path, overwrite=overwrite, flush=flush)


def to_model(network: Network) -> onnx.ModelProto:
    """The complete model in memory.

    Raises:
        ModelError: it would exceed the 2 GB that protobuf can hold.
    """
    return join(to_parts(network))


def to_parts(network: Network, *, casts: bool = True) -> Parts:
    """The complete model with its bulky tensors apart; weights that stayed are shared with the network, not copied.

    Weights that the file holds in a smaller type than it computes with are held so again, each with its Cast; without
    ``casts``, all are in the type of the computation.
    """
    frame = network.frame
    model = onnx.ModelProto()
    model.CopyFrom(frame.model)
    arrays: dict[str, Array] = dict(frame.arrays)
    inserted: dict[int, list[onnx.NodeProto]] = defaultdict(list)
    constants: list[onnx.TensorProto] = []
    parameters: dict[str, Array] = {}
    cast: dict[str, onnx.NodeProto] = {}
    for position, segment in zip(frame.positions, network.segments, strict=True):
        nodes, needed = chain_nodes(segment, frame.opset)
        made: dict[str, str] = {}
        constants += needed
        for name, values in segment.parameters_in_file():
            kind = segment.held_dtype(name, values) if casts else segment.file_dtype
            parameters[name] = values.astype(kind, copy=False)
            if kind != segment.file_dtype:
                made[name] = _free(f"{name}/{segment.file_dtype}", frame.names)
                cast[name] = _cast(name, made[name], segment.file_dtype)
        inserted[position] += [_reading(node, made) for node in nodes]
    kept = list(model.graph.node)
    del model.graph.node[:]
    begin = 0
    model.graph.node.extend(cast.values())
    for position in (*sorted(inserted), len(kept)):
        model.graph.node.extend(kept[begin:position])
        model.graph.node.extend(_with_remark(node, frame.remarks) for node in inserted.pop(position, ()))
        begin = position
    model.graph.initializer.extend(constants)
    _declare(model, parameters, constants, frame)
    if frame.frozen:
        model.metadata_props.add(key=FROZEN, value=frame.frozen.entry())
    for key, value in network.metadata.items():
        model.metadata_props.add(key=key, value=value)
    return Parts(model, arrays | parameters, frame.external, frame.headers)


def _free(name: str, taken: Collection[str]) -> str:
    """A name that is not taken: with as many underscores behind it as that needs."""
    while name in taken:
        name += "_"
    return name


def _cast(name: str, output: str, kind: np.dtype[Any]) -> onnx.NodeProto:
    """The Cast that makes of a weight what the file computes with."""
    return helper.make_node("Cast", [name], [output], name=output, to=helper.np_dtype_to_tensor_dtype(kind))


def _reading(node: onnx.NodeProto, made: Mapping[str, str]) -> onnx.NodeProto:
    """The node, which reads what a Cast makes of a weight and not the weight."""
    for position, name in enumerate(node.input):
        node.input[position] = made.get(name, name)
    return node


def _with_remark(node: onnx.NodeProto, remarks: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto:
    """The node with the doc string and metadata that the user's node of that name had."""
    remark = remarks.get(node.name)
    if remark is not None:
        node.doc_string = remark.doc_string
        node.metadata_props.extend(remark.metadata_props)
    return node


def _declare(
    model: onnx.ModelProto, parameters: Mapping[str, Array], constants: list[onnx.TensorProto], frame: Frame
) -> None:
    """List parameters among the graph's inputs where the IR version demands it, or the file did."""
    everywhere = model.ir_version < IR_WITH_FREE_INITIALIZERS
    for name, values in parameters.items():
        if everywhere or name in frame.overridable:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    if everywhere:
        for tensor in constants:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
