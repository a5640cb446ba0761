"""A policy and its value behind a trunk that they share."""

from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def actor(widths=(6, 8), heads=(3, 1), *, biases=(True, True), steps=(), behind=(), activation="Elu", seed=0):
    """Dense layers of ``widths``, and ``heads`` that all read the last of them."""
    rng = np.random.default_rng(seed)
    nodes, held = [], {}

    def dense(name, x, y, n_in, n_out, bias=True):
        held[f"{name}w"] = rng.standard_normal((n_in, n_out)) / np.sqrt(n_in)
        held[f"{name}b"] = rng.standard_normal(n_out) / 2
        if steps or not bias:
            nodes.append(helper.make_node("MatMul", [x, f"{name}w"], [y if not bias else f"{y}_"], name=name))
            if bias:
                nodes.append(helper.make_node("Add", [f"{y}_", f"{name}b"], [y], name=f"{name}_bias"))
        else:
            nodes.append(helper.make_node("Gemm", [x, f"{name}w", f"{name}b"], [y], name=name))

    x = "obs"
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        dense(f"trunk{i}", x, f"t{i}", n_in, n_out)
        nodes.append(helper.make_node(activation, [f"t{i}"], [f"e{i}"], name=f"act{i}"))
        x = f"e{i}"
    for i, n_out in enumerate(heads):
        dense(f"head{i}", x, f"h{i}", widths[-1], n_out, biases[i % len(biases)])
        if i in behind:
            nodes.append(helper.make_node("Tanh", [f"h{i}"], [f"y{i}"], name=f"behind{i}"))
    outputs = [value(f"y{i}" if i in behind else f"h{i}", "n", *steps, n_out) for i, n_out in enumerate(heads)]
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(v.astype("f"), k) for k, v in held.items() if k in used]
    graph = helper.make_graph(nodes, "actor", [value("obs", "n", *steps, widths[0])], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
