"""The forward pass of a dense chain as nodes, its parameters given by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.network import DenseChain
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder

OPSET, IR_VERSION = 17, 8  # the loop must run on every ONNX Runtime from 1.17 on


class LayerTrace(NamedTuple):
    """Names of one layer's tensors: its input x, z = x W + b, y = φ(z), and its parameters ("" if absent)."""

    x: str
    z: str
    y: str
    weight: str
    bias: str
    slope: str


def parameter_names(chain: DenseChain) -> list[str]:
    """Names "parameter_0", … in the order of ``chain.parameters()``; user's names may clash with ours."""
    return [f"parameter_{i}" for i in range(len(chain.parameters()))]


def forward(
    build: GraphBuilder, chain: DenseChain, x: str, names: Sequence[str], *, prelu_in_parts: bool = False
) -> list[LayerTrace]:
    """Append the nodes of y = φ(x W + b) for every layer.

    With ``prelu_in_parts``, and for float64, PRelu(z) is written as Relu(z) − s·Relu(−z): engine 1 has no gradient
    of PRelu, and ONNX Runtime no PRelu of float64.
    """
    remaining = iter(names)
    traces = []
    for layer in chain.layers:
        weight = next(remaining)
        bias = next(remaining) if layer.bias is not None else ""
        has_slope = layer.activation is not None and layer.activation.slope is not None
        slope = next(remaining) if has_slope else ""
        z = build.add("Gemm", x, weight, *([bias] if bias else []))
        if layer.activation is None:
            y = z
        elif has_slope and (prelu_in_parts or chain.dtype == np.float64):
            negative = build.add("Mul", slope, build.add("Relu", build.add("Neg", z)))
            y = build.add("Sub", build.add("Relu", z), negative)
        else:
            y = _apply(build, layer.activation, z, slope)
        traces.append(LayerTrace(x, z, y, weight, bias, slope))
        x = y
    return traces


def _apply(build: GraphBuilder, activation: Activation, z: str, slope: str) -> str:
    y = f"y_{len(build.nodes)}"
    nodes, constants = activation.nodes(z, y, y, build.dtype, OPSET, slope)
    build.nodes.extend(nodes)
    build.constants.update((constant.name, constant) for constant in constants)
    return y


def forward_model(chain: DenseChain, opset: int = OPSET) -> onnx.ModelProto:
    """A model from "features" (rows, n_in) and the parameters, as inputs, to "outputs" (rows, n_out).

    Weights are inputs so that one session serves every network of the same topology.
    """
    build = GraphBuilder(chain.dtype)
    names = parameter_names(chain)
    outputs = forward(build, chain, "features", names)[-1].y
    build.add("Identity", outputs, output="outputs")
    kind = helper.np_dtype_to_tensor_dtype(chain.dtype)
    inputs = [helper.make_tensor_value_info("features", kind, ["rows", chain.widths[0]])]
    for name, (_, values) in zip(names, chain.parameters(), strict=True):
        inputs.append(helper.make_tensor_value_info(name, kind, values.shape))
    output = helper.make_tensor_value_info("outputs", kind, ["rows", chain.widths[-1]])
    return make_model("forward", build, inputs, [output], opset)


def make_model(
    name: str,
    build: GraphBuilder,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A checked model of the builder's nodes and constants."""
    graph = helper.make_graph(build.nodes, name, list(inputs), list(outputs), list(build.constants.values()))
    version = IR_VERSION if opset <= OPSET else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)
    onnx.checker.check_model(model)
    return model


def opset_for(chain: DenseChain) -> int:
    """The opset of training graphs: younger activations are written in parts."""
    return OPSET


def feeds_of(chain: DenseChain) -> dict[str, Array]:
    """Parameter values by their names in the training graphs."""
    return dict(zip(parameter_names(chain), (values for _, values in chain.parameters()), strict=True))
