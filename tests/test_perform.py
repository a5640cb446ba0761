"""Surgeries in order on a sample: which rows it holds, and that each surgery goes by the network it is performed on."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    DataError,
    FactorizeData,
    InputOptions,
    MergeData,
    Prune,
    SurgeryError,
    Widen,
    calibrate,
    found_error,
    load_dataset,
    operate,
    prepare,
    sample_rows,
)
from onnxsurgeon.operating.perform import draw_sample, perform
from onnxsurgeon.randomness import generator
from tests.calibrated import network

SURGERIES = [Prune(1, 10), Widen(1, 3), FactorizeData(2, 4), MergeData(1)]


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def rows_of(examples):
    return {row.tobytes() for row in examples.features[0]}


def test_errors_are_found_on_other_rows_than_the_surgeries_go_by(digits):
    net, options = network(), InputOptions()
    train, held_out = (rows_of(prepare(net, digits, split, options)) for split in digits.hold_out())
    sample = draw_sample(net, digits, options, count=100)
    assert (sample.calibration.rows, sample.held_out.rows) == (100, 100)
    assert rows_of(sample.calibration) <= train
    assert rows_of(sample.held_out) <= held_out
    assert not train & held_out
    again, other = (draw_sample(net, digits, options, count=100, seed=seed) for seed in (0, 1))
    assert rows_of(again.calibration) == rows_of(sample.calibration) != rows_of(other.calibration)


def test_each_surgery_goes_by_the_network_it_is_performed_on(digits):
    net = network()
    sample = draw_sample(net, digits, InputOptions())
    result, performed = perform(net, SURGERIES, sample, seed=3)
    for number, (surgery, (record, found)) in enumerate(zip(SURGERIES, performed, strict=True)):
        moments = calibrate(net, sample.calibration)
        done = operate(net, surgery, generator(3, "operate", number), moments=moments)
        assert record == done.record
        assert found == found_error(net, done, sample.held_out, sample_rows(sample.held_out))
        net = done.network
    for (_, ours), (_, theirs) in zip(result.parameters(), net.parameters(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_a_sample_nothing_is_found_and_surgeries_by_data_are_refused():
    net = network()
    result, [(record, found)] = perform(net, [Widen(1, 3)])
    assert (result.topology, record.predicted, found) == ("64-15-9-10", None, None)
    with pytest.raises(SurgeryError, match="prune:1:3: needs moments of a calibration sample"):
        perform(net, [Widen(1, 3), Prune(1, 3)])


def test_a_label_that_does_not_fit_is_named_by_its_row_in_the_split(digits):
    train = digits.train
    labels = train.labels.copy()
    labels[1400] = 10
    data = replace(digits, train=train.with_labels(labels), validation=digits.test, classes=11)
    with pytest.raises(DataError, match="label 10 in row 1400 is outside the 10 classes"):
        draw_sample(network(), data, InputOptions())
