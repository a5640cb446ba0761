"""A model whose suffix turns its predictions around is not trained towards the wrong thing in silence."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    DataError,
    Dataset,
    ModelError,
    Split,
    SurgeonSettings,
    create,
    evolve,
    from_model,
    prepare,
    save,
)

RNG = np.random.default_rng(3)
ROWS = 90
X = RNG.standard_normal((ROWS, 5)).astype("f")
BEHIND = {
    "softmax": ("float", [("Softmax", "z", "y", {})]),
    "sigmoid": ("float", [("Sigmoid", "z", "y", {})]),
    "plain": ("float", [("Identity", "z", "y", {})]),
    "arg max": ("int", [("ArgMax", "z", "y", {"axis": 1})]),
    "arg min": ("int", [("ArgMin", "z", "y", {"axis": 1})]),
    "columns in another order": ("float", [("Gather", "z order", "y", {"axis": 1})]),
    "softmax over the rows": ("float", [("Softmax", "z", "y", {"axis": 0})]),
    "one minus": ("float", [("Sigmoid", "z", "p", {}), ("Sub", "one p", "y", {})]),
    "threshold": ("bool", [("Sigmoid", "z", "p", {}), ("Greater", "p low", "y", {})]),
    "rounded": ("float", [("Round", "z", "y", {})]),
    "scaled sigmoid": ("float", [("Sigmoid", "z", "p", {}), ("Mul", "p four", "q", {}), ("Add", "q one", "y", {})]),
    "second of two": ("float", [("Softmax", "z", "p", {}), ("Gather", "p last", "y", {"axis": 1})]),
}
CONSTANTS = {"order": np.array([2, 0, 1]), "one": 1.0, "four": 4.0, "low": 0.1, "last": np.array([1])}


def model(name, width):
    kind, behind = BEHIND[name]
    values = {"W": RNG.standard_normal((5, 8)), "b": RNG.standard_normal(8), "V": RNG.standard_normal((8, width))}
    values["c"] = RNG.standard_normal(width)
    nodes = [("Gemm", "x W b", "h", {}), ("Relu", "h", "r", {}), ("Gemm", "r V c", "z", {}), *behind]
    kinds = {"float": TensorProto.FLOAT, "int": TensorProto.INT64, "bool": TensorProto.BOOL}
    constants = {k: np.asarray(v, np.int64 if isinstance(v, np.ndarray) else "f") for k, v in CONSTANTS.items()}
    graph = helper.make_graph(
        [helper.make_node(op, i.split(), [o], name=f"{op}_{o}", **a) for op, i, o, a in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])],
        [helper.make_tensor_value_info("y", kinds[kind], ["batch", None])],
        [numpy_helper.from_array(v.astype("f"), k) for k, v in values.items()]
        + [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return from_model(made)


def data(labels, classes=0):
    split = Split(X, labels)
    return Dataset("mine", split, split, classes)


CLASSES, HALVES = np.arange(ROWS) % 3, np.arange(ROWS) % 2
NUMBERS = RNG.standard_normal((ROWS, 1))


@pytest.mark.parametrize(
    ("name", "width", "labels", "classes"),
    [
        ("softmax", 3, CLASSES, 3),
        ("plain", 3, CLASSES, 3),
        ("arg max", 3, CLASSES, 3),
        ("second of two", 2, HALVES, 2),
        ("sigmoid", 1, HALVES, 2),
        ("plain", 1, NUMBERS, 0),
        ("sigmoid", 1, 1 / (1 + np.exp(-NUMBERS)), 0),
        ("scaled sigmoid", 1, 1 + 4 / (1 + np.exp(-NUMBERS)), 0),
    ],
)
def test_what_follows_the_head(name, width, labels, classes):
    assert prepare(model(name, width), data(labels, classes), data(labels, classes).train).rows == ROWS


@pytest.mark.parametrize(
    ("name", "width", "labels", "classes", "task"),
    [
        ("arg min", 3, CLASSES, 3, r"\(ArgMin behind it\) as multi-class with cross-entropy"),
        ("columns in another order", 3, CLASSES, 3, r"\(Gather behind it\) as multi-class"),
        ("softmax over the rows", 3, CLASSES, 3, r"\(Softmax behind it\) as multi-class"),
        ("one minus", 1, HALVES, 2, "as binary with binary-cross-entropy"),
        ("threshold", 1, HALVES, 2, r"\(Sigmoid behind it\) as binary"),
        ("rounded", 1, NUMBERS, 0, r"\(Round behind it\) as regression with squared-error"),
    ],
)
def test_what_does_not_follow_the_head(name, width, labels, classes, task):
    given = data(labels, classes)
    with pytest.raises(ModelError, match=f"no output follows tensor '.*'.* ?{task}.* needs"):
        prepare(model(name, width), given, given.train)


def test_a_scaled_sigmoid_is_trained_through():
    network = model("scaled sigmoid", 1)
    assert [step if isinstance(step, int) else step.op for step in network.frame.trunk.steps] == [
        0,
        "Activation",
        "Mul",
        "Add",
    ]
    assert network.heads[0].tensor == "y"


def test_whole_floats_are_names_of_classes_where_the_model_has_names():
    extra = [("Sigmoid", "z", "p", {}), ("Sub", "one p", "q", {}), ("Concat", "q p", "y", {"axis": 1})]
    BEHIND["pair"] = ("float", extra)
    network = model("pair", 1)
    head = network.heads[0]
    object.__setattr__(head, "labels", (1, 2))
    given = data(HALVES.astype(float))
    with pytest.raises(DataError, match="label 0 in row 0 is not among the classes of 'model': 1, 2"):
        prepare(network, given, given.train)
    given = data(HALVES + 1.0)
    np.testing.assert_array_equal(prepare(network, given, given.train).labels[0][:, 0], HALVES)


def faint(network, size):
    """The network with its last layer's weights and biases so small that its logits are of that size."""
    last = network.layers[-1]
    smaller = replace(last, weight=last.weight * size, bias=last.bias * size)
    return network.with_layers([*network.layers[:-1], smaller])


@pytest.mark.parametrize("size", [1e-3, 1e-7, 1e-20])
@pytest.mark.parametrize(
    ("name", "width", "labels", "classes"),
    [
        ("softmax", 3, CLASSES, 3),
        ("arg max", 3, CLASSES, 3),
        ("second of two", 2, HALVES, 2),
        ("sigmoid", 1, HALVES, 2),
        ("sigmoid", 4, np.stack([HALVES] * 4, axis=1), 0),
        ("plain", 1, NUMBERS, 0),
    ],
)
def test_logits_too_small_to_be_told_from_their_probabilities(name, width, labels, classes, size):
    given = data(labels, classes)
    assert prepare(faint(model(name, width), size), given, given.train).rows == ROWS


@pytest.mark.parametrize("size", [1e-3, 1e-7, 1e-20])
@pytest.mark.parametrize(
    ("name", "width", "labels", "classes"),
    [
        ("arg min", 3, CLASSES, 3),
        ("columns in another order", 3, CLASSES, 3),
        ("softmax over the rows", 3, CLASSES, 3),
        ("one minus", 1, HALVES, 2),
        ("threshold", 1, HALVES, 2),
    ],
)
def test_small_logits_hide_nothing(name, width, labels, classes, size):
    given = data(labels, classes)
    with pytest.raises(ModelError, match="no output follows tensor"):
        prepare(faint(model(name, width), size), given, given.train)


@pytest.mark.parametrize("size", [1e-6, 1e-12])
def test_inputs_that_are_very_small_are_trained_on(size, tmp_path):
    """A network without biases, as it is drawn: its logits are as small as its inputs."""
    x = (np.random.default_rng(0).standard_normal((300, 5)) * size).astype("f")
    np.savez(tmp_path / "small.npz", x=x, y=(x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0))
    save(create((5, 8, 3)), tmp_path / "m.onnx")
    settings = SurgeonSettings(epochs=12, seed=1, growth=0.0, refit=False, max_parameters=75)
    evolved = evolve(tmp_path / "m.onnx", str(tmp_path / "small.npz"), settings=settings, run_dir=tmp_path / "run")
    assert evolved.test.accuracy > evolved.start.accuracy + 0.2


def test_inputs_are_magnified_where_the_head_is_no_layers_own_output():
    """Two towers of the same small inputs, whose sum is the logits."""
    values = {"W": RNG.standard_normal((5, 3)), "V": RNG.standard_normal((5, 3))}
    nodes = [("MatMul", "x W", "a"), ("MatMul", "x V", "b"), ("Tanh", "b", "c"), ("Add", "a c", "z")]
    for behind, follows in ((("Softmax", "z", "y"), True), (("ArgMin", "z", "y"), False)):
        kind = TensorProto.FLOAT if follows else TensorProto.INT64
        axis = {} if follows else {"axis": 1}
        graph = helper.make_graph(
            [helper.make_node(op, i.split(), [o], name=f"{op}_{o}") for op, i, o in nodes]
            + [helper.make_node(behind[0], [behind[1]], [behind[2]], name="behind", **axis)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])],
            [helper.make_tensor_value_info("y", kind, ["batch", None])],
            [numpy_helper.from_array(v.astype("f"), k) for k, v in values.items()],
        )
        network = from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
        assert network.heads[0].tensor == "z"
        small = Split(X * np.float32(1e-9), CLASSES)
        given = Dataset("mine", small, small, 3)
        if follows:
            assert prepare(network, given, small).rows == ROWS
        else:
            with pytest.raises(ModelError, match="no output follows tensor 'z'"):
                prepare(network, given, small)


def test_logits_of_any_size_are_compared_with_probabilities():
    network = model("sigmoid", 1)
    large = network.with_parameters([1000 * values for _, values in network.parameters()])
    given = data(1 / (1 + np.exp(-NUMBERS)))
    assert prepare(large, given, given.train).rows == ROWS  # no exponential of a thousand on the way
