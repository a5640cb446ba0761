"""What a graph would allocate is told before it runs."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError
from onnxsurgeon.data import features
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.sizes import largest_tensor

N = helper.make_node
FOUR = {"four": np.array([4]), "axis": np.array([0]), "zero": np.int64(0), "one": np.int64(1), "f": np.float32(0)}


def model(nodes, constants, shape=("batch", 4), hidden=4):
    """A prefix from i to x in front of a chain."""
    rng = np.random.default_rng(0)
    weights = {"W1": rng.random((hidden, 5), np.float32), "W2": rng.random((5, 3), np.float32)}
    nodes = [*nodes, N("MatMul", ["x", "W1"], ["a"]), N("Relu", ["a"], ["h"]), N("MatMul", ["h", "W2"], ["y"])]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in {**weights, **FOUR, **constants}.items()]
    made = helper.make_graph(
        [*nodes],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def summed(big):
    """Nodes that bring a tensor of any size back to the input's shape."""
    return [N("ReduceSum", [big], ["s"], keepdims=0), N("Add", ["i", "s"], ["x"])]


BODY = helper.make_graph(
    [N("Identity", ["c"], ["c2"]), N("Concat", ["v", "v"], ["v2"], axis=0)],
    "body",
    [
        helper.make_tensor_value_info("n", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", TensorProto.FLOAT, ["k"]),
    ],
    [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("v2", 1, ["m"])],
)
SQUARES = [N("Mul", [f"p{k}", f"p{k}"], [f"p{k + 1}"]) for k in range(2)]
GROWING = {
    "a computed shape": [N("Shape", ["i"], ["p0"]), *SQUARES, N("ConstantOfShape", ["p2"], ["b"]), *summed("b")],
    "Expand": [N("Shape", ["i"], ["p0"]), *SQUARES, N("Expand", ["f", "p2"], ["b"]), *summed("b")],
    "Tile": [N("Tile", ["i", "many"], ["b"]), *summed("b")],
    "Range": [N("Range", ["zero", "huge", "one"], ["r"]), N("Cast", ["r"], ["b"], to=1), *summed("b")],
    "Range of values": [
        N("ReduceSum", ["i"], ["e"], keepdims=0),
        N("Range", ["f", "e", "step"], ["b"]),
        *summed("b"),
    ],
    "Resize by computed scales": [
        N("Unsqueeze", ["i", "axis"], ["u"]),
        N("Exp", ["u"], ["e"]),
        N("Reshape", ["e", "minus"], ["flat"]),
        N("Slice", ["flat", "axis", "three"], ["scales"]),
        N("Resize", ["u", "", "scales"], ["b"], mode="nearest"),
        *summed("b"),
    ],
    "Resize": [
        N("Unsqueeze", ["i", "axis"], ["u"]),
        N("Resize", ["u", "", "factors"], ["b"], mode="nearest"),
        *summed("b"),
    ],
    "an outer product": [
        N("Reshape", ["i", "column"], ["c"]),
        N("Reshape", ["i", "line"], ["l"]),
        *[
            node
            for k in range(2)
            for node in (
                N("Mul", ["c" if k == 0 else f"d{k}", "l" if k == 0 else f"l{k}"], [f"m{k}"]),
                N("Reshape", [f"m{k}", "column"], [f"d{k + 1}"]),
                N("Reshape", [f"m{k}", "line"], [f"l{k + 1}"]),
            )
        ],
        N("Mul", ["d2", "l2"], ["b"]),
        *summed("b"),
    ],
    "Pad": [N("Pad", ["i", "pads"], ["b"]), *summed("b")],
    "OneHot": [N("OneHot", ["axis", "huge", "pair"], ["b"]), *summed("b")],
    "Loop": [N("Loop", ["forty", "", "vector"], ["b"], body=BODY), *summed("b")],
}
NUMBERS = {
    "many": np.array([1, 2**40]),
    "huge": np.int64(2**40),
    "step": np.float32(1e-12),
    "minus": np.array([-1]),
    "three": np.array([3]),
    "factors": np.array([1, 2**20, 2**20], np.float32),
    "column": np.array([-1, 1]),
    "line": np.array([1, -1]),
    "pads": np.array([0, 0, 0, 2**40]),
    "pair": np.array([0, 1], np.float32),
    "forty": np.int64(40),
    "vector": np.ones(4, np.float32),
}


@pytest.mark.parametrize("case", GROWING)
def test_growing_tensors_are_refused_before_they_are_made(case):
    with pytest.raises(ModelError, match=r"node .*(too large|cannot be told|run)") as caught:
        largest_tensor(model(GROWING[case], NUMBERS), {"i": (128, 4)}, name="m.onnx")
    assert "\n" not in str(caught.value)


def test_features_are_refused_before_a_session_is_made(monkeypatch):
    monkeypatch.setattr(features, "evaluator", lambda _: pytest.fail("a session was made"))
    network = from_model(model(GROWING["Tile"], NUMBERS))
    with pytest.raises(ModelError, match=r"node .*Tile"):
        compute_features(network, {"i": np.zeros((3, 4), np.float32)}, 3)


def test_shape_arithmetic_is_followed():
    nodes = [
        N("Shape", ["i"], ["s"]),
        N("Gather", ["s", "zero"], ["n"]),
        N("Unsqueeze", ["n", "axis"], ["u"]),
        N("Concat", ["u", "four"], ["to"], axis=0),
        N("ConstantOfShape", ["to"], ["z"], value=numpy_helper.from_array(np.ones(1, "f"))),
        N("Add", ["i", "z"], ["x"]),
    ]
    assert largest_tensor(model(nodes, {}), {"i": (100, 4)}) == 500  # the hidden layer's


def test_rows_are_run_in_chunks_that_fit(monkeypatch):
    nodes = [N("Shape", ["i"], ["s"]), N("Expand", ["f", "s"], ["z"]), N("Add", ["i", "z"], ["x"])]
    network = from_model(model(nodes, {}))
    rows = np.random.default_rng(0).random((300, 4)).astype(np.float32)
    seen = []
    real = features.evaluator

    def watched(made):
        run = real(made)

        def call(names, feeds):
            seen.append(len(feeds["i"]))
            return run(names, feeds)

        return call

    monkeypatch.setattr(features, "evaluator", watched)
    check = features.largest_tensor
    monkeypatch.setattr(features, "largest_tensor", lambda *a, **k: check(*a, **k, most=4 * 128))
    (made,) = compute_features(network, {"i": rows}, 300).values()
    assert seen == [75, *3 * [features.TRIED], 75, 75, 75]  # behind the first, it is tried whether rows meet
    assert np.array_equal(made.take(), rows)


def test_unknown_domains_are_no_reason_to_refuse():
    custom = [helper.make_node("Mystery", ["i"], ["x"], domain="com.example")]
    made = model(custom, {})
    made.opset_import.add(domain="com.example", version=1)
    assert largest_tensor(made, {"i": (10, 4)}) <= 100  # where it makes no more than it reads
