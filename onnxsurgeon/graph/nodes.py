"""A dense chain written as ONNX nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from onnxsurgeon.graph.network import DenseChain


def chain_nodes(chain: DenseChain, opset: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The chain as ONNX nodes in topological order, and the initializers they need.

    Raises:
        ModelError: the opset is older than an activation that the chain contains.
    """
    nodes: list[onnx.NodeProto] = []
    initializers = [numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in chain.parameters()]
    x = chain.input_name
    for position, layer in enumerate(chain.layers):
        names = layer.names
        y = chain.output_name if position == len(chain.layers) - 1 else names.output
        z = y if layer.activation is None else names.pre_activation
        if layer.bias is not None:
            nodes.append(helper.make_node("Gemm", [x, names.weight, names.bias], [z], name=names.node))
        elif opset >= 11:
            nodes.append(helper.make_node("Gemm", [x, names.weight], [z], name=names.node))
        else:  # before opset 11, Gemm's C is not optional
            nodes.append(helper.make_node("MatMul", [x, names.weight], [z], name=names.node))
        if layer.activation is not None:
            written, constants = layer.activation.nodes(z, y, names.activation, chain.dtype, opset, names.slope)
            nodes += written
            initializers += constants
        x = y
    return nodes, initializers


def chain_model(chain: DenseChain, opset: int = 17) -> onnx.ModelProto:
    """The chain alone as a model: features (batch, n_in) to outputs (batch, n_out)."""
    nodes, initializers = chain_nodes(chain, opset)
    kind = helper.np_dtype_to_tensor_dtype(chain.dtype)
    graph = helper.make_graph(
        nodes,
        "dense_chain",
        [helper.make_tensor_value_info(chain.input_name, kind, ["batch", chain.widths[0]])],
        [helper.make_tensor_value_info(chain.output_name, kind, ["batch", chain.widths[-1]])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
