"""Large networks are trained step by step, their weights overwritten: the same bits from less memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from onnxsurgeon import Examples, TrainingSpec, create, make_engine
from onnxsurgeon.training import in_place
from onnxsurgeon.training.in_place import is_large, overwritable
from onnxsurgeon.training.loop_graph import carried_names, training_loop
from onnxsurgeon.training.optimizers import make_optimizer
from tests.conftest import randomised

SPECS = [
    TrainingSpec(),
    TrainingSpec(weight_decay=0.1),
    TrainingSpec(optimizer="momentum"),
    TrainingSpec(optimizer="momentum", weight_decay=0.1),
    TrainingSpec(optimizer="nesterov"),
    TrainingSpec(optimizer="adamw", learning_rate=0.01),
]


def data(rows=60, inputs=20, classes=5):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, inputs), dtype=np.float32)
    return Examples.classification(features, rng.integers(0, classes, rows), classes)


def batches():
    order = np.random.default_rng(1).permutation(60)
    yield order[:48].reshape(6, 8)
    yield order[48:].reshape(1, 12)


def trained(net, spec, examples):
    engine, state = make_engine("loop"), None
    for _ in range(2):
        result = engine.train(net, examples, batches(), spec, state)
        net, state = result.network, result.state
    kept = [] if state is None else [values for moment in state.moments for values in moment]
    return [values.tobytes() for values in (*(v for _, v in net.parameters()), *kept)], result.mean_loss, result.steps


@pytest.mark.parametrize("report", [False, True], ids=["silent", "loss"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.optimizer} {spec.weight_decay}")
def test_the_same_bits_as_many_steps_at_once(spec, report, monkeypatch):
    spec = replace(spec, report_loss=report)
    net, examples = randomised(create((20, 30, 10, 5))), data()
    before = [values.copy() for _, values in net.parameters()]
    at_once = trained(net, spec, examples)
    monkeypatch.setattr(in_place, "LARGE", 0)
    assert trained(net, spec, examples) == at_once
    assert all(np.array_equal(a, b) for a, (_, b) in zip(before, net.parameters(), strict=True))


def overwritten(spec, shape=(20, 30, 10, 5)):
    net, optimizer = create(shape), make_optimizer(spec)
    model = training_loop(net, data(), optimizer=optimizer)
    names = carried_names(net, optimizer)
    return names, overwritable(helper.get_attribute_value(model.graph.node[0].attribute[0]), len(names))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.optimizer} {spec.weight_decay}")
def test_the_first_weight_and_all_biases_are_overwritten(spec):
    names, found = overwritten(spec)
    parameters = {name for name in found if name.startswith("parameter")}
    if spec.optimizer == "nesterov":  # a sum of three, of which no more is known
        assert not parameters
    else:
        assert parameters == {"parameter_0", "parameter_1", "parameter_3", "parameter_5"}  # W1, b1, b2, b3
    assert found <= set(names)


def body(*nodes):
    info = [helper.make_tensor_value_info(name, 1, [2, 2]) for name in ("w", "next_w")]
    return helper.make_graph([helper.make_node(op, inputs, [y]) for op, inputs, y in nodes], "body", info[:1], info[1:])


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([("Relu", ["w"], "a"), ("Add", ["w", "a"], "next_w")], {"w"}),
        ([("Gemm", ["x", "y", "w"], "next_w")], {"w"}),
        ([("Gemm", ["w", "y", "w"], "next_w")], set()),  # a factor is read until the end
        ([("MatMul", ["w", "y"], "next_w")], set()),
        ([("Add", ["w", "x"], "next_w"), ("Relu", ["w"], "a")], set()),  # nothing says that Relu has run before
        ([("Add", ["w", "x"], "next_w"), ("Mul", ["next_w", "w"], "a")], set()),
    ],
)
def test_what_may_be_overwritten(nodes, found):
    assert overwritable(body(*nodes), 1) == found


def test_what_is_large(monkeypatch):
    net = create((20, 30, 5))
    size = 4 * net.parameter_count
    monkeypatch.setattr(in_place, "LARGE", size)
    assert is_large(net)
    monkeypatch.setattr(in_place, "LARGE", size + 1)
    assert not is_large(net)


def test_large_weights_are_copied_once():
    """At the size from which on it is done, 64 MB of weights. What ONNX Runtime itself takes is not counted."""
    net = create((8192, 2048, 5))
    assert is_large(net)
    examples = data(rows=16, inputs=8192)
    size = 4 * net.parameter_count
    tracemalloc.start()
    result = make_engine("loop").train(net, examples, [np.arange(16).reshape(4, 4)], TrainingSpec())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.steps == 4
    assert peak < 1.2 * size
