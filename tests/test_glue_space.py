"""Glue along axes of space: every op's gradient against difference quotients, through a trunk of two dense layers.

A dense layer 5 → n stands before it, whose outputs become an image (channels, space…), and one of 3 units behind it.
The loss is a function of the model itself, run by onnx.reference in float64; in float32 ONNX Runtime's numbers are
compared.
"""

import math

import numpy as np
import pytest
from measuring.reference import evaluate
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import Examples, TrainingSpec, from_model, make_engine
from onnxsurgeon.graph import glue_readers, glue_space
from onnxsurgeon.graph.glue import READERS
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.training import glue as general_rules
from onnxsurgeon.training import glue_space as rules
from onnxsurgeon.training.metrics import correct_and_loss
from onnxsurgeon.training.steps import steps_of
from tests.convolutional import loop_gradients

ROWS = 3
RNG = np.random.default_rng(5)


def n(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(" "), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def trunk_model(image, nodes, flat, constants, dtype, opset=17):
    """x (rows, 5) → dense → t (rows, image…) → ``nodes`` from t to u → flat (rows, ``flat``) → dense → y (rows, 3)."""
    rng, size = np.random.default_rng(1), math.prod(image)
    values = {
        "A": rng.standard_normal((5, size)),
        "P": rng.standard_normal(size),
        "B": rng.standard_normal((flat, 3)) / math.sqrt(flat),
        "Q": rng.standard_normal(3),
        "image": np.array([-1, *image]),
        "flat": np.array([-1, flat]),
        **constants,
    }
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    keep = {"scales", "sizes"}
    tensors = {k: v if v.dtype.kind == "i" or k in keep else v.astype(dtype) for k, v in values.items()}
    graph = helper.make_graph(
        [
            n("Gemm", "x A P", "h"),
            n("Tanh", "h", "tanh"),
            n("Reshape", "tanh image", "t"),
            *nodes,
            n("Reshape", "u flat", "z"),
            n("Gemm", "z B Q", "y"),
        ],
        "trunk",
        [helper.make_tensor_value_info("x", kind, ["batch", 5])],
        [helper.make_tensor_value_info("y", kind, ["batch", 3])],
        [numpy_helper.from_array(v, k) for k, v in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def scaled(*scales):
    return {"scales": np.array([1, 1, *scales], np.float32)}


def max_pool(*kernel):
    return n("MaxPool", "t", "u", kernel_shape=list(kernel), strides=list(kernel))


def resize(inputs="t  scales", **attributes):
    return n("Resize", inputs, "u", **attributes)


IMAGE = (2, 6, 6)
CHANNELS = {"s": np.array([0.5, 1.5]), "b": np.array([0.3, -0.2])}
# name → (image, nodes, values behind, constants, glue ops that must come up)
CASES = {
    "MaxPool": (IMAGE, [n("MaxPool", "t", "u", kernel_shape=[2, 2], strides=[2, 2])], 18, {}, "MaxPool"),
    "MaxPool behind Relu": (
        IMAGE,
        [n("Relu", "t", "r"), n("MaxPool", "r", "u", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)],
        18,
        {},
        "MaxPool",
    ),
    "MaxPool behind Relu that others read": (
        IMAGE,
        [
            n("Relu", "t", "r"),
            n("MaxPool", "r", "m", kernel_shape=[2, 2], strides=[2, 2]),
            n("AveragePool", "r", "a", kernel_shape=[2, 2], strides=[2, 2]),
            n("Mul", "m a", "u"),
        ],
        18,
        {},
        "MaxPool",
    ),
    "MaxPool: rest unread": (
        (2, 7, 5),
        [n("MaxPool", "t", "u", kernel_shape=[2, 2], strides=[2, 2])],
        12,
        {},
        "MaxPool",
    ),
    "MaxPool: overlapping": (
        IMAGE,
        [n("MaxPool", "t", "u", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        18,
        {},
        "MaxPool",
    ),
    "MaxPool: ceil_mode": (
        (2, 7, 7),
        [n("MaxPool", "t", "u", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
        32,
        {},
        "MaxPool",
    ),
    "MaxPool: dilated": (
        IMAGE,
        [n("MaxPool", "t", "u", kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 3])],
        24,
        {},
        "MaxPool",
    ),
    "MaxPool: SAME": (
        (2, 5, 6),
        [n("MaxPool", "t", "u", kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_UPPER")],
        36,
        {},
        "MaxPool",
    ),
    "MaxPool: one axis": ((3, 9), [n("MaxPool", "t", "u", kernel_shape=[3], strides=[3])], 9, {}, "MaxPool"),
    "MaxPool: three axes": (
        (2, 4, 4, 2),
        [max_pool(2, 2, 2)],
        8,
        {},
        "MaxPool",
    ),
    "AveragePool": (IMAGE, [n("AveragePool", "t", "u", kernel_shape=[2, 3], strides=[2, 3])], 12, {}, "AveragePool"),
    "AveragePool: rest unread": (
        (2, 7, 5),
        [n("AveragePool", "t", "u", kernel_shape=[2, 2], strides=[2, 2])],
        12,
        {},
        "AveragePool",
    ),
    "AveragePool: padding does not count": (
        IMAGE,
        [n("AveragePool", "t", "u", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        18,
        {},
        "AveragePool",
    ),
    "AveragePool: padding counts": (
        IMAGE,
        [n("AveragePool", "t", "u", kernel_shape=[3, 3], strides=[1, 2], pads=[1, 0, 0, 1], count_include_pad=1)],
        30,
        {},
        "AveragePool",
    ),
    "AveragePool: ceil_mode": (
        (2, 6, 7),
        [n("AveragePool", "t", "u", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1)],
        24,
        {},
        "AveragePool",
    ),
    "AveragePool: one axis": (
        (3, 9),
        [n("AveragePool", "t", "u", kernel_shape=[3], strides=[2])],
        12,
        {},
        "AveragePool",
    ),
    "GlobalAveragePool": (IMAGE, [n("GlobalAveragePool", "t", "u")], 2, {}, "ReduceMean"),
    "ReduceMean": (IMAGE, [n("ReduceMean", "t", "u", axes=[-1, -2], keepdims=0)], 2, {}, "ReduceMean"),
    "ReduceMax": (IMAGE, [n("ReduceMax", "t", "u", axes=[-1, -2], keepdims=0)], 2, {}, "ReduceMax"),
    "ReduceMax of channels": (IMAGE, [n("ReduceMax", "t", "u", axes=[1])], 36, {}, "ReduceMax"),
    "GlobalMaxPool": (IMAGE, [n("GlobalMaxPool", "t", "u")], 2, {}, "MaxPool"),
    "Pad": (
        IMAGE,
        [n("Pad", "t p v", "u")],
        147,
        {"p": np.array([0, 0, 0, 1, 0, 1, 1, 0]), "v": np.array(0.7)},
        "Pad",
    ),
    "Resize: nearest, twice": (
        IMAGE,
        [
            n(
                "Resize",
                "t  scales",
                "u",
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        288,
        scaled(2, 2),
        "Repeat",
    ),
    "Resize: nearest, uneven": (
        IMAGE,
        [n("Resize", "t   sizes", "u", mode="nearest")],
        80,
        {"sizes": np.array([ROWS, 2, 8, 5])},
        "Resample",
    ),
    "Resize: linear": (
        IMAGE,
        [n("Resize", "t  scales", "u", mode="linear", coordinate_transformation_mode="half_pixel")],
        216,
        scaled(1.5, 2),
        "Resample",
    ),
    "Resize: linear, corners aligned": (
        IMAGE,
        [n("Resize", "t  scales", "u", mode="linear", coordinate_transformation_mode="align_corners")],
        288,
        scaled(2, 2),
        "Resample",
    ),
    "InstanceNormalization": (
        IMAGE,
        [n("InstanceNormalization", "t s b", "u", epsilon=1e-3)],
        72,
        CHANNELS,
        "GroupNormalization",
    ),
    "GroupNormalization as PyTorch spells it": (
        (4, 3, 3),
        [
            n("Reshape", "t groups", "g"),
            n("InstanceNormalization", "g ones none", "i"),
            n("Reshape", "i back", "r"),
            n("Mul", "r s", "m"),
            n("Add", "m b", "u"),
        ],
        36,
        {
            "groups": np.array([0, 2, -1]),
            "back": np.array([-1, 4, 3, 3]),
            "ones": np.ones(2),
            "none": np.zeros(2),
            "s": RNG.uniform(0.5, 1.5, (4, 1, 1)),
            "b": RNG.standard_normal((4, 1, 1)),
        },
        "GroupNormalization",
    ),
    "BatchNormalization": (
        IMAGE,
        [n("BatchNormalization", "t s b b v", "u")],
        72,
        {**CHANNELS, "v": np.array([0.5, 2.0])},
        "Affine",
    ),
    "PRelu, a slope for each channel": (
        IMAGE,
        [n("PRelu", "t s", "u")],
        72,
        {"s": RNG.uniform(-1, 1, (2, 1, 1))},
        "Activation",
    ),
    "squeeze and excitation": (
        IMAGE,
        [n("GlobalAveragePool", "t", "m"), n("Sigmoid", "m", "s"), n("Mul", "t s", "u")],
        72,
        {},
        "Mul",
    ),
    "channel shuffle": (
        (4, 3, 3),
        [
            n("Reshape", "t to", "a"),
            n("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
            n("Reshape", "b back", "c"),
            n("Split", "c parts", "d e", axis=1),
            n("Mul", "d e", "u"),
        ],
        18,
        {"to": np.array([-1, 2, 2, 3, 3]), "back": np.array([-1, 4, 3, 3]), "parts": np.array([2, 2])},
        "Slice",
    ),
    "Slice: two axes cut, and all of another": (
        IMAGE,
        [n("Slice", "t begin end axes", "u")],
        2 * 3 * 4,
        {"begin": np.array([0, 1, -5]), "end": np.array([2**31 - 1, 4, -1]), "axes": np.array([1, 2, 3])},
        "Slice",
    ),
    "Tile": (IMAGE, [n("Tile", "t times", "u")], 3 * 72, {"times": np.array([1, 1, 3, 1])}, "Concat"),
    "Expand": (
        IMAGE,
        [n("Unsqueeze", "t three", "v"), n("Expand", "v times", "w"), n("Reshape", "w back", "u")],
        2 * 72,
        {"three": np.array([3]), "times": np.array([1, 1, 1, 2, 1]), "back": np.array([-1, 2, 12, 6])},
        "Concat",
    ),
    "channels last": (IMAGE, [n("Transpose", "t", "l", perm=[0, 2, 3, 1]), n("Tanh", "l", "u")], 72, {}, "Transpose"),
    "DepthToSpace": ((4, 3, 2), [n("DepthToSpace", "t", "u", blocksize=2)], 24, {}, "Transpose"),
    "DepthToSpace: CRD": ((4, 3, 2), [n("DepthToSpace", "t", "u", blocksize=2, mode="CRD")], 24, {}, "Transpose"),
    "SpaceToDepth": (IMAGE, [n("SpaceToDepth", "t", "u", blocksize=2)], 72, {}, "Transpose"),
    "ConvTranspose": (
        (2, 4, 3),
        [n("ConvTranspose", "t w b", "u", strides=[2, 2], pads=[1, 0, 0, 1], output_padding=[1, 0])],
        3 * 9 * 6,
        {"w": RNG.standard_normal((2, 3, 3, 3)), "b": RNG.standard_normal(3)},
        "ConvTranspose",
    ),
}


def data_of(dtype):
    rng = np.random.default_rng(3)
    return Examples.classification(rng.standard_normal((ROWS, 5)).astype(dtype), rng.integers(0, 3, ROWS), 3)


def network_of(name, dtype):
    image, nodes, flat, constants, _ = CASES[name]
    return from_model(trunk_model(image, nodes, flat, constants, dtype))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_difference_quotients(name):
    network, data = network_of(name, np.float64), data_of(np.float64)
    assert len(network.segments) == 2
    assert CASES[name][4] in {step.op for step in network.frame.trunk.steps if not isinstance(step, int)}
    gradients = loop_gradients(network, data)
    values = [each for _, each in network.parameters()]
    rng, step = np.random.default_rng(11), 1e-6
    for number in range(2):  # the first layer's: what is behind it has passed backward through the glue
        direction = rng.standard_normal(values[number].shape)
        moved = []
        for sign in (1, -1):
            changed = [v + sign * step * direction if i == number else v for i, v in enumerate(values)]
            (y,) = evaluate(to_model(network.with_parameters(changed)), {"x": data.features[0]})
            moved.append(correct_and_loss(y, data.labels[0])[1] / ROWS)
        slope = (moved[0] - moved[1]) / (2 * step)
        # Resampling is worked out by ONNX Runtime, in float32.
        rounding = 2e-7 if "linear" in name else 1e-9
        assert np.vdot(gradients[number], direction) == pytest.approx(slope, rel=2e-7, abs=rounding)


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_evaluates_and_trains_it(name):
    network, data = network_of(name, np.float32), data_of(np.float32)
    engine = make_engine("loop")
    ((_, (outputs,)),) = engine.outputs(network, data)
    (expected,) = run(to_model(network), {"x": data.features[0]})
    assert outputs == pytest.approx(expected, abs=1e-5)
    trained = engine.train(network, data, [np.arange(ROWS)[None]], TrainingSpec(1.0)).network
    wide = loop_gradients(network_of(name, np.float64), data_of(np.float64))
    for (_, old), (_, new), gradient in zip(network.parameters(), trained.parameters(), wide, strict=True):
        assert abs(old - new - gradient).max() < 1e-5 * max(1, abs(gradient).max())


def test_a_relu_before_a_pool_is_computed_behind_it():
    def order(name):
        return [step.op for step in steps_of(network_of(name, np.float32)) if not isinstance(step, int)]

    assert order("MaxPool behind Relu")[-3:] == ["MaxPool", "Activation", "Reshape"]
    assert order("MaxPool behind Relu that others read")[-4:] == ["MaxPool", "AveragePool", "Mul", "Reshape"]


def test_equal_maxima_share_their_gradient():
    """Of windows side by side; the sum is what it is to be."""
    image, nodes, flat, _, _ = CASES["MaxPool"]
    network, data = from_model(trunk_model(image, nodes, flat, {}, np.float64)), data_of(np.float64)
    constant = network.with_parameters(
        np.zeros_like(v) if i == 0 else np.full_like(v, 0.25) if i == 1 else v
        for i, (_, v) in enumerate(network.parameters())
    )
    bias = loop_gradients(constant, data)[1].reshape(2, 3, 2, 3, 2)
    assert abs(bias - bias[:, :, :1, :, :1]).max() < 1e-12
    assert abs(bias).max() > 0.001


REFUSED = {
    "its padding is not smaller": (IMAGE, [n("MaxPool", "t", "u", kernel_shape=[2, 2], pads=[2, 0, 0, 0])], 70),
    "it pads by mode reflect": (IMAGE, [n("Pad", "t p", "u", mode="reflect")], 84),
    "it puts out where its maxima are": (
        IMAGE,
        [
            n("MaxPool", "t", "m i", kernel_shape=[1, 1]),
            n("Cast", "i", "c", to=TensorProto.FLOAT),
            n("Add", "m c", "u"),
        ],
        72,
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_trained_through_says_why(reason):
    image, nodes, flat = REFUSED[reason]
    constants = {"p": np.array([0, 0, 0, 0, 0, 0, 0, 1])}
    network = from_model(trunk_model(image, nodes, flat, constants, np.float32))
    assert any(reason in note for note in network.frame.notes), network.frame.notes


def test_every_op_of_space_is_tested():
    in_files = {node.op_type for _, nodes, *_ in CASES.values() for node in nodes}
    made = {"Windows"}  # no file has it: tests/test_windows.py has the pools that are read as it
    assert set(glue_space.READERS) - in_files - made == {"Conv", "Upsample", "GroupNormalization"}
    assert {case[4] for case in CASES.values()} >= set(rules.RULES) - {"Conv"}
    assert set(rules.RULES) == set(rules.FORWARD)
    assert not set(rules.RULES) & set(general_rules.RULES)
    assert not set(glue_space.READERS) & set(glue_readers.READERS)
    assert set(READERS) == {*glue_space.READERS, *glue_readers.READERS}
