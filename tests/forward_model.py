"""The trunk's forward pass as the training graphs have it, as a model by itself."""

from onnx import ModelProto, helper

from onnxsurgeon.graph.network import Network
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import feature_inputs, forward, make_model, parameter_names
from onnxsurgeon.training.resident import numbered


def forward_model(network: Network) -> ModelProto:
    """A model from "features" and the parameters, as inputs, to "outputs", one for each head."""
    build, kind = GraphBuilder(network.dtype), helper.np_dtype_to_tensor_dtype(network.dtype)
    heads, inputs = network.frame.trunk.heads, feature_inputs(network, kind)
    trace = forward(build, network, numbered("features", len(network.frame.trunk.features)))
    for name, (_, values) in zip(parameter_names(network), network.parameters(), strict=True):
        inputs.append(helper.make_tensor_value_info(name, kind, values.shape))
    outputs = []
    for name, head in zip(numbered("outputs", len(heads)), heads, strict=True):
        build.add("Identity", trace.tensors[head.tensor], output=name)
        outputs.append(helper.make_tensor_value_info(name, kind, [None, *[None] * (head.rank - 2), head.width]))
    return make_model("forward", build, inputs, outputs)
