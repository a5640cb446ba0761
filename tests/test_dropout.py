"""Dropout: the masks of a step, and training with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import SettingsError, create
from onnxsurgeon.errors import EngineError
from onnxsurgeon.training import dropout
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.schedule import BatchSchedule
from onnxsurgeon.training.settings import TrainingSettings, TrainingSpec
from tests.conftest import randomised

RATE = 0.25
SPEC = TrainingSpec(learning_rate=0.1, dropout=RATE, seed=3)


@pytest.fixture(scope="module")
def network():
    return randomised(create((64, 20, 12, 10), seed=1, input_shape=(8, 8)))


def weights(network):
    return [values for _, values in network.parameters()]


def masks_at(network, positions, batch_size):
    """The masks (units, batch) of every layer at every position."""
    feeds = dropout.feeds(network, RATE, 3, np.asarray(positions), batch_size)
    widths = dropout.masked_layers(network)
    return [
        [feeds[dropout.POOL][start : start + units] for units, (start,) in zip(widths, starts, strict=True)]
        for starts in zip(*(feeds[f"mask_offset_{i}s"] for i in range(len(widths))), strict=True)
    ]


def test_a_step_is_the_one_worked_out_by_hand(network, digit_examples):
    train, _ = digit_examples
    rows = np.arange(16).reshape(1, 16)
    trained = LoopEngine().train(network, train, [rows], replace(SPEC, position=7)).network

    (w1, b1, w2, b2, w3, b3) = (v.astype(np.float64) for v in weights(network))
    x = train.features[0][rows[0]].reshape(16, -1).astype(np.float64)
    t = np.eye(10)[train.labels[0][rows[0]]]
    ((m1, m2),) = masks_at(network, [7], 16)
    z1 = x @ w1 + b1
    h1 = np.maximum(z1, 0) * m1.T
    z2 = h1 @ w2 + b2
    h2 = np.maximum(z2, 0) * m2.T
    logits = h2 @ w3 + b3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    d3 = (p - t) * 0.1 / 16
    d2 = (d3 @ w3.T) * m2.T * (z2 > 0)
    d1 = (d2 @ w2.T) * m1.T * (z1 > 0)
    expected = [w1 - x.T @ d1, b1 - d1.sum(0), w2 - h1.T @ d2, b2 - d2.sum(0), w3 - h2.T @ d3, b3 - d3.sum(0)]
    for found, wanted in zip(weights(trained), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_masks_leave_out_the_asked_share_and_keep_the_mean(network):
    found = np.concatenate([mask.ravel() for masks in masks_at(network, range(300), 16) for mask in masks])
    assert set(np.unique(found)) == {0.0, np.float32(1 / (1 - RATE))}
    assert np.mean(found == 0) == pytest.approx(RATE, abs=0.01)
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_masks_differ_between_positions_layers_and_seeds(network):
    one, other = masks_at(network, [5, 6], 16)
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[0][:12], one[1])
    again = dropout.feeds(network, RATE, 4, np.array([5]), 16)
    start = int(again["mask_offset_0s"][0, 0])
    assert not np.array_equal(again[dropout.POOL][start : start + 20], one[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_in_pieces_gives_the_same_bits(network, digit_examples, optimizer):
    train, _ = digit_examples
    spec = replace(SPEC, optimizer=optimizer, learning_rate=0.01)
    schedule = BatchSchedule(train.rows, 16, 0)
    whole = LoopEngine().train(network, train, schedule.window(0, 150), spec)
    first = LoopEngine().train(network, train, schedule.window(0, 60), spec)
    second = LoopEngine().train(first.network, train, schedule.window(60, 150), replace(spec, position=60), first.state)
    for a, b in zip(weights(whole.network), weights(second.network), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = LoopEngine().train(network, train, schedule.window(0, 150), replace(spec, dropout=0.0))
    assert not np.array_equal(weights(plain.network)[0], weights(whole.network)[0])


def test_a_network_without_hidden_layers_is_trained_as_without(digit_examples):
    train, _ = digit_examples
    network = create((64, 10), seed=1, input_shape=(8, 8))
    batches = np.arange(32).reshape(2, 16)
    one = LoopEngine().train(network, train, [batches], SPEC).network
    other = LoopEngine().train(network, train, [batches], replace(SPEC, dropout=0.0)).network
    np.testing.assert_array_equal(weights(one)[0], weights(other)[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(SettingsError, match="dropout"):
        TrainingSettings(dropout=rate).check(10)


def test_the_engine_without_dropout_says_so(network):
    with pytest.raises(EngineError, match=r"dropout|training"):
        make_engine("artifacts", "cpu", network, TrainingSettings(dropout=0.1))
    assert make_engine("auto", "cpu", network, TrainingSettings(dropout=0.1)).name == "loop"


def test_inputs_are_left_out_in_one_step_worked_out_by_hand(digit_examples):
    train, _ = digit_examples
    network = randomised(create((64, 10), seed=1, input_shape=(8, 8)))
    rows = np.arange(16).reshape(1, 16)
    spec = replace(SPEC, dropout=0.0, input_dropout=RATE, position=7)
    trained = LoopEngine().train(network, train, [rows], spec).network
    fed = dropout.feeds(network, 0.0, 3, np.array([7]), 16, RATE)
    start = int(fed["input_mask_offset_0s"][0, 0])
    mask = fed[dropout.INPUT_POOL][start : start + 64].reshape(16, 64)
    assert np.mean(mask == 0) == pytest.approx(RATE, abs=0.05)
    w, b = (v.astype(np.float64) for v in weights(network))
    x = train.features[0][rows[0]].reshape(16, -1) * mask
    logits = x @ w + b
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    d = (p - np.eye(10)[train.labels[0][rows[0]]]) * 0.1 / 16
    np.testing.assert_allclose(weights(trained)[0], w - x.T @ d, rtol=0, atol=2e-6)
    np.testing.assert_allclose(weights(trained)[1], b - d.sum(0), rtol=0, atol=2e-6)


def test_masks_of_inputs_are_others_than_those_of_layers(network):
    fed = dropout.feeds(network, RATE, 3, np.arange(50), 16, RATE)
    assert not np.array_equal(fed["mask_offset_0s"], fed["input_mask_offset_0s"])
    assert dropout.masked_inputs(network) == [64]
