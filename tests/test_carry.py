"""An optimizer's state goes through a surgery the way the weights do."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    Examples,
    Factorize,
    InsertIdentity,
    Merge,
    Narrow,
    OptimizerState,
    TrainingSpec,
    Widen,
    create,
    make_engine,
    operate,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.graph.activations import Activation, prelu
from onnxsurgeon.graph.equivalence import chain_outputs
from onnxsurgeon.surgery import FactorizeData, Grow, MergeData, Prune
from tests.conftest import as_float64, randomised, with_bias_removed

SURGERIES = [
    Widen(2, 3, "split"),
    Widen(2, 3, "equal"),
    Widen(2, 3, "fresh"),
    InsertIdentity(2),
    Narrow(2, 4),
    Narrow(2, 2),
    Factorize(2, 4),
    Factorize(2, 2),
    Merge(2),
    FactorizeData(2, 2),
    Prune(2, 3),
    MergeData(2),
    Grow(2, 3),
]


def moments_of(net):
    """Of 200 random rows."""
    features = np.random.default_rng(4).standard_normal((200, 6)) + 0.5
    examples, rows = Examples.classification(features, np.arange(200) % 3, 3), np.arange(200)
    return with_gradients(calibrate(net, examples, rows), net, examples, rows)


def network(activation=None, bias=True):
    """6-5-4-3 in float64; layer 2 has the activation, or a PRelu of slope 1, and 5 inputs for its 4 units."""
    net = as_float64(create((6, 5, 4, 3), seed=1))
    net = randomised(net, seed=2)
    layers = list(net.layers)
    layers[1] = replace(layers[1], activation=activation or prelu(np.ones(4)))
    net = net.with_layers(layers)
    return net if bias else with_bias_removed(net, 1)


def values(net):
    return [v for _, v in net.parameters()]


def moved(net, direction, step):
    return net.with_parameters(v + step * d for v, d in zip(values(net), direction, strict=True))


def random_like(net, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(v.shape) for v in values(net)]


def outputs_velocity(net, direction, features, step=1e-6):
    """d/dt of the outputs as the parameters move in ``direction``, by central differences."""
    after, before = (chain_outputs(moved(net, direction, s).chain, features) for s in (step, -step))
    return (after - before) / (2 * step)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [None, Activation("Tanh")], ids=["linear", "tanh"])
@pytest.mark.parametrize("surgery", SURGERIES, ids=str)
def test_after_an_exact_surgery_the_function_moves_on_as_it_did(surgery, activation, bias):
    """The first moments are the parameters' velocity: where the function is kept, so is its velocity."""
    net = network(activation, bias)
    done = operate(net, surgery, np.random.default_rng(3), moments=moments_of(net))
    velocity = random_like(net)
    state = OptimizerState(7, (tuple(velocity),)).mapped(net, done.carry)
    assert state.steps == 7
    assert state.fits(done.network, 1)
    if done.record.exact and not (activation is None and isinstance(surgery, Narrow | Merge | MergeData)):
        features = np.random.default_rng(5).standard_normal((9, 6))
        expected = outputs_velocity(net, velocity, features)
        np.testing.assert_allclose(
            outputs_velocity(done.network, state.moments[0], features), expected, atol=1e-7 * np.abs(expected).max()
        )


@pytest.mark.parametrize("surgery", [Narrow(2, 4), Merge(2), MergeData(2)], ids=str)
def test_narrow_and_merge_keep_the_velocity_of_a_linear_layer(surgery):
    net = network()
    done = operate(net, surgery, moments=moments_of(net), require_exact=True)
    velocity = random_like(net)
    slopes = next(i for i, (name, _) in enumerate(net.parameters()) if name == net.layers[1].names.slope)
    velocity[slopes][:] = 0  # the slopes themselves are not kept
    state = OptimizerState(1, (tuple(velocity),)).mapped(net, done.carry)
    features = np.random.default_rng(5).standard_normal((9, 6))
    expected = outputs_velocity(net, velocity, features)
    np.testing.assert_allclose(
        outputs_velocity(done.network, state.moments[0], features), expected, atol=1e-7 * np.abs(expected).max()
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("surgery", SURGERIES, ids=str)
def test_second_moments_take_the_squares_of_the_first_ones_coefficients(surgery, bias):
    net = network(bias=bias)
    done = operate(net, surgery, np.random.default_rng(3), moments=moments_of(net))

    def carried(arrays, power):
        return np.concatenate([v.ravel() for v in values(done.carry(net.with_parameters(arrays), power))])

    sizes = [v.size for v in values(net)]
    columns = []
    for k in range(sum(sizes)):
        unit = np.zeros(sum(sizes))
        unit[k] = 1
        parts = np.split(unit, np.cumsum(sizes)[:-1])
        columns.append(carried([part.reshape(v.shape) for part, v in zip(parts, values(net), strict=True)], 1))
    coefficients = np.stack(columns, axis=1)
    second = [v**2 for v in random_like(net)]
    result = carried(second, 2)
    unmapped = (coefficients == 0).all(axis=1)
    flat = np.concatenate([v.ravel() for v in second])
    np.testing.assert_allclose(result[~unmapped], (coefficients**2 @ flat)[~unmapped], rtol=1e-9)
    assert (result > 0).all()
    assert unmapped.any() == (
        isinstance(surgery, InsertIdentity | Factorize | FactorizeData | Grow) or "fresh" in str(surgery)
    )
    if isinstance(surgery, InsertIdentity | Factorize | FactorizeData):
        layer = np.concatenate([v.ravel() for _, v in net.with_parameters(second).layers[1].parameters()])
        np.testing.assert_allclose(result[unmapped], layer.mean())


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_training_goes_on_with_the_carried_state(optimizer, digit_examples):
    train, _ = digit_examples
    engine, spec = make_engine("loop"), TrainingSpec(0.003, optimizer)
    before = engine.train(create((64, 20, 10, 10), seed=1), train, [np.arange(1280).reshape(-1, 16)], spec)
    weights = (Widen(1, 4), Widen(1, 4, "fresh"), InsertIdentity(1), Narrow(1, 12), Factorize(1, 8), Merge(1))
    for surgery in (*weights, FactorizeData(1, 8), Prune(1, 12), MergeData(1), Grow(1, 4)):
        moments = with_gradients(calibrate(before.network, train), before.network, train, sample_rows(train))
        done = operate(before.network, surgery, np.random.default_rng(0), moments=moments)
        state = before.state.mapped(before.network, done.carry)
        assert {v.dtype for each in state.moments for v in each} == {np.dtype(np.float32)}
        after = engine.train(done.network, train, [np.arange(1280).reshape(-1, 16)] * 2, spec, state)
        assert after.state.steps == 240
        assert after.state.is_finite
        assert engine.evaluate(after.network, train).loss < engine.evaluate(before.network, train).loss
