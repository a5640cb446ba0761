"""Moments of a network's activations: what they are, where there are none, and that they do not vary."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from onnxsurgeon import DataError, EngineError, Examples, SurgeryError, create, prepare
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.graph.equivalence import chain_outputs
from tests.calibrated import OPS, covariance, network
from tests.conftest import as_float64


def inputs_of_layers(net, features):
    """What enters each layer, by running the layers before it alone."""
    found = [features]
    for position in range(len(net.layers) - 1):
        last = replace(net.layers[position], names=net.layers[position].names)
        z = chain_outputs(replace(net.chain, layers=(*net.layers[:position], replace(last, activation=None))), features)
        found.append(last.activation(z))
    return [values.astype(np.float64) for values in found]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("count", [37, 600])  # less than a tile; two and a rest
def test_moments_are_those_of_the_activations(op, count, digit_examples):
    train, _ = digit_examples
    net, rows = network(op=op), sample_rows(train, count, seed=3)
    moments = calibrate(net, train, rows)
    features = train.features[0][rows]
    layers = inputs_of_layers(net, features)
    assert moments.rows == {0: count}
    assert set(moments.inputs) == {(0, 0), (0, 1), (0, 2)}
    assert set(moments.crosses) == {(0, 0), (0, 1)}
    for i, (x, h) in enumerate(pairwise(layers), start=1):
        for moment, values in ((moments.input_of(net, i), x), (moments.output_of(net, i), h)):
            scale = np.abs(values).max()
            np.testing.assert_allclose(moment.mean, values.mean(0), atol=1e-6 * scale)
            np.testing.assert_allclose(moment.covariance, covariance(values, values), atol=1e-6 * scale**2)
        tolerance = 1e-6 * np.abs(x).max() * np.abs(h).max()
        np.testing.assert_allclose(moments.cross_of(net, i), covariance(x, h), atol=tolerance)


def test_products_are_summed_in_float64():
    """A mean of 1,000 leaves a float32 sum of squares no digit of a variance of 1e-4."""
    rng = np.random.default_rng(0)
    features = (1000 + 0.01 * rng.standard_normal((2000, 4))).astype(np.float32)
    net = create((4, 3, 2))
    found = calibrate(net, Examples.classification(features, np.zeros(2000, np.int64), 2), np.arange(2000))
    expected = covariance(features.astype(np.float64), features.astype(np.float64))
    np.testing.assert_allclose(found.input_of(net, 1).covariance, expected, atol=1e-4 * expected.max())


def test_rows_of_a_split_are_read_where_they_lie(digits):
    """Bytes that are scaled, and a selection of them: the same as their values as an array of their own."""
    net = network()
    train, _ = digits.hold_out()
    examples = prepare(net, digits, train)
    assert examples.numbers is not None
    copied = Examples.classification(examples.features[0], examples.labels[0], 10)
    rows = sample_rows(examples, 500)
    found, expected = calibrate(net, examples, rows), calibrate(net, copied, rows)
    for place, moment in found.inputs.items():
        np.testing.assert_allclose(moment.mean, expected.inputs[place].mean, rtol=1e-5, atol=1e-7)
        tolerance = 1e-6 * np.abs(moment.covariance).max()
        np.testing.assert_allclose(moment.covariance, expected.inputs[place].covariance, atol=tolerance)


def test_float64_networks_have_moments_to_their_own_precision():
    net = as_float64(network(op="PRelu"))
    features = np.random.default_rng(1).standard_normal((300, 64))
    moments = calibrate(net, Examples.classification(features, np.zeros(300, np.int64), 10), np.arange(300))
    last = inputs_of_layers(net, features)[-1]
    np.testing.assert_allclose(moments.output_of(net, 2).covariance, covariance(last, last), atol=1e-12)


def test_a_constant_input_has_no_variance_at_all():
    features = np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32)
    features[:, 2] = 0.1  # whose square float64 rounds
    net = create((5, 4, 2))
    moments = calibrate(net, Examples.classification(features, np.zeros(400, np.int64), 2), np.arange(400))
    moment = moments.input_of(net, 1)
    assert not moment.covariance[2].any()
    assert not moment.covariance[:, 2].any()
    assert not moments.cross_of(net, 1)[2].any()
    assert (np.delete(np.diag(moment.covariance), 2) > 0.5).all()


def test_the_same_sample_gives_the_same_bytes(digit_examples):
    train, _ = digit_examples
    net = network()
    np.testing.assert_array_equal(sample_rows(train, 700, seed=1), sample_rows(train, 700, seed=1))
    assert not np.array_equal(sample_rows(train, 700, seed=1), sample_rows(train, 700, seed=2))
    assert len(sample_rows(train, 10**6)) == train.rows
    first, second = (calibrate(net, train, sample_rows(train, 700)) for _ in range(2))
    for place in first.inputs:
        assert first.inputs[place].covariance.tobytes() == second.inputs[place].covariance.tobytes()


def test_layers_with_too_many_inputs_are_left_out_with_the_reason(monkeypatch, digit_examples):
    monkeypatch.setattr("onnxsurgeon.calibration.calibrate.WIDEST", 20)
    train, _ = digit_examples
    net = network()
    moments = calibrate(net, train)
    for refused in (moments.input_of, moments.cross_of):
        with pytest.raises(SurgeryError, match="layer 1 has no moments: its 64 inputs are more than the 20 that"):
            refused(net, 1)
    assert moments.output_of(net, 1).covariance.shape == (12, 12)
    assert moments.cross_of(net, 2).shape == (12, 9)


def test_moments_of_another_network_are_refused(digit_examples):
    train, _ = digit_examples
    moments = calibrate(network(), train)
    with pytest.raises(SurgeryError, match="layer 1: these moments are another network's: 12 values instead of 11"):
        moments.output_of(network((64, 11, 9, 10)), 1)
    with pytest.raises(SurgeryError, match="layer 3 has no moments: the calibration saw no such layer"):
        moments.output_of(network((64, 12, 9, 8, 10)), 3)


def test_values_that_are_not_finite_are_refused(digit_examples):
    train, _ = digit_examples
    net = network()
    net = net.with_layers([replace(net.layers[0], weight=np.full((64, 12), 3e38, np.float32)), *net.layers[1:]])
    with pytest.raises(EngineError, match="not finite on the calibration sample"):
        calibrate(net, train)


def test_a_sample_needs_rows(digit_examples):
    with pytest.raises(DataError, match="at least one row"):
        sample_rows(digit_examples[0], 0)
