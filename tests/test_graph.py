"""Reading: exporters' idioms become dense layers, what is not understood is refused, what is not ours survives."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import InsertIdentity, ModelError, create, from_model, load, operate, save
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.files import read_model, write_model
from onnxsurgeon.runtime import run
from tests.conftest import MODEL_FILES, as_float64

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((4, 6)).astype("f"), RNG.standard_normal((6, 3)).astype("f")
P, Q = RNG.standard_normal(6).astype("f"), RNG.standard_normal(3).astype("f")
X = RNG.standard_normal((5, 4)).astype("f")


def node(op, inputs, output, name="", **attributes):
    return helper.make_node(op, inputs.split(), output.split(), name=name or op + "_" + output, **attributes)


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
    for written in (network.to_model(), operate(network, InsertIdentity(1)).network.to_model()):
        onnx.checker.check_model(written)
        np.testing.assert_allclose(run(written, {"x": X})[0], EXPECTED, rtol=1e-5, atol=1e-5)
    assert from_model(network.to_model()).to_model() == network.to_model()


def test_opset_9_has_neither_optional_biases_nor_clip_inputs():
    nodes = [node("MatMul", "x A", "a"), node("Clip", "a", "b", min=0.0, max=6.0), node("Gemm", "b B Q", "y")]
    network = from_model(build(nodes, WEIGHTS, 9))
    assert str(network.layers[0].activation) == "Clip(min=0.0, max=6.0)"
    deeper = operate(network, InsertIdentity(1)).network
    expected = np.clip(X @ A, 0, 6) @ B + Q
    for written in (network.to_model(), deeper.to_model()):
        assert written.opset_import[0].version == 9
        np.testing.assert_allclose(run(written, {"x": X})[0], expected, rtol=1e-5, atol=1e-5)


def test_float64_and_its_prelu_survive_reading():
    network = operate(as_float64(create((4, 6, 3), activation="Tanh")), InsertIdentity(1)).network
    model = network.to_model()
    again = from_model(model)
    assert [str(layer.activation) for layer in again.layers] == ["Tanh", "PRelu", "None"]
    assert again.to_model() == model


REFUSALS = {
    "no dense layers": ([node("Relu", "x", "y")], {}, "no dense layers found"),
    "a convolution only": ([node("Conv", "x K", "y")], {"K": np.ones((2, 3, 3, 3), "f")}, "no dense layers found"),
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
    "a residual connection": (
        [
            node("Gemm", "x A P", "a", name="first"),
            node("Relu", "a", "b"),
            node("Gemm", "b S P", "c", name="second"),
            node("Add", "b c", "y"),
        ],
        {"A": A, "P": P, "S": np.eye(6, dtype="f")},
        "tensor 'b' between dense layers 'first' and 'second' has 2 readers",
    ),
    "two activations in a row": (
        [
            node("Gemm", "x A P", "a", name="first"),
            node("Relu", "a", "b"),
            node("Tanh", "b", "c", name="again"),
            node("Gemm", "c B Q", "y", name="second"),
        ],
        WEIGHTS,
        "node 'again' (Tanh) between dense layers 'first' and 'second' is a second activation",
    ),
    "infinite weights": (
        [node("Gemm", "x A P", "y", name="only")],
        {"A": A, "P": np.full(6, np.inf, "f")},
        "node 'only': its weights or biases hold NaN or infinity",
    ),
    "half precision": (
        [node("MatMul", "x A", "y", name="half")],
        {"A": A.astype(np.float16)},
        "node 'half' (MatMul) is not understood, since its weight is float16",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_node_and_the_reason(name):
    nodes, constants, reason = REFUSALS[name]
    shape = ("batch", 3, 8, 8) if name == "a convolution only" else ("batch", 4)
    dtype = TensorProto.FLOAT16 if name == "half precision" else TensorProto.FLOAT
    with pytest.raises(ModelError) as error:
        from_model(build(nodes, constants, shape=shape, dtype=dtype), source="net.onnx")
    assert str(error.value).startswith("net.onnx: ")
    assert reason in str(error.value)


def test_a_bias_of_the_wrong_length_is_refused():
    nodes, constants = IDIOMS["gemm"]
    model = build(nodes, {**constants, "P": np.ones(5, "f")})
    with pytest.raises(ModelError, match=r"node 'Gemm_a': bias of shape \(5,\) for 6 units"):
        from_model(model)


def test_a_hidden_activation_that_is_also_an_output_is_not_free():
    nodes = [node("Gemm", "x A P", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "y")]
    with pytest.raises(ModelError, match=r"tensor 'b' .* is also an output of the model"):
        from_model(build(nodes, WEIGHTS, outputs=("y", "b")))


def test_a_weight_that_a_caller_may_replace_is_refused():
    nodes, constants = IDIOMS["gemm"]
    model = build(nodes, constants)
    model.graph.input.append(helper.make_tensor_value_info("A", TensorProto.FLOAT, [4, 6]))
    with pytest.raises(ModelError, match="'A' is also an input of the model"):
        from_model(model)


def test_a_weight_shared_by_two_layers_becomes_two():
    square = RNG.standard_normal((4, 4)).astype("f")
    nodes = [node("MatMul", "x S", "a"), node("Relu", "a", "b"), node("MatMul", "b S", "y")]
    network = from_model(build(nodes, {"S": square}))
    assert len({name for name, _ in network.chain.parameters()}) == 2
    np.testing.assert_allclose(
        run(network.to_model(), {"x": X})[0], np.maximum(X @ square, 0) @ square, rtol=1e-5, atol=1e-5
    )


def test_a_weight_that_another_node_reads_too_is_left_to_it():
    nodes = [node("Gemm", "x A P", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "c"), node("Add", "c Q", "y")]
    nodes[-1].input[0] = "s"
    nodes.insert(3, node("Softmax", "c", "s"))
    model = build(nodes, WEIGHTS)
    network = from_model(model)
    np.testing.assert_allclose(run(network.to_model(), {"x": X})[0], run(model, {"x": X})[0], rtol=1e-6)
    assert network.layers[1].names.bias == "Q_"


def describe(model):
    """Everything outside the dense chain that must survive."""
    return {
        "inputs": [value.SerializeToString() for value in model.graph.input],
        "outputs": [value.SerializeToString() for value in model.graph.output],
        "opsets": sorted((entry.domain, entry.version) for entry in model.opset_import),
        "ir": model.ir_version,
        "metadata": [(entry.key, entry.value) for entry in model.metadata_props],
        "docs": (model.doc_string, model.graph.doc_string, model.graph.name, model.domain, model.model_version),
        "producer": (model.producer_name, model.producer_version),
    }


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
    names = [node.name for node in network.to_model().graph.node]
    assert names == ["/0/Flatten", "/1/Gemm", "/2/Relu", "/4/Gemm"]
    assert [name for name, _ in network.chain.parameters()] == ["1.weight", "1.bias", "4.weight", "4.bias"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no graph"),
        (b"hello, I am a text file\n" * 20, "not an ONNX model"),
        (b"\x08\x08", "holds no graph"),
        (create((4, 3, 2)).to_model().SerializeToString()[:-60], "not an ONNX model"),
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
    model = create((4, 3, 2)).to_model()
    model.opset_import[0].version = opset
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"opset {opset} is not supported"):
        load(tmp_path / "m.onnx")


def external(tmp_path, location, **entries):
    model = create((4, 3, 2)).to_model()
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
    assert create((300, 200, 10), seed=5).to_model() == network.to_model()
    assert create((300, 200, 10), seed=6).to_model() != network.to_model()


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
