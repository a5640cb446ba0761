"""Weights held as integers: folded behind DequantizeLinear; quantized activations are refused with the reason.

Weights held as smaller floats, each behind a Cast, are written so again.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import InsertIdentity, ModelError, from_model, load, operate, save
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgeon.file_size import bytes_as_written, bytes_of_parameters
from onnxsurgeon.surgery import Widen

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 8)).astype("f")
INTEGERS = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-3000, 3000),
    TensorProto.UINT16: (0, 6000),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT32: (-3000, 3000),
}
named = TensorProto.DataType.Name


def held(name, kind, values):
    return helper.make_tensor(name, kind, np.shape(values), np.ravel(values))


def model(nodes, initializers, opset=21):
    rest = {"b1": RNG.standard_normal(16), "w2": RNG.standard_normal((16, 3)), "b2": RNG.standard_normal(3)}
    used = {name for node in nodes for name in node.input}
    floats = [numpy_helper.from_array(v.astype("f"), k) for k, v in rest.items() if k in used]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 8), ("y", 3)))
    graph = helper.make_graph(nodes, "g", [x], [y], [*initializers, *floats])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(made)
    return made


BEHIND = [helper.make_node("Relu", ["g"], ["r"]), helper.make_node("Gemm", ["r", "w2", "b2"], ["y"])]


def weight_only(kind=TensorProto.INT8, scales=(), zeros=True, shape=(8, 16), gemm=None, domain="", **attributes):
    """8-16-3, its first weight of integers; scales of such a shape, and zero points of that shape or none."""
    low, high = INTEGERS[kind]
    tensors = [
        held("q1", kind, RNG.integers(low, high + 1, shape)),
        held("s", TensorProto.FLOAT, RNG.uniform(0.5, 2, scales).astype("f") / (high - low)),
    ]
    if zeros:
        tensors.append(held("z", kind, RNG.integers(max(low, -8), min(high, 8), scales)))
    given = ["q1", "s", "z"][: 2 + zeros]
    first = helper.make_node("DequantizeLinear", given, ["w1"], name="dq", domain=domain, **attributes)
    dense = helper.make_node("Gemm", ["x", "w1", "b1"], ["g"], **(gemm or {}))
    return model([first, dense, *BEHIND], tensors)


FORMS = {
    **{named(kind): {"kind": kind} for kind in INTEGERS if kind != TensorProto.INT32},
    "int32, as biases are": {"kind": TensorProto.INT32, "zeros": False},
    "no zero point": {"zeros": False},
    "a scale a unit": {"scales": (16,), "axis": 1},
    "a scale a unit, axis -1": {"scales": (16,), "axis": -1, "kind": TensorProto.UINT8},
    "a scale an input": {"scales": (8,), "axis": 0},
    "a scale a unit of a transposed weight": {
        "scales": (16,),
        "axis": 0,
        "shape": (16, 8),
        "gemm": {"transB": 1, "alpha": 0.5},
    },
    "blocks": {"scales": (2, 16), "axis": 0, "block_size": 4},
    "blocks of 4 bits": {"scales": (8, 4), "axis": 1, "block_size": 4, "kind": TensorProto.INT4},
    "com.microsoft": {"domain": "com.microsoft", "kind": TensorProto.INT16},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_weight_of_integers_is_folded(form, tmp_path):
    given = weight_only(**FORMS[form])
    expected = run(given, {"x": X})[0]
    onnx.save(given, tmp_path / "q.onnx")
    network = load(tmp_path / "q.onnx")
    assert network.topology == "8-16-3"
    assert network.frame.notes == (
        "the weights of 'g' are held as integers: they are worked on and written as float32",
    )
    save(operate(network, Widen(1, 4)).network, tmp_path / "wide.onnx")
    for written in (to_model(network), onnx.load(tmp_path / "wide.onnx")):
        assert [node.op_type for node in written.graph.node] == ["Gemm", "Relu", "Gemm"]
        assert all(tensor.data_type == TensorProto.FLOAT for tensor in written.graph.initializer)
        np.testing.assert_allclose(run(written, {"x": X})[0], expected, rtol=1e-5, atol=1e-5)


def test_the_folded_weight_is_onnx_runtimes_own_to_the_bit():
    for form in FORMS.values():
        given = weight_only(**form)
        shown = onnx.ModelProto()
        shown.CopyFrom(given)
        shown.graph.output.append(onnx.ValueInfoProto(name="w1"))
        told = run(shown, {"x": X})[1]
        gemm = form.get("gemm", {})
        told = told.T * np.float32(gemm["alpha"]) if gemm else told
        np.testing.assert_array_equal(from_model(given).layers[0].weight, told)


def test_biases_too_and_what_stands_between():
    """Every tensor of the layer is dequantized, and the weight is transposed behind that."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q1", "s", "z"], ["d"]),
        helper.make_node("Transpose", ["d"], ["w1"], perm=[1, 0]),
        helper.make_node("DequantizeLinear", ["qb", "sb"], ["bias"]),
        helper.make_node("MatMul", ["x", "w1"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["g"]),
        *BEHIND,
    ]
    tensors = [
        held("q1", TensorProto.INT8, RNG.integers(-128, 128, (16, 8))),
        held("s", TensorProto.FLOAT, np.float32([0.02])),
        held("z", TensorProto.INT8, [3]),
        held("qb", TensorProto.INT32, RNG.integers(-2000, 2000, 16)),
        held("sb", TensorProto.FLOAT, np.float32([0.001])),
    ]
    given = model(nodes, tensors, opset=13)
    network = from_model(given)
    assert network.topology == "8-16-3"
    np.testing.assert_allclose(run(to_model(network), {"x": X})[0], run(given, {"x": X})[0], rtol=1e-5, atol=1e-5)


def test_a_weight_that_is_rounded_on_its_way_is_the_rounded_one():
    """Quantize and dequantize of a constant, as quantisation-aware training exports it."""
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w1"], axis=1),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]),
        *BEHIND,
    ]
    tensors = [
        numpy_helper.from_array(RNG.standard_normal((8, 16)).astype("f"), "w"),
        numpy_helper.from_array(RNG.uniform(0.005, 0.02, 16).astype("f"), "s"),
        held("z", TensorProto.INT8, RNG.integers(-3, 4, 16)),
    ]
    given = model(nodes, tensors, opset=13)
    np.testing.assert_allclose(
        run(to_model(from_model(given)), {"x": X})[0], run(given, {"x": X})[0], rtol=1e-5, atol=1e-5
    )


def test_a_dequantized_weight_that_another_node_reads_stays_for_that():
    """The layer gets its own copy under another name: the old one is written by the node that stays."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q1", "s", "z"], ["w1"]),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]),
        helper.make_node("ReduceSum", ["w1"], ["total"], keepdims=0),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["plain"]),
        helper.make_node("Add", ["plain", "total"], ["y"]),
    ]
    tensors = [
        held("q1", TensorProto.INT8, RNG.integers(-128, 128, (8, 16))),
        held("s", TensorProto.FLOAT, np.float32([0.02])),
        held("z", TensorProto.INT8, [3]),
    ]
    given = model(nodes, tensors, opset=13)
    network = from_model(given)
    written = to_model(operate(network, Widen(1, 2)).network)
    np.testing.assert_allclose(run(written, {"x": X})[0], run(given, {"x": X})[0], rtol=1e-5, atol=1e-4)


def test_a_large_weight_kept_apart_is_folded(tmp_path):
    tensors = [
        held("q1", TensorProto.INT8, RNG.integers(-128, 128, (8, 1600))),
        held("s", TensorProto.FLOAT, np.float32([0.02])),
        numpy_helper.from_array(RNG.standard_normal((1600, 3)).astype("f"), "w3"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q1", "s"], ["w1"]),
        helper.make_node("MatMul", ["x", "w1"], ["g"]),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("MatMul", ["r", "w3"], ["y"]),
    ]
    given = model(nodes, tensors, opset=13)
    onnx.save(given, tmp_path / "q.onnx", save_as_external_data=True, location="q.data", size_threshold=0)
    network = load(tmp_path / "q.onnx")
    assert network.topology == "8-1600-3"
    save(network, tmp_path / "f.onnx")
    again = run(to_model(load(tmp_path / "f.onnx")), {"x": X})[0]
    np.testing.assert_allclose(again, run(onnx.load(tmp_path / "q.onnx"), {"x": X})[0], rtol=1e-4, atol=1e-3)


def test_quantized_activations_are_refused_with_the_reason():
    nodes = [
        helper.make_node("DequantizeLinear", ["q1", "s", "z"], ["w1"]),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]),
        helper.make_node("QuantizeLinear", ["g", "s", "z"], ["gq"], name="round"),
        helper.make_node("DequantizeLinear", ["gq", "s", "z"], ["gd"]),
        helper.make_node("Relu", ["gd"], ["r"]),
        BEHIND[1],
    ]
    tensors = [
        held("q1", TensorProto.INT8, RNG.integers(-128, 128, (8, 16))),
        held("s", TensorProto.FLOAT, np.float32([0.02])),
        held("z", TensorProto.INT8, [3]),
    ]
    reason = r"node 'round' \(QuantizeLinear\): the model is quantized, its activations too"
    with pytest.raises(ModelError, match=reason):
        from_model(model(nodes, tensors, opset=13))


def test_an_input_that_comes_as_integers_is_no_quantized_activation():
    given = weight_only()
    given.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    given.graph.initializer.extend([held("sx", TensorProto.FLOAT, [0.01]), held("zx", TensorProto.UINT8, [128])])
    nodes = list(given.graph.node)
    nodes[1].input[0] = "xf"
    del given.graph.node[:]
    given.graph.node.extend([nodes[0], helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["xf"]), *nodes[1:]])
    network = from_model(given)
    assert (network.topology, [node.op_type for node in network.frame.prefix_nodes]) == ("8-16-3", ["DequantizeLinear"])


def test_packed_weights_are_refused_for_what_they_are():
    packed = helper.make_node(
        "MatMulNBits", ["x", "B", "s"], ["g"], name="packed", domain="com.microsoft", K=8, N=16, bits=4, block_size=16
    )
    tensors = [held("B", TensorProto.UINT8, RNG.integers(0, 256, (16, 1, 8))), held("s", 1, np.ones((16, 1), "f"))]
    with pytest.raises(ModelError, match=r"node 'packed' \(MatMulNBits\): .* its weights are packed"):
        from_model(model([packed, *BEHIND], tensors))


def made_of(form):
    """8-16-3: what the first weight is made of without DequantizeLinear, the nodes, and what is said of it."""
    w = RNG.standard_normal((8, 16)).astype("f")
    q = np.round(w * 30).astype(np.int8)
    scale = held("s", TensorProto.FLOAT, np.full(16, 1 / 30, "f"))
    cast = helper.make_node("Cast", ["q1"], ["c"], to=TensorProto.FLOAT)
    scaled = helper.make_node("Mul", ["c", "s"], ["w1"])
    if form == "scaled":
        return [held("q1", TensorProto.INT8, q), scale], [cast, scaled]
    if form == "shifted and scaled":
        shift = helper.make_node("Sub", ["c", "z"], ["d"])
        tensors = [held("q1", TensorProto.UINT8, q.astype(int) + 128), scale, held("z", TensorProto.FLOAT, [128.0])]
        return tensors, [cast, shift, helper.make_node("Mul", ["d", "s"], ["w1"])]
    if form == "a Constant":
        value = held("v", TensorProto.INT8, q)
        return [scale], [helper.make_node("Constant", [], ["q1"], value=value), cast, scaled]
    places = RNG.integers(0, 16, (8, 16))
    tensors = [held("book", TensorProto.FLOAT, np.linspace(-1, 1, 16)), held("q1", TensorProto.INT64, places)]
    return tensors, [helper.make_node("Gather", ["book", "q1"], ["w1"], axis=0)]


@pytest.mark.parametrize("form", ["scaled", "shifted and scaled", "a Constant", "a code book"])
def test_integers_without_dequantize_linear_are_told_too(form):
    tensors, nodes = made_of(form)
    given = model([*nodes, helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]), *BEHIND], tensors)
    network = from_model(given)
    assert network.topology == "8-16-3"
    assert network.frame.notes == (
        "the weights of 'g' are held as integers: they are worked on and written as float32",
    )
    written = to_model(operate(network, Widen(1, 3)).network)
    np.testing.assert_allclose(run(written, {"x": X})[0], run(given, {"x": X})[0], rtol=1e-4, atol=1e-5)


def test_heads_side_by_side_are_told_too():
    tensors = [
        held("q2", TensorProto.INT8, RNG.integers(-99, 99, (16, 3))),
        held("s2", TensorProto.FLOAT, [0.01]),
        held("w1", TensorProto.FLOAT, RNG.standard_normal((8, 16))),
        held("w3", TensorProto.FLOAT, RNG.standard_normal((16, 1))),
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("DequantizeLinear", ["q2", "s2"], ["m"]),
        helper.make_node("MatMul", ["r", "m"], ["y"]),
        helper.make_node("MatMul", ["r", "w3"], ["v"]),
    ]
    given = model(nodes, tensors)
    given.graph.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 1]))
    network = from_model(given)
    assert network.topology == "8-16-4"
    assert network.frame.notes == (
        "the weights of 'y' are held as integers: they are worked on and written as float32",
    )


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_floats_of_another_type_are_told(kind):
    name = {TensorProto.DOUBLE: "float64"}.get(kind, named(kind).lower())
    tensors = [held("w0", kind, RNG.standard_normal((8, 16)))]
    nodes = [helper.make_node("Cast", ["w0"], ["w1"], to=TensorProto.FLOAT)]
    network = from_model(model([*nodes, helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]), *BEHIND], tensors))
    assert network.topology == "8-16-3"
    how = "and written as float32" if kind == TensorProto.DOUBLE else f"in float32, and written as {name} again"
    assert network.frame.notes == (f"the weights of 'g' are held as {name}: they are worked on {how}",)


def test_no_word_of_weights_that_are_floats():
    tensors, nodes = [held("w0", TensorProto.FLOAT, RNG.standard_normal((16, 8)))], []
    nodes.append(helper.make_node("Transpose", ["w0"], ["w1"], perm=[1, 0]))
    network = from_model(model([*nodes, helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]), *BEHIND], tensors))
    assert (network.topology, network.frame.notes) == ("8-16-3", ())


def in_halves(kind, halved=("w1", "v2")):
    """8-16-3 whose weights lie in a smaller type, each behind a Cast; biases are float32, and no halves."""
    weights = {"w1": RNG.standard_normal((8, 16)), "v2": RNG.standard_normal((16, 3))}
    tensors, nodes = [], []
    for name, values in weights.items():
        if name in halved:
            tensors.append(held(f"{name}_small", kind, values))
            nodes.append(helper.make_node("Cast", [f"{name}_small"], [name], to=TensorProto.FLOAT))
        else:
            tensors.append(held(name, TensorProto.FLOAT, values))
    layers = [helper.make_node("Gemm", ["x", "w1", "b1"], ["g"]), helper.make_node("Relu", ["g"], ["r"])]
    return model([*nodes, *layers, helper.make_node("Gemm", ["r", "v2", "b2"], ["y"])], tensors)


def evaluated(given):
    return run(given, {"x": X})[0]


def kinds_of(written):
    """The types of all weights in the file."""
    return [tensor.data_type for tensor in written.graph.initializer if len(tensor.dims) > 1]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_weights_are_held_in_the_smaller_type_again(kind, tmp_path):
    given = in_halves(kind)
    network = from_model(given)
    again = to_model(network)
    onnx.checker.check_model(again, full_check=True)
    assert kinds_of(again) == [kind, kind]
    np.testing.assert_array_equal(evaluated(again), evaluated(given))  # biases too
    assert len(again.SerializeToString()) <= len(given.SerializeToString()) + 100
    assert to_model(from_model(again)) == again
    wider = operate(network, Widen(1, 16)).network
    written = to_model(wider)
    assert kinds_of(written) == [kind, kind]
    np.testing.assert_allclose(evaluated(written), evaluated(given), rtol=2e-2, atol=2e-2)
    rounded, rounding = wider.as_stored()
    np.testing.assert_array_equal(evaluated(to_model(rounded)), evaluated(written))
    assert 0 < rounding < 2**-8
    assert bytes_of_parameters(wider) == 2 * (8 * 32 + 32 * 3) + 4 * (32 + 3)
    save(wider, tmp_path / "best.onnx")
    assert bytes_as_written(wider) == (tmp_path / "best.onnx").stat().st_size


def test_of_several_weights_those_stay_float32_that_were():
    network = from_model(in_halves(TensorProto.FLOAT16, halved=("v2",)))
    written = to_model(operate(network, InsertIdentity(1)).network)
    kinds = {tensor.name: tensor.data_type for tensor in written.graph.initializer if len(tensor.dims) > 1}
    assert kinds["w1"] == TensorProto.FLOAT
    assert sorted(kinds.values()) == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT16]


def test_a_weight_that_a_scale_was_folded_into_is_no_longer_held_so():
    given = in_halves(TensorProto.FLOAT16, halved=("w1",))
    given.graph.initializer.append(held("s", TensorProto.FLOAT, [1.1]))
    given.graph.node[1].output[0] = "g0"
    given.graph.node.insert(2, helper.make_node("Mul", ["g0", "s"], ["g"]))
    network = from_model(given)
    assert network.topology == "8-16-3"
    assert "the weights of 'g' are held as float16: they are worked on and written as float32" in network.frame.notes
    np.testing.assert_allclose(evaluated(to_model(network)), evaluated(given), rtol=1e-5, atol=1e-5)
