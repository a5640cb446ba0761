"""Files of convolutions."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def values(*shape, kind=np.float32, seed=0):
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) / 3).astype(kind)


def model(nodes, constants, shape=("batch", 3, 9, 8), opset=17, outputs=("y",), dtype=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    known = {value.name: value for value in onnx.shape_inference.infer_shapes(made, data_prop=True).graph.output}
    for value in made.graph.output:
        value.CopyFrom(known[value.name])
    return made
