"""Products of rows by one constant vector, as last layers of regressions are exported: dense layers with one unit."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import load_dataset, make_engine, operate
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import Widen
from onnxsurgeon.training.fit import fit

N = helper.make_node
FC1 = [N("Gemm", ["x", "W1", "b1"], ["h0"], "fc1"), N("Relu", ["h0"], ["h"], "relu")]
STEPS = [N("MatMul", ["x", "W1"], ["h0"], "fc1"), N("Relu", ["h0"], ["h"], "relu")]
HEAD = N("MatMul", ["h", "w"], ["y"], "head")
ROWS, SERIES, VALUES = ["batch", 6], ["batch", 5, 6], ["batch"]


def values():
    rng = np.random.default_rng(0)
    drawn = {"W1": (6, 8), "b1": (8,), "w": (8,), "w6": (6,), "v": (5,), "W2": (8, 3)}
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in drawn.items()}
    found |= {"c": np.float32(0.3), "c1": np.array([0.3], np.float32), "two": np.float32(2)}
    found |= {"last": np.array([-1]), "one": np.array([1]), "column": np.array([-1, 1]), "row": found["w"][None]}
    return found | {"atoms": np.linspace(-10, 10, 8, dtype=np.float32), "ones": np.ones(8, np.float32)}


def model(nodes, x=ROWS, y=VALUES, opset=17, domains=(), kind=np.float32):
    used = {name for node in nodes for name in node.input}
    proto = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes],
        "by vector",
        [helper.make_tensor_value_info("x", proto, x)],
        [helper.make_tensor_value_info("y", proto, y)],
        [
            numpy_helper.from_array(np.asarray(v).astype(kind if np.asarray(v).dtype == np.float32 else np.int64), name)
            for name, v in values().items()
            if name in used
        ],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def rows(given, count=4):
    shape = [size if isinstance(size, int) else count for size in given]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


# For each form: the model's nodes, the layers that it has, whether the last one has a bias, its input and its output.
FORMS = {
    "alone": ([*FC1, HEAD], "6-8-1", False),
    "bias of no axis": ([*FC1, N("MatMul", ["h", "w"], ["p"], "head"), N("Add", ["p", "c"], ["y"])], "6-8-1", True),
    "bias of one axis, in front": (
        [*FC1, N("MatMul", ["h", "w"], ["p"], "head"), N("Sub", ["c1", "p"], ["y"])],
        "6-8-1",
        True,
    ),
    "factor and bias": (
        [
            *FC1,
            N("MatMul", ["h", "w"], ["p"], "head"),
            N("Mul", ["p", "two"], ["q"]),
            N("Add", ["q", "c"], ["y"]),
        ],
        "6-8-1",
        True,
    ),
    "regression": ([N("MatMul", ["x", "w6"], ["p"], "head"), N("Add", ["p", "c"], ["y"])], "6-1", True),
    "computed vector": (
        [*FC1, N("Mul", ["w", "two"], ["w2"]), N("MatMul", ["h", "w2"], ["y"], "head")],
        "6-8-1",
        False,
    ),
    "no names": (
        [N("Gemm", ["x", "W1", "b1"], ["h0"]), N("Relu", ["h0"], ["h"]), N("MatMul", ["h", "w"], ["y"])],
        "6-8-1",
        False,
    ),
    "at the left": ([*FC1, N("Transpose", ["h"], ["t"]), N("MatMul", ["w", "t"], ["y"], "head")], "6-8-1", False),
    "Einsum": ([*FC1, N("Einsum", ["h", "w"], ["y"], "head", equation="ij,j->i")], "6-8-1", False),
    "Einsum with dots, the vector first": (
        [*FC1, N("Einsum", ["w", "h"], ["y"], "head", equation="j, ...j")],
        "6-8-1",
        False,
    ),
    "sum of products": (
        [*FC1, N("Mul", ["h", "w"], ["p"]), N("ReduceSum", ["p", "last"], ["y"], "head", keepdims=0)],
        "6-8-1",
        False,
    ),
    "sum of products with a row": (
        [*FC1, N("Mul", ["row", "h"], ["p"]), N("ReduceSum", ["p", "one"], ["y"], "head", keepdims=0)],
        "6-8-1",
        False,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_product_by_a_vector_is_a_layer_with_one_unit(form):
    nodes, topology, has_bias = FORMS[form]
    given = model(nodes)
    network = from_model(given)
    assert network.topology == topology
    last = network.segments[-1].layers[-1]
    assert (last.bias is not None) is has_bias
    assert last.names.node == (nodes[-1].output[0] if form == "no names" else "head")
    assert not network.frame.notes
    written = to_model(network)
    assert [v.SerializeToString() for v in written.graph.output] == [v.SerializeToString() for v in given.graph.output]
    feed = {"x": rows(ROWS)}
    np.testing.assert_allclose(run(written, feed)[0], run(given, feed)[0], rtol=1e-5, atol=1e-6)
    if topology == "6-8-1":
        wider, _ = operate(network, Widen(1, 3), require_exact=True)
        np.testing.assert_allclose(run(to_model(wider), feed)[0], run(given, feed)[0], rtol=1e-5, atol=1e-6)
        again = from_model(to_model(wider))
        assert again.topology == wider.topology == "6-11-1"


@pytest.mark.parametrize(
    ("nodes", "x", "y", "topology"),
    [
        ([*STEPS, HEAD], SERIES, ["batch", 5], "6-8-1"),
        # Learned weights of steps, at the left: the product runs over the last axis but one.
        (
            [*STEPS, N("MatMul", ["v", "h"], ["p"], "pool"), N("MatMul", ["p", "W2"], ["y"])],
            SERIES,
            ["batch", 3],
            "6-8+5-1+8-3",
        ),
        ([*STEPS, HEAD], [6], [], "6-8-1"),
        ([*STEPS, HEAD], [5, 6], [5], "6-8-1"),
    ],
    ids=["each step", "over the steps", "one row", "steps of one row"],
)
def test_rows_of_any_rank_are_multiplied(nodes, x, y, topology):
    given = model(nodes, x, y)
    network = from_model(given)
    assert network.topology == topology
    feed = {"x": rows(x)}
    np.testing.assert_allclose(run(to_model(network), feed)[0], run(given, feed)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 21])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_old_and_new_opsets_and_doubles(opset, kind):
    given = model([*FC1, HEAD], opset=opset, kind=kind)
    network = from_model(given)
    assert network.topology == "6-8-1"
    feed = {"x": rows(ROWS).astype(kind)}
    np.testing.assert_allclose(run(to_model(network), feed)[0], run(given, feed)[0], rtol=1e-5, atol=1e-6)


def test_a_sigmoid_behind_such_a_layer_makes_it_a_classifier():
    nodes = [*FC1, N("MatMul", ["h", "w"], ["p"], "head"), N("Add", ["p", "c"], ["q"]), N("Sigmoid", ["q"], ["y"])]
    (head,) = from_model(model(nodes)).heads
    assert (head.width, head.squash) == (1, "Sigmoid")


def test_a_vector_that_is_read_elsewhere_too_stays_for_that_reader():
    nodes = [*FC1, N("MatMul", ["h", "w"], ["p"], "head"), N("Mul", ["h", "w"], ["q"]), N("Mul", ["q", "two"], ["y"])]
    given = model(nodes, y=["batch", 8])
    given.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, VALUES))
    network = from_model(given)
    assert network.topology == "6-8+8-1"
    feed = {"x": rows(ROWS)}
    for before, after in zip(run(given, feed), run(to_model(network), feed), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("vector", ["atoms", "ones"])
def test_sums_and_expected_values_are_no_layers_and_told(vector):
    network = from_model(model([*FC1, N("Softmax", ["h"], ["s"]), N("MatMul", ["s", vector], ["y"], "value")]))
    assert network.topology == "6-8"
    assert any(
        note.startswith("'value' stays as it is: its weight is a vector of evenly spaced values")
        for note in network.frame.notes
    )


def test_a_vector_times_rows_that_no_transpose_turned_is_no_layer():
    """The product of a vector and (8 rows, units) adds up rows of the batch."""
    nodes = [N("Gemm", ["x", "W1", "b1"], ["h"], "fc1"), N("MatMul", ["w", "h"], ["y"], "over rows")]
    network = from_model(model(nodes, x=[8, 6], y=[8]))
    assert network.topology == "6-8"
    assert any("'over rows'" in note for note in network.frame.notes)


def test_nothing_but_an_even_vector_is_refused_with_that_reason():
    with pytest.raises(ModelError, match="its weight is a vector of evenly spaced values"):
        from_model(model([N("MatMul", ["x", "ones"], ["y"], "sum")], x=["batch", 8]))


@pytest.mark.parametrize("form", ["alone", "factor and bias", "at the left", "sum of products"])
def test_vector_and_bias_are_trained(form, tmp_path):
    """Training takes weights that were moved back to where the rows come from."""
    given = model(FORMS[form][0])
    network = from_model(given)
    x = np.random.default_rng(2).normal(size=(400, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=run(given, {"x": x})[0])
    data, engine = load_dataset(str(tmp_path / "data.npz")), make_engine("loop")
    assert engine.evaluate(network, prepare(network, data, data.test)).accuracy == pytest.approx(1, abs=1e-5)
    moved = network.with_parameters(
        values if name in ("W1", "b1") else values + np.float32(0.5) for name, values in network.parameters()
    )
    before = engine.evaluate(moved, prepare(moved, data, data.train)).loss
    trained, _ = fit(moved, data, engine, epochs=20)
    assert engine.evaluate(trained.network, prepare(moved, data, data.train)).loss < before / 20
    for (_, start), (_, end) in zip(moved.parameters(), trained.network.parameters(), strict=True):
        assert (start != end).all()
