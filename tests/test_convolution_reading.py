"""Convolutions become layers: what is found, and that writing it back gives the same outputs and interface."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.equivalence import chain_outputs, compare_models, random_features, random_inputs
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from tests.convolution_files import model, values
from tests.graphs import node

PLAIN = Geometry((3, 3), (1, 1), (1, 1), (0, 0, 0, 0))


def same(given, tolerance=1e-5):
    """Read and write: the same outputs, names and interface; what is written is read as the same again."""
    network = from_model(given)
    written = to_model(network)
    onnx.checker.check_model(written, full_check=True)
    found = compare_models(given, written, random_inputs(given, rows=4))
    assert found.scale > 0
    assert found.relative <= tolerance
    assert written.graph.input == given.graph.input
    assert written.graph.output == given.graph.output
    again = from_model(written)
    assert to_model(again) == written
    assert [segment.layers[0].geometry for segment in again.segments] == [
        segment.layers[0].geometry for segment in network.segments
    ]
    return network


CONVOLUTIONS = {
    "plain": ((5, 3, 3, 3), {}, PLAIN),
    "one tap": ((5, 3, 1, 1), {}, Geometry((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))),
    "as it is declared": ((5, 3, 3, 3), {"kernel_shape": [3, 3], "group": 1, "pads": [0] * 4}, PLAIN),
    "steps": ((5, 3, 3, 3), {"strides": [2, 3]}, Geometry((3, 3), (2, 3), (1, 1), (0, 0, 0, 0))),
    "dilated": ((5, 3, 3, 2), {"dilations": [2, 3]}, Geometry((3, 2), (1, 1), (2, 3), (0, 0, 0, 0))),
    "padded on one side": ((5, 3, 3, 3), {"pads": [2, 0, 1, 3]}, Geometry((3, 3), (1, 1), (1, 1), (2, 0, 1, 3))),
    "valid": ((5, 3, 3, 3), {"auto_pad": "VALID"}, PLAIN),
    "same upper": ((5, 3, 3, 2), {"auto_pad": "SAME_UPPER"}, Geometry((3, 2), (1, 1), (1, 1), (1, 0, 1, 1))),
    "same lower": ((5, 3, 3, 2), {"auto_pad": "SAME_LOWER"}, Geometry((3, 2), (1, 1), (1, 1), (1, 1, 1, 0))),
    "same upper in steps": (
        (5, 3, 3, 3),
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        Geometry((3, 3), (2, 2), (1, 1), (1, 0, 1, 1)),
    ),
    "same lower in steps": (
        (5, 3, 3, 3),
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        Geometry((3, 3), (2, 2), (1, 1), (1, 1, 1, 0)),
    ),
    "depthwise": ((3, 1, 3, 3), {"group": 3}, Geometry((3, 3), (1, 1), (1, 1), (0, 0, 0, 0), 3)),
    "depthwise, several units a channel": ((6, 1, 3, 3), {"group": 3}, Geometry((3, 3), (1, 1), (1, 1), (0,) * 4, 3)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_a_layer_with_a_geometry(name):
    shape, attributes, geometry = CONVOLUTIONS[name]
    nodes = [node("Conv", "x K b", "y", name="conv", **attributes)]
    weight = values(*shape)
    network = same(model(nodes, {"K": weight, "b": values(shape[0])}))
    (layer,) = network.layers
    assert layer.geometry == geometry
    assert layer.channels == 3
    assert network.topology == f"c3-c{shape[0]}"
    assert network.segments[0].rank == 4
    assert network.segments[0].unit_axis == 1
    assert layer.weight.shape == (shape[1] * shape[2] * shape[3], shape[0])
    np.testing.assert_array_equal(layer.weight.T.reshape(shape), weight)
    assert network.parameter_count == weight.size + shape[0]
    assert network.frame.notes == ()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("opset", [7, 11, 17, 21])
def test_convolutions_in_one_two_and_three_dimensions(rank, opset):
    space = (9, 8, 7)[:rank]
    nodes = [
        node("Conv", "x K b", "a", pads=[1] * 2 * rank),
        node("Relu", "a", "h"),
        node("Conv", "h L", "y", strides=[2] * rank),
    ]
    constants = {"K": values(4, 2, *[3] * rank), "b": values(4), "L": values(5, 4, *[2] * rank)}
    network = same(model(nodes, constants, ("batch", 2, *space), opset))
    assert network.topology == "c2-c4-c5"
    (chain,) = network.segments
    behind = tuple(size // 2 for size in space)
    assert chain.space == space
    assert chain.spaces() == [space, behind]
    assert chain.multiplications() == [
        4 * 2 * 3**rank * int(np.prod(space)),
        5 * 4 * 2**rank * int(np.prod(behind)),
    ]


def test_sizes_of_space_need_not_be_known():
    nodes = [
        node("Conv", "x K", "a", auto_pad="SAME_UPPER"),
        node("Relu", "a", "h"),
        node("Conv", "h L", "b"),
        node("GlobalAveragePool", "b", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f W", "y"),
    ]
    constants = {"K": values(4, 3, 3, 3), "L": values(4, 4, 3, 3), "W": values(4, 2)}
    given = model(nodes, constants, ("batch", 3, "height", "width"))
    network = from_model(given)
    written = to_model(network)
    onnx.checker.check_model(written, full_check=True)
    feeds = {"x": values(2, 3, 7, 8)}
    assert compare_models(given, written, feeds).relative <= 1e-5
    assert all(None in chain.multiplications() for chain in network.segments if chain.is_convolution)


def test_same_padding_in_steps_needs_the_size_and_says_so():
    nodes = [
        node("Conv", "x K", "a", name="conv", auto_pad="SAME_UPPER", strides=[2, 2]),
        node("ReduceMean", "a", "m", axes=[2, 3], keepdims=0),
        node("Gemm", "m W", "y"),
    ]
    given = model(nodes, {"K": values(4, 3, 3, 3), "W": values(4, 2)}, ("batch", 3, "height", "width"))
    network = from_model(given)
    assert network.topology == "4-2"
    reason = "its auto_pad SAME_UPPER depends on the size of its input, which is not known"
    assert network.frame.notes == (f"'conv' stays as it is: {reason}",)
    with pytest.raises(ModelError, match=rf"node 'conv' \(Conv\) is not understood, since {reason}"):
        from_model(model(nodes[:1], {"K": values(4, 3, 3, 3)}, ("batch", 3, "height", "width"), outputs=("a",)))


REFUSED = {
    "its weight is not constant": ([node("Abs", "K", "L"), node("Conv", "x L", "y", name="c")], {}),
    "its bias is not one constant value for each unit": (
        [node("ReduceMean", "x", "m", axes=[0, 2, 3], keepdims=0), node("Conv", "x K m", "y", name="c")],
        {},
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_says_why(reason):
    nodes, constants = REFUSED[reason]
    with pytest.raises(ModelError, match=rf"node 'c' \(Conv\) is not understood, since {reason}"):
        from_model(model(nodes, {"K": values(3, 3, 3, 3), **constants}))


# y = f(Conv(x)), of which the second half is folded into the layer: what stays between two convolutions.
CHANNELS = values(4, 1, 1, seed=3)
NORM = {
    "g": values(4, seed=4) + 1,
    "o": values(4, seed=5),
    "m": values(4, seed=6),
    "v": np.abs(values(4, seed=7)) + 0.1,
}
FOLDED = {
    "a bias behind": ([node("Add", "a c", "h")], {"c": CHANNELS}, "linear"),
    "a bias in front of the sum": ([node("Add", "c a", "h")], {"c": CHANNELS[None]}, "linear"),
    "a bias that is subtracted": ([node("Sub", "a c", "h")], {"c": CHANNELS}, "linear"),
    "scales": ([node("Mul", "a c", "h")], {"c": CHANNELS}, "linear"),
    "one scale and one shift": (
        [node("Mul", "a s", "s1"), node("Add", "s1 t", "h")],
        {"s": np.float32(2), "t": np.float32(0.5)},
        "linear",
    ),
    "divisors": ([node("Div", "a c", "h")], {"c": np.abs(CHANNELS) + 1}, "linear"),
    "normalisation": ([node("BatchNormalization", "a g o m v", "h")], NORM, "linear"),
    "normalisation and relu": (
        [node("BatchNormalization", "a g o m v", "n"), node("Relu", "n", "h")],
        NORM,
        "Relu",
    ),
    "prelu by channel": ([node("PRelu", "a s", "h")], {"s": CHANNELS}, "PRelu"),
    "prelu of one slope": ([node("PRelu", "a s", "h")], {"s": values(1, 1, 1)}, "PRelu"),
    "relu6": (
        [node("Clip", "a low high", "h")],
        {"low": np.float32(0), "high": np.float32(6)},
        "Clip(min=0.0, max=6.0)",
    ),
    "leaky relu": ([node("LeakyRelu", "a", "h", alpha=0.25)], {}, "LeakyRelu(alpha=0.25)"),
    "silu": ([node("Sigmoid", "a", "s"), node("Mul", "a s", "h")], {}, "Swish"),
    "hard swish": ([node("HardSwish", "a", "h")], {}, "HardSwish"),
    "hard swish in parts": (
        [node("HardSigmoid", "a", "s", alpha=1 / 6, beta=0.5), node("Mul", "a s", "h")],
        {},
        "HardSwish",
    ),
    "hard swish by relu6": (
        [
            node("Add", "a three", "s"),
            node("Clip", "s low high", "t"),
            node("Mul", "a t", "u"),
            node("Div", "u high", "h"),
        ],
        {"three": np.float32(3), "low": np.float32(0), "high": np.float32(6)},
        "HardSwish",
    ),
    "normalisation, scale and silu": (
        [
            node("BatchNormalization", "a g o m v", "n"),
            node("Mul", "n c", "n2"),
            node("Sigmoid", "n2", "s"),
            node("Mul", "n2 s", "h"),
        ],
        {**NORM, "c": CHANNELS},
        "Swish",
    ),
}


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("bias", [True, False], ids=["with a bias", "without"])
def test_what_is_behind_a_convolution_belongs_to_it(name, bias):
    between, constants, activation = FOLDED[name]
    first = node("Conv", "x K b" if bias else "x K", "a", name="first", pads=[1, 1, 1, 1])
    nodes = [first, *between, node("Conv", "h L", "y", name="second")]
    constants = {
        "K": values(4, 3, 3, 3),
        "L": values(2, 4, 3, 3),
        **({"b": values(4, seed=1)} if bias else {}),
    } | constants
    network = same(model(nodes, constants))
    assert network.topology == "c3-c4-c2"
    assert str(network.hidden(1).activation or "linear") == activation
    assert network.frame.notes == ()
    ops = [each.op_type for each in to_model(network).graph.node]
    assert ops.count("Conv") == 2
    assert not {"BatchNormalization", "Add", "Sub", "Div"} & set(ops)


def test_a_slope_for_each_column_is_no_slope_for_each_unit():
    """A PRelu (1, 1, 4) works along the width: the chain ends before it."""
    nodes = [
        node("Conv", "x K", "a", name="first"),
        node("PRelu", "a s", "h", name="slope"),
        node("Conv", "h L", "y", name="second"),
    ]
    constants = {"K": values(4, 3, 3, 3), "L": values(2, 4, 1, 1), "s": values(1, 1, 4)}
    network = same(model(nodes, constants, ("batch", 3, 5, 6)))
    assert network.topology == "c3-c4+c4-c2"


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]], ids=["unpadded", "padded"])
def test_a_normalisation_before_a_convolution_folds_forward_unless_zeros_are_read(pads):
    """Conv(BN(Relu(Conv(x)))): its shift moves into a bias only where each position reads all taps."""
    nodes = [
        node("Conv", "x K", "a", name="first"),
        node("Relu", "a", "r"),
        node("BatchNormalization", "r g o m v", "n", name="norm"),
        node("Conv", "n L", "y", name="second", pads=pads),
    ]
    network = same(model(nodes, {"K": values(4, 3, 3, 3), "L": values(2, 4, 3, 3), **NORM}))
    padded = any(pads)
    assert network.topology == ("c3-c4+c4-c2" if padded else "c3-c4-c2")
    assert (network.frame.notes, network.group(1).units) == ((), 4)
    assert len(network.group(1).followers) == (4 if padded else 0)


def test_scales_fold_forward_past_padding():
    nodes = [
        node("Conv", "x K", "a"),
        node("Relu", "a", "r"),
        node("Mul", "r c", "n"),
        node("Conv", "n L", "y", pads=[1, 1, 1, 1]),
    ]
    constants = {"K": values(4, 3, 3, 3), "L": values(2, 4, 3, 3), "c": CHANNELS}
    assert same(model(nodes, constants)).topology == "c3-c4-c2"


def test_a_depthwise_convolution_is_a_part_of_its_own():
    nodes = [
        node("Conv", "x A", "a", name="expand"),
        node("Relu", "a", "b"),
        node("Conv", "b B", "c", name="depthwise", group=6, pads=[1, 1, 1, 1]),
        node("Relu", "c", "d"),
        node("Conv", "d C", "e", name="project"),
        node("Relu", "e", "f"),
        node("Conv", "f D", "y", name="last", group=2),
    ]
    constants = {"A": values(6, 3, 1, 1), "B": values(6, 1, 3, 3), "C": values(4, 6, 1, 1), "D": values(4, 2, 3, 3)}
    network = same(model(nodes, constants))
    assert network.topology == "c3-c6+c6-c6+c6-c4+c4-c4"
    assert network.hidden_count == 0
    assert [layer.channels for layer in network.layers] == [3, 6, 6, 4]
    note = "the width of 'project' stays: a grouped convolution reads its units in groups (node 'last')"
    assert network.frame.notes == (note,)
    assert network.group_count == 1  # of 'expand', 'depthwise' and 'project'
    assert (network.group(1).units, network.group(1).ports, network.group(1).each) == (6, 3, ((1, 0),))


def test_dense_layers_and_convolutions_are_in_parts_of_their_own():
    """A dense layer on the last axis of an image stands between two convolutions, with and without an activation."""
    nodes = [
        node("Conv", "x A", "a", name="c1", pads=[1, 1, 1, 1]),
        node("MatMul", "a W", "b", name="d1"),
        node("Relu", "b", "c"),
        node("Conv", "c B", "d", name="c2"),
        node("Flatten", "d", "e", name="flat"),
        node("Gemm", "e V", "y", name="d2"),
    ]
    constants = {"A": values(4, 3, 3, 3), "W": values(8, 8), "B": values(2, 4, 3, 3), "V": values(7 * 6 * 2, 3)}
    network = same(model(nodes, constants))
    assert network.topology == "c3-c4+8-8+c4-c2+84-3"
    assert "the width of 'c1' stays: the next layer works along another axis than its units (node 'd1')" in (
        network.frame.notes
    )


def test_a_residual_block_is_two_parts_and_an_add():
    nodes = [
        node("Conv", "x A", "a", name="stem", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b B", "c", name="c1", pads=[1, 1, 1, 1]),
        node("Relu", "c", "d"),
        node("Conv", "d C", "e", name="c2", pads=[1, 1, 1, 1]),
        node("Add", "e b", "f", name="add"),
        node("Relu", "f", "g"),
        node("Conv", "g D", "y", name="last"),
    ]
    constants = {"A": values(4, 3, 3, 3), "B": values(5, 4, 3, 3), "C": values(4, 5, 3, 3), "D": values(2, 4, 1, 1)}
    network = same(model(nodes, constants))
    assert network.topology == "c3-c4+c4-c5-c4+c4-c2"
    assert network.frame.notes == ()
    assert (network.group(2).units, network.group(2).ports) == (4, 4)


def test_float16_is_worked_on_in_float32():
    nodes = [node("Conv", "x A a", "h"), node("PRelu", "h s", "r"), node("Conv", "r B", "y")]
    constants = {"A": values(4, 3, 3, 3), "a": values(4), "B": values(2, 4, 3, 3), "s": CHANNELS}
    constants = {name: array.astype(np.float16) for name, array in constants.items()}
    network = same(model(nodes, constants, dtype=TensorProto.FLOAT16), 3e-3)
    assert network.topology == "c3-c4-c2"
    assert network.segments[0].file_dtype == np.float16
    assert network.dtype == np.float32


def test_float64_is_read_and_written_though_onnx_runtime_has_no_such_convolution():
    nodes = [node("Conv", "x A", "h"), node("Relu", "h", "r"), node("Conv", "r B", "y")]
    constants = {"A": values(4, 3, 3, 3, kind=np.float64), "B": values(2, 4, 3, 3, kind=np.float64)}
    given = model(nodes, constants, dtype=TensorProto.DOUBLE)
    network = from_model(given)
    assert (network.topology, network.dtype) == ("c3-c4-c2", np.float64)
    written = to_model(network)
    onnx.checker.check_model(written, full_check=True)
    assert {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in written.graph.initializer} == {
        name: array.tobytes() for name, array in constants.items()
    }


def test_a_weight_that_two_convolutions_share_stays_one():
    nodes = [node("Conv", "x K", "a", name="one"), node("Relu", "a", "b"), node("Conv", "b K", "y", name="two")]
    network = same(model(nodes, {"K": values(3, 3, 3, 3)}))
    assert network.topology == "c3-c3+c3-c3"
    assert network.parameter_count == 3 * 3 * 3 * 3
    assert [tensor.name for tensor in to_model(network).graph.initializer] == ["K"]
    assert network.frame.notes == (
        "the width of 'one' stays: a layer whose weights others have too reads or writes its units (node 'two')",
    )


def test_transposes_of_channels_last_files_cancel():
    """Conv in NHWC as tf2onnx writes it: what is transposed and turned back between two convolutions is the layer's."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t K", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 3, 1]),
        node("Relu", "b", "c"),
        node("Transpose", "c", "d", perm=[0, 3, 1, 2]),
        node("Conv", "d L", "e"),
        node("Transpose", "e", "y", perm=[0, 2, 3, 1]),
    ]
    network = same(model(nodes, {"K": values(4, 3, 3, 3), "L": values(2, 4, 3, 3)}, ("batch", 9, 8, 3)))
    assert network.topology == "c3-c4-c2"
    assert network.frame.trunk.features == {"t": (3, 9, 8)}


def test_an_output_of_unknown_size_takes_no_targets():
    nodes = [node("Conv", "x K", "y", name="conv")]
    given = model(nodes, {"K": values(4, 3, 3, 3)}, ("batch", 3, "height", "width"))
    with pytest.raises(ModelError, match="the size of what 'conv' writes is not known"):
        from_model(given)


def test_a_chain_alone_computes_what_the_model_does():
    nodes = [
        node("Conv", "x K b", "a", pads=[1, 1, 1, 1], strides=[2, 1]),
        node("PRelu", "a s", "h"),
        node("Conv", "h L", "y", dilations=[2, 2]),
    ]
    constants = {"K": values(4, 3, 3, 3), "b": values(4), "s": CHANNELS, "L": values(2, 4, 3, 3)}
    given = model(nodes, constants)
    (chain,) = from_model(given).segments
    features = random_features(chain, rows=5)
    assert features.shape[:2] == (5, 3)
    assert chain_outputs(chain, features).shape == (5, 2, 3, 3)
    x = values(5, 3, 9, 8)
    np.testing.assert_allclose(chain_outputs(chain, x), run(given, {"x": x})[0], rtol=1e-5, atol=1e-6)


def test_the_activations_that_are_tested_are_known():
    assert {"Swish", "HardSwish", "PRelu", "Clip", "LeakyRelu"} <= ACTIVATIONS.keys()


ODD = {
    "strides": [3, "two", [2**40, 1], [0, 1], [1], [1.5, 1.0]],
    "dilations": [[0, 1], [2**40, 1]],
    "pads": [[-1, 0, 0, 0], [1], [2**40] * 4],
    "group": [0, -3, 2, [1], "one"],
    "auto_pad": ["SAME", 2],
    "kernel_shape": [[5, 5], 3, "three"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, odd in ODD.items() for value in odd], ids=str)
def test_attributes_that_make_no_sense_are_refused_in_one_line(name, value):
    nodes = [node("Conv", "x A", "y", name="c", **{name: value})]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("b", 3, 9, 9))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("b", 4, 7, 7))],
        [numpy_helper.from_array(values(4, 3, 3, 3), "A")],
    )
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(
        ModelError, match=r"^file\.onnx: no dense layers found: node 'c' \(Conv\) is not understood, since "
    ):
        from_model(given, source="file.onnx")


def test_a_kernel_that_does_not_fit_is_refused():
    given = model([node("Conv", "x A", "y", name="c")], {"A": values(4, 3, 3, 3)})
    given.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2
    del given.graph.output[0].type.tensor_type.shape.dim[2:]
    given.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match=r"its kernel \(3x3\) does not fit into its input, 9x2"):
        from_model(given)
