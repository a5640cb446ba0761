"""Growth by gradients: the gradients are the loss's, the function stays, and the new units learn at once."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    DataError,
    EngineError,
    Examples,
    SurgeryError,
    TrainingSpec,
    create,
    make_engine,
    operate,
    parse,
    prepare,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.graph.equivalence import chain_outputs, compare_chains
from onnxsurgeon.surgery import Grow
from onnxsurgeon.surgery.grow import steepest
from onnxsurgeon.task import SQUARED, Task
from tests.calibrated import OPS, network
from tests.conftest import as_float64, with_bias_removed


@pytest.fixture(scope="module")
def train(digit_examples):
    return digit_examples[0]


def moments_of(net, examples, count=900):
    rows = sample_rows(examples, count)
    return with_gradients(calibrate(net, examples, rows), net, examples, rows)


def mean_loss(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))


def with_bypass(net, features, i, bypass):
    """Outputs where the pre-activation of layer i + 1 gets (x − μ) B as well, x being what enters layer i."""
    x = features
    for position, layer in enumerate(net.layers):
        if position == i - 1:
            extra = (x - x.mean(axis=0)) @ bypass
        z = x @ layer.weight + layer.bias
        if position == i:
            z = z + extra
        x = z if layer.activation is None else layer.activation(z)
    return x


@pytest.mark.parametrize("op", ["Tanh", "Softplus", "PRelu"])
@pytest.mark.parametrize("i", [1, 2])
def test_gradients_are_those_of_finite_differences(op, i):
    net = as_float64(network((6, 5, 4, 3), op=op))
    rng = np.random.default_rng(1)
    features, labels = rng.standard_normal((300, 6)), rng.integers(3, size=300)
    moments = moments_of(net, Examples.classification(features, labels, 3), 300)
    found, step = moments.gradient_of(net, i), 1e-5
    for a in range(found.shape[0]):
        for b in range(found.shape[1]):
            bypass = np.zeros(found.shape)
            bypass[a, b] = step
            up, down = (mean_loss(with_bypass(net, features, i, s * bypass), labels) for s in (1, -1))
            assert found[a, b] == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_rows_of_a_split_are_read_where_they_lie(digits):
    """Bytes that are scaled, and a selection of them: the same as their values as an array of their own."""
    net = network()
    rows, _ = digits.hold_out()
    examples = prepare(net, digits, rows)
    copied = Examples.classification(examples.features[0], examples.labels[0], 10)
    found, expected = (moments_of(net, each, 500).gradient_of(net, 1) for each in (examples, copied))
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("scale", [None, (4.0, 0.25)])
def test_gradients_of_a_regression_are_in_the_targets_units(scale):
    net = as_float64(network((6, 5, 4, 2), op="Tanh"))
    rng = np.random.default_rng(1)
    features, targets = rng.standard_normal((300, 6)), rng.standard_normal((300, 2))
    task = Task(SQUARED, 2) if scale is None else replace(Task(SQUARED, 2), scale=scale)
    found = moments_of(net, Examples([features], (targets,), (task,)), 300).gradient_of(net, 2)
    x = np.tanh(features @ net.layers[0].weight + net.layers[0].bias)
    error = chain_outputs(net.chain, features) - targets
    gradient = error / np.square(scale or 1.0)  # of the mean over two outputs of ((z − t) / s)²
    np.testing.assert_allclose(found, (x - x.mean(axis=0)).T @ gradient / 300, atol=1e-9)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("surgery", [Grow(1, 1), Grow(1, 7), Grow(2, 30)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_function_stays(op, surgery, bias, train):
    net = network(op=op)
    net = net if bias else with_bias_removed(net, surgery.layer - 1)
    done = operate(net, surgery, moments=moments_of(net, train), require_exact=True)
    features = train.features[0][:200]
    assert done.network.widths[surgery.layer] == net.widths[surgery.layer] + surgery.units
    assert compare_chains(net.chain, done.network.chain, features).relative < 1e-5


def test_the_first_direction_is_the_steepest_under_its_bound(train):
    net = network((64, 20, 15, 10), op="Tanh")
    moments = moments_of(net, train)
    found, gradient = steepest(net, 1, moments), moments.gradient_of(net, 1)
    covariance = moments.input_of(net, 1).covariance
    ridged = covariance + np.trace(covariance) / 64 * np.eye(64)
    scales = np.sqrt(np.mean(net.layers[1].weight.astype(np.float64) ** 2, axis=0))
    np.testing.assert_allclose(found.incoming.T @ ridged @ found.incoming, np.eye(len(found.decreases)), atol=1e-9)
    reached = np.diag(found.incoming.T @ (gradient * scales) @ found.outgoing.T) ** 2
    np.testing.assert_allclose(reached, found.decreases, rtol=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(50):
        u, v = rng.standard_normal(64), rng.standard_normal(15)
        rate = (u @ (gradient * scales) @ v) ** 2 / ((u @ ridged @ u) * (v @ v))
        assert rate <= found.decreases[0]


def test_new_units_become_different_ones(train):
    """Every pair has left its common incoming weights after a few steps."""
    net = network((64, 12, 9, 10))
    done = operate(net, Grow(1, 8), moments=moments_of(net, train))
    engine = make_engine("loop")
    after = engine.train(done.network, train, [np.arange(320).reshape(-1, 16)], TrainingSpec(0.01)).network
    before = done.network.layers[0].weight[:, 12:]
    np.testing.assert_array_equal(before[:, :4], before[:, 4:])
    apart = np.linalg.norm(after.layers[0].weight[:, 12:16] - after.layers[0].weight[:, 16:], axis=0)
    assert (apart > 0.01 * np.linalg.norm(before[:, :4], axis=0)).all()


def test_the_same_sample_gives_the_same_bytes(train):
    net = network()
    first, second = (operate(net, Grow(2, 30), moments=moments_of(net, train)).network for _ in range(2))
    for (_, a), (_, b) in zip(first.parameters(), second.parameters(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_refusals_say_why(train):
    net = network()
    moments = calibrate(net, train)
    with pytest.raises(SurgeryError, match="grow:1:4: needs moments of a calibration sample"):
        operate(net, parse("grow:1:4"))
    with pytest.raises(SurgeryError, match="layer 1 has no gradients: the calibration did not run backward through it"):
        operate(net, Grow(1, 4), moments=moments)
    with pytest.raises(SurgeryError, match="grow:1:0: the number of units to add must be at least 1"):
        operate(net, Grow(1, 0), moments=moments)
    with pytest.raises(SurgeryError, match="these gradients are another network's: 9 values instead of 8"):
        operate(network((64, 12, 8, 10)), Grow(1, 4), moments=moments_of(net, train))
    with pytest.raises(EngineError, match="its heads are 9 wide, the targets 10"):
        with_gradients(moments, create((64, 12, 9)), train, np.arange(10))
    with pytest.raises(DataError, match="at least one row"):
        moments_of(net, train, 0)
