"""Moments of what convolutions read: patches, as the rows of their weights."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import Examples
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.graph.activation import Activation, prelu
from onnxsurgeon.task import SQUARED, Task
from tests.convolutional import convolution, geometry, network_of, rows_for

FIRST, SECOND = geometry((3, 2), (1, 2), 1, (1, 0, 1, 1)), geometry((2, 2), 1, 2, 0)


def two_layers(dtype=np.float32):
    layers = [
        convolution(2, 5, FIRST, "Tanh", seed=1, dtype=dtype),
        convolution(5, 4, SECOND, None, seed=2, dtype=dtype),
    ]
    return network_of((2, 6, 7), [layers], dtype=dtype)


def every_patch(x, shape):
    """(rows · positions, channels · taps) by plain loops."""
    pads = [(0, 0), (0, 0), (shape.pads[0], shape.pads[2]), (shape.pads[1], shape.pads[3])]
    padded, found = np.pad(x, pads), []
    high, wide = shape.sizes_behind(x.shape[2:])
    for row in padded:
        for i in range(high):
            for j in range(wide):
                rows, columns = (
                    slice(place * stride, place * stride + (size - 1) * step + 1, step)
                    for place, stride, size, step in zip(
                        (i, j), shape.strides, shape.kernel, shape.dilations, strict=True
                    )
                )
                found.append(row[:, rows, columns].reshape(-1))
    return np.array(found)


def test_moments_are_of_all_patches_where_these_are_few():
    net, data = two_layers(), rows_for((2, 6, 7), rows=300, dtype=np.float32)
    moments = calibrate(net, data, np.arange(300))
    first, second = net.segments[0].layers
    read = every_patch(data.features[0], FIRST)
    space = FIRST.sizes_behind((6, 7))
    written = np.tanh(read @ first.weight + first.bias)
    hidden = written.reshape(300, *space, 5).transpose(0, 3, 1, 2)
    for place, rows in (((0, 0), read), ((0, 1), every_patch(hidden, SECOND))):
        moment = moments.inputs[place]
        assert moment.mean == pytest.approx(rows.mean(axis=0), abs=1e-6)
        assert moment.covariance == pytest.approx(np.cov(rows.T, bias=True), abs=1e-5)
    centred = (read - read.mean(axis=0)).T @ (written - written.mean(axis=0)) / len(read)
    assert moments.crosses[0, 0] == pytest.approx(centred, abs=1e-5)
    assert moments.rows[0] == min(len(read), len(every_patch(hidden, SECOND)))
    assert moments.at(net, (0, 1)).mean.shape == (second.inputs,)


def test_a_few_positions_of_each_row_tell_about_the_same():
    net, data = two_layers(), rows_for((2, 6, 7), rows=3000, dtype=np.float32)
    moments = calibrate(net, data, np.arange(3000))
    read = every_patch(data.features[0], FIRST)
    assert 2**14 <= moments.rows[0] < len(read)
    again = calibrate(net, data, np.arange(3000))
    assert (again.inputs[0, 0].covariance == moments.inputs[0, 0].covariance).all()
    difference = moments.inputs[0, 0].covariance - np.cov(read.T, bias=True)
    assert abs(difference).max() < 0.05


@pytest.mark.parametrize(
    ("shape", "channels", "space", "reason"),
    [
        (geometry((3, 3), groups=2), 4, (6, 6), "its units read 2 groups of channels"),
        (geometry((3, 3)), 500, (3, 3), "its 4,500 inputs are more than the 4,096"),
    ],
)
def test_layers_without_moments_say_why(shape, channels, space, reason):
    net = network_of((channels, *space), [[convolution(channels, 4, shape, None, dtype=np.float32)]], dtype=np.float32)
    moments = calibrate(net, rows_for((channels, *space), dtype=np.float32), np.arange(4))
    assert reason in moments.missing[0, 0]


def test_sensitivities_are_those_of_errors_at_every_position():
    """Of the last convolution of a network whose head is linear: what moves the logits, by the head's weight alone."""
    net, data = two_layers(), rows_for((2, 6, 7), rows=256, dtype=np.float32)
    moments = calibrate(net, data, np.arange(256))
    squared = Examples(data.features, (np.zeros((256, 3), np.float32),), (Task(SQUARED, 3),))
    found = with_sensitivities(moments, net, squared, np.arange(256)).sensitivities
    head = net.segments[1].layers[0].weight.reshape(4, -1, 3)
    expected = np.einsum("upk,vpk->uv", head, head) / 3
    assert found[0, 1] == pytest.approx(expected, rel=0.35, abs=0.1)
    assert found[0, 0].shape == (5, 5)
    assert np.linalg.eigvalsh(found[0, 0]).min() > -1e-9


@pytest.mark.parametrize("units", [5, 7])
def test_sensitivities_go_through_a_slope_for_each_channel(units):
    """As through one for all, also where a map is as wide as there are channels: the evolution of such ones failed."""
    rows = np.arange(64)

    def found(activation):
        first = convolution(2, units, geometry((3, 3), 1, 1, 1), "Tanh", seed=1, dtype=np.float32)
        layers = [replace(first, activation=activation), convolution(units, 4, SECOND, None, seed=2, dtype=np.float32)]
        net, data = network_of((2, 6, 7), [layers], dtype=np.float32), rows_for((2, 6, 7), rows=64, dtype=np.float32)
        squared = Examples(data.features, (np.zeros((64, 3), np.float32),), (Task(SQUARED, 3),))
        return with_sensitivities(calibrate(net, squared, rows), net, squared, rows).sensitivities

    steep, one = found(prelu(np.linspace(0.1, 0.9, units, dtype="f"))), found(Activation("LeakyRelu", {"alpha": 0.25}))
    np.testing.assert_allclose(found(prelu(np.full(units, 0.25, "f")))[0, 0], one[0, 0], rtol=1e-4, atol=1e-6)
    assert not np.allclose(steep[0, 0], one[0, 0], rtol=0.05)


def test_gradients_of_new_units_are_of_dense_layers_alone():
    net, data = two_layers(), rows_for((2, 6, 7), rows=64, dtype=np.float32)
    moments = with_gradients(calibrate(net, data, np.arange(64)), net, data, np.arange(64))
    assert moments.gradients == {}
