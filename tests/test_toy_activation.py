"""An activation of one's own is one record: it is read, computed, proved, written and trained by that."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import Examples, create, load, make_engine, operate, parse, save
from onnxsurgeon.graph.activation import ACTIVATIONS, Activation, ActivationType, register
from onnxsurgeon.graph.activation_gradients import Gradients
from onnxsurgeon.training.settings import TrainingSettings


def function(x, attributes):
    alpha = attributes["alpha"]
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def gradient(build, activation, at):
    """φ' = 1 for x > 0, else exp(x / α) = y / α + 1."""
    positive = build.add("Relu", build.add("Sign", at.x))
    below = build.add("Div", build.add("Min", at.y, build.scalar(0.0)), build.scalar(activation.attribute("alpha")))
    negative = build.add("Mul", build.add("Sub", build.scalar(1.0), positive), below)
    return Gradients(build.add("Mul", at.g, build.add("Add", build.scalar(1.0), negative)))


@pytest.fixture(autouse=True)
def celu():
    assert "Celu" not in ACTIVATIONS
    yield register(ActivationType("Celu", function, gradient=gradient, since=12, attributes={"alpha": 1.0}))
    del ACTIVATIONS["Celu"]


@pytest.fixture
def model(tmp_path):
    network = create((8, 6, 5, 3), seed=1, activation="Celu")
    layers = [
        replace(layer, activation=layer.activation and Activation("Celu", {"alpha": 0.5})) for layer in network.layers
    ]
    save(network.with_layers(layers), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_it_is_read_shown_and_operated(model, cli):
    assert [str(layer.activation) for layer in load(model).layers] == ["Celu(alpha=0.5)"] * 2 + ["None"]
    code, out, _ = cli("inspect", model)
    assert code == 0
    assert "Celu" in out
    for surgery in ("widen:1:3", "insert_identity:1", "factorize:2:5"):
        result = operate(load(model), parse(surgery))
        assert result.record.exact
        assert result.record.deviation <= 1e-5


def test_onnx_runtime_computes_what_the_record_says(model):
    import onnxruntime as ort

    network, x = load(model), np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    values = x
    for layer in network.layers:
        values = values @ layer.weight + layer.bias
        values = values if layer.activation is None else layer.activation(values)
    found = ort.InferenceSession(str(model)).run(None, {"input": x})[0]
    expected = np.exp(values - values.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_it_is_trained_by_its_gradient(model):
    """One step of plain gradient descent, against differences of the loss."""
    network, engine = load(model), make_engine("loop")
    rng = np.random.default_rng(1)
    examples = Examples.classification(rng.standard_normal((40, 8)).astype(np.float32), rng.integers(0, 3, 40), 3)
    spec = TrainingSettings(optimizer="sgd", learning_rate=0.1).spec(1, 1, 0)
    batch = np.arange(40)[None]
    trained = engine.train(network, examples, [batch], spec).network
    moved = [(a - b) / 0.1 for (_, a), (_, b) in zip(network.parameters(), trained.parameters(), strict=True)]
    values = [value for _, value in network.parameters()]
    for position, gradient in enumerate(moved):
        index = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        losses = []
        for h in (1e-2, -1e-2):
            changed = [value.copy() for value in values]
            changed[position][index] += h
            losses.append(engine.evaluate(network.with_parameters(changed), examples).loss)
        assert gradient[index] == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=0.02, abs=1e-4)
