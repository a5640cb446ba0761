"""Idioms of exporters that hide layers: shapes in int32, noise of zeros, tensors laid out to their own shape."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import Widen, from_model, operate
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.training.forward import feeds_of
from tests.forward_model import forward_model
from tests.graphs import node as n

RNG = np.random.default_rng(0)
FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
STORED = {"W0": (2, 6), "c0": (6,), "W1": (6, 6), "c1": (6,), "W2": (6, 3), "c2": (3,), "s": (6,)}


def build(nodes, shape, constants=(), opset=13, y=("batch", 3)):
    values = {name: RNG.standard_normal(size).astype("f") / 2 for name, size in STORED.items()} | dict(constants)
    graph = helper.make_graph(
        nodes,
        "idioms",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, y)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def trains_like(model, topology, shape, notes=()):
    """The layers are read, nothing is left alone, and what is trained computes what the file does."""
    network = from_model(model)
    assert (network.topology, network.frame.notes) == (topology, notes)
    assert network.frame.prefix == ()
    x = RNG.standard_normal(shape).astype("f")
    trained = run(forward_model(network), {"features": x, **feeds_of(network)})
    for given in (model, to_model(network)):
        expected = run(given, {"x": x})[0]
        np.testing.assert_allclose(trained[0].reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
    return network


# --- shape arithmetic -------------------------------------------------------------------------------------------------

CONSTANTS = {
    "free": np.array([0, 1], np.int32),
    "last": np.array([2], np.int32),
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int32),
    "flat2": np.array([-1, 2]),
    "flat6": np.array([-1, 6]),
    "six": np.array([6], np.int32),
    "three": np.array([3], np.int32),
}


def tensordot(x, i, y, style, n_in, units):
    """A dense layer over the last axis as tf2onnx writes Tensordot, its sizes in int32."""
    sizes = [n("Shape", x, f"s{i}"), n("Cast", f"s{i}", f"t{i}", to=INT32), n("Gather", f"t{i} free", f"f{i}")]
    before = f"flat{n_in}"
    if style in ("prod", "mul"):
        sizes.append(n("Gather", f"t{i} last", f"l{i}"))
        if style == "prod":
            sizes += [n("ReduceProd", f"f{i}", f"p{i}"), n("ReduceProd", f"l{i}", f"q{i}")]
        else:
            sizes += [n("Slice", f"t{i} zero32 one", f"g{i}"), n("Slice", f"t{i} one two", f"h{i}")]
            sizes += [n("Mul", f"g{i} h{i}", f"p{i}"), n("Mul", f"l{i} one", f"q{i}")]
        sizes += [n("Concat", f"p{i} q{i}", f"r{i}", axis=0), n("Cast", f"r{i}", f"u{i}", to=INT64)]
        before = f"u{i}"
    behind = {6: "six", 3: "three"}[units]
    return [
        *sizes,
        n("Reshape", f"{x} {before}", f"x{i}"),
        n("MatMul", f"x{i} W{i}", f"m{i}"),
        n("Concat", f"f{i} {behind}", f"v{i}", axis=0),
        n("Cast", f"v{i}", f"w{i}", to=INT64),
        n("Reshape", f"m{i} w{i}", f"o{i}"),
        n("Add", f"o{i} c{i}", y),
    ]


@pytest.mark.parametrize("style", ["flat", "prod", "mul"])
@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("steps", [1, 5])
def test_shape_arithmetic_in_int32_is_followed(style, opset, steps):
    """As in the exports of a Keras model of Tensordots: each shape is that of what an affine node wrote."""
    nodes = [
        *tensordot("x", 0, "a0", style, 2, 6),
        n("Elu", "a0", "e0"),
        n("Mul", "e0 s", "n0"),
        *tensordot("n0", 1, "a1", style, 6, 6),
        n("Elu", "a1", "e1"),
        n("Add", "e1 s", "n1"),
        *tensordot("n1", 2, "y", style, 6, 3),
    ]
    more = {"zero32": np.array([0], np.int32), "two": np.array([2], np.int32)}
    model = build(nodes, ("rows", steps, 2), CONSTANTS | more, opset, ("rows", steps, 3))
    network = trains_like(model, "2-6-6-3", (4, steps, 2))
    assert [head.rank for head in network.heads] == [3]


def test_a_shape_that_is_computed_is_that_of_what_is_reshaped():
    """Behind a Reshape to computed sizes training goes on: [batch, 6] -> [batch, 2, 3] -> [batch, 6]."""
    nodes = [
        n("Gemm", "x W0", "a"),
        n("Shape", "a", "s0"),
        n("Cast", "s0", "s1", to=INT32),
        n("Gather", "s1 zero", "rows"),
        n("Gather", "s1 one64", "units"),
        n("Div", "units three", "half"),
        n("Concat", "rows half three", "apart32", axis=0),
        n("Cast", "apart32", "apart", to=INT64),
        n("Reshape", "a apart", "b"),
        n("Transpose", "b", "t", perm=[0, 2, 1]),
        n("Reshape", "t flat6", "c"),
        n("Gemm", "c W2", "y"),
    ]
    more = {"one64": np.array([1])}
    notes = ("the width of 'Gemm_a' stays: a Reshape splits its units over several axes (node 'Reshape_b')",)
    trains_like(build(nodes, ("batch", 2), CONSTANTS | more), "2-6+6-3", (4, 2), notes)


@pytest.mark.parametrize("way", ["Where", "Split", "Split in equal parts"])
def test_a_shape_that_is_chosen_or_split_is_followed(way):
    """[batch, 2, 3] -> [batch, 6]: by a constant mask of booleans, or by the product of a part of the sizes."""
    more = {"mask": np.array([False, True]), "six64": np.array([6, 6]), "one_two": np.array([1, 2])}
    more |= {"apart": np.array([0, 2, 3]), "zero1": np.array([0]), "one1": np.array([1])}
    shape = [n("Shape", "b", "sizes")]
    if way == "Where":
        shape += [n("Slice", "sizes zero1 one1", "rows"), n("Where", "mask six64 rows", "shape")]
    elif way == "Split":
        shape += [n("Split", "sizes one_two", "rows others"), n("ReduceProd", "others", "six_", axes=[0])]
    else:
        shape += [n("Split", "sizes", "rows p q"), n("Mul", "p q", "six_")]
    shape += [] if way == "Where" else [n("Concat", "rows six_", "shape", axis=0)]
    nodes = [n("Gemm", "x W0", "a"), n("Reshape", "a apart", "b"), *shape, n("Reshape", "b shape", "c")]
    network = from_model(build([*nodes, n("Gemm", "c W2", "y")], ("batch", 2), CONSTANTS | more))
    assert (network.topology, network.frame.notes) == ("2-6-3", ())


# --- constant matrices that are no layers -----------------------------------------------------------------------------


def mel(bins=33, bands=10):
    """Triangles on a scale of Mel, as librosa and torchaudio make them."""
    edges = 700 * (np.expm1(np.linspace(0, np.log(1 + 8000 / 700), bands + 2)))
    at = np.linspace(0, 8000, bins)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((at - low) / (middle - low), (high - at) / (high - middle)))


YCBCR = np.array([[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]])
DCT = np.cos(np.pi / 10 * (np.arange(10)[:, None] + 0.5) * np.arange(10)) * np.sqrt([0.1, *[0.2] * 9])
FIXED = {
    "mel": (mel(), (), "a filter bank: "),
    "log-mel": (mel(), ["Log"], "a filter bank: "),
    "mel, floored": (mel(), ["Relu"], "a filter bank: "),
    "colours": (YCBCR, (), "a conversion of colours: "),
    "colours of bytes": (YCBCR / 255, (), "a conversion of colours: "),
    "luminance": (np.array([[0.2126], [0.7152], [0.0722]]), (), "a conversion of colours: "),
    "a scale of each input": (np.diag([4.4, 4.5, 4.3]), (), "a scale of each input: "),
    "cosines": (DCT, (), "an orthogonal transform: "),
}


def behind_matrix(matrix, ops, bias=None):
    rng = np.random.default_rng(0)
    n_in, n_out = matrix.shape
    held = {"fixed": matrix.astype("f"), "A": rng.standard_normal((n_out, 6)), "B": rng.standard_normal((6, 2))}
    nodes, x = [n("MatMul", "x fixed", "f0")], "f0"
    if bias is not None:
        held["offset"] = bias
        nodes.append(n("Add", "f0 offset", "f1"))
        x = "f1"
    for i, op in enumerate(ops):
        nodes.append(n(op, x, f"g{i}"))
        x = f"g{i}"
    nodes += [n("MatMul", f"{x} A", "a"), n("Relu", "a", "r"), n("MatMul", "r B", "y")]
    held = {name: np.asarray(values, "f") for name, values in held.items()}
    return build(nodes, ("batch", n_in), held, y=("batch", 2))


@pytest.mark.parametrize("name", FIXED)
def test_constant_matrices_on_the_input_are_no_layers(name, tmp_path):
    matrix, ops, reason = FIXED[name]
    model = behind_matrix(matrix, ops)
    network = from_model(model)
    assert network.topology == f"{matrix.shape[1]}-6-2"
    (note,) = network.frame.notes
    assert note.startswith(f"'MatMul_f0' stays as it is: it is no trained layer but {reason}")
    wide, _ = operate(network, Widen(1, 3), require_exact=True)
    x = np.abs(RNG.standard_normal((4, len(matrix)))).astype("f") + 0.1
    np.testing.assert_allclose(run(to_model(wide), {"x": x})[0], run(model, {"x": x})[0], rtol=1e-4, atol=1e-4)
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_model(wide).graph.initializer}
    np.testing.assert_array_equal(kept["fixed"], matrix.astype("f"))


def test_a_conversion_of_colours_may_have_an_offset():
    network = from_model(behind_matrix(YCBCR, (), np.array([0, 0.5, 0.5])))
    assert network.topology == "3-6-2"
    assert len(network.frame.notes) == 1


@pytest.mark.parametrize("rank", [3, 4])
def test_a_conversion_of_colours_may_be_a_convolution(rank):
    """RGB to YUV as a 1 × 1 Conv, as image pipelines are exported; it was trained, and its channels pruned."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], "f")
    space = (2,) * (rank - 2)
    values = {"yuv": matrix.reshape(3, 3, *(1 for _ in space)), "flat": np.array([0, -1])}
    values |= {
        "W": RNG.standard_normal((3 * 2 ** (rank - 2), 5)).astype("f"),
        "V": RNG.standard_normal((5, 4)).astype("f"),
    }
    nodes = [n("Conv", "x yuv", "c"), n("Reshape", "c flat", "r"), n("MatMul", "r W", "h"), n("Relu", "h", "a")]
    network = from_model(build([*nodes, n("MatMul", "a V", "y")], ("batch", 3, *space), values, y=("batch", 4)))
    assert network.topology == f"{3 * 2 ** (rank - 2)}-5-4"
    told = "'Conv_c' stays as it is: it is no trained layer but a conversion of colours"
    assert len([note for note in network.frame.notes if note.startswith(told)]) == 1
    values["yuv"] = RNG.standard_normal((3, 3, *(1 for _ in space))).astype("f")  # and others are layers
    network = from_model(build([*nodes, n("MatMul", "a V", "y")], ("batch", 3, *space), values, y=("batch", 4)))
    assert network.topology.startswith("c3-c3+")


BLUR = np.outer([1, 2, 1], [1, 2, 1]) / 16
SOBEL = np.outer([1, 2, 1], [-1, 0, 1])
ALL_THREE = {
    "(x - mean) / std": (1 / np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1, 1), "a scale of each channel"),
    "bytes to [0, 1]": (np.full((3, 1, 1, 1), 1 / 255), "a scale of each channel"),
    "a blur": (np.stack([BLUR[None]] * 3), "a filter: "),
    "edges in two directions": (np.stack([SOBEL[None], SOBEL.T[None]] * 3), "a filter: "),
}


def behind_depthwise(kernels, ops=(), bias=True):
    """A depthwise convolution on the input, what stands behind it, and layers that are trained."""
    units, _, size, _ = kernels.shape
    values = {"k": kernels, "offset": np.linspace(-2, -1, units), "W": RNG.standard_normal((5, units, 3, 3))}
    values = {name: np.asarray(each, "f") for name, each in {**values, "V": RNG.standard_normal((5, 2))}.items()}
    given = "x k offset" if bias else "x k"
    nodes, x = [n("Conv", given, "c", group=3, pads=[size // 2] * 4)], "c"
    for number, op in enumerate(ops):
        nodes.append(n(op, x, f"g{number}"))
        x = f"g{number}"
    nodes += [n("Conv", f"{x} W", "z"), n("Relu", "z", "r"), n("GlobalAveragePool", "r", "m"), n("Flatten", "m", "f")]
    held = values if bias else {name: each for name, each in values.items() if name != "offset"}
    return build([*nodes, n("MatMul", "f V", "y")], ("batch", 3, 7, 7), held, y=("batch", 2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ALL_THREE)
def test_what_normalises_or_filters_all_channels_of_images_is_no_layer(name, bias):
    kernels, reason = ALL_THREE[name]
    model = behind_depthwise(kernels, bias=bias)
    network = from_model(model)
    assert len(network.segments[0].layers) == 1
    assert network.segments[0].layers[0].names.node == "Conv_z"
    told = f"'Conv_c' stays as it is: it is no trained layer but {reason}"
    assert len([note for note in network.frame.notes if note.startswith(told)]) == 1
    x = RNG.standard_normal((2, 3, 7, 7)).astype("f")
    np.testing.assert_allclose(run(to_model(network), {"x": x})[0], run(model, {"x": x})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernels", "ops"),
    [
        (np.random.default_rng(0).standard_normal((3, 1, 3, 3)), ()),
        (np.random.default_rng(0).standard_normal((3, 1, 1, 1)), ["Relu"]),
        (np.random.default_rng(0).standard_normal((6, 1, 1, 1)), ()),
        (np.stack([BLUR[None]] * 3), ["Relu"]),
    ],
    ids=["drawn", "behind an activation", "several for each channel", "alike, behind an activation"],
)
def test_depthwise_convolutions_that_were_trained_are_layers(kernels, ops):
    network = from_model(behind_depthwise(kernels, ops))
    assert network.segments[0].layers[0].names.node == "Conv_c"


def scattered():
    return np.abs(np.random.default_rng(0).standard_normal((33, 10))) * (
        np.random.default_rng(1).random((33, 10)) < 0.3
    )


@pytest.mark.parametrize(
    "matrix",
    [
        np.random.default_rng(0).standard_normal((33, 10)),
        np.random.default_rng(0).standard_normal((3, 3)),
        np.random.default_rng(0).random((3, 1)),
        scattered(),
        mel() - 0.001,
        DCT[:, :5] @ np.diag([5, 4, 3, 2, 1]),
        DCT[:, :5],
    ],
    ids=["drawn", "drawn for colours", "drawn for a luminance", "pruned", "not sparse", "factorized", "thin"],
)
def test_layers_that_were_trained_are_layers(matrix):
    network = from_model(behind_matrix(matrix, ()))
    assert network.topology == f"{matrix.shape[0]}-{matrix.shape[1]}-6-2"
    assert network.frame.notes == ()


def test_a_matrix_is_a_layer_where_there_is_no_other_or_it_reads_one():
    alone = build([n("MatMul", "x fixed", "y")], ("batch", 3), {"fixed": YCBCR.astype("f")})
    assert from_model(alone).topology == "3-3"
    inside = build(
        [n("Gemm", "x W0 c0", "a"), n("MatMul", "a V", "b"), n("MatMul", "b fixed", "c"), n("MatMul", "c U", "y")],
        ("batch", 2),
        {name: RNG.standard_normal(shape).astype("f") for name, shape in {"V": (6, 3), "U": (3, 3)}.items()}
        | {"fixed": YCBCR.astype("f")},
    )
    assert from_model(inside).topology == "2-6-3-3-3"


# --- noise of zeros, and shapes of one's own --------------------------------------------------------------------------

LAYERS = [n("Gemm", "x W0 c0", "a"), n("Tanh", "a", "b"), n("Gemm", "b W2 c2", "mean")]
LAID = [n("Shape", "mean", "sizes"), n("ConstantOfShape", "sizes", "zeros")]
ONES = n("ConstantOfShape", "sizes", "ones", value=numpy_helper.from_array(np.ones(1, "f")))
NOISE = {
    "zeros added": [*LAID, n("Add", "zeros mean", "y")],
    "zeros added and taken": [*LAID, n("Add", "mean zeros", "more"), n("Sub", "more zeros", "y")],
    "normal times 0": [n("RandomNormalLike", "mean", "e"), n("Mul", "e nought", "z"), n("Add", "mean z", "y")],
    "uniform times 0": [n("RandomUniformLike", "mean", "e"), n("Mul", "nought e", "z"), n("Add", "z mean", "y")],
    "0 times deviation": [
        n("RandomNormalLike", "mean", "e"),
        n("Exp", "log_std", "std"),
        n("Mul", "e std", "d"),
        n("Mul", "d nought", "z"),
        n("Add", "mean z", "y"),
    ],
    "a deviation of zeros": [
        *LAID,
        n("RandomNormalLike", "mean", "e"),
        n("Mul", "zeros e", "z"),
        n("Add", "mean z", "y"),
    ],
    "zeros from the rows": [
        n("Shape", "x", "sizes"),
        n("Gather", "sizes zero", "rows"),
        n("Concat", "rows three64", "wanted", axis=0),
        n("ConstantOfShape", "wanted", "zeros"),
        n("Add", "mean zeros", "y"),
    ],
    "times ones": [n("Shape", "mean", "sizes"), ONES, n("Mul", "mean ones", "y")],
    "expanded": [n("Shape", "mean", "sizes"), n("Expand", "mean sizes", "y")],
    "expanded to another's": [
        *LAID,
        ONES,
        n("Exp", "log_std", "std"),
        n("Mul", "ones std", "laid"),
        n("Add", "zeros mean", "added"),
        n("Add", "added laid", "other"),
        n("Shape", "other", "wanted"),
        n("Expand", "mean wanted", "y"),
    ],
    "tiled once": [n("Tile", "mean once", "y")],
}
NUMBERS = {
    "nought": np.array(0, "f"),
    "scale": np.array([0.5, 1, 2], "f"),
    "log_std": np.array([[-1, 0.5, 0]], "f"),
    "three64": np.array([3]),
    "once": np.array([1, 1]),
}


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("ends", ["here", "squashed", "in front of a layer"])
def test_noise_of_zeros_and_expand_to_its_own_shape_are_seen_through(name, ends):
    behind = {
        "here": NOISE[name],
        "squashed": [*NOISE[name][:-1], renamed(NOISE[name][-1], "end"), n("Tanh", "end", "y")],
        "in front of a layer": [*NOISE[name][:-1], renamed(NOISE[name][-1], "end"), n("Gemm", "end V", "y")],
    }[ends]
    numbers = CONSTANTS | NUMBERS | {"V": RNG.standard_normal((3, 3)).astype("f")}
    topology = "2-6-3-3" if ends == "in front of a layer" else "2-6-3"
    trains_like(build([*LAYERS, *behind], ("batch", 2), numbers), topology, (4, 2))


def test_a_policy_with_its_noise_off_is_evaluated_and_evolved_by_rows_alone(cli, tmp_path):
    model = build([*LAYERS, *NOISE["expanded to another's"]], ("batch", 2), CONSTANTS | NUMBERS)
    onnx.save(model, tmp_path / "policy.onnx")
    x = RNG.standard_normal((200, 2)).astype("f")
    np.savez(tmp_path / "rows.npz", x=x)
    policy, rows = str(tmp_path / "policy.onnx"), str(tmp_path / "rows.npz")
    code, said, _ = cli("evaluate", policy, "--teacher", policy, "--data", rows, "--json")
    assert (code, json.loads(said)["accuracy"]) == (0, pytest.approx(1.0, abs=1e-6))
    run_dir = tmp_path / "run"
    code, _, _ = cli("evolve", policy, "--data", rows, "--epochs", "2", "--run-dir", str(run_dir), "--workers", "1")
    assert code == 0
    best = onnx.load(run_dir / "best.onnx")
    assert [node.op_type for node in best.graph.node][-1] == "Expand"
    assert run(best, {"x": x})[0].shape == (200, 3)


def renamed(node, output):
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.output[0] = output
    return other


def test_a_constant_laid_out_to_the_batch_is_a_bias():
    nodes = [*LAYERS, *LAID[:1], ONES, n("Mul", "ones scale", "laid"), n("Add", "mean laid", "y")]
    network = trains_like(build(nodes, ("batch", 2), NUMBERS), "2-6-3", (4, 2))
    model = build(nodes, ("batch", 2), NUMBERS)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert network.layers[-1].bias.shape == given["c2"].shape


@pytest.mark.parametrize(
    "noise",
    [
        [n("RandomNormalLike", "mean", "e", seed=1.0), n("Add", "mean e", "y")],
        [n("RandomNormalLike", "mean", "e", seed=1.0), n("Mul", "e inf", "z"), n("Add", "mean z", "y")],
    ],
    ids=["noise", "infinite"],
)
def test_noise_that_is_none_of_zeros_is_not_seen_through(noise):
    network = from_model(build([*LAYERS, *noise], ("batch", 2), NUMBERS | {"inf": np.array(np.inf, "f")}))
    assert [head.tensor for head in network.heads] == ["mean"]
    assert network.frame.suffix == ("Add",)  # what reads a shape only does nothing to the numbers


def test_zeros_that_make_more_rows_are_not_seen_through():
    nodes = [*LAYERS, n("ConstantOfShape", "wanted", "zeros"), n("Add", "mean zeros", "y")]
    network = from_model(build(nodes, ("batch", 2), {"wanted": np.array([2, 1, 3])}, y=(2, "batch", 3)))
    assert [head.tensor for head in network.heads] == ["mean"]
    assert network.frame.suffix == ("Add",)


def test_a_layer_whose_output_is_multiplied_by_0_is_noted():
    """A policy's deviation, switched off: no weight of it moves an output."""
    nodes = [
        *LAYERS,
        n("Gemm", "b W2 c2", "log_std"),
        n("Exp", "log_std", "std"),
        n("RandomNormalLike", "mean", "e"),
        n("Mul", "e nought", "off"),
        n("Mul", "off std", "z"),
        n("Add", "mean z", "y"),
    ]
    numbers = {"nought": NUMBERS["nought"]}
    network = from_model(build(nodes, ("batch", 2), numbers))
    assert network.topology == "2-6-3"
    assert network.frame.notes[0] == "'Gemm_log_std' stays as it is: no output depends on what is computed there"
