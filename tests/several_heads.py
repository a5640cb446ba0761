"""A model with several heads."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def heads_model(heads, extra=(), outputs=(), constants=None, opset=17):
    """x (rows, 5) → 6 → for each (width, squash) a head; ``extra`` nodes behind, of which ``outputs`` are outputs."""
    rng = np.random.default_rng(4)
    values = {"A": rng.standard_normal((5, 6)), "P": rng.standard_normal(6)}
    nodes = [helper.make_node("Gemm", ["x", "A", "P"], ["h0"], name="body"), helper.make_node("Relu", ["h0"], ["h"])]
    results = []
    for i, (width, squash) in enumerate(heads):
        values |= {f"B{i}": rng.standard_normal((6, width)), f"Q{i}": rng.standard_normal(width)}
        nodes.append(helper.make_node("Gemm", ["h", f"B{i}", f"Q{i}"], [f"z{i}"], name=f"head{i}"))
        results.append(f"z{i}")
        if squash:
            results[-1] = f"y{i}"
            nodes.append(helper.make_node(squash, [f"z{i}"], [f"y{i}"], name=f"squash{i}"))
    declared = outputs or [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", heads[i][0]]) for i, name in enumerate(results)
    ]
    initializers = [numpy_helper.from_array(v.astype("f"), name) for name, v in values.items()]
    initializers += [numpy_helper.from_array(v, name) for name, v in (constants or {}).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph([*nodes, *extra], "heads", [x], declared, initializers)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
