"""The loop graph's gradients: against finite differences in float64, and against engine 1."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxsurgeon import EngineError, Examples, TrainingSpec, create, make_engine
from onnxsurgeon.graph.activation_gradients import Point
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation, prelu
from onnxsurgeon.runtime import run
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import by_unit_arrays, from_by_unit, make_model, parameter_names
from onnxsurgeon.training.gradients import activation_gradients
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.metrics import correct_and_loss
from tests.conftest import as_float64, needs_training, randomised, with_bias_removed

CASES = [
    ("Relu", {}),
    ("Clip", {"min": 0.0, "max": 0.4}),
    ("Clip", {"min": -0.5, "max": np.inf}),
    ("PRelu", {}),
    ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("Elu", {"alpha": 0.7}),
    ("Selu", {}),
    ("Tanh", {}),
    ("Sigmoid", {}),
    ("HardSigmoid", {"alpha": 0.9, "beta": 0.4}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Swish", {}),
    ("Swish", {"alpha": 1.702}),
    ("Mish", {}),
    ("HardSwish", {}),
]


def network(op, attributes, dtype=np.float64):
    net = create((5, 6, 4, 3), seed=1)
    layers = []
    for layer in net.layers[:-1]:
        slope = np.linspace(-0.5, 0.8, layer.units).astype(np.float32)
        activation = prelu(slope) if op == "PRelu" else Activation(op, attributes)
        layers.append(replace(layer, activation=activation))
    net = randomised(net.with_layers([*layers, net.layers[-1]]), seed=2, scale=0.6)
    return as_float64(net) if dtype == np.float64 else net


def examples(dtype=np.float64, rows=7):
    rng = np.random.default_rng(3)
    return Examples.classification(rng.standard_normal((rows, 5)).astype(dtype), rng.integers(0, 3, rows), 3)


def loss(net, data):
    """Mean cross-entropy by numpy: the graph's erf is float32's, too coarse for differences."""
    x = data.features[0]
    for layer in net.layers:
        x = x @ layer.weight + (0 if layer.bias is None else layer.bias)
        x = x if layer.activation is None else layer.activation(x)
    return correct_and_loss(x, data.labels[0])[1] / data.rows


def loop_gradients(net, data):
    """−(θ' − θ) after one step of rate 1 on all rows: the gradient of the mean loss."""
    names = parameter_names(net)
    feeds = {f"initial_{name}": values for name, values in zip(names, by_unit_arrays(net), strict=True)}
    feeds |= {
        "indices": np.arange(data.rows)[None],
        "rates": np.array([-1 / data.rows]),
        "features": data.features[0],
        "targets": data.targets[0],
        "ones": np.ones((1, data.rows)),
    }
    outputs = ReferenceEvaluator(training_loop(net, data)).run(None, feeds)
    trained = from_by_unit(net, outputs).parameters()
    return [before - after for (_, before), (_, after) in zip(net.parameters(), trained, strict=True)]


@pytest.mark.parametrize(("op", "attributes"), CASES, ids=str)
def test_against_finite_differences(op, attributes):
    net, data, h = network(op, attributes), examples(), 1e-6
    assert training_loop(net, data).opset_import[0].version == 17
    for position, gradient in enumerate(loop_gradients(net, data)):
        expected = np.zeros_like(gradient)
        for index in np.ndindex(gradient.shape):
            sides = []
            for sign in (1, -1):
                moved = [values.copy() for _, values in net.parameters()]
                moved[position][index] += sign * h
                sides.append(loss(net.with_parameters(moved), data))
            expected[index] = (sides[0] - sides[1]) / (2 * h)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)
        assert np.abs(expected).max() > 1e-4  # a network whose units are all dead would pass anything


def test_every_rule_is_tested():
    assert {op for op, _ in CASES} == {op for op, known in ACTIVATIONS.items() if known.gradient}


def test_there_is_a_rule_for_every_activation():
    assert all(known.gradient for known in ACTIVATIONS.values())


def test_ops_without_a_rule_are_named(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "Mish", replace(ACTIVATIONS["Mish"], gradient=None))
    reason = "node 'layer1/activation': the loop engine has no gradient rule for Mish"
    with pytest.raises(EngineError, match=reason):
        training_loop(network("Mish", {}), examples())


@pytest.mark.parametrize("op", ["Gelu", "Swish", "Mish", "HardSwish"])
def test_rules_are_finite_far_from_zero(op):
    x = np.array([[-100.0, -20.0, -3.5, 3.5, 20.0, 100.0]], np.float32)
    build = GraphBuilder(x.dtype)
    activation = Activation(op)
    build.add("Identity", activation_gradients(build, activation, Point("x", "y", "g")).x, output="dx")
    values = [helper.make_tensor_value_info(name, 1, x.shape) for name in "xyg"]
    result = helper.make_tensor_value_info("dx", 1, x.shape)
    feeds = {"x": x, "y": activation(x).astype("f"), "g": np.ones_like(x)}
    feeds = {name: feeds[name] for name in {i for node in build.nodes for i in node.input} & set(feeds)}
    model = make_model("rule", build, [v for v in values if v.name in feeds], [result])
    found = run(model, feeds)[0][0]
    np.testing.assert_allclose(found[[0, 1, 4, 5]], [0, 0, 1, 1], atol=1e-5)


@pytest.mark.parametrize("op", ["Relu", "PRelu"])
def test_onnxruntime_gives_the_reference_gradients_in_float64(op):
    net, data = network(op, {}), examples()
    trained = make_engine("loop").train(net, data, [np.arange(data.rows)[None]], TrainingSpec(1.0)).network
    for (_, before), (_, after), gradient in zip(
        net.chain.parameters(), trained.chain.parameters(), loop_gradients(net, data), strict=True
    ):
        np.testing.assert_allclose(before - after, gradient, atol=1e-12)


def test_layers_without_a_bias():
    net, data = with_bias_removed(network("Tanh", {}), 1), examples()
    gradients = loop_gradients(net, data)
    assert len(gradients) == len(parameter_names(net)) == 5


@needs_training
@pytest.mark.parametrize(
    ("op", "attributes"),
    [case for case in CASES if case[0] in ("Relu", "PRelu", "Tanh", "Sigmoid", "LeakyRelu")],
    ids=str,
)
def test_against_engine_1(op, attributes):
    net, data = network(op, attributes, np.float32), examples(np.float32, 64)
    batches = [np.arange(64).reshape(4, 16)]
    results = [make_engine(name).train(net, data, batches, TrainingSpec(0.5)).network for name in ("loop", "artifacts")]
    for (_, ours), (_, theirs) in zip(*(result.chain.parameters() for result in results), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
