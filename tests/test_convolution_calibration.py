"""Moments of patches, what surgeries by data foretell of convolutions, and the search on a convolutional network."""

import itertools
import json

import numpy as np
import pytest

from onnxsurgeon import (
    FactorizeData,
    InputOptions,
    MergeData,
    Prune,
    SurgeonSettings,
    SurgeryError,
    calibrate,
    create_convolutional,
    evolve,
    from_model,
    load_dataset,
    operate,
    prepare,
    save,
    with_gradients,
)
from onnxsurgeon.calibration import patches as patches_module
from onnxsurgeon.calibration.patches import drawn, positions_of, why_none
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.report.write import write_report
from tests.test_canonical import node
from tests.test_convolution_reading import model, values

ROWS = np.arange(300)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def network():
    return create_convolutional("8x8x1-c6-c5s2-p-10", seed=2)


@pytest.fixture(scope="module")
def examples(network, digits):
    return prepare(network, digits, digits.train, InputOptions())


def patches(x, geometry):
    """(rows · positions, channels · taps), by loops over positions."""
    rank = geometry.rank
    pads = list(zip(geometry.pads[:rank], geometry.pads[rank:], strict=True))
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    sizes = geometry.sizes_behind(x.shape[2:])
    found = []
    for place in itertools.product(*(range(size) for size in sizes)):
        spans = [
            slice(at * stride, at * stride + dilation * (taps - 1) + 1, dilation)
            for at, stride, dilation, taps in zip(
                place, geometry.strides, geometry.dilations, geometry.kernel, strict=True
            )
        ]
        found.append(padded[(slice(None), slice(None), *spans)].reshape(len(x), -1))
    return np.stack(found, axis=1), sizes


def layer_by_numpy(x, layer):
    """φ(Conv(x)) in float64, and the rows that its weight is multiplied by."""
    rows, sizes = patches(x, layer.geometry)
    z = rows @ layer.weight.astype(np.float64) + layer.bias
    y = z if layer.activation is None else layer.activation(z)
    return np.moveaxis(y, 2, 1).reshape(len(x), -1, *sizes), rows.reshape(-1, rows.shape[2])


def test_moments_of_a_convolution_are_those_of_its_patches(network, examples):
    moments = calibrate(network, examples, ROWS)
    x = examples.stored[0].take(ROWS).astype(np.float64)
    for position, layer in enumerate(network.segments[0].layers):
        x, rows = layer_by_numpy(x, layer)
        found = moments.inputs[0, position]
        np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.covariance, np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-7)
    assert moments.rows[0] == len(ROWS) * 16
    assert moments.rows[1] == len(ROWS)


def test_of_a_large_map_some_positions_are_drawn(network, examples, monkeypatch):
    """The same positions for every example, and the moments come near those of all."""
    whole = calibrate(network, examples, ROWS)
    monkeypatch.setattr(patches_module, "ENTRIES", 256 * 9 * 24)
    assert len(drawn(64, 9)) == 24
    np.testing.assert_array_equal(drawn(64, 9), drawn(64, 9))
    part = calibrate(network, examples, ROWS)
    assert part.rows[0] == len(ROWS) * 4
    scale = whole.inputs[0, 0].covariance.trace() / 9
    assert np.abs(part.inputs[0, 0].covariance - whole.inputs[0, 0].covariance).max() < 0.5 * scale
    assert not np.array_equal(part.inputs[0, 0].covariance, whole.inputs[0, 0].covariance)


def test_few_positions_are_all_taken():
    assert drawn(16, 9) is None
    assert drawn(4, 10**7) is None
    assert len(drawn(5, 10**7)) == patches_module.FEWEST


@pytest.mark.parametrize("surgery", [Prune(1, 4), Prune(2, 3), FactorizeData(1, 3)], ids=str)
def test_the_error_that_is_foretold_is_found(network, examples, surgery):
    moments = calibrate(network, examples, ROWS)
    operated = operate(network, surgery, moments=moments)
    assert operated.record.predicted > 1e-3
    assert found_error(network, operated, examples, ROWS) == pytest.approx(operated.record.predicted, rel=0.02)


def test_pruning_by_patches_beats_taking_the_first_units(network, examples):
    """Of all 15 pairs of units that could stay, the least squares refit of the chosen one is among the best."""
    moments = calibrate(network, examples, ROWS)
    operated = operate(network, Prune(1, 2), moments=moments)
    covariance, weight = moments.inputs[0, 1].covariance, network.segments[0].layers[1].weight.astype(np.float64)
    errors = []
    for kept in itertools.combinations(range(6), 2):
        rows = np.concatenate([np.arange(9 * unit, 9 * unit + 9) for unit in kept])
        gone = np.setdiff1d(np.arange(54), rows)
        cross, inside = covariance[np.ix_(rows, gone)], covariance[np.ix_(rows, rows)]
        rest = covariance[np.ix_(gone, gone)] - cross.T @ np.linalg.pinv(inside) @ cross
        errors.append(np.trace(weight[gone].T @ rest @ weight[gone]))
    total = np.trace(weight.T @ covariance @ weight)
    assert operated.record.predicted**2 * total <= np.sort(errors)[2] * 1.05


def test_sensitivities_of_convolutions_weigh_all_positions(network, examples):
    moments = with_sensitivities(calibrate(network, examples, ROWS), network, examples, ROWS, seed=0)
    for position, layer in enumerate(network.segments[0].layers):
        metric = moments.sensitivities[0, position]
        assert metric.shape == (layer.units, layer.units)
        assert np.linalg.eigvalsh(metric).min() >= -1e-9 * np.trace(metric)
        assert np.trace(metric) > 0


def test_gradients_are_left_out_for_convolutions(network, examples):
    moments = with_gradients(calibrate(network, examples, ROWS), network, examples, ROWS)
    assert moments.gradients == {}


def test_what_has_no_moments_says_why():
    nodes = [node("Conv", "x A", "a", group=3), node("Relu", "a", "b"), node("Conv", "b B", "y")]
    network = from_model(model(nodes, {"A": values(3, 1, 3, 3), "B": values(2, 3, 3, 3)}))
    depthwise, plain = network.layers
    assert why_none(depthwise, (9, 8), 4096) == "it reads its channels in groups"
    assert why_none(plain, (7, 6), 4096) == ""
    assert why_none(plain, None, 4096) == "the size of what it reads is not known"
    assert why_none(plain, (7, 6), 20) == "its 27 inputs are more than the 20 that covariances are made of"
    assert positions_of(plain, (7, 6)) == 20


def test_two_convolutions_do_not_merge_by_data(network, examples):
    with pytest.raises(SurgeryError, match=r"^merge_data:1: layer 1 is a convolution"):
        operate(network, MergeData(1), moments=calibrate(network, examples, ROWS))


def test_a_factorized_convolution_is_thin_and_pointwise(network, examples):
    moments = calibrate(network, examples, ROWS)
    result = operate(network, FactorizeData(1, 3), moments=moments).network
    assert result.hidden(1).geometry == network.hidden(1).geometry
    assert result.hidden(2).geometry == Geometry.pointwise(2)


def test_a_convolutional_network_evolves_to_its_limit(tmp_path):
    """An untrained one grows, is trained, and is pruned by data to what is asked for; the report shows its widths."""
    save(create_convolutional("8x8x1-c6-p-c8-10", seed=1), tmp_path / "start.onnx")
    settings = SurgeonSettings.from_preset("default", epochs=8, seed=1, max_parameters=1500)
    evolved = evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run")
    assert evolved.network.parameter_count <= 1500
    assert evolved.test.accuracy > 0.85
    assert any(surgery.startswith("prune") for surgery in evolved.branch.lineage)
    page = write_report(tmp_path / "run").read_text()
    assert evolved.network.topology in page
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert any(event["event"] == "decided" for event in events)
