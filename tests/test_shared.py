"""A hidden layer that several layers read: its width is free, and every surgery changes all that read it."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxsurgeon import Dataset, Split, from_model, load, make_engine, operate, parse, prepare, save
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.perform import draw_sample, perform
from onnxsurgeon.runtime import run
from onnxsurgeon.training.forward import feeds_of
from onnxsurgeon.training.settings import TrainingSpec
from tests.actors import actor, value
from tests.forward_model import forward_model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 6)).astype("f")


CASES = {
    "two heads": {},
    "three heads": {"heads": (3, 3, 1)},
    "deep": {"widths": (6, 10, 8)},
    "without biases": {"biases": (False,)},
    "rows of several positions": {"steps": (4,)},
    "a Tanh behind one": {"behind": (0,)},
    "linear": {"activation": "Identity"},
}


def rows(model, count=16):
    shape = [dim.dim_value or count for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(1).standard_normal(shape).astype("f")


@pytest.mark.parametrize("name", CASES)
def test_the_shared_layer_is_hidden_and_what_is_trained_is_the_file(name):
    model = actor(**CASES[name])
    network = from_model(model)
    widths, heads = CASES[name].get("widths", (6, 8)), CASES[name].get("heads", (3, 1))
    assert network.topology == "-".join(map(str, [*widths, sum(heads)]))
    assert network.frame.notes == ()
    assert network.hidden(len(widths) - 1).units == 8
    assert [head.width for head in network.heads] == list(heads)
    x = rows(model)
    expected = run(model, {"obs": x})
    for found, wanted in zip(run(to_model(network), {"obs": x}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    trained = run(forward_model(network), {"features": x, **feeds_of(network)})
    for i, (found, wanted) in enumerate(zip(trained, expected, strict=True)):
        if i not in CASES[name].get("behind", ()):
            np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["split", "equal", "fresh"])
@pytest.mark.parametrize("name", CASES)
def test_widening_is_exact(name, mode, tmp_path):
    model = actor(**CASES[name])
    network = from_model(model)
    last = network.hidden_count
    wide, record = operate(network, parse(f"widen:{last}:3", mode=mode), np.random.default_rng(0), require_exact=True)
    assert record.exact
    assert wide.hidden(last).units == 11
    save(wide, tmp_path / "wide.onnx")
    written = onnx.load(tmp_path / "wide.onnx")
    x = rows(model)
    for found, wanted in zip(run(written, {"obs": x}), run(model, {"obs": x}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    products = [node for node in written.graph.node if node.name.startswith("head") and "bias" not in node.name]
    assert len({node.input[0] for node in products}) == 1
    assert len(products) == len(CASES[name].get("heads", (3, 1)))
    assert load(tmp_path / "wide.onnx").topology == wide.topology


@pytest.mark.parametrize("text", ["insert_identity:1", "merge_duplicates:1"])
def test_other_exact_surgeries(text):
    network = from_model(actor())
    if text.startswith("merge_dup"):
        network, _ = operate(network, parse("widen:1:4", mode="equal"))
    made, _ = operate(network, parse(text), require_exact=True)
    for found, wanted in zip(run(to_model(made), {"obs": X}), run(to_model(network), {"obs": X}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_linear_layer_that_is_shared_is_merged_into_all():
    network = from_model(actor(activation="Identity"))
    made, record = operate(network, parse("merge:1"), require_exact=True)
    assert (made.topology, record.exact) == ("6-4", True)
    model = to_model(made)
    assert [node.name for node in model.graph.node] == ["head0", "head1"]
    for found, wanted in zip(run(model, {"obs": X}), run(to_model(network), {"obs": X}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["narrow:1:4", "factorize:1:2", "prune:1:5", "grow:1:4", "merge_data:1"])
def test_approximate_surgeries_change_all_that_read_the_layer(text):
    network = from_model(actor())
    y = np.concatenate(run(to_model(network), {"obs": X}), axis=1)
    split = Split(X, y + 0.1 * RNG.standard_normal(y.shape).astype("f"))
    data = Dataset("mine", split, split, 4)
    made, (performed,) = perform(network, [parse(text)], draw_sample(network, data, InputOptions()))
    model = to_model(made)
    found = np.concatenate(run(model, {"obs": X}), axis=1)
    assert found.shape == y.shape
    if text.startswith("grow"):
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)
    if text.startswith("prune"):
        error = np.sqrt(((found - y) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum())
        assert made.hidden(1).units == 5
        assert 0 < error < 0.5
        assert performed.found == pytest.approx(error, rel=0.3)
        assert performed.record.predicted == pytest.approx(error, rel=0.3)
    again = from_model(model)
    assert again.topology == ("6-3+6-1" if text.startswith("merge") else made.topology)
    assert again.parameter_count == made.parameter_count


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_training_goes_on_behind_a_surgery_with_the_optimizers_moments(optimizer):
    """Both heads learn, in units of their own targets; what widening carries keeps their moments."""
    network = from_model(actor())
    teacher = run(actor(seed=1), {"obs": X})
    y = np.concatenate([teacher[0] * 50, teacher[1]], axis=1)
    split = Split(X, y)
    data = Dataset("mine", split, split, 4)
    examples = prepare(network, data, data.train)
    assert [len(task.scale) for task in examples.tasks] != [0, 0]  # heads of a layer's own are trained in units
    engine, spec, batches = make_engine("loop"), TrainingSpec(0.01, optimizer), [np.arange(200).reshape(-1, 20)] * 10
    before = engine.train(network, examples, batches, spec)
    operated = operate(before.network, parse("widen:1:4"), np.random.default_rng(0))
    state = before.state.mapped(before.network, operated.carry)
    assert [values.shape for values in state.moments[0]] == [v.shape for _, v in operated.network.parameters()]
    after = engine.train(operated.network, examples, batches, spec, state).network
    errors = [np.mean((np.concatenate(run(to_model(n), {"obs": X}), 1) - y) ** 2, 0) for n in (network, after)]
    assert (errors[1] < errors[0]).all()


def test_layers_of_different_kinds_share_a_width():
    """One with a bias and one without are no layers side by side, and yet read the same units."""
    network = from_model(actor(biases=(True, False)))
    assert (network.topology, network.frame.notes) == ("6-8+8-3+8-1", ())
    assert (network.group(1).units, network.group(1).ports) == (8, 3)


def test_a_reader_that_goes_on_keeps_its_own_width_free():
    """Of two layers, one of which has a hidden layer behind it: both widths are free."""
    model = actor(heads=(5, 1))
    held = [numpy_helper.from_array(RNG.standard_normal((5, 2)).astype("f"), "more")]
    model.graph.initializer.extend(held)
    model.graph.node.append(helper.make_node("MatMul", ["h0", "more"], ["end"], name="end"))
    model.graph.output[0].CopyFrom(value("end", "n", 2))
    network = from_model(model)
    assert network.topology == "6-8+8-5-2+8-1"
    assert network.frame.notes == ()
    assert [(network.group(i).units, network.group(i).ports) for i in (1, 2)] == [(5, 2), (8, 3)]


@pytest.mark.parametrize("activation", ["Tanh", ""])
def test_readers_that_several_layers_read_in_turn_are_all_read_trained_and_written(activation):
    """A head beside a second trunk, as of actors whose critic is deeper: the layers behind that one were lost."""
    model = actor(widths=(6, 8), heads=(3, 7))
    graph, rng = model.graph, np.random.default_rng(1)
    deep = "h1"
    if activation:
        graph.node.append(helper.make_node(activation, [deep], ["deep"], name="deep"))
        deep = "deep"
    for name, width in (("b", 2), ("c", 1)):
        weight = rng.standard_normal((7, width)).astype("f")
        graph.initializer.append(numpy_helper.from_array(weight, f"{name}w"))
        graph.node.append(helper.make_node("Gemm", [deep, f"{name}w"], [name], name=f"read_{name}"))
    del graph.output[:]
    graph.output.extend([value("c", "n", 1), value("b", "n", 2), value("h0", "n", 3)])
    onnx.checker.check_model(model, full_check=True)

    network = from_model(model)
    assert network.topology == "6-8+8-3+8-7-3"
    assert network.parameter_count == 56 + 27 + 63 + 21
    c, b, a = run(model, {"obs": X})
    labels = np.concatenate([c, b, a], 1)
    dataset = Dataset("d", Split(X, labels), Split(X, labels), Split(X, labels))
    assert make_engine("loop").evaluate(network, prepare(network, dataset, dataset.train)).accuracy > 0.9999
    for surgery in ("widen:1:3", "widen:2:3", "insert_identity:1"):
        made, _ = perform(network, [parse(surgery)], draw_sample(network, dataset, InputOptions()))
        written = to_model(made)
        for given, found in zip((c, b, a), run(written, {"obs": X}), strict=True):
            np.testing.assert_allclose(found, given, atol=1e-5)
