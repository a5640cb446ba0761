"""Batch normalisation in training: the nodes of a step, folding, and what goes on from call to call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import Prune, create, operate
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.errors import EngineError, RunError
from onnxsurgeon.surgeon.state_file import read_state, write_state
from onnxsurgeon.training.batch_norm import EPSILON, FORGETTING, normalised, normalised_layers, plain
from onnxsurgeon.training.engine import make_engine
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.schedule import BatchSchedule
from onnxsurgeon.training.settings import TrainingSettings, TrainingSpec
from onnxsurgeon.training.state import OptimizerState
from tests.conftest import randomised

SPEC = TrainingSpec(learning_rate=0.1, batch_norm=True, seed=3)
ADAMW = replace(SPEC, optimizer="adamw", learning_rate=0.01, weight_decay=0.05)


@pytest.fixture(scope="module")
def network():
    return randomised(create((64, 20, 12, 10), seed=1, input_shape=(8, 8)))


def weights(network):
    return [values for _, values in network.parameters()]


def taken_apart(network, examples, norms=()):
    places = normalised_layers(network)
    (apart,), carried = normalised([network], examples, places, norms, SPEC.seed)
    return apart, [values.astype(np.float64) for values in carried], places


def normalise(z, gamma, beta):
    """u of z (rows, units), and ẑ and 1/σ."""
    inverse = 1 / np.sqrt(z.var(axis=0) + EPSILON)
    hat = (z - z.mean(axis=0)) * inverse
    return hat * gamma + beta, hat, inverse


def through(delta, gamma, hat, inverse):
    """∂L/∂z of δ = ∂L/∂u, written as in the paper."""
    return gamma * inverse * (delta - delta.mean(axis=0) - hat * (delta * hat).mean(axis=0))


def test_a_step_is_the_one_worked_out_by_hand(network, digit_examples):
    train, _ = digit_examples
    rows = np.arange(16).reshape(1, 16)
    apart, carried, _ = taken_apart(network, train)
    (g1, m1, v1, g2, m2, v2) = (values[:, 0] for values in carried)
    (w1, b1, w2, b2, w3, b3) = (v.astype(np.float64) for v in weights(apart))
    x = train.features[0][rows[0]].reshape(16, -1).astype(np.float64)
    t = np.eye(10)[train.labels[0][rows[0]]]
    z1 = x @ w1
    u1, hat1, i1 = normalise(z1, g1, b1)
    h1 = np.maximum(u1, 0)
    z2 = h1 @ w2
    u2, hat2, i2 = normalise(z2, g2, b2)
    h2 = np.maximum(u2, 0)
    logits = h2 @ w3 + b3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    d3 = (p - t) * 0.1 / 16
    e2 = (d3 @ w3.T) * (u2 > 0)
    d2 = through(e2, g2, hat2, i2)
    e1 = (d2 @ w2.T) * (u1 > 0)
    d1 = through(e1, g1, hat1, i1)

    def fold(w, beta, gamma, mean, variance, z):
        mean, variance = mean + FORGETTING * (z.mean(0) - mean), variance + FORGETTING * (z.var(0, ddof=1) - variance)
        s = gamma / np.sqrt(variance + EPSILON)
        return [w * s, beta - s * mean]

    expected = [
        *fold(w1 - x.T @ d1, b1 - e1.sum(0), g1 - (e1 * hat1).sum(0), m1, v1, z1),
        *fold(w2 - h1.T @ d2, b2 - e2.sum(0), g2 - (e2 * hat2).sum(0), m2, v2, z2),
        w3 - h2.T @ d3,
        b3 - d3.sum(0),
    ]
    trained = LoopEngine().train(network, train, [rows], SPEC).network
    for found, wanted in zip(weights(trained), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6)


def test_taking_apart_and_folding_change_nothing(network, digit_examples):
    train, _ = digit_examples
    norms = [(np.linspace(-2, 2, units).astype(np.float32),) for units in (20, 12)]
    places = normalised_layers(network)
    assert places == [(0, 0), (0, 1)]
    networks, carried = normalised([network], train, places, norms, 0)
    assert not np.allclose(weights(networks[0])[0], weights(network)[0])
    back, moments, kept = plain(networks, carried, places)
    assert moments == []
    for found, wanted in zip(weights(back), weights(network), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    for (found,), (wanted,) in zip(kept, norms, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_constant_unit_stays_finite_and_as_it_is(network, digit_examples):
    train, _ = digit_examples
    values = [each.copy() for each in weights(network)]
    values[0][:, 3] = 0.0  # x W is 0 on every row
    dead = network.with_parameters(values)
    before, after = (LoopEngine().evaluate(dead, train), LoopEngine().train(dead, train, [], SPEC))
    assert LoopEngine().evaluate(after.network, train).loss == pytest.approx(before.loss, rel=1e-4)
    batches = BatchSchedule(train.rows, 16, 0)
    trained = LoopEngine().train(dead, train, batches.window(0, 100), ADAMW)
    assert trained.network.is_finite
    assert trained.state.is_finite


def test_a_batch_of_one_row_leaves_the_running_means(network, digit_examples):
    train, _ = digit_examples
    one = LoopEngine().train(network, train, [np.array([[5]])], replace(SPEC, learning_rate=1e-12)).network
    for found, wanted in zip(weights(one), weights(network), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_scales_of_weights_are_remembered_from_call_to_call(network, digit_examples, tmp_path):
    train, _ = digit_examples
    batches = BatchSchedule(train.rows, 16, 0)
    first = LoopEngine().train(network, train, batches.window(0, 200), ADAMW)
    assert [len(norm) for norm in first.state.norms] == [3, 3]
    scales = first.state.norms[0][0]
    assert np.abs(scales - 1).max() > 0.05
    # W as it was trained: its decay alone would have shortened it by a tenth, whatever its direction.
    apart, _, _ = taken_apart(first.network, train, first.state.norms)
    np.testing.assert_allclose(weights(apart)[0] * scales, weights(first.network)[0], rtol=1e-4, atol=1e-6)

    write_state(first.state, tmp_path / "a.state.npz")
    again = read_state(tmp_path / "a.state.npz", first.network)
    for found, wanted in zip(again.norms, first.state.norms, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    spec, window = replace(ADAMW, position=200), (200, 300)
    one = LoopEngine().train(first.network, train, batches.window(*window), spec, first.state)
    other = LoopEngine().train(first.network, train, batches.window(*window), spec, again)
    for a, b in zip(weights(one.network), weights(other.network), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_in_pieces_comes_to_the_same_accuracy(digit_examples):
    train, test = digit_examples
    network = create((64, 24, 10), seed=1, input_shape=(8, 8))
    batches = BatchSchedule(train.rows, 16, 0)
    accuracies = []
    for pieces in (1, 10):
        trained, state, length = network, None, 800 // pieces
        for start in range(0, 800, length):
            done = LoopEngine().train(
                trained, train, batches.window(start, start + length), replace(ADAMW, position=start), state
            )
            trained, state = done.network, done.state
        accuracies.append(LoopEngine().evaluate(trained, test).accuracy)
    assert min(accuracies) > 0.85
    assert abs(accuracies[0] - accuracies[1]) < 0.03


def test_a_surgery_lets_the_scales_begin_anew(network, digit_examples):
    train, _ = digit_examples
    trained = LoopEngine().train(network, train, BatchSchedule(train.rows, 16, 0).window(0, 50), ADAMW)
    pruned = operate(trained.network, Prune(1, 10), moments=calibrate(trained.network, train))
    state = trained.state.mapped(trained.network, pruned.carry)
    assert trained.state.norms
    assert state.norms == ()
    again = LoopEngine().train(pruned.network, train, BatchSchedule(train.rows, 16, 0).window(0, 50), ADAMW, state)
    assert [len(norm[0]) for norm in again.state.norms] == [10, 12]


def test_a_state_of_another_network_is_refused(network, tmp_path):
    zeros = OptimizerState.zeros(network, 2)
    wrong = replace(zeros, norms=((np.ones(3, np.float32),) * 3,) * 2)
    write_state(wrong, tmp_path / "a.state.npz")
    with pytest.raises(RunError, match="another network"):
        read_state(tmp_path / "a.state.npz", network)


@pytest.mark.parametrize("sizes", [(64, 10), (64, 16, 10)])
def test_layers_without_a_bias_are_trained_as_without(digit_examples, sizes):
    train, _ = digit_examples
    network = create(sizes, seed=1, input_shape=(8, 8))
    layers = [replace(layer, bias=None) for layer in network.layers]
    bare = network.with_layers(layers)
    assert normalised_layers(bare) == []
    rows = [np.arange(32).reshape(2, 16)]
    one, other = (LoopEngine().train(bare, train, rows, replace(SPEC, batch_norm=on)).network for on in (True, False))
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_engine_without_it_says_so(network):
    with pytest.raises(EngineError, match=r"normalisation|training"):
        make_engine("artifacts", "cpu", network, TrainingSettings(batch_norm=True))
    assert make_engine("auto", "cpu", network, TrainingSettings(batch_norm=True)).name == "loop"
