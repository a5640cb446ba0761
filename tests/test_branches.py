"""If nodes whose condition is a constant are what their branch is; others stay."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import Widen, from_model, operate
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run

RNG = np.random.default_rng(3)
X = RNG.standard_normal((5, 8)).astype("f")
WEIGHTS = {
    "A": RNG.standard_normal((8, 6)).astype("f"),
    "B": RNG.standard_normal((6, 3)).astype("f"),
    "C": RNG.standard_normal((8, 6)).astype("f"),
}


def truth(value):
    return numpy_helper.from_array(np.array(value))


CONDITIONS = {
    "initializer": lambda value: ([], {"c": np.array(value)}),
    "Constant": lambda value: ([helper.make_node("Constant", [], ["c"], value=truth(value))], {}),
    "Not": lambda value: ([helper.make_node("Not", ["d"], ["c"])], {"d": np.array(not value)}),
}


def branch(name, nodes, output):
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def build(before, constants, then, otherwise):
    """An If of these branches, each a graph, between x (rows, 8) and a layer that reads (rows, 6)."""
    decides = helper.make_node("If", ["c"], ["b"], name="which", then_branch=then, else_branch=otherwise)
    nodes = [*before, decides, helper.make_node("MatMul", ["b", "B"], ["y"], name="last")]
    values = [numpy_helper.from_array(value, name) for name, value in {**WEIGHTS, **constants}.items()]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", k]) for n, k in (("x", 8), ("y", 3)))
    graph = helper.make_graph(nodes, "g", [x], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer(weight, name, op, output):
    nodes = [helper.make_node("MatMul", ["x", weight], [f"{output}_a"], name=name)]
    return branch(name, [*nodes, helper.make_node(op, [f"{output}_a"], [output])], output)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("kind", CONDITIONS)
def test_the_branch_that_is_always_taken_is_read_as_if_it_stood_there(kind, value):
    before, constants = CONDITIONS[kind](value)
    model = build(before, constants, layer("A", "one", "Relu", "s"), layer("C", "two", "Tanh", "t"))
    network = from_model(model)
    assert network.topology == "8-6-3"
    assert [each.names.node for each in network.layers] == ["one" if value else "two", "last"]
    assert network.frame.notes == ("'which' (If) always takes the same branch: it is written as that branch alone",)
    expected = run(model, {"x": X})[0]
    for written in (to_model(network), to_model(operate(network, Widen(1, 2)).network)):
        onnx.checker.check_model(written, full_check=True)
        assert not {node.op_type for node in written.graph.node} & {"If"}
        np.testing.assert_allclose(run(written, {"x": X})[0], expected, rtol=1e-5, atol=1e-6)


def test_branches_in_branches():
    inner = helper.make_node(
        "If", ["c"], ["u"], then_branch=layer("A", "one", "Relu", "s"), else_branch=layer("C", "two", "Tanh", "t")
    )
    model = build([], {"c": np.array(True)}, branch("outer", [inner], "u"), layer("C", "three", "Abs", "v"))
    network = from_model(model)
    assert [each.names.node for each in network.layers] == ["one", "last"]
    np.testing.assert_allclose(run(to_model(network), {"x": X})[0], run(model, {"x": X})[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["the input decides", "the condition is an input with a default"])
def test_others_stay(how):
    then, otherwise = layer("A", "one", "Relu", "s"), layer("C", "two", "Tanh", "t")
    if how == "the input decides":
        mean = [helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0), helper.make_node("Less", ["m", "k"], ["c"])]
        model = build(mean, {"k": np.float32(0)}, then, otherwise)
    else:
        model = build([], {"c": np.array(True)}, then, otherwise)
        model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    network = from_model(model)
    assert network.topology == "6-3"
    assert "If" in {node.op_type for node in to_model(network).graph.node}
