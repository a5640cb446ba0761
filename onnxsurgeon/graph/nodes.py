"""A segment written as ONNX nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from onnxsurgeon.graph.decompose import activation_nodes

if TYPE_CHECKING:
    from onnxsurgeon.graph.geometry import Geometry
    from onnxsurgeon.graph.layers import DenseChain, DenseLayer


def chain_nodes(chain: DenseChain, opset: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The segment as ONNX nodes in topological order, and the constants its activations need.

    The parameters themselves are not among these: see ``chain.parameters()``.

    Raises:
        ModelError: the opset is older than an activation that the segment contains.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    x = chain.file_input
    for position, (layer, y) in enumerate(chain.layers_in_file):
        names = layer.names
        z = y if layer.activation is None else names.pre_activation
        nodes += _product(layer, x, z, chain.file_rank or chain.rank, opset)
        if layer.activation is not None:
            kind = chain.file_dtype
            written, constants = activation_nodes(layer.activation, z, y, names.activation, kind, opset, names.slope)
            nodes += written
            initializers += constants
        if position < chain.hidden_count:
            x = y
    return nodes, initializers


def _product(layer: DenseLayer, x: str, z: str, rank: int, opset: int) -> list[onnx.NodeProto]:
    """z = x W + b: a Conv, or a Gemm where x has two axes, else a MatMul and an Add."""
    names = layer.names
    if layer.is_turned:
        if rank == 2 and layer.bias is not None:
            return [helper.make_node("Gemm", [x, names.weight, names.bias], [z], name=names.node, transB=1)]
        turned = f"{names.node}/turned"
        upright = replace(layer, is_turned=False, names=replace(names, weight=turned))
        transpose = helper.make_node("Transpose", [names.weight], [turned], name=turned, perm=[1, 0])
        return [transpose, *_product(upright, x, z, rank, opset)]
    if layer.geometry is not None:
        inputs = [x, names.weight] if layer.bias is None else [x, names.weight, names.bias]
        return [helper.make_node("Conv", inputs, [z], name=names.node, **_attributes(layer.geometry))]
    if rank == 2 and layer.bias is not None:
        return [helper.make_node("Gemm", [x, names.weight, names.bias], [z], name=names.node)]
    if rank == 2 and opset >= 11:
        return [helper.make_node("Gemm", [x, names.weight], [z], name=names.node)]
    if layer.bias is None:  # before opset 11, Gemm's C is not optional
        return [helper.make_node("MatMul", [x, names.weight], [z], name=names.node)]
    product = f"{names.node}/product"
    return [
        helper.make_node("MatMul", [x, names.weight], [product], name=names.node),
        helper.make_node("Add", [product, names.bias], [z], name=f"{names.node}/bias"),
    ]


def _attributes(geometry: Geometry) -> dict[str, Any]:
    """Conv's attributes, without those whose values are ONNX's defaults."""
    ones = (1,) * geometry.rank
    found: dict[str, Any] = {"kernel_shape": geometry.kernel}
    if geometry.strides != ones:
        found["strides"] = geometry.strides
    if geometry.dilations != ones:
        found["dilations"] = geometry.dilations
    if geometry.is_padded:
        found["pads"] = geometry.pads
    if geometry.is_grouped:
        found["group"] = geometry.groups
    return found


def chain_model(chain: DenseChain, opset: int = 17) -> onnx.ModelProto:
    """The segment alone on (batch, n_in[, space…]) → (batch, n_out[, space…]).

    Its parameters are inputs, as ``parameters_in_file`` gives them, so that nothing is copied.
    """
    flat = replace(chain, rank=chain.rank if chain.is_convolution else 2, stored=None, readers=(), file_rank=0)
    nodes, initializers = chain_nodes(flat, opset)
    kind = helper.np_dtype_to_tensor_dtype(flat.dtype)
    held = dict(flat.parameters_in_file())  # layers may share them
    parameters = [helper.make_tensor_value_info(name, kind, values.shape) for name, values in held.items()]
    space = [None] * (flat.rank - 2)
    graph = helper.make_graph(
        nodes,
        "dense_chain",
        [helper.make_tensor_value_info(flat.file_input, kind, ["batch", flat.widths[0], *space]), *parameters],
        [helper.make_tensor_value_info(flat.output_name, kind, ["batch", flat.widths[-1], *space])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
