"""Convolutions of frameworks whose channels come last: axes turned and turned back, sizes that the file computes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import DataError, Dataset, InputOptions, Split, Widen, from_model, operate, prepare
from onnxsurgeon.data.inputs import fitted_inputs
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.writer import to_model
from tests.canonical_form import canonical, ops

DRAW = np.random.default_rng(4)
LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def n(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def model(nodes, *, out=("rows", 3), **constants):
    """``nodes`` from x (rows, 5, 5, 2) to y."""
    values = {
        "K": DRAW.standard_normal((4, 2, 3, 3)) / 4,
        "L": DRAW.standard_normal((3, 4, 3, 3)) / 4,
        "c": DRAW.standard_normal(4),
        "slope": DRAW.uniform(0.1, 0.9, 4),
        **constants,
    }
    tensors = [
        numpy_helper.from_array(v if v.dtype.kind == "i" else v.astype(np.float32), k)
        for k, v in {key: np.asarray(value) for key, value in values.items()}.items()
    ]
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "channels last",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 5, 5, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(out))],
        [tensor for tensor in tensors if tensor.name in read],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def first_layer(*behind, to="z"):
    """A convolution 2-4 whose result is turned to channels last, then ``behind``."""
    return [n("Transpose", "x", "t", perm=FIRST), n("Conv", "t K", "k"), n("Transpose", "k", to, perm=LAST), *behind]


def second_layer(inputs="r"):
    """A convolution 4-3 on what is turned back, and its maps' means."""
    back = n("Transpose", inputs, "u", perm=FIRST)
    return [back, n("Conv", "u L", "l"), n("GlobalAveragePool", "l", "g"), n("Flatten", "g", "y")]


@pytest.mark.parametrize(
    "between",
    [
        [n("Add", "z c", "a"), n("Relu", "a", "r")],
        [n("Mul", "c z", "m"), n("Sub", "m c", "a"), n("Elu", "a", "r")],
        [n("PRelu", "z slope", "r")],
        [n("Add", "z c", "r")],
    ],
    ids=["bias", "scale", "slopes", "no activation"],
)
def test_what_stands_between_axes_turned_and_turned_back_belongs_to_the_layer(between):
    given = model([*first_layer(*between), *second_layer()])
    graph = canonical(given)
    assert ops(graph).count("Transpose") == 1  # of the rows
    network = from_model(given)
    assert network.topology == "c2-c4-c3"
    feeds = random_inputs(given, rows=3)
    assert compare_models(given, to_model(network), feeds).relative <= 1e-6
    wider = operate(network, Widen(1, 3)).network
    assert wider.topology == "c2-c7-c3"
    assert compare_models(given, to_model(wider), feeds).relative <= 1e-5


def test_what_something_else_reads_stays_as_it_is_and_is_followed():
    """The sum needs the tensor with its channels last; its units are those of both convolutions all the same."""
    again = [
        n("Transpose", "r", "u", perm=FIRST),
        n("Conv", "u M", "m", pads=[1] * 4),
        n("Transpose", "m", "w", perm=LAST),
    ]
    nodes = [*first_layer(n("Add", "z c", "a"), n("Relu", "a", "r")), *again, n("Add", "r w", "s")]
    mean = [n("ReduceMean", "s", "g", axes=[1, 2], keepdims=0), n("MatMul", "g W", "y")]
    given = model([*nodes, *mean], M=DRAW.standard_normal((4, 4, 3, 3)) / 6, W=DRAW.standard_normal((4, 3)))
    network = from_model(given)
    assert network.topology == "c2-c4+c4-c4+4-3"
    assert [(network.group(i).units, network.group(i).ports) for i in range(1, network.group_count + 1)] == [(4, 4)]
    wider = operate(network, Widen(1, 2)).network
    assert compare_models(given, to_model(wider), random_inputs(given, rows=3)).relative <= 1e-5


def test_a_bias_behind_a_transpose_that_is_not_turned_back_is_the_layers_own():
    """Scale and bias are written behind it, with a cast that changes nothing; the activation stays where it is."""
    cast = n("Cast", "z", "f", to=TensorProto.FLOAT)
    behind = [cast, n("Mul", "f scale", "m"), n("Sub", "m c", "a"), n("Relu", "a", "r")]
    mean = [n("ReduceMean", "r", "g", axes=[1, 2], keepdims=0), n("MatMul", "g W", "y")]
    numbers = {"scale": DRAW.uniform(0.5, 1.5, (1, 1, 1, 4)), "W": DRAW.standard_normal((4, 3))}
    given = model([*first_layer(*behind), *mean], **numbers)
    before = given.SerializeToString()
    network = from_model(given)
    layer = network.segments[0].layers[0]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in given.graph.initializer}
    c, kernel, scale = (constants[name] for name in ("c", "K", "scale"))
    np.testing.assert_allclose(layer.bias, -c, rtol=1e-6)
    np.testing.assert_allclose(layer.weight, kernel.reshape(4, -1).T * scale.reshape(-1), rtol=1e-6)
    written = to_model(network)
    assert [node.op_type for node in written.graph.node][1:4] == ["Conv", "Transpose", "Cast"]
    assert compare_models(given, written, random_inputs(given, rows=3)).relative <= 1e-6
    assert from_model(written).topology == network.topology
    assert given.SerializeToString() == before


@pytest.mark.parametrize("what", ["read twice", "an output", "along another axis"])
def test_a_bias_behind_a_transpose_stays_there_where_moving_it_would_change_something_else(what):
    behind = [n("Add", "z c", "a")]
    numbers = {"W": DRAW.standard_normal((4, 3))}
    if what == "read twice":
        behind += [n("Mul", "a z", "r")]
    elif what == "an output":
        behind += [n("Relu", "a", "r")]
    else:
        behind, numbers["places"] = [n("Add", "z places", "r")], DRAW.standard_normal((3, 1))
    mean = [n("ReduceMean", "r", "g", axes=[1, 2], keepdims=0), n("MatMul", "g W", "y")]
    given = model([*first_layer(*behind), *mean], **numbers)
    if what == "an output":
        given.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["rows", 3, 3, 4]))
    network = from_model(given)
    assert any(node.op_type == "Add" and "z" in node.input for node in to_model(network).graph.node)
    assert network.segments[0].layers[0].bias is None
    assert compare_models(given, to_model(network), random_inputs(given, rows=3)).relative <= 1e-6


SHAPES = {
    "a constant": ([], "to", {"to": np.array([-1, 36])}),
    "beside the batch": (
        [n("Shape", "r", "s"), n("Gather", "s zero", "b"), n("Concat", "b rest", "to", axis=0)],
        "to",
        {"zero": np.array([0]), "rest": np.array([36])},
    ),
    "in 32 bits": (
        [
            n("Shape", "r", "s"),
            n("Cast", "s", "i", to=TensorProto.INT32),
            n("Slice", "i zero one zero", "b"),
            n("Concat", "b rest", "j", axis=0),
            n("Cast", "j", "to", to=TensorProto.INT64),
        ],
        "to",
        {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([36], np.int32)},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_follow_wherever_the_file_holds_them(name):
    computed, shape, constants = SHAPES[name]
    tail = [*computed, n("Reshape", f"r {shape}", "f"), n("MatMul", "f W", "y")]
    given = model([*first_layer(n("Relu", "z", "r")), *tail], W=DRAW.standard_normal((36, 3)), **constants)
    network = from_model(given)
    (reader,) = network.group(1).readers
    assert (reader.begin, reader.outer, reader.inner) == (0, 9, 1)
    wider = operate(network, Widen(1, 2)).network
    assert wider.topology == "c2-c6+54-3"
    assert compare_models(given, to_model(wider), random_inputs(given, rows=3)).relative <= 1e-5


def test_a_size_that_is_looked_up_of_the_units_themselves_follows():
    """(rows, 3, 3, 4) → (rows, 9, 4), the 4 looked up."""
    look = [n("Shape", "r", "s"), n("Gather", "s first", "b"), n("Gather", "s last", "e")]
    tail = [*look, n("Concat", "b nine e", "to", axis=0), n("Reshape", "r to", "f")]
    tail += [n("ReduceMean", "f", "g", axes=[1], keepdims=0), n("MatMul", "g W", "y")]
    numbers = {"first": np.array([0]), "last": np.array([3]), "nine": np.array([9])}
    given = model([*first_layer(n("Relu", "z", "r")), *tail], W=DRAW.standard_normal((4, 3)), **numbers)
    wider = operate(from_model(given), Widen(1, 2)).network
    assert wider.topology == "c2-c6+6-3"
    assert compare_models(given, to_model(wider), random_inputs(given, rows=3)).relative <= 1e-5


def test_a_size_that_is_told_where_the_trunk_sees_nothing_holds_the_units():
    """The two Reshapes undo each other, so that none is in the trunk; the first tells the number of units still."""
    mean = [n("ReduceMean", "r", "g", axes=[1, 2], keepdims=0), n("Reshape", "g up", "h"), n("Reshape", "h down", "i")]
    numbers = {"up": np.array([-1, 1, 1, 4]), "down": np.array([-1, 4]), "W": DRAW.standard_normal((4, 3))}
    network = from_model(model([*first_layer(n("Relu", "z", "r")), *mean, n("MatMul", "i W", "y")], **numbers))
    assert network.group_count == 0
    assert "the shape that node 'Reshape_h' makes holds their number" in [
        pinned.reason for pinned in network.units.pinned
    ]


def test_entries_picked_in_the_order_in_which_they_lie_are_a_view():
    """PyTorch's as_strided; picked in another order it is none, and what is before it cannot be trained through."""
    view = [
        n("Reshape", "g flat", "v"),
        n("Shape", "x", "s", start=0, end=1),
        n("Squeeze", "s", "q"),
        n("Range", "zero q one", "b"),
        n("Mul", "b four", "o"),
        n("Unsqueeze", "o axes", "p"),
        n("Add", "p places", "i"),
        n("Gather", "v i", "h"),
        n("MatMul", "h W", "y"),
    ]
    numbers = {
        "flat": np.array([-1]),
        "zero": np.array(0),
        "one": np.array(1),
        "four": np.array(4),
        "axes": np.array([1]),
        "W": DRAW.standard_normal((4, 3)),
    }
    nodes = [*first_layer(n("Relu", "z", "r")), n("ReduceMean", "r", "g", axes=[1, 2], keepdims=0), *view]
    assert from_model(model(nodes, places=np.array([[0, 1, 2, 3]]), **numbers)).topology == "c2-c4+4-3"
    assert from_model(model(nodes, places=np.array([[1, 0, 2, 3]]), **numbers)).topology == "4-3"


def test_maps_whose_channels_are_put_last_at_the_end_are_trained_as_they_come_out():
    given = model(
        [*first_layer(n("Relu", "z", "r")), *second_layer()[:2], n("Transpose", "l", "y", perm=LAST)],
        out=("rows", 1, 1, 3),
    )
    (head,) = from_model(given).heads
    assert (head.tensor, head.width) == ("y", 3)


def test_classes_that_are_means_of_maps_are_one_a_row():
    (head,) = from_model(model([*first_layer(n("Relu", "z", "r")), *second_layer()])).heads
    assert (head.tensor, head.width) == ("y", 3)


# Rows.


def fitted(stored, wanted):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *wanted])
    split = Split(stored, np.zeros(len(stored), np.int64))
    dataset = Dataset("mine", split, split, 2)
    return fitted_inputs("net", [value], dataset, split, InputOptions())["x"].take()


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [((32, 2), (2, 32)), ((32, 2), (2, None)), ((5, 8, 8, 3), (3, 5, 8, 8)), ((5, 8, 8, 1), (1, 5, 8, 8))],
)
def test_channels_that_are_wanted_first_are_moved(stored, wanted):
    rows = DRAW.standard_normal((4, *stored)).astype(np.float32)
    np.testing.assert_array_equal(fitted(rows, wanted), np.moveaxis(rows, -1, 1))


@pytest.mark.parametrize(("stored", "wanted"), [((32, 2), (32, 2)), ((2, 32), (2, None)), ((3, 5, 8, 8), (3, 5, 8, 8))])
def test_rows_that_fit_are_taken_as_they_are(stored, wanted):
    rows = DRAW.standard_normal((4, *stored)).astype(np.float32)
    np.testing.assert_array_equal(fitted(rows, wanted), rows)


@pytest.mark.parametrize(("stored", "wanted"), [((16, 4), (2, 32)), ((2, 5, 8, 6), (6, 8, 5, 2)), ((64, 1), (2, 32))])
def test_rows_of_another_shape_are_refused_and_not_reshaped(stored, wanted):
    with pytest.raises(DataError, match=r"^mine: rows of shape \(.*\) do not fit the input of 'net', which takes "):
        fitted(np.zeros((4, *stored), np.float32), wanted)


def test_signals_are_turned_for_a_model_that_takes_channels_first():
    network = from_model(onnx.load("tests/convolutions/sound-torch-dynamo.onnx"))
    rows = DRAW.standard_normal((4, 32, 2)).astype(np.float32)
    split = Split(rows, np.arange(4) % 3)
    prepared = prepare(network, Dataset("mine", split, split, 3), split)
    np.testing.assert_array_equal(prepared.features[0], rows.transpose(0, 2, 1))
