"""From an ONNX model to a ``Network``: find the dense chain, and keep everything else as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation
from onnxsurgeon.graph.canonical import canonicalise, clip_bounds, constant_values, explain, is_dense, is_output
from onnxsurgeon.graph.canonical.rewriter import PRODUCTS
from onnxsurgeon.graph.files import read_model, subgraphs, write_model
from onnxsurgeon.graph.network import DenseChain, DenseLayer, Frame, LayerNames, Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line

METADATA_PREFIX = "onnxsurgeon."


def load(path: str | os.PathLike[str]) -> Network:
    """Read the model at ``path`` as a network.

    Raises:
        ModelError: the file is no usable model, or its dense layers form no single chain; names file and node.
    """
    return from_model(read_model(path), name=Path(path).stem, source=str(path))


def save(network: Network, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write ``network`` to ``path``, complete or not at all.

    Raises:
        ModelError: the file exists and ``overwrite`` is false, or it cannot be written.
    """
    write_model(network.to_model(), path, overwrite=overwrite)


def from_model(model: onnx.ModelProto, *, name: str = "model", source: str = "model") -> Network:
    """View ``model`` as prefix | dense chain | suffix.

    Raises:
        ModelError: it has no dense layers, or what stands between them is not understood.
    """
    try:
        graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model, data_prop=True))
    except Exception as error:  # neither onnx nor onnx-graphsurgeon promises a type
        raise ModelError(f"{source}: its graph cannot be read: {first_line(error)}") from error
    canonicalise(graph)
    found = _single_chain(graph, source)
    input_name, output_name = str(found[0].gemm.attrs["entry"]), found[-1].gemm.outputs[0].name
    _refuse_overridable(model, found, source)

    own = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(METADATA_PREFIX)}
    frame = replace(_cut(model, input_name, output_name), suffix=_readers(found[-1].gemm.outputs[0]))
    taken = {tensor.name for tensor in frame.model.graph.initializer}
    layers = []
    for number, dense in enumerate(found, start=1):
        layers.append(dense.layer(number, taken, source))
        taken.update(layers[-1].names.all())
    return Network(DenseChain(tuple(layers), input_name, output_name), frame, name, own)


@dataclass(eq=False)
class _Dense:
    """A Gemm in normal form and the activation between it and the next one, if any."""

    gemm: gs.Node
    activation: gs.Node | None = None

    def layer(self, number: int, taken: set[str], source: str) -> DenseLayer:
        gemm = self.gemm
        weight = np.asarray(constant_values(gemm.inputs[1]))
        bias = constant_values(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
        if 0 in weight.shape:
            raise ModelError(f"{source}: node '{gemm.name}': weight of shape {weight.shape} is empty")
        for values in (weight, bias):
            if values is not None and not np.isfinite(values).all():
                raise ModelError(f"{source}: node '{gemm.name}': its weights or biases hold NaN or infinity")
        names = LayerNames.derived(gemm.name or f"dense{number}")
        chosen = {"node": names.node, "weight": gemm.inputs[1].name, "pre_activation": gemm.outputs[0].name}
        if bias is not None:
            chosen["bias"] = gemm.inputs[2].name
        activation = None
        if self.activation is not None:
            activation = _activation(self.activation, weight, source)
            chosen["activation"] = self.activation.name or names.activation
            chosen["output"] = self.activation.outputs[0].name
            if activation.slope is not None:
                chosen["slope"] = self.activation.inputs[1].name
        else:
            chosen["output"] = gemm.outputs[0].name
        for field in ("weight", "bias", "slope"):
            # A tensor that something else reads too keeps its name for the others; this layer gets its own copy.
            wanted = chosen.get(field, getattr(names, field))
            while wanted in taken:
                wanted += "_"
            chosen[field] = wanted
            taken.add(wanted)
        derived = {field: getattr(names, field) for field in LayerNames.__dataclass_fields__}
        return DenseLayer(weight, bias, activation, LayerNames(**{**derived, **chosen}))


def _activation(node: gs.Node, weight: Array, source: str) -> Activation:
    known = ACTIVATIONS[node.op]
    if node.op == "PRelu":
        slope = constant_values(node.inputs[1])
        units = weight.shape[1]
        if slope is None or slope.size not in (1, units):
            raise ModelError(f"{source}: node '{node.name}': PRelu's slope is not one value, or one for each unit")
        return Activation(node.op, slope=np.broadcast_to(slope.reshape(-1), (units,)).astype(weight.dtype))
    attributes: dict[str, Any] = {name: value for name, value in node.attrs.items() if name in known.attributes}
    if node.op == "Clip":
        low, high = clip_bounds(node)
        if low is None or high is None:
            raise ModelError(f"{source}: node '{node.name}': Clip's bounds are not constant")
        attributes = {"min": low, "max": high}
    changed = {name: value for name, value in attributes.items() if value != known.attributes[name]}
    return Activation(node.op, changed)


def _single_chain(graph: gs.Graph, source: str) -> list[_Dense]:
    _refuse_wrong_biases(graph, source)
    dense = {id(node): _Dense(node) for node in graph.nodes if node.outputs and is_dense(node) and _is_wide(node)}
    if not dense:
        raise ModelError(f"{source}: no dense layers found{_nearly(graph)}")
    following: dict[int, _Dense] = {}
    for layer in dense.values():
        reader = _only_reader(graph, layer.gemm.outputs[0])
        if reader is not None and reader.op in ACTIVATIONS and reader.inputs[0] is layer.gemm.outputs[0]:
            after = _only_reader(graph, reader.outputs[0])
            if after is not None and id(after) in dense:
                layer.activation, reader = reader, after
        if reader is not None and id(reader) in dense:
            following[id(layer.gemm)] = dense[id(reader)]
    targets = {id(layer.gemm) for layer in following.values()}
    chains = []
    for key, layer in dense.items():
        if key not in targets:
            chain = [layer]
            while id(chain[-1].gemm) in following:
                chain.append(following[id(chain[-1].gemm)])
            chains.append(chain)
    if len(chains) > 1:
        raise ModelError(f"{source}: {_why_apart(graph, chains[0][-1].gemm, chains[1][0].gemm)}")
    return chains[0]


def _refuse_wrong_biases(graph: gs.Graph, source: str) -> None:
    """onnx.checker lets a bias of the wrong length pass."""
    for node in graph.nodes:
        if node.op != "Gemm" or len(node.inputs) < 3 or not node.outputs:
            continue
        weight, bias = constant_values(node.inputs[1]), constant_values(node.inputs[2])
        if weight is not None and bias is not None and weight.ndim == 2:
            units = weight.shape[0] if node.attrs.get("transB", 0) else weight.shape[1]
            if bias.ndim and bias.shape[-1] not in (1, units):
                raise ModelError(f"{source}: node '{node.name}': bias of shape {bias.shape} for {units} units")


def _only_reader(graph: gs.Graph, tensor: Any) -> gs.Node | None:
    readers = tensor.outputs
    return readers[0] if len(readers) == 1 and not is_output(graph, tensor) else None


def _readers(tensor: Any) -> tuple[str, ...]:
    """Op types of what reads the chain's output, no-op casts and the like left out."""
    return tuple(node.op for node in tensor.outputs)


def _is_wide(node: gs.Node) -> bool:
    return node.inputs[1].values.dtype in (np.float32, np.float64)


def _nearly(graph: gs.Graph) -> str:
    """Why the first node that looks like a dense layer is none."""
    for node in graph.nodes:
        if node.op in PRODUCTS or (node.op == "Dense" and not (is_dense(node) and _is_wide(node))):
            reason = explain(node)
            if is_dense(node):
                reason = f"its weight is {node.inputs[1].values.dtype}; float32 and float64 are supported"
            return f": node '{node.name}' ({node.attrs.get('op', node.op)}) is not understood, since {reason}"
    return ", neither Gemm nor MatMul with a constant weight"


def _why_apart(graph: gs.Graph, first: gs.Node, second: gs.Node) -> str:
    """What keeps two runs of dense layers from being one chain."""
    between = f"between dense layers '{first.name}' and '{second.name}'"
    tensor = first.outputs[0]
    while True:
        if is_output(graph, tensor):
            return f"tensor '{tensor.name}' {between} is also an output of the model, which is not supported yet"
        if len(tensor.outputs) != 1:
            count = len(tensor.outputs)
            return f"tensor '{tensor.name}' {between} has {count} readers; only plain sequences are supported yet"
        node = tensor.outputs[0]
        if node.op not in ACTIVATIONS or node.inputs[0] is not tensor:
            return f"node '{node.name}' ({node.op}) {between} is not understood"
        tensor = node.outputs[0]
        if len(tensor.outputs) == 1 and tensor.outputs[0].op in ACTIVATIONS:
            after = tensor.outputs[0]
            return f"node '{after.name}' ({after.op}) {between} is a second activation, which is not understood"


def _refuse_overridable(model: onnx.ModelProto, found: Sequence[_Dense], source: str) -> None:
    inputs = {value.name for value in model.graph.input}
    for dense in found:
        for tensor in dense.gemm.inputs[1:]:
            if tensor.name in inputs:
                raise ModelError(
                    f"{source}: node '{dense.gemm.name}': its parameter '{tensor.name}' is also an input of the model, "
                    "so a caller may replace it; that is not supported yet"
                )


def _cut(model: onnx.ModelProto, input_name: str, output_name: str) -> Frame:
    """The model without the nodes and initializers that only the chain needs."""
    graph = model.graph
    producers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    outputs = [value.name for value in graph.output]
    before = _needed(graph, producers, outputs, stop=None)
    suffix = _needed(graph, producers, outputs, stop=output_name)
    prefix = _needed(graph, producers, [input_name], stop=None)
    removed = before.nodes - suffix.nodes - prefix.nodes

    frame = onnx.ModelProto()
    frame.CopyFrom(model)
    kept_nodes = [index for index in range(len(graph.node)) if index not in removed]
    kept_prefix = tuple(position for position, index in enumerate(kept_nodes) if index in prefix.nodes)
    del frame.graph.node[:]
    frame.graph.node.extend(graph.node[index] for index in kept_nodes)
    gone = before.tensors - suffix.tensors - prefix.tensors - {input_name, output_name}
    for field in (frame.graph.initializer, frame.graph.value_info):
        kept = [entry for entry in field if entry.name not in gone]
        del field[:]
        field.extend(kept)
    kept_properties = [entry for entry in model.metadata_props if not entry.key.startswith(METADATA_PREFIX)]
    del frame.metadata_props[:]
    frame.metadata_props.extend(kept_properties)
    # Right behind the prefix: whatever reads the chain's output stood further back.
    return Frame(frame, max(kept_prefix, default=-1) + 1, kept_prefix)


@dataclass
class _Needed:
    nodes: set[int]
    tensors: set[str]


def _needed(graph: onnx.GraphProto, producers: dict[str, int], wanted: Sequence[str], stop: str | None) -> _Needed:
    """Nodes and tensors that the wanted tensors depend on, not looking behind the tensor ``stop``."""
    nodes: set[int] = set()
    tensors: set[str] = set()
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name in tensors:
            continue
        tensors.add(name)
        if name == stop or name not in producers:
            continue
        index = producers[name]
        if index not in nodes:
            nodes.add(index)
            tensors.update(graph.node[index].output)
            todo.extend(_inputs(graph.node[index]))
    return _Needed(nodes, tensors)


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those read inside its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                yield from _inputs(inner)
