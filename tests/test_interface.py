"""Inputs and outputs as a file declares them: what ONNX Runtime reads, onnxsurgeon reads alike and writes back."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError, create, diff, from_model, load, load_dataset, make_engine, operate, prepare, save
from onnxsurgeon.cli import main
from onnxsurgeon.graph.files import check_model, check_parts, read_parts
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run, session
from onnxsurgeon.surgery import Widen
from onnxsurgeon.training.fit import fit
from tests.conftest import MODELS

X = np.random.default_rng(0).standard_normal((7, 10)).astype("f")


def perceptron():
    """10-16-3 without names for its axes."""
    return to_model(create((10, 16, 3), seed=1))


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
    assert min(sizes(to_model(network))) >= 0
    np.testing.assert_allclose(
        run(to_model(operate(network, Widen(1, 4)).network), {"input": X})[0], run(model, {"input": X})[0], rtol=1e-5
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
    names = [v.name for v in to_model(trained.network).graph.output]
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


def without_node_names(model):
    """The model with no node named, in bodies and local functions neither."""
    todo = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while todo:
        node = todo.pop()
        node.name = ""
        for attribute in node.attribute:
            todo.extend(inner for graph in (attribute.g, *attribute.graphs) for inner in graph.node)
    return model


def two_heads():
    """10-16-8 with two heads; the mean is an output and is scaled for a third."""
    rng = np.random.default_rng(0)
    weights = {"w0": (10, 16), "b0": (16,), "w1": (16, 8), "w2": (8, 3), "w3": (8, 1), "scale": (3,)}
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]),
        helper.make_node("Elu", ["h"], ["e"]),
        helper.make_node("MatMul", ["e", "w1"], ["t"]),
        helper.make_node("Tanh", ["t"], ["trunk"]),
        helper.make_node("MatMul", ["trunk", "w2"], ["mu"]),
        helper.make_node("Mul", ["mu", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["trunk", "w3"], ["value"]),
    ]
    outputs = [value("mu", ("n", 3)), value("scaled", ("n", 3)), value("value", ("n", 1))]
    held = [numpy_helper.from_array(rng.standard_normal(s).astype("f"), name) for name, s in weights.items()]
    graph = helper.make_graph(nodes, "heads", [value("x", ("n", 10))], outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def named_in_file(network):
    return [layer.names.node for segment in network.segments for layer, _ in segment.layers_in_file]


def test_a_node_without_a_name_is_called_after_the_tensor_it_writes(tmp_path):
    network = from_model(two_heads())
    assert [layer.names.node for layer in network.layers] == ["h", "t", "mu+value"]
    assert named_in_file(network) == ["h", "t", "mu", "value"]
    assert network.frame.notes == ("the width of 'mu' stays: tensor 'mu' is also an output of the model",)
    save(network, tmp_path / "named.onnx")
    again = load(tmp_path / "named.onnx")
    assert [layer.names for layer in again.layers] == [layer.names for layer in network.layers]
    before, after = (run(model, {"x": X}) for model in (two_heads(), onnx.load(tmp_path / "named.onnx")))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_name_that_another_node_bears_is_not_taken():
    model = two_heads()
    model.graph.node[1].name, model.graph.node[3].name = "h", "mu"
    assert named_in_file(from_model(model)) == ["h_", "t", "mu_", "value"]


def test_an_unnamed_node_of_several_is_called_after_a_tensor_of_the_file():
    """Gemm and Relu fused by ONNX Runtime have no tensor between them."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((10, 4)).astype("f"), "w")
    last = numpy_helper.from_array(rng.standard_normal((4, 3)).astype("f"), "w2")
    bias = numpy_helper.from_array(np.ones(4, "f"), "b")
    nodes = [
        helper.make_node("FusedGemm", ["x", "w", "b"], ["fused"], domain="com.microsoft", activation="Relu"),
        helper.make_node("MatMul", ["fused", "w2"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [value("x", ("n", 10))], [value("y", ("n", 3))], [weight, bias, last])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    network = from_model(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert [layer.names.node for layer in network.layers] == ["fused", "y"]
    assert [layer.names.node for layer in from_model(to_model(network)).layers] == ["fused", "y"]


@pytest.mark.parametrize("path", sorted(MODELS.rglob("*.onnx")), ids=lambda path: path.stem)
def test_no_note_or_refusal_speaks_of_a_node_without_a_name(path):
    model = without_node_names(onnx.load(path))
    known = {name for node in model.graph.node for name in (*node.input, *node.output)}
    try:
        network = from_model(model)
        said, called = network.frame.notes, [layer.names.node for layer in network.layers]
    except ModelError as error:
        said, called = (str(error),), []
    assert not any("''" in sentence for sentence in said)
    if not model.functions:  # which are written out under names of their own
        assert {name.rstrip("_") for name in called} <= known


def traced(nodes, inputs, outputs, weights):
    """A model of these nodes with weights drawn at random, by name and shape."""
    rng = np.random.default_rng(0)
    held = [numpy_helper.from_array(rng.standard_normal(s).astype("f"), name) for name, s in weights.items()]
    made = [helper.make_node(op, list(given), [y], name=f"make_{y}") for op, *given, y in nodes]
    graph = helper.make_graph(made, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


WEIGHTS = {"w0": (10, 16), "w1": (16, 3)}
HIDDEN = [("MatMul", "x", "w0", "h"), ("Relu", "h", "r"), ("MatMul", "r", "w1", "y")]


BEHIND = [("MatMul", "v", "w0", "h"), *HIDDEN[1:]]
BAKED = [("MatMul", "c", "w0", "h"), ("Softmax", "h", "r"), HIDDEN[2], ("Identity", "x", "unused")]
SHAPED = [("Shape", "u", "shape"), ("ConstantOfShape", "shape", "zeros"), ("Add", "x", "zeros", "v"), *BEHIND]
INDEXED = [("ArgMax", "u", "i"), ("Gather", "table", "i", "picked"), ("Add", "x", "picked", "v"), *BEHIND]


@pytest.mark.parametrize(
    ("nodes", "idle"),
    [(HIDDEN, "u"), (BAKED, "xu"), (SHAPED, "u"), (INDEXED, ""), ([("Add", "x", "u", "v"), *BEHIND], "")],
    ids=["left over", "baked in", "its shape alone", "an index", "both read"],
)
def test_an_input_that_the_output_does_not_depend_on_is_noted(nodes, idle):
    inputs = [value("x", (5, 10)), value("u", (5, 10))]
    read = {name for _, *given, _ in nodes for name in given}
    weights = {name: shape for name, shape in {**WEIGHTS, "c": (5, 10), "table": (5,)}.items() if name in read}
    model = traced(nodes, inputs, [value("y", (5, 3))], weights)
    found = [note for note in from_model(model).frame.notes if "depend" in note]
    assert found == [f"the output does not depend on input '{name}'" for name in idle]
    feeds = {"x": X[:5], "u": X[2:7]}
    before = run(model, feeds)[0]
    for name in feeds:
        after = run(model, {**feeds, name: -feeds[name]})[0]
        assert np.array_equal(before, after) == (name in idle)


def test_an_output_that_depends_on_no_input_is_noted():
    nodes = [*HIDDEN, ("Exp", "log_std", "std")]
    outputs = [value("y", ("n", 3)), value("std", (3,))]
    model = traced(nodes, [value("x", ("n", 10))], outputs, {**WEIGHTS, "log_std": (3,)})
    assert from_model(model).frame.notes == ("output 'std' depends on no input",)
    model.graph.input.append(value("unused", ("n", 2)))
    assert from_model(model).frame.notes == (
        "no output depends on input 'unused'",
        "output 'std' depends on no input",
    )


def test_inspect_tells_what_is_left_alone(tmp_path, capsys, monkeypatch):
    model = traced(HIDDEN, [value("x", ("n", 10)), value("u", ("n", 2))], [value("y", ("n", 3))], WEIGHTS)
    onnx.save(model, tmp_path / "m.onnx")
    monkeypatch.setattr("sys.argv", ["onnxsurgeon", "inspect", str(tmp_path / "m.onnx")])
    with pytest.raises(SystemExit):
        main()
    assert "note: the output does not depend on input 'u'" in capsys.readouterr().out
