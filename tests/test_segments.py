"""Nets that are not one sequence: what is found, and that whatever is done to it leaves the rest as it is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnxsurgeon import (
    Examples,
    Factorize,
    InsertIdentity,
    Merge,
    ModelError,
    Narrow,
    TrainingSpec,
    Widen,
    from_model,
    make_engine,
    operate,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph.equivalence import compare_models
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import FactorizeData, Grow, MergeData, Prune
from onnxsurgeon.task import SQUARED, Task
from tests.graphs import Graph
from tests.segmented import CASES

ROWS = 6


def inputs_of(model, rows=ROWS, seed=1):
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.standard_normal([rows, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]).astype(
            "f"
        )
        for value in model.graph.input
    }


def examples_of(network, model, rows=64):
    """The features that the prefix makes of random rows, and random targets for every head."""
    rng = np.random.default_rng(2)
    features = compute_features(network, inputs_of(model, rows), rows)
    tasks = tuple(Task(SQUARED, head.width) for head in network.heads)
    labels = tuple(rng.standard_normal((rows, task.outputs)) for task in tasks)
    return Examples(tuple(features.values()), labels, tasks)


def close(first, second, model, tolerance, label=""):
    difference = compare_models(first, second, inputs_of(model))
    assert difference.scale > 0
    assert difference.relative <= tolerance, label


def bytes_of(model):
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}


@pytest.fixture(params=CASES)
def found(request):
    """The case, its model, and what was made of it."""
    model = CASES[request.param].model()
    return CASES[request.param], model, from_model(model)


def test_what_is_found(found):
    case, _, network = found
    assert [segment.topology for segment in network.segments] == case.topologies
    assert network.topology == "+".join(case.topologies)
    assert network.frame.notes == case.notes
    shared = [network.group(i) for i in range(network.hidden_count + 1, network.group_count + 1)]
    assert tuple((group.units, group.ports) for group in shared) == case.shared
    assert network.hidden_count == sum(topology.count("-") - 1 for topology in case.topologies)


def test_reading_and_writing_changes_nothing_but_the_dense_layers_spelling(found):
    _, model, network = found
    written = to_model(network)
    onnx.checker.check_model(written, full_check=True)
    close(model, written, model, 1e-6)
    for field in ("input", "output"):
        assert list(getattr(written.graph, field)) == list(getattr(model.graph, field))
    assert list(written.metadata_props) == list(model.metadata_props)
    assert (written.doc_string, written.graph.doc_string, written.ir_version, list(written.opset_import)) == (
        model.doc_string,
        model.graph.doc_string,
        model.ir_version,
        list(model.opset_import),
    )
    dense = {layer.names.node for layer in network.layers}
    activations = {layer.names.activation for layer in network.layers if layer.activation is not None}
    originals = {node.name: node for node in model.graph.node}
    adds = {f"{name}.add" for name in dense}  # of what is written as MatMul and Add, the Add gets its name from there
    assert {node.name for node in written.graph.node} >= set(originals) - adds
    for node in written.graph.node:
        if node.name in originals and node.name not in dense | activations:
            assert node == originals[node.name]
    again = from_model(written)
    assert to_model(again) == written
    assert again.topology == network.topology


def exact_surgeries(network):
    for i in range(1, network.hidden_count + 1):
        most = min(network.hidden(i).weight.shape)
        for surgery in (
            *(Widen(i, 3, mode) for mode in ("split", "equal", "fresh")),
            InsertIdentity(i),
            Factorize(i, most),
            Merge(i),
            Narrow(i, most),
        ):
            if surgery.is_exact(network):
                yield surgery


def test_every_exact_surgery_on_every_hidden_layer_preserves_the_whole_model(found):
    _, model, network = found
    done = 0
    for surgery in exact_surgeries(network):
        result = operate(network, surgery).network
        changed = network.segment_of(surgery.layer)
        for number, (old, new) in enumerate(zip(network.segments, result.segments, strict=True)):
            assert (old is new) == (number != changed)
            assert (old.widths[0], old.widths[-1]) == (new.widths[0], new.widths[-1])
        written = to_model(result)
        onnx.checker.check_model(written, full_check=True)
        close(model, written, model, 1e-5, str(surgery))
        assert from_model(written).topology == result.topology
        done += 1
    assert done >= 5 * network.hidden_count


def test_surgeries_on_all_hidden_layers_one_after_the_other(found):
    _, model, network = found
    for i in range(network.hidden_count, 0, -1):
        network = operate(network, InsertIdentity(i)).network
        network = operate(network, Widen(i, 2)).network
    close(model, to_model(network), model, 1e-5)


def test_data_aware_surgeries_predict_the_error_that_is_found_in_every_segment(found):
    """Behind glue, with three axes, beside a skip: what enters each hidden layer has its moments."""
    _, model, network = found
    examples = examples_of(network, model)
    rows = np.arange(examples.rows)
    moments = calibrate(network, examples, rows)
    for i in range(1, network.hidden_count + 1):
        half = max(1, min(network.hidden(i).weight.shape) // 2)
        for surgery in (FactorizeData(i, half), Prune(i, half), MergeData(i)):
            done = operate(network, surgery, moments=moments)
            expected = found_error(network, done, examples, rows)
            assert done.record.predicted == pytest.approx(expected, rel=1e-3, abs=1e-5), str(surgery)


def test_growth_by_gradients_in_every_segment(found):
    """Behind glue, with three axes, beside a skip: there are some, and growth by them is exact."""
    _, model, network = found
    examples, engine = examples_of(network, model), make_engine("loop")
    rows = np.arange(examples.rows)
    moments = with_gradients(calibrate(network, examples, rows), network, examples, rows)
    before = engine.evaluate(network, examples).loss
    for i in range(1, network.hidden_count + 1):
        assert np.abs(moments.gradient_of(network, i)).max() > 0
        grown = operate(network, Grow(i, 4), moments=moments, require_exact=True).network
        assert engine.evaluate(grown, examples).loss == pytest.approx(before, rel=1e-4)


def test_training_lowers_the_loss_and_touches_nothing_else(found):
    _, model, network = found
    examples, engine = examples_of(network, model), make_engine("loop")
    before = engine.evaluate(network, examples).loss
    batches = [np.arange(64).reshape(4, 16)] * 10
    trained = engine.train(network, examples, batches, TrainingSpec(0.02)).network
    assert engine.evaluate(trained, examples).loss < 0.97 * before
    for (name, old), (_, new) in zip(network.parameters(), trained.parameters(), strict=True):
        assert not np.array_equal(old, new), name
    parameters = {name for name, _ in network.parameters()}
    after = bytes_of(to_model(trained))
    assert {n: v for n, v in after.items() if n not in parameters} == {
        n: v for n, v in bytes_of(to_model(network)).items() if n not in parameters
    }
    originals = bytes_of(model)
    assert all(after[name] == values for name, values in originals.items() if name in after and name not in parameters)
    widened = operate(trained, Widen(1, 2)).network
    assert engine.evaluate(widened, examples).loss == pytest.approx(engine.evaluate(trained, examples).loss, rel=1e-4)


def test_a_forward_pass_of_the_trunk_equals_the_models_own(found):
    """Of heads that are outputs as they come."""
    from onnxsurgeon.training.forward import feeds_of, numbered
    from tests.forward_model import forward_model

    _, model, network = found
    feeds = inputs_of(model)
    features = compute_features(network, feeds, ROWS)
    shown = onnx.ModelProto()
    shown.CopyFrom(to_model(network))
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=head.tensor) for head in network.heads)
    values = (rows.take() for rows in features.values())
    named = dict(zip(numbered("features", len(features)), values, strict=True))
    outputs = run(forward_model(network), {**named, **feeds_of(network)})
    for ours, theirs in zip(outputs, run(shown, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_sessions_are_not_mixed_up_between_models_that_differ_in_names_alone():
    """The last layer reads one input or the other, of the same width: one engine, two results."""
    engine = make_engine("loop")
    for read in ("x", "w"):
        g = Graph()
        g.inputs = {"x": ("batch", 4), "w": ("batch", 4)}
        g.dense("d1", "x", "a", 4, 4)
        g.op("Add", "a w", "b")
        g.op("Tanh", "b", "c")
        g.dense("d2", read, "d", 4, 4)
        g.op("Mul", "c d", "y")
        model = g.model()
        network, feeds = from_model(model), inputs_of(model, 64)
        assert list(network.frame.trunk.features) == ["x", "w"]
        y = run(model, feeds)[0].astype(np.float64)
        features = compute_features(network, feeds, 64)
        examples = Examples(tuple(features.values()), (y,), (Task(SQUARED, 4),))
        assert engine.evaluate(network, examples).loss < 1e-10


@pytest.mark.parametrize("opset", [11, 13])
def test_the_default_axis_of_softmax_depends_on_the_opset(opset):
    """Before opset 13 it is 1, and all axes from there on are taken together."""
    g = Graph()
    g.opset, g.inputs["x"] = opset, ("batch", 5, 4)
    g.dense3("d1", "x", "a", 4, 6)
    g.op("Softmax", "a", "b", name="gate")
    g.op("Flatten", "b", "c")
    g.dense("d2", "c", "y", 30, 2)
    network = from_model(g.model())
    if opset == 13:
        assert network.topology == "4-6+30-2"
        assert network.frame.notes == (
            "the width of 'd1' stays: Softmax computes over all its units together (node 'gate')",
        )
    else:
        assert network.topology == "30-2"
        assert network.frame.notes == (
            "'d1' stays as it is: node 'gate' (Softmax) behind 'd1' cannot be trained through: its axis is not the "
            "last one",
        )


def test_where_nothing_can_be_trained_the_reason_is_said():
    g = Graph()
    g.dense("d1", "x", "a", 4, 6)
    g.op("TopK", "a k", "values indices", name="best")
    g.const(k=np.array([2]))
    g.op("Cast", "indices", "y", to=TensorProto.FLOAT)
    model = g.model()
    network = from_model(model)
    assert (network.topology, [head.tensor for head in network.heads]) == ("4-6", ["a"])
    g = Graph()
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "x", "y")
    with pytest.raises(ModelError, match="no dense layer leads to an output of the model"):
        from_model(g.model(), source="net.onnx")
