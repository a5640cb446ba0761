"""Moments of patches, what surgeries by data foretell of convolutions, and the search on a convolutional network."""

import itertools
import json

import numpy as np
import pytest
from onnx import helper, numpy_helper

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
    factorization_errors,
    load_dataset,
    operate,
    prepare,
    save,
)
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.report.write import write_report
from onnxsurgeon.runtime import run

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


@pytest.mark.parametrize("surgery", [Prune(1, 4), Prune(2, 3), FactorizeData(1, 3), FactorizeData(2, 3)], ids=str)
def test_the_error_that_is_foretold_is_found(network, examples, surgery):
    moments = calibrate(network, examples, ROWS)
    operated = operate(network, surgery, moments=moments)
    assert operated.record.predicted > 1e-3
    assert found_error(network, operated, examples, ROWS) == pytest.approx(operated.record.predicted, rel=0.02)


@pytest.mark.parametrize("surgery", ["prune:1:5", "widen:1:2"])
def test_a_branch_of_one_layer_loses_units_as_what_it_reads_does(digits, tmp_path, surgery):
    """x + Relu(Conv(x)), as in networks of one convolution a block: its own units are compared where they stay."""
    rng = np.random.default_rng(0)
    sizes = {"a": (8, 1, 3, 3), "b": (8, 8, 3, 3), "c": (8, 10)}
    weights = {name: rng.standard_normal(shape).astype("f") / 3 for name, shape in sizes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["first"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["first", "b"], ["z"], name="inside", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z"], ["branch"]),
        helper.make_node("Add", ["first", "branch"], ["sum"]),
        helper.make_node("ReduceMax", ["sum"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["pooled", "c"], ["y"], name="head"),
    ]
    ends = [helper.make_tensor_value_info("x", 1, ["n", 1, 8, 8]), helper.make_tensor_value_info("y", 1, ["n", 10])]
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    network = from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    done = operate(network, surgery, data=digits)
    examples = prepare(network, digits, digits.train, InputOptions())
    found = found_error(network, done, examples, ROWS)
    if surgery.startswith("widen"):
        assert found < 1e-5
        return
    assert done.record.predicted == pytest.approx(found, rel=0.2)
    kept = done.units[1, 0]
    assert len(kept) == 5
    inputs = np.asarray(examples.features[0])[ROWS].reshape(-1, 1, 8, 8).astype("f")
    inputs = inputs / np.float32(inputs.max())
    (z, y), (new, other) = (z_and_outputs(each, inputs) for each in (network, done.network))
    error = ((new - z[:, kept]) ** 2).sum(axis=1).mean() + ((other - y) ** 2).sum(axis=1).mean()
    spread = z[:, kept].var(axis=(0, 2, 3)).sum() + y.var(axis=0).sum()
    assert found == pytest.approx(np.sqrt(error / spread), rel=1e-3)


def z_and_outputs(network, x):
    """The tensor z inside the model that is written, and its outputs, by ONNX Runtime."""
    model = to_model(network)
    model.graph.output.append(helper.make_tensor_value_info("z", 1, None))
    return run(model, {"x": x}, ["z", "y"])


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


def test_two_convolutions_do_not_merge_by_data(network, examples):
    with pytest.raises(SurgeryError, match=r"^merge_data:1: layer 1 is a convolution"):
        operate(network, MergeData(1), moments=calibrate(network, examples, ROWS))


def test_a_factorized_convolution_is_thin_and_pointwise(network, examples):
    moments = calibrate(network, examples, ROWS)
    result = operate(network, FactorizeData(1, 3), moments=moments).network
    assert result.hidden(1).geometry == network.hidden(1).geometry
    assert result.hidden(2).geometry == Geometry.pointwise(2)


def test_a_convolution_before_a_pool_is_factorized_too(network, examples):
    """It is the last of its segment, and writes a width that others share; its rank costs what is foretold."""
    moments = calibrate(network, examples, ROWS)
    last = network.group_count
    assert last == network.hidden_count + 1
    operated = operate(network, FactorizeData(last, 5), moments=moments)
    assert operated.record.exact
    assert operated.record.deviation <= 1e-5
    assert operated.network.topology == "c1-c6-c5-c5+20-10"
    assert operated.network.hidden(2).geometry == network.segments[0].layers[1].geometry
    assert operated.network.segments[0].layers[2].geometry == Geometry.pointwise(2)
    errors = factorization_errors(network, last, moments)
    found = [operate(network, FactorizeData(last, r), moments=moments).record.predicted for r in range(1, 6)]
    assert found == pytest.approx(errors, rel=1e-3, abs=1e-4)


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
