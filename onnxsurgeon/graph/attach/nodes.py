"""The nodes of a new head, in the operators of the backbone's opset: pooling, layers, suffix, names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon.graph.create import glorot_uniform
from onnxsurgeon.linear_algebra import Array

AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMean": 18, "Unsqueeze": 13, "Squeeze": 13}  # from these opsets on
ML = "ai.onnx.ml"


@dataclass
class Nodes:
    """Nodes and initializers under construction, all named after ``prefix``.

    Attributes:
        prefix: begins all names except those of the outputs.
        opset: version of ONNX's own operators.
        nodes: the nodes made so far.
        initializers: the initializers made so far.
        shapes: names, types and shapes of what was made.
    """

    prefix: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    shapes: list[onnx.ValueInfoProto] = field(default_factory=list)

    def add(self, op: str, inputs: Sequence[str], name: str, shape: Sequence[Any] | None, **attributes: Any) -> str:
        """Add a node ``name`` that writes a tensor of floats of that name; return the tensor's name."""
        node = f"{self.prefix}/{name}"
        self.nodes.append(helper.make_node(op, list(inputs), [node], name=node, **attributes))
        if shape is not None:
            self.shapes.append(helper.make_tensor_value_info(node, TensorProto.FLOAT, list(shape)))
        return node

    def along(self, op: str, x: str, axes: Sequence[int], name: str, shape: Sequence[Any], **attributes: Any) -> str:
        """Add a node of an operator whose axes are an attribute or an input, depending on the opset."""
        if self.opset >= AXES_AS_INPUT[op]:
            given = self.constant(f"{name}/axes", np.array(axes, np.int64))
            return self.add(op, [x, given], name, shape, **attributes)
        return self.add(op, [x], name, shape, axes=list(axes), **attributes)

    def constant(self, name: str, values: Array) -> str:
        """Add an initializer."""
        name = f"{self.prefix}/{name}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def layer(self, x: str, sizes: tuple[int, int], name: str, seed: np.random.Generator, batch: Any) -> str:
        """Add a dense layer with Glorot uniform weights and zero biases."""
        weight = self.constant(f"{name}/weight", glorot_uniform(seed, *sizes))
        bias = self.constant(f"{name}/bias", np.zeros(sizes[1], np.float32))
        return self.add("Gemm", [x, weight, bias], name, (batch, sizes[1]))


def pooled(made: Nodes, x: str, layout: str, shape: Sequence[Any], mask: str | None) -> tuple[str, int]:
    """Pool ``x`` to a vector (batch, features); return it and its number of features.

    ``layout`` is "vector", "channels first", "channels last", "tokens", "first token", or "flat"; ``mask`` is an input
    (batch, tokens) that is 0 where there is no token.
    """
    batch = shape[0]
    if layout == "vector":
        return x, int(shape[1])
    if layout == "flat":
        width = int(np.prod([int(size) for size in shape[1:]]))
        return made.add("Flatten", [x], "features", (batch, width), axis=1), width
    if layout == "first token":
        index = made.constant("first", np.array(0, np.int64))
        return made.add("Gather", [x, index], "features", (batch, shape[-1]), axis=1), int(shape[-1])
    if layout == "channels first":
        mean = made.add("GlobalAveragePool", [x], "average", (batch, shape[1], *[1] * (len(shape) - 2)))
        return made.add("Flatten", [mean], "features", (batch, shape[1]), axis=1), int(shape[1])
    width = int(shape[-1])
    if layout == "tokens" and mask is not None:
        floats = made.add("Cast", [mask], "mask/floats", None, to=TensorProto.FLOAT)
        column = made.along("Unsqueeze", floats, [2], "mask/column", (batch, shape[1], 1))
        kept = made.add("Mul", [x, column], "mask/kept", (batch, shape[1], width))
        total = made.along("ReduceSum", kept, [1], "mask/total", (batch, width), keepdims=0)
        count = made.along("ReduceSum", column, [1], "mask/count", (batch, 1), keepdims=0)
        # A row without tokens has the average 0.
        epsilon = made.constant("mask/epsilon", np.array(1e-9, np.float32))
        divisor = made.add("Add", [count, epsilon], "mask/divisor", (batch, 1))
        return made.add("Div", [total, divisor], "features", (batch, width)), width
    axes = list(range(1, len(shape) - 1))
    return made.along("ReduceMean", x, axes, "features", (batch, width), keepdims=0), width


def class_outputs(
    made: Nodes,
    logits: str,
    names: Sequence[Any],
    outputs: tuple[str, str],
    batch: Any,
    *,
    softmax: bool,
) -> list[onnx.ValueInfoProto]:
    """Write the probabilities, or the bare logits, and the name of the likeliest class where classes have names."""
    scores, label = outputs
    classes = len(names)
    if softmax:
        made.nodes.append(helper.make_node("Softmax", [logits], [scores], name=f"{made.prefix}/softmax", axis=1))
    else:
        made.nodes.append(helper.make_node("Identity", [logits], [scores], name=f"{made.prefix}/scores"))
    found = [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [batch, classes])]
    if not label:
        return found
    node = f"{made.prefix}/argmax"
    made.nodes.append(helper.make_node("ArgMax", [logits], [node], name=node, axis=1, keepdims=0))
    made.shapes.append(helper.make_tensor_value_info(node, TensorProto.INT64, [batch]))
    keys: dict[str, Any] = {"keys_int64s": list(range(classes))}
    if isinstance(names[0], str):
        keys |= {"values_strings": list(names)}
        kind = TensorProto.STRING
    else:
        keys |= {"values_int64s": list(names)}
        kind = TensorProto.INT64
    made.nodes.append(helper.make_node("LabelEncoder", [node], [label], name=f"{made.prefix}/label", domain=ML, **keys))
    return [helper.make_tensor_value_info(label, kind, [batch]), *found]
