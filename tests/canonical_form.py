"""What a canonical graph computes, by numpy: the reference that the tests compare ONNX Runtime with."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical import attributes_of, canonicalise


def canonical(model):
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model, data_prop=True))
    canonicalise(graph)
    return graph


def ops(graph):
    return [node.op for node in graph.nodes]


def compute(graph, feeds):
    """The graph's outputs for ``feeds``."""
    values = dict(feeds)
    todo = list(graph.nodes)
    while todo:
        ready = [n for n in todo if all(isinstance(t, gs.Constant) or not t.name or t.name in values for t in n.inputs)]
        assert ready, f"nothing can be computed of {todo}"
        for node in ready:
            inputs = [t.values if isinstance(t, gs.Constant) else values.get(t.name) for t in node.inputs]
            for tensor, value in zip(node.outputs, _outputs(graph, node, inputs), strict=False):
                values[tensor.name] = value
        todo = [node for node in todo if not any(node is done for done in ready)]
    return [t.values if isinstance(t, gs.Constant) else values[t.name] for t in graph.outputs]


def _outputs(graph, node, inputs):
    if node.op == "Dense":
        y = inputs[0].astype(np.float64) @ inputs[1].astype(np.float64)
        return [(y + inputs[2].astype(np.float64) if len(inputs) > 2 else y).astype(inputs[0].dtype)]
    if node.op == "BatchNormalization":  # before opset 14, onnx.reference computes that of training
        x, scale, shift, mean, variance = inputs
        return [scale * (x - mean) / np.sqrt(variance + node.attrs.get("epsilon", 1e-5)) + shift]
    if node.op == "PRelu":
        return [np.where(inputs[0] >= 0, inputs[0], inputs[1] * inputs[0])]
    if node.op in ACTIVATIONS:
        x = inputs[0].astype(np.float64)
        return [ACTIVATIONS[node.op].function(x, attributes_of(node)).astype(inputs[0].dtype)]
    names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
    attributes = {
        k: numpy_helper.from_array(v.values) if isinstance(v, gs.Constant) else v for k, v in node.attrs.items()
    }
    domain, _, op = node.op.rpartition("::")
    made = helper.make_node(op, names, [f"o{i}" for i in range(len(node.outputs))], domain=domain, **attributes)
    run = ReferenceEvaluator(
        helper.make_model(
            helper.make_graph(
                [made],
                "one",
                [
                    helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                    for n, v in zip(names, inputs, strict=True)
                    if n
                ],
                [onnx.ValueInfoProto(name=name) for name in made.output],
            ),
            opset_imports=[helper.make_opsetid("", graph.opset)],
        )
    )
    return run.run(None, {n: v for n, v in zip(names, inputs, strict=True) if n})
