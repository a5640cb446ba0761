"""Reading: exporters' idioms become dense layers, what is not understood is refused, what is not ours survives."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import InsertIdentity, ModelError, SurgeryError, Widen, create, from_model, load, operate, save
from onnxsurgeon.graph.activation import Activation
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.files import read_model, write_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run, session
from tests.conftest import MODEL_FILES, as_float64
from tests.described import describe
from tests.graphs import node

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((4, 6)).astype("f"), RNG.standard_normal((6, 3)).astype("f")
P, Q = RNG.standard_normal(6).astype("f"), RNG.standard_normal(3).astype("f")
X = RNG.standard_normal((5, 4)).astype("f")


def build(nodes, constants, opset=17, shape=("batch", 4), outputs=("y",), dtype=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, ["rows", *shape[2:], "n"]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


WEIGHTS = {"A": A, "B": B, "P": P, "Q": Q}
SHAPE = np.array([-1, 6])
IDIOMS = {
    "gemm": ([node("Gemm", "x A P", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "y")], WEIGHTS),
    "transB": (
        [node("Gemm", "x AT P", "a", transB=1), node("Relu", "a", "b"), node("Gemm", "b BT Q", "y", transB=1)],
        {"AT": A.T.copy(), "BT": B.T.copy(), "P": P, "Q": Q},
    ),
    "alpha and beta": (
        [node("Gemm", "x A P", "a", alpha=2.0, beta=0.5), node("Relu", "a", "b"), node("Gemm", "b B Q", "y")],
        {**WEIGHTS, "A": A / 2, "P": P * 2},
    ),
    "matmul and add": (
        [
            node("MatMul", "x A", "m"),
            node("Add", "m P", "a"),
            node("Relu", "a", "b"),
            node("MatMul", "b B", "n"),
            node("Add", "Q n", "y"),
        ],
        WEIGHTS,
    ),
    "bias of shape (1, n)": (
        [node("Gemm", "x A P", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "y")],
        {**WEIGHTS, "P": P[None], "Q": Q[None]},
    ),
    "gemm without bias, then add": (
        [node("Gemm", "x A", "m"), node("Add", "m P", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "y")],
        WEIGHTS,
    ),
    "constant nodes": (
        [
            helper.make_node("Constant", [], ["A"], value=numpy_helper.from_array(A, "A")),
            helper.make_node("Constant", [], ["P"], value=numpy_helper.from_array(P, "P")),
            node("Gemm", "x A P", "a"),
            node("Relu", "a", "b"),
            node("Gemm", "b B Q", "y"),
        ],
        {"B": B, "Q": Q},
    ),
    "identities": (
        [
            node("Identity", "A0", "A"),
            node("Identity", "x", "x1"),
            node("Gemm", "x1 A P", "a"),
            node("Identity", "a", "a1"),
            node("Relu", "a1", "b"),
            node("Gemm", "b B Q", "y"),
        ],
        {"A0": A, "P": P, "B": B, "Q": Q},
    ),
    "dropout": (
        [
            node("Gemm", "x A P", "a"),
            node("Relu", "a", "b"),
            node("Dropout", "b ratio", "c"),
            node("Gemm", "c B Q", "y"),
        ],
        {**WEIGHTS, "ratio": np.float32(0.5)},
    ),
    "dropout with a mask that nothing reads": (
        [
            node("Gemm", "x A P", "a"),
            node("Relu", "a", "b"),
            node("Dropout", "b", "c mask"),
            node("Gemm", "c B Q", "y"),
        ],
        WEIGHTS,
    ),
    "casts that change nothing": (
        [
            node("Cast", "x", "x1", to=1),
            node("MatMul", "x1 A", "m"),
            node("Cast", "m", "m1", to=1),
            node("Add", "m1 P", "a"),
            node("Cast", "a", "a1", to=1),
            node("Relu", "a1", "b"),
            node("Gemm", "b B Q", "y"),
        ],
        WEIGHTS,
    ),
    "flatten and reshape between layers": (
        [
            node("Flatten", "x", "x1"),
            node("Gemm", "x1 A P", "a"),
            node("Reshape", "a shape", "r"),
            node("Relu", "r", "b"),
            node("Flatten", "b", "f"),
            node("Gemm", "f B Q", "y"),
        ],
        {**WEIGHTS, "shape": SHAPE},
    ),
    "relu as max": (
        [node("Gemm", "x A P", "a"), node("Max", "zero a", "b"), node("Gemm", "b B Q", "y")],
        {**WEIGHTS, "zero": np.float32(0)},
    ),
    "relu as clip": (
        [node("Gemm", "x A P", "a"), node("Clip", "a zero", "b"), node("Gemm", "b B Q", "y")],
        {**WEIGHTS, "zero": np.float32(0)},
    ),
    "unnamed nodes": (
        [
            helper.make_node("Gemm", ["x", "A", "P"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "B", "Q"], ["y"]),
        ],
        WEIGHTS,
    ),
    "names with slashes, colons, digits and Unicode": (
        [
            helper.make_node("Gemm", ["x", "Gewicht ß", "0"], ["a:0"], name="/Schicht/ä:1"),
            helper.make_node("Relu", ["a:0"], ["1"], name="1"),
            helper.make_node("Gemm", ["1", "B", "Q"], ["y"], name="β"),
        ],
        {"Gewicht ß": A, "0": P, "B": B, "Q": Q},
    ),
}
EXPECTED = np.maximum(X @ A + P, 0) @ B + Q


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize("name", IDIOMS)
def test_idioms(name, opset):
    nodes, constants = IDIOMS[name]
    if opset < 13 and name in ("dropout", "relu as max"):
        pytest.skip("this spelling came with a later opset")
    model = build(nodes, constants, opset)
    network = from_model(model)
    assert network.topology == "4-6-3"
    assert str(network.layers[0].activation) == "Relu"
    np.testing.assert_allclose(network.layers[0].weight, A, rtol=1e-6)
    np.testing.assert_allclose(network.layers[0].bias, P, rtol=1e-6)
    for written in (to_model(network), to_model(operate(network, InsertIdentity(1)).network)):
        onnx.checker.check_model(written)
        np.testing.assert_allclose(run(written, {"x": X})[0], EXPECTED, rtol=1e-5, atol=1e-5)
    assert to_model(from_model(to_model(network))) == to_model(network)


def test_opset_9_has_neither_optional_biases_nor_clip_inputs():
    nodes = [node("MatMul", "x A", "a"), node("Clip", "a", "b", min=0.0, max=6.0), node("Gemm", "b B Q", "y")]
    network = from_model(build(nodes, WEIGHTS, 9))
    assert str(network.layers[0].activation) == "Clip(min=0.0, max=6.0)"
    deeper = operate(network, InsertIdentity(1)).network
    expected = np.clip(X @ A, 0, 6) @ B + Q
    for written in (to_model(network), to_model(deeper)):
        assert written.opset_import[0].version == 9
        np.testing.assert_allclose(run(written, {"x": X})[0], expected, rtol=1e-5, atol=1e-5)


def test_float64_and_its_prelu_survive_reading():
    network = operate(as_float64(create((4, 6, 3), activation="Tanh")), InsertIdentity(1)).network
    model = to_model(network)
    again = from_model(model)
    assert [str(layer.activation) for layer in again.layers] == ["Tanh", "PRelu", "None"]
    assert to_model(again) == model


REFUSALS = {
    "no dense layers": ([node("Relu", "x", "y")], {}, "no dense layers found"),
    "a transposed convolution only": (
        [node("ConvTranspose", "x K", "y")],
        {"K": np.ones((3, 2, 3, 3), "f")},
        "no dense layers found, neither Gemm, MatMul nor Conv with a constant weight",
    ),
    "a convolution by what is computed": (
        [node("Abs", "K", "K1"), node("Conv", "x K1", "y", name="product")],
        {"K": np.ones((2, 3, 3, 3), "f")},
        "node 'product' (Conv) is not understood, since its weight is not constant",
    ),
    "a weight that is computed": (
        [node("Abs", "A", "A1"), node("MatMul", "x A1", "y", name="product")],
        {"A": A},
        "node 'product' (MatMul) is not understood, since its weight is not constant",
    ),
    "a transposed input": (
        [node("Gemm", "x A", "y", name="product", transA=1)],
        {"A": np.ones((5, 6), "f")},
        "node 'product' (Gemm) is not understood, since it transposes its input",
    ),
    "infinite weights": (
        [node("Gemm", "x A P", "y", name="only")],
        {"A": A, "P": np.full(6, np.inf, "f")},
        "node 'only': its weights or biases hold NaN or infinity",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_node_and_the_reason(name):
    nodes, constants, reason = REFUSALS[name]
    shape = ("batch", 3, 8, 8) if "convolution" in name else ("batch", 4)
    with pytest.raises(ModelError) as error:
        from_model(build(nodes, constants, shape=shape), source="net.onnx")
    assert str(error.value).startswith("net.onnx: ")
    assert reason in str(error.value)


def test_a_bias_of_the_wrong_length_is_refused():
    nodes, constants = IDIOMS["gemm"]
    model = build(nodes, {**constants, "P": np.ones(5, "f")})
    with pytest.raises(ModelError, match=r"node 'Gemm_a': bias of shape \(5,\) for 6 units"):
        from_model(model)


def test_a_residual_connection_is_two_segments_whose_own_hidden_layers_are_free():
    """y = b + second(Tanh(first(b))), b = Relu(before(Relu(entry(x)))): b has two readers, and its width stays."""
    nodes = [
        node("Gemm", "x A P", "a0", name="entry"),
        node("Relu", "a0", "a1"),
        node("Gemm", "a1 B Q", "a2", name="before"),
        node("Relu", "a2", "b"),
        node("Gemm", "b C R", "c0", name="first"),
        node("Tanh", "c0", "c1"),
        node("Gemm", "c1 D Q2", "c", name="second"),
        node("Add", "b c", "y", name="sum"),
    ]
    more = {"C": B.T.copy(), "R": P[::-1].copy(), "D": B * 2, "Q2": Q + 1}
    model = build(nodes, {**WEIGHTS, **more})
    network = from_model(model)
    assert network.topology == "4-6-3+3-6-3"
    assert [segment.topology for segment in network.segments] == ["4-6-3", "3-6-3"]
    assert network.frame.notes == ("the width of 'before' stays: it is read by 'first', 'sum'",)
    assert network.hidden_count == 2
    assert [network.hidden(i).names.node for i in (1, 2)] == ["entry", "first"]
    assert [network.segment_of(i) for i in (1, 2)] == [0, 1]
    assert [network.depth(i) for i in (1, 2)] == [(1, 1), (1, 1)]
    assert [step if isinstance(step, int) else step.node for step in network.frame.trunk.steps] == [
        0,
        "Relu_b",
        1,
        "sum",
    ]
    with pytest.raises(SurgeryError, match=r"has no hidden layer 3: it has 1 to 2"):
        network.hidden(3)
    with pytest.raises(SurgeryError, match="is no single chain: it has 2 segments"):
        _ = network.chain
    before = run(model, {"x": X})[0]
    for i, topology in ((1, "4-11-3+3-6-3"), (2, "4-6-3+3-11-3")):
        wider = operate(network, Widen(i, 5)).network
        assert wider.topology == topology
        np.testing.assert_allclose(run(to_model(wider), {"x": X})[0], before, rtol=1e-5, atol=1e-5)


def test_of_two_activations_in_a_row_the_second_is_glue():
    nodes = [
        node("Gemm", "x A P", "a", name="first"),
        node("Relu", "a", "b"),
        node("Tanh", "b", "c", name="again"),
        node("Gemm", "c B Q", "y", name="second"),
    ]
    model = build(nodes, WEIGHTS)
    network = from_model(model)
    assert (network.topology, network.hidden_count) == ("4-6+6-3", 0)
    assert (network.frame.notes, network.group(1).units, network.group(1).ports) == ((), 6, 2)
    glue = [step for step in network.frame.trunk.steps if not isinstance(step, int)]
    assert [(step.op, str(step.attributes["activation"])) for step in glue] == [
        ("Activation", "Relu"),
        ("Activation", "Tanh"),
    ]
    np.testing.assert_allclose(run(to_model(network), {"x": X})[0], run(model, {"x": X})[0], rtol=1e-6)
    assert to_model(from_model(to_model(network))) == to_model(network)


def test_float16_weights_are_worked_on_in_float32_and_written_in_float16():
    nodes = [node("Gemm", "x A P", "a"), node("PRelu", "a S", "b"), node("Gemm", "b B Q", "y")]
    halves = {name: values.astype(np.float16) for name, values in {**WEIGHTS, "S": P * 0.1}.items()}
    model = build(nodes, halves, dtype=TensorProto.FLOAT16)
    network = from_model(model)
    assert network.chain.stored == np.float16
    assert network.chain.file_dtype == np.float16
    assert network.chain.dtype == network.dtype == np.float32
    assert {values.dtype for _, values in network.parameters()} == {np.dtype(np.float32)}
    stored, error = network.as_stored()
    assert error == 0  # what was read is in float16 already
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(stored.parameters(), network.parameters(), strict=True))
    written = to_model(network)
    assert {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in written.graph.initializer} == {
        name: values.tobytes() for name, values in halves.items()
    }
    assert {value.type.tensor_type.elem_type for value in (*written.graph.input, *written.graph.output)} == {
        TensorProto.FLOAT16
    }
    half = X.astype(np.float16)
    expected = run(model, {"x": half})[0]
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(run(written, {"x": half})[0], expected)

    wider = operate(network, Widen(1, 4)).network
    assert {tensor.data_type for tensor in to_model(wider).graph.initializer} == {TensorProto.FLOAT16}
    found = run(to_model(wider), {"x": half})[0].astype(np.float32)
    np.testing.assert_allclose(found, expected.astype(np.float32), atol=0.02)


def test_what_rounding_to_float16_costs_is_said():
    nodes = [node("Gemm", "x A P", "y")]
    model = build(nodes, {"A": A.astype(np.float16), "P": P.astype(np.float16)}, dtype=TensorProto.FLOAT16)
    network = from_model(model)
    moved = [values + np.float32(1e-3) for _, values in network.parameters()]
    stored, error = network.with_parameters(moved).as_stored()
    expected = max(
        float(np.abs(v - v.astype(np.float16).astype(np.float32)).max()) / float(np.abs(v).max()) for v in moved
    )
    assert error == expected
    assert 0 < error <= 2**-11  # float16 has 11 significant bits
    for (_, values), wanted in zip(stored.parameters(), moved, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, wanted.astype(np.float16).astype(np.float32))
    assert to_model(from_model(to_model(stored))) == to_model(network.with_parameters(moved))
    assert create((4, 3, 2)).as_stored()[1] == 0


def test_the_width_of_a_hidden_activation_that_is_also_an_output_stays():
    nodes = [
        node("Gemm", "x A P", "a", name="first"),
        node("Relu", "a", "b"),
        node("Gemm", "b B Q", "c", name="second"),
        node("Relu", "c", "d"),
        node("Gemm", "d C R", "y", name="third"),
    ]
    model = build(nodes, {**WEIGHTS, "C": B.T.copy(), "R": P}, outputs=("y", "b"))
    network = from_model(model)
    assert network.topology == "4-6+6-3-6"
    assert [network.hidden(i + 1).names.node for i in range(network.hidden_count)] == ["second"]
    assert network.frame.notes == (
        "the width of 'first' stays: tensor 'b' is also an output of the model",
        "output 'b' takes no targets: trained layers are computed from it",
    )
    assert [head.tensor for head in network.heads] == ["y"]
    before = run(model, {"x": X})
    for result in (network, operate(network, Widen(1, 5)).network, operate(network, InsertIdentity(1)).network):
        written = to_model(result)
        assert [value.name for value in written.graph.output] == ["y", "b"]
        for value, wanted in zip(run(written, {"x": X}), before, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ir", [3, 8])
def test_weights_that_are_inputs_of_the_model_too_stay_inputs(ir):
    """Before IR 4 every initializer is listed among the inputs; since then, those that a caller may replace."""
    nodes, constants = IDIOMS["gemm"]
    model = build(nodes, constants, opset=9 if ir == 3 else 17)
    model.ir_version = ir
    for name in WEIGHTS if ir == 3 else ("A", "Q"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, WEIGHTS[name].shape))
    network = from_model(model)
    assert network.topology == "4-6-3"
    kept, wider = to_model(network), to_model(operate(network, Widen(1, 5)).network)
    assert {v.SerializeToString() for v in kept.graph.input} == {v.SerializeToString() for v in model.graph.input}
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in wider.graph.input}
    expected = {"x": (0, 4), "A": (4, 11), "P": (11,), "B": (11, 3), "Q": (3,)}
    assert shapes == {name: expected[name] for name in shapes}
    assert set(shapes) == {value.name for value in model.graph.input}
    before = run(model, {"x": X})[0]
    for written in (kept, wider):
        onnx.checker.check_model(written, full_check=True)
        assert written.ir_version == ir
        opened = session(written)
        assert [value.name for value in opened.get_inputs()] == ["x"]
        np.testing.assert_allclose(run(written, {"x": X})[0], before, rtol=1e-5, atol=1e-5)
    if ir >= 4:
        assert sorted(value.name for value in session(wider).get_overridable_initializers()) == ["A", "Q"]
        np.testing.assert_allclose(run(wider, {"x": X, "Q": Q + 1})[0], before + 1, rtol=1e-5, atol=1e-5)


def test_a_weight_shared_by_two_layers_stays_one():
    square = RNG.standard_normal((4, 4)).astype("f")
    nodes = [node("MatMul", "x S", "a"), node("Relu", "a", "b"), node("MatMul", "b S", "y")]
    network = from_model(build(nodes, {"S": square}))
    assert [name for name, _ in network.parameters()] == ["S"]
    assert [tensor.name for tensor in to_model(network).graph.initializer] == ["S"]
    np.testing.assert_allclose(
        run(to_model(network), {"x": X})[0], np.maximum(X @ square, 0) @ square, rtol=1e-5, atol=1e-5
    )


def test_a_weight_that_another_node_reads_too_is_left_to_it():
    nodes = [node("Gemm", "x A P", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "c"), node("Add", "c Q", "y")]
    nodes[-1].input[0] = "s"
    nodes.insert(3, node("Softmax", "c", "s"))
    model = build(nodes, WEIGHTS)
    network = from_model(model)
    np.testing.assert_allclose(run(to_model(network), {"x": X})[0], run(model, {"x": X})[0], rtol=1e-6)
    assert network.layers[1].names.bias == "Q_"


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_round_trip_of_every_model_in_the_repository(path, tmp_path):
    original = onnx.load(path)
    original.doc_string, original.graph.doc_string, original.model_version = "a model", "its graph", 7
    original.metadata_props.add(key="author", value="someone")
    write_model(original, tmp_path / "in.onnx")
    network = load(tmp_path / "in.onnx")
    save(network, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert describe(written) == describe(original)
    untouched = {node.name: node.SerializeToString() for node in network.frame.model.graph.node}
    assert {n.name: n.SerializeToString() for n in written.graph.node if n.name in untouched} == untouched
    assert {n.name for n in network.frame.model.graph.node} <= {n.name for n in original.graph.node}
    feeds = random_inputs(original)
    assert compare_models(original, written, feeds).relative <= 1e-6
    save(load(tmp_path / "out.onnx"), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_dense_layers_keep_their_names():
    network = load(next(path for path in MODEL_FILES if path.stem == "export-torch-legacy"))
    names = [node.name for node in to_model(network).graph.node]
    assert names == ["/0/Flatten", "/1/Gemm", "/2/Relu", "/4/Gemm"]
    assert [name for name, _ in network.chain.parameters()] == ["1.weight", "1.bias", "4.weight", "4.bias"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no graph"),
        (b"hello, I am a text file\n" * 20, "not an ONNX model"),
        (b"\x08\x08", "holds no graph"),
        (to_model(create((4, 3, 2))).SerializeToString()[:-60], "not an ONNX model"),
    ],
    ids=["empty", "text", "no graph", "cut off"],
)
def test_files_that_are_no_models(content, reason, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=reason) as error:
        read_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("opset", [6, 99])
def test_opsets_that_are_not_supported(opset, tmp_path):
    model = to_model(create((4, 3, 2)))
    model.opset_import[0].version = opset
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"opset {opset} is not supported"):
        load(tmp_path / "m.onnx")


def external(tmp_path, location, **entries):
    model = to_model(create((4, 3, 2)))
    tensor = model.graph.initializer[0]
    data, tensor.raw_data = tensor.raw_data, b""
    (tmp_path / "weights.bin").write_bytes(data)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(len(data)), **entries}.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "m.onnx"


def test_external_data_is_read(tmp_path):
    network = load(external(tmp_path, "weights.bin"))
    np.testing.assert_array_equal(network.layers[0].weight, create((4, 3, 2)).layers[0].weight)


@pytest.mark.parametrize(
    ("location", "entries", "reason"),
    [
        ("../secret.bin", {}, "leads out of the model's folder"),
        ("/etc/passwd", {}, "leads out of the model's folder"),
        ("link.bin", {}, "leads out of the model's folder"),
        ("none.bin", {}, "is missing"),
        ("weights.bin", {"length": "4096"}, "ends beyond the file"),
        ("weights.bin", {"offset": "-4"}, "invalid entry"),
        ("weights.bin", {"offset": "four"}, "invalid entry"),
    ],
)
def test_external_data_that_is_not_followed(location, entries, reason, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"0" * 48)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match=reason):
        load(external(folder, location, **entries))


def test_nothing_is_overwritten_or_left_half_written(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    save(create((4, 3, 2)), path)
    before = path.read_bytes()
    with pytest.raises(ModelError, match="exists already"):
        save(create((4, 5, 2)), path)
    assert path.read_bytes() == before

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(ModelError, match="No space left on device"):
        save(create((4, 5, 2)), path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_create_is_glorot_uniform_with_zero_biases():
    network = create((300, 200, 10), seed=5)
    limit = np.sqrt(6 / 500)
    weight = network.layers[0].weight
    assert abs(weight).max() <= limit
    assert weight.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert all(not layer.bias.any() for layer in network.layers)
    assert to_model(create((300, 200, 10), seed=5)) == to_model(network)
    assert to_model(create((300, 200, 10), seed=6)) != to_model(network)


@pytest.mark.parametrize(
    ("sizes", "options", "reason"),
    [
        ((8, 3), {"input_shape": (3, 3)}, "input shape 3x3 does not hold the first layer's 8 inputs"),
        ((8, 3), {"activation": "Maximum"}, "unknown activation 'Maximum'"),
        ((100_000, 100_000), {}, "at most 500000000"),
    ],
)
def test_create_refuses(sizes, options, reason):
    with pytest.raises(ModelError, match=reason):
        create(sizes, **options)


@pytest.mark.parametrize(
    ("op", "attributes", "told"),
    [
        ("Clip", {"min": 0.0, "max": 6.0}, "Relu6"),
        ("Clip", {"min": -1.0, "max": 1.0}, "Clip -1 to 1"),
        ("Clip", {"max": 5.0}, "Clip up to 5"),
        ("Clip", {"min": 0.5}, "Clip from 0.5"),
        ("LeakyRelu", {"alpha": float(np.float32(0.1))}, "LeakyRelu 0.1"),
        ("Relu", {}, "Relu"),
    ],
)
def test_an_activation_is_told_as_people_name_it(op, attributes, told):
    assert Activation(op, attributes).told == told
