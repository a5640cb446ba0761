"""Inputs and outputs as a file declares them: what ONNX Runtime reads, onnxsurgeon reads alike and writes back."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxsurgeon import ModelError, create, diff, from_model, load, load_dataset, make_engine, operate, prepare, save
from onnxsurgeon.graph.files import check_model, check_parts, read_parts
from onnxsurgeon.runtime import run, session
from onnxsurgeon.surgery import Widen
from onnxsurgeon.training.fit import fit

X = np.random.default_rng(0).standard_normal((7, 10)).astype("f")


def perceptron():
    """10-16-3 without names for its axes."""
    return create((10, 16, 3), seed=1).to_model()


def value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def sizes(model):
    """Every size that the model declares, its bodies included."""
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute if a.HasField("g"))]
    values = [v for graph in graphs for v in (*graph.input, *graph.output, *graph.value_info)]
    return [dim.dim_value for v in values for dim in v.type.tensor_type.shape.dim if dim.HasField("dim_value")]


def in_order(model, feeds):
    """All outputs, repeated ones as often as they are listed."""
    return session(model).run(None, feeds)


@pytest.mark.parametrize(
    ("given", "inside"),
    [((-1, 10), ()), ((-1, -1), ()), ((-7, 10), (-3, 16)), ((-(2**63), 10), (-1, -1)), (("n", 10), (-1, 16))],
)
def test_a_negative_size_is_one_that_is_not_known(given, inside, tmp_path):
    model = perceptron()
    expected = run(model, {"input": X})[0]
    model.graph.input[0].CopyFrom(value("input", given))
    model.graph.output[0].CopyFrom(value("probabilities", (given[0], -1)))
    if inside:
        model.graph.value_info.append(value("layer1/output", inside))
    assert any(size < 0 for size in sizes(model))
    np.testing.assert_array_equal(run(model, {"input": X})[0], expected)  # ONNX Runtime takes no notice
    before = model.SerializeToString()
    check_model(model, "m")
    network = from_model(model)
    assert model.SerializeToString() == before
    onnx.save(model, tmp_path / "m.onnx")
    check_parts(read_parts(tmp_path / "m.onnx"), "m")
    assert load(tmp_path / "m.onnx").topology == network.topology == "10-16-3"
    save(operate(network, Widen(1, 4)).network, tmp_path / "wide.onnx")
    wide = onnx.load(tmp_path / "wide.onnx")
    assert min(sizes(wide), default=0) >= 0
    onnx.checker.check_model(wide, full_check=True)
    for rows in (1, 7):
        np.testing.assert_allclose(run(wide, {"input": X[:rows]})[0], expected[:rows], rtol=1e-5)


def test_negative_sizes_inside_a_body():
    """An If behind the network, whose branches declare −1."""
    model = perceptron()
    model.graph.output[0].name = "chosen"
    bodies = [
        helper.make_graph([helper.make_node(op, ["probabilities"], [op])], op, [], [value(op, (-1, 3))])
        for op in ("Exp", "Neg")
    ]
    sum_of = helper.make_node("ReduceSum", ["probabilities"], ["sum"], keepdims=0)
    is_any = helper.make_node("Cast", ["sum"], ["any"], to=TensorProto.BOOL)
    branch = helper.make_node("If", ["any"], ["chosen"], then_branch=bodies[0], else_branch=bodies[1], name="if")
    model.graph.node.extend([sum_of, is_any, branch])
    assert min(sizes(model)) == -1
    network = from_model(model)
    assert min(sizes(network.to_model())) >= 0
    np.testing.assert_allclose(
        run(operate(network, Widen(1, 4)).network.to_model(), {"input": X})[0], run(model, {"input": X})[0], rtol=1e-5
    )


def with_repeated_outputs(*names):
    """10-16-3, whose outputs are these, in this order."""
    model = perceptron()
    del model.graph.output[:]
    for name in names:
        model.graph.output.append(value(name, ("batch", 16 if name == "layer1/output" else 3)))
    return model


@pytest.mark.parametrize(
    ("names", "topology"),
    [
        (("probabilities", "probabilities"), "10-16-3"),
        (("probabilities", "layer1/output", "probabilities"), "10-16+16-3"),
        (("logits", "probabilities", "logits", "logits"), "10-16-3"),
    ],
)
def test_a_tensor_may_be_listed_among_the_outputs_more_than_once(names, topology, tmp_path):
    model = with_repeated_outputs(*names)
    expected = in_order(model, {"input": X})
    onnx.save(model, tmp_path / "m.onnx")
    network = load(tmp_path / "m.onnx")
    assert network.topology == topology
    save(network, tmp_path / "again.onnx")
    again = onnx.load(tmp_path / "again.onnx")
    assert tuple(v.name for v in again.graph.output) == names
    for a, b in zip(in_order(again, {"input": X}), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    if network.hidden_count:
        save(operate(network, Widen(1, 4)).network, tmp_path / "wide.onnx")
        for a, b in zip(in_order(onnx.load(tmp_path / "wide.onnx"), {"input": X}), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        compared = [each.name for each in diff(tmp_path / "m.onnx", tmp_path / "wide.onnx").random.outputs]
        assert compared == list(dict.fromkeys(names))


def test_repeated_outputs_are_evaluated_and_trained(tmp_path):
    model = with_repeated_outputs("probabilities", "layer1/output", "probabilities")
    onnx.save(model, tmp_path / "m.onnx")
    rows = np.random.default_rng(0).standard_normal((200, 10)).astype("f")
    labels = run(model, {"input": rows})[0].argmax(axis=1)
    np.savez(tmp_path / "rows.npz", x=rows, y=labels)
    network, data = load(tmp_path / "m.onnx"), load_dataset(str(tmp_path / "rows.npz"))
    engine = make_engine("loop")
    assert engine.evaluate(network, prepare(network, data, data.test)).accuracy == 1.0
    trained, _ = fit(network, data, engine, epochs=1)
    names = [v.name for v in trained.network.to_model().graph.output]
    assert names == ["probabilities", "layer1/output", "probabilities"]


def test_a_body_may_not_repeat_an_output():
    """ONNX Runtime has no value for the second: it is refused, as before."""
    model = perceptron()
    body = helper.make_graph(
        [helper.make_node("Exp", ["probabilities"], ["e"])], "b", [], [value("e", ("n", 3)), value("e", ("n", 3))]
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    model.graph.node.append(
        helper.make_node("If", ["c"], ["one", "two"], then_branch=body, else_branch=body, name="if")
    )
    with pytest.raises(ModelError, match="two outputs are called 'e'"):
        check_model(model, "m")
