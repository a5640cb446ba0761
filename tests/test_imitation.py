"""Training towards a teacher: targets, losses and gradients, metrics, and whole runs with and without labels."""

import json
import pickle
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxsurgeon import (
    DataError,
    Dataset,
    Examples,
    InputOptions,
    RunError,
    SettingsError,
    Split,
    SurgeonSettings,
    TrainingSpec,
    create,
    evolve,
    from_model,
    load,
    load_dataset,
    make_engine,
    prepare,
    resume,
    save,
)
from onnxsurgeon.data import soft
from onnxsurgeon.data.dataset import unlabelled
from onnxsurgeon.data.examples import together
from onnxsurgeon.data.heads import imitation_notes, imitation_tasks
from onnxsurgeon.data.prepare import prepare_rows
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.surgeon import teaching
from onnxsurgeon.surgeon.significance import row_scores
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import make_model
from onnxsurgeon.training.losses import loss_nodes
from onnxsurgeon.training.metrics import tally
from onnxsurgeon.training.predictions import watchers
from onnxsurgeon.training.standardised import Standardised
from onnxsurgeon.training.teaching import head_outputs, imitating
from tests.conftest import as_float64, branch_digests, killed_and_resumed, needs_training, randomised, start_model
from tests.several_heads import heads_model

RNG = np.random.default_rng(0)
ROWS = 40
X = RNG.standard_normal((ROWS, 5)).astype("f")
KINDS = [Task(CROSS_ENTROPY, 4, "Softmax"), Task(BINARY, 3, "Sigmoid"), Task(SQUARED, 3), Task(SQUARED, 2, "Sigmoid")]
SETTINGS = {"epochs": 3, "seed": 2, "ensemble": 1}


def spelled(value):
    return f"{value.loss}-{value.outputs}-{value.squash}" if isinstance(value, Task) else None


def softmax(z):
    exponentials = np.exp(z - z.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rows_of(x):
    split = Split(x, unlabelled(len(x)))
    return Dataset("mine", split, split, 0)


def hard_labels(task, shape=(ROWS,)):
    if task.loss == CROSS_ENTROPY:
        return RNG.integers(0, task.outputs, shape)
    if task.loss == BINARY:
        return RNG.integers(0, 2, (*shape, task.outputs)).astype(np.float64)
    return RNG.random((*shape, task.outputs))


def loss_and_gradient(task, z, targets):
    """By the nodes of the loss, in float64."""
    build = GraphBuilder(np.dtype(np.float64))
    nodes = loss_nodes(build, task, "z", "t", report=True)
    build.add("Identity", nodes.total, output="loss")
    build.add("Identity", nodes.gradient, output="gradient")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, v.shape) for name, v in (("z", z), ("t", targets))
    ]
    outputs = [helper.make_tensor_value_info("loss", TensorProto.DOUBLE, [])]
    outputs.append(helper.make_tensor_value_info("gradient", TensorProto.DOUBLE, z.shape))
    return ReferenceEvaluator(make_model("loss", build, inputs, outputs)).run(None, {"z": z, "t": targets})


def expected_loss(task, z, labels, taught, weight, temperature):
    """The sum over the rows, written out: (1 − w) L(z, labels) + w T² L(z/T, teacher/T); means but over classes."""
    axes = tuple(range(1, z.ndim))
    if task.loss == SQUARED:
        p, t = (sigmoid(values) if task.squash else values for values in (z, taught))
        return ((p - ((1 - weight) * labels + weight * t)) ** 2).mean(axes).sum()
    if task.loss == CROSS_ENTROPY:
        hard = -np.log(np.take_along_axis(softmax(z), labels[..., None], -1)[..., 0])
        soft = -(softmax(taught / temperature) * np.log(softmax(z / temperature))).sum(-1)
        each = (1 - weight) * hard + weight * temperature**2 * soft
        return each.reshape(len(z), -1).mean(1).sum()

    def binary(t, z):
        return -t * np.log(sigmoid(z)) - (1 - t) * np.log(1 - sigmoid(z))

    soft = temperature**2 * binary(sigmoid(taught / temperature), z / temperature)
    return ((1 - weight) * binary(labels, z) + weight * soft).mean(axes).sum()


@pytest.mark.parametrize("positions", [(), (3,)], ids=["rows", "sequences"])
@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 1.0), (1.0, 1.0), (1.0, 2.5), (0.3, 2.5)])
@pytest.mark.parametrize("task", KINDS, ids=spelled)
def test_loss_and_gradient_of_mixed_targets(task, weight, temperature, positions):
    shape = (6, *positions)
    z, taught = (2 * RNG.standard_normal((*shape, task.outputs)) for _ in range(2))
    labels = hard_labels(task, shape)
    task = replace(task, positions=int(np.prod(positions, dtype=int)))
    examples = Examples((np.zeros((6, 1)),), (labels,), (task,)).with_teacher((taught,), weight, temperature)
    (mixed,) = examples.tasks
    assert not mixed.imitates
    loss, gradient = loss_and_gradient(mixed, z, examples.targets[0])
    if mixed.loss != SQUARED or weight == 1:  # of squared errors, a mixed target's loss is smaller by a constant
        assert float(loss) == pytest.approx(expected_loss(task, z, labels, taught, weight, temperature), rel=1e-6)
    numeric, h = np.zeros_like(z), 1e-6
    for index in np.ndindex(z.shape):
        sides = []
        for sign in (1, -1):
            moved = z.copy()
            moved[index] += sign * h
            sides.append(expected_loss(task, moved, labels, taught, weight, temperature))
        numeric[index] = (sides[0] - sides[1]) / (2 * h)
    # Targets of classes are float32.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6)
    assert np.abs(numeric).max() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("task", KINDS[:2], ids=spelled)
def test_a_gradient_in_closed_form(task, temperature):
    """T (softmax(z/T) − softmax(t/T)), and the same of σ over the number of outputs."""
    z, taught = (RNG.standard_normal((6, task.outputs)) for _ in range(2))
    squash = softmax if task.loss == CROSS_ENTROPY else sigmoid
    tasks = (replace(task, imitates=True, temperature=temperature, teacher_weight=1.0),)
    examples = Examples((np.zeros((6, 1)),), (), ()).imitating((taught,), tasks)
    np.testing.assert_allclose(examples.labels[0], squash(taught / temperature), rtol=1e-6)
    _, gradient = loss_and_gradient(tasks[0], z, examples.targets[0].astype(np.float64))
    expected = temperature * (squash(z / temperature) - squash(taught / temperature))
    np.testing.assert_allclose(gradient, expected / (1 if task.loss == CROSS_ENTROPY else task.outputs), atol=1e-6)


@pytest.mark.parametrize("positions", [(), (3,)], ids=["rows", "sequences"])
@pytest.mark.parametrize("task", KINDS, ids=spelled)
def test_metrics_of_imitation(task, positions):
    shape = (ROWS, *positions)
    z, taught = (2 * RNG.standard_normal((*shape, task.outputs)) for _ in range(2))
    temperature = 1.0 if task.loss == SQUARED else 2.0
    task = replace(task, imitates=True, temperature=temperature, teacher_weight=1.0, positions=int(np.prod(shape[1:])))
    (labels,) = Examples((X,), (), ()).imitating((taught,), (task,)).labels
    collected = tally(task)
    for part in (slice(0, 7), slice(7, ROWS)):
        collected.add(z[part], labels[part])
    metric, loss = collected.result()
    assert loss == pytest.approx(
        expected_loss(task, z, None if task.loss != CROSS_ENTROPY else np.zeros(shape, int), taught, 1.0, temperature)
        if task.loss == CROSS_ENTROPY
        else expected_loss(task, z, 0.0, taught, 1.0, temperature),
        rel=1e-5,
    )
    if task.loss == CROSS_ENTROPY:
        assert (task.metric, metric) == ("agreement", (z.argmax(-1) == taught.argmax(-1)).mean())
    elif task.loss == BINARY:
        assert (task.metric, metric) == ("agreement", ((z > 0) == (taught > 0)).mean())
    else:
        p, t = ((sigmoid(v) if task.squash else v).reshape(-1, task.outputs) for v in (z, taught))
        expected = (1 - ((p - t) ** 2).sum(0) / ((t - t.mean(0)) ** 2).sum(0)).mean()
        assert task.metric == "fidelity"
        assert metric == pytest.approx(expected, rel=1e-5)


def networks():
    """One of each kind of head, and what is expected of it: loss and metric."""
    plain = {"input_shape": (5,)}
    sequence = sequence_model(3)
    return {
        "classes": (randomised(create((5, 8, 4), **plain)), (CROSS_ENTROPY,), "agreement"),
        "labels": (from_model(heads_model([(3, "Sigmoid")])), (BINARY,), "agreement"),
        "values": (randomised(create((5, 8, 3), softmax=False, **plain)), (SQUARED,), "fidelity"),
        "heads": (
            from_model(heads_model([(3, "Softmax"), (2, "")])),
            (CROSS_ENTROPY, SQUARED),
            "agreement and fidelity",
        ),
        "sequence": (from_model(sequence), (SQUARED,), "fidelity"),
    }


def sequence_model(width, squash=""):
    """x (n, 4, 5) → 6 → (n, 4, width), the same layers for each of four positions."""
    rng = np.random.default_rng(1)
    values = {"A": rng.standard_normal((5, 6)), "P": rng.standard_normal(6)}
    values |= {"B": rng.standard_normal((6, width)), "Q": rng.standard_normal(width)}
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["a"], name="m1"),
        helper.make_node("Add", ["a", "P"], ["b"], name="a1"),
        helper.make_node("Relu", ["b"], ["h"], name="r"),
        helper.make_node("MatMul", ["h", "B"], ["c"], name="m2"),
        helper.make_node("Add", ["c", "Q"], ["z" if squash else "y"], name="a2"),
    ]
    if squash:
        nodes.append(helper.make_node(squash, ["z"], ["y"], name="s"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, width])
    constants = [numpy_helper.from_array(v.astype("f"), name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "sequence", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inputs_for(name, count=ROWS):
    rng = np.random.default_rng(5)
    return rng.standard_normal((count, 4, 5) if name == "sequence" else (count, 5)).astype("f")


@pytest.mark.parametrize("name", networks())
def test_a_network_imitates_itself(name):
    network, losses, metric = networks()[name]
    data, engine = rows_of(inputs_for(name)), make_engine("loop")
    examples = imitating(network, data, data.train, temperature=2.0)
    assert tuple(task.loss for task in examples.tasks) == losses
    assert [task.temperature for task in examples.tasks] == [1.0 if loss == SQUARED else 2.0 for loss in losses]
    assert examples.metric == metric
    measured = engine.evaluate(network, examples)
    assert measured.accuracy == pytest.approx(1, abs=1e-12)
    # Nothing moves where it is right already, and it comes back from where it was moved to.
    batches = [np.arange(ROWS).reshape(4, 10)] * 50
    still = engine.train(network, examples, batches[:2], TrainingSpec(0.01)).network
    for (_, one), (_, other) in zip(still.parameters(), network.parameters(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    moved = network.with_parameters(v + 0.1 * RNG.standard_normal(v.shape).astype("f") for _, v in network.parameters())
    before, after = (
        engine.evaluate(each, examples)
        for each in (moved, engine.train(moved, examples, batches, TrainingSpec(0.02)).network)
    )
    assert after.loss - measured.loss < 0.5 * (before.loss - measured.loss)
    scores = row_scores(moved, engine, examples)
    assert scores.shape == (ROWS,)
    if len(losses) == 1 and losses[0] != SQUARED:
        assert scores.mean() == pytest.approx(before.accuracy)


def test_units_of_a_regression_are_the_teachers():
    network = randomised(create((5, 8, 3), softmax=False, input_shape=(5,)))
    last = replace(network.layers[-1], weight=network.layers[-1].weight * np.array([1, 100, 0.01], "f"))
    network = network.with_layers([*network.layers[:-1], last])
    data = rows_of(X)
    (task,) = imitating(network, data, data.train).tasks
    deviations = head_outputs(network, prepare_rows(network, data, data.train))[0].std(0)
    np.testing.assert_array_equal(task.scale, 2.0 ** np.round(np.log2(deviations)))


def test_which_loss_is_taken_and_what_is_noted():
    values = randomised(create((5, 8, 3), softmax=False, input_shape=(5,)))
    outputs = (np.zeros((4, 3), np.float32),)
    (task,) = imitation_tasks(values, outputs)
    assert task.loss == SQUARED
    (note,) = imitation_notes(values, (task,))
    assert note == (
        f"head '{values.heads[0].tensor}' has no Softmax: imitated as values; --loss cross-entropy if these are "
        "classes' logits"
    )
    for given in ({"loss": CROSS_ENTROPY}, {"squashes": ("Softmax",)}):
        (task,) = imitation_tasks(values, outputs, **given)
        assert task.loss == CROSS_ENTROPY
        assert imitation_notes(values, (task,)) == []
    single = create((5, 8, 1), softmax=False)
    (task,) = imitation_tasks(single, (np.zeros((4, 1), np.float32),))
    assert imitation_notes(single, (task,)) == []
    with pytest.raises(DataError, match="has a single output, which has no cross-entropy"):
        imitation_tasks(single, (np.zeros((4, 1), np.float32),), CROSS_ENTROPY)
    argmax = [helper.make_node("ArgMax", ["z0"], ["label"], axis=1, name="choose")]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1])
    chooses = from_model(heads_model([(4, "")], argmax, [label]))
    assert imitation_tasks(chooses, (np.zeros((4, 4), np.float32),))[0].loss == CROSS_ENTROPY


def test_predictions_are_held_against_the_teachers():
    task = Task(CROSS_ENTROPY, 3, "Softmax", imitates=True, teacher_weight=1.0)
    (watch,) = watchers((task,), 4)
    watch.add(np.eye(3)[[0, 1, 2, 2]], np.eye(3)[[0, 1, 1, 2]] * 0.8 + 0.05)
    assert watch.record()["cells"] == [[0, 0, 1], [1, 1, 1], [1, 2, 1], [2, 2, 1]]
    (watch,) = watchers((Task(BINARY, 1, "Sigmoid", imitates=True),), 2)
    watch.add(np.array([[1.0], [-1.0]]), np.array([[0.7], [0.8]]))
    assert watch.record()["cells"] == [[1, 0, 1], [1, 1, 1]]


# Examples with a teacher beside the labels.


def taught_examples(task, weight=0.3, temperature=2.0, rows=ROWS, scale=()):
    task = replace(task, scale=scale)
    outputs = (RNG.standard_normal((rows, task.outputs)).astype("f"),)
    labels = hard_labels(task, (rows,))
    return Examples((X[:rows],), (labels,), (task,)).with_teacher(outputs, weight, temperature)


@pytest.mark.parametrize("task", KINDS, ids=spelled)
def test_the_labels_stay_the_measure(task):
    network = randomised(create((5, 6, task.outputs), softmax=False, input_shape=(5,)))
    taught, engine = taught_examples(task), make_engine("loop")
    plain = Examples(taught.stored, taught.labels, (task,))
    assert engine.evaluate(network, taught) == engine.evaluate(network, plain)
    assert plain.with_teacher(taught.taught, 0.0) is plain
    with pytest.raises(DataError, match="a teacher's outputs for 7 rows do not fit 40"):
        plain.with_teacher(tuple(values[:7] for values in taught.taught))


def test_what_makes_other_examples_of_them_keeps_the_teacher():
    taught = taught_examples(KINDS[0])
    network = randomised(create((5, 6, 4), input_shape=(5,)))
    copies = [
        pickle.loads(pickle.dumps(taught)),
        Standardised.of(network, taught).examples,
        taught.with_stored(taught.stored),
    ]
    for copy in copies:
        np.testing.assert_array_equal(copy.targets[0], taught.targets[0])
        assert copy.tasks == taught.tasks
    both = together(taught, taught_examples(KINDS[0], rows=10))
    assert both.targets[0].shape == (50, 8)
    np.testing.assert_array_equal(both.targets[0][:ROWS], taught.targets[0])
    whole = np.concatenate([X, X])
    data = Dataset("mine", Split(whole, np.arange(80) % 4).take(np.arange(0, 80, 2)), Split(X, np.zeros(ROWS, int)), 4)
    one, two = (prepare(network, data, split) for split in data.hold_out())
    outputs = [(RNG.standard_normal((each.rows, 4)).astype("f"),) for each in (one, two)]
    joined = together(one.with_teacher(outputs[0]), two.with_teacher(outputs[1]))
    order = np.argsort(np.concatenate([one.numbers, two.numbers]))
    np.testing.assert_array_equal(joined.taught[0], np.concatenate([outputs[0][0], outputs[1][0]])[order])


def test_large_targets_lie_in_files(monkeypatch):
    plain = taught_examples(KINDS[0])
    mapped = Examples(plain.stored, plain.labels, plain.tasks, plain.taught)
    expected = plain.targets[0]
    monkeypatch.setattr(soft, "MAPPED_BYTES", 100)
    monkeypatch.setattr("onnxsurgeon.data.dataset._CHUNK_BYTES", 64)
    assert isinstance(mapped.targets[0], np.memmap)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mapped.targets[0])), expected)
    np.testing.assert_array_equal(mapped.targets[0], expected)
    network, engine = randomised(create((5, 6, 4), input_shape=(5,))), make_engine("loop")
    batches = [np.arange(ROWS).reshape(4, 10)]
    ours, theirs = (engine.train(network, each, batches, TrainingSpec(0.05)).network for each in (plain, mapped))
    for (_, one), (_, other) in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_disk_without_room_is_told(monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soft, "MAPPED_BYTES", 100)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DataError, match=r"targets of 8 MB find no room in .*: No space left on device"):
        soft.space((2**20, 2), np.dtype(np.float32))


@pytest.mark.parametrize("scale", [(), (2.0, 0.5, 4.0)])
def test_mixed_values_are_in_the_outputs_units(scale):
    examples = taught_examples(Task(SQUARED, 3), 0.25, scale=scale)
    mean = 0.75 * examples.labels[0] + 0.25 * examples.taught[0]
    np.testing.assert_allclose(examples.targets[0], mean / np.array(scale or 1.0), rtol=1e-6)


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (1.0, 2.5), (0.3, 1.0), (0.3, 2.5)])
@pytest.mark.parametrize("task", KINDS[:3], ids=spelled)
def test_the_reported_loss_is_that_of_the_targets(task, weight, temperature):
    """At rate 0, in float64, over several batches: also through the whole training graph."""
    network = as_float64(randomised(create((5, 6, task.outputs), activation="Tanh", softmax=False)))
    outputs = (RNG.standard_normal((ROWS, task.outputs)),)
    labels = hard_labels(task)
    examples = Examples((X.astype(float),), (labels,), (task,)).with_teacher(outputs, weight, temperature)
    spec = TrainingSpec(0.0, report_loss=True)
    trained = make_engine("loop").train(network, examples, [np.arange(ROWS).reshape(4, 10)], spec)
    z = head_outputs(network, examples)[0].astype(float)
    expected = expected_loss(task, z, labels, outputs[0], weight, temperature) / ROWS
    assert trained.mean_loss == pytest.approx(expected, rel=1e-5)


@needs_training
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (1.0, 2.5), (0.3, 1.0), (0.3, 2.5)])
@pytest.mark.parametrize("task", KINDS[:3], ids=spelled)
def test_both_engines_give_the_same_numbers(task, weight, temperature):
    network = randomised(create((5, 6, task.outputs), activation="Tanh", softmax=False))
    examples = taught_examples(task, weight, temperature)
    batches = [np.arange(ROWS).reshape(5, 8)] * 4
    ours, theirs = (
        make_engine(name).train(network, examples, batches, TrainingSpec(0.05, report_loss=True))
        for name in ("loop", "artifacts")
    )
    assert ours.mean_loss == pytest.approx(theirs.mean_loss, rel=1e-5)
    for (name, a), (_, b) in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6, err_msg=name)


@needs_training
@pytest.mark.parametrize("name", ["classes", "labels", "values", "sequence"])
def test_both_engines_imitate_alike(name):
    network, data = networks()[name][0], rows_of(inputs_for(name))
    examples = imitating(network, data, data.train)
    moved = network.with_parameters(v + 0.1 for _, v in network.parameters())
    batches = [np.arange(ROWS).reshape(5, 8)] * 4
    ours, theirs = (
        make_engine(each).train(moved, examples, batches, TrainingSpec(0.05)) for each in ("loop", "artifacts")
    )
    for (name, a), (_, b) in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=name)


# Heads of three axes with labels.


def labelled_sequences(labels, classes=0):
    split = Split(inputs_for("sequence"), labels)
    return Dataset("mine", split, split, classes)


def test_values_for_every_position():
    network = from_model(sequence_model(3))
    truth = head_outputs(
        network, prepare_rows(network, rows_of(inputs_for("sequence")), rows_of(inputs_for("sequence")).train)
    )[0]
    data, engine = labelled_sequences(truth.astype(float)), make_engine("loop")
    examples = prepare(network, data, data.train)
    assert (examples.metric, examples.tasks[0].positions) == ("R²", 4)
    assert engine.evaluate(network, examples).accuracy == pytest.approx(1)
    moved = network.with_parameters(v * 1.1 for _, v in network.parameters())
    z = head_outputs(moved, examples)[0]
    measured = engine.evaluate(moved, examples)
    units = np.array(examples.tasks[0].scale or 1.0)
    assert measured.loss == pytest.approx((((z - truth) / units) ** 2).mean(), rel=1e-5)
    expected = (1 - ((z - truth) ** 2).sum((0, 1)) / ((truth - truth.mean((0, 1))) ** 2).sum((0, 1))).mean()
    assert measured.accuracy == pytest.approx(expected, rel=1e-5)
    trained = engine.train(moved, examples, [np.arange(ROWS).reshape(4, 10)] * 20, TrainingSpec(0.02)).network
    assert engine.evaluate(trained, examples).loss < 0.5 * measured.loss


def test_a_class_for_every_position():
    network = from_model(sequence_model(3, "Softmax"))
    labels = np.random.default_rng(2).integers(0, 3, (ROWS, 4))
    data, engine = labelled_sequences(labels), make_engine("loop")
    examples = prepare(network, data, data.train)
    assert examples.tasks[0] == Task(CROSS_ENTROPY, 3, "Softmax", positions=4)
    z = head_outputs(network, examples)[0]
    measured = engine.evaluate(network, examples)
    assert measured.accuracy == pytest.approx((z.argmax(-1) == labels).mean())
    assert measured.loss == pytest.approx(expected_loss(examples.tasks[0], z, labels, z, 0.0, 1.0) / ROWS, rel=1e-5)
    trained = engine.train(network, examples, [np.arange(ROWS).reshape(4, 10)] * 20, TrainingSpec(0.05)).network
    assert engine.evaluate(trained, examples).loss < measured.loss
    labels[7, 2] = 3
    with pytest.raises(DataError, match="label 3 in row 7 is outside the 3 classes"):
        prepare(network, labelled_sequences(labels), data.train.with_labels(labels))


def test_labels_for_another_number_of_positions():
    network = from_model(sequence_model(3))
    data = labelled_sequences(RNG.random((ROWS, 5, 3)))
    with pytest.raises(DataError, match="its head 'y' has 4 positions a row; the labels have 5"):
        prepare(network, data, data.train)
    data = labelled_sequences(RNG.random((ROWS, 4, 2)))
    with pytest.raises(
        DataError, match=re.escape("expected labels of that shape, or a class for each position; found (4, 2)")
    ):
        prepare(network, data, data.train)
    flat = create((5, 3), softmax=False)
    split = Split(X, RNG.random((ROWS, 2, 3)))
    with pytest.raises(DataError, match=re.escape("labels of shape (2, 3) a row; the head")):
        prepare(flat, Dataset("mine", split, split, 0), split)


def test_a_run_on_sequences_with_labels(tmp_path):
    network = from_model(sequence_model(3))
    save(network, tmp_path / "m.onnx")
    x = inputs_for("sequence", 200)
    data = rows_of(x)
    y = head_outputs(network, prepare_rows(network, data, data.train))[0]
    np.savez(tmp_path / "d.npz", x=x, y=y)
    done = evolve(
        tmp_path / "m.onnx",
        str(tmp_path / "d.npz"),
        settings=settings(max_parameters=50),
        run_dir=tmp_path / "run",
        workers=1,
    )
    assert (done.test.metric, done.start.accuracy) == ("R²", pytest.approx(1))
    assert done.network.parameter_count <= 50


# Runs.


def settings(**changes):
    return SurgeonSettings.from_preset(**{**SETTINGS, **changes})


def given(folder, name="classes", rows=300):
    """A model and rows without labels as files."""
    network = networks()[name][0]
    save(network, folder / "m.onnx", overwrite=True)
    np.savez(folder / "rows.npz", x=inputs_for(name, rows))
    return folder / "m.onnx", str(folder / "rows.npz")


@pytest.mark.parametrize("name", networks())
def test_a_run_without_labels(name, tmp_path):
    model, data = given(tmp_path, name)
    network, _, metric = networks()[name]
    most, events = int(0.7 * network.parameter_count), []
    if name == "heads":  # its only hidden layer is read by both: it stays as wide as it is
        most = network.parameter_count
    done = evolve(
        model,
        data,
        settings=settings(max_parameters=most),
        run_dir=tmp_path / "run",
        workers=1,
        callbacks=events.append,
    )
    assert (done.test.metric, done.start.accuracy) == (metric, pytest.approx(1, abs=1e-12))
    (opening,) = (event for event in events if event["event"] == "run")
    assert opening["metric"] == metric
    assert "the rows have no labels: the given model is imitated, and is the measure" in opening["notes"]
    record = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (record["teacher"], record["metric"]) == (None, metric)
    # What is said of the test rows can be had again.
    dataset = load_dataset(data)
    examples = imitating(network, dataset, dataset.test)
    outputs = head_outputs(network, prepare_rows(network, dataset, dataset.test))
    for head, values in enumerate(outputs):
        np.testing.assert_array_equal(np.load(tmp_path / "run" / "teacher" / f"test-{head}.npy"), values)
    assert make_engine("loop").evaluate(done.network, examples).accuracy == pytest.approx(done.test.accuracy)


def teacher_file(folder):
    network = randomised(create((5, 12, 4), seed=3, input_shape=(5,)), seed=7, scale=0.7)
    save(network, folder / "teacher.onnx", overwrite=True)
    return network, folder / "teacher.onnx"


def test_a_run_with_a_teacher_from_a_file(tmp_path):
    model, data = given(tmp_path)
    network, teacher = teacher_file(tmp_path)
    done = evolve(model, data, settings=settings(epochs=8), teacher=teacher, run_dir=tmp_path / "run", workers=1)
    dataset = load_dataset(data)
    expected = head_outputs(network, prepare_rows(network, dataset, dataset.test))[0]
    own = head_outputs(done.network, prepare_rows(done.network, dataset, dataset.test))[0]
    assert done.test.accuracy == (own.argmax(1) == expected.argmax(1)).mean()
    assert done.test.accuracy > done.start.accuracy + 0.2
    record = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert record["teacher"]["file"] == str(teacher)
    assert len(record["teacher"]["sha256"]) == 64


@pytest.mark.parametrize("changes", [{}, {"teacher_weight": 0.25, "temperature": 3.0}, {"more_rows": 100}])
def test_a_run_with_labels_and_a_teacher(changes, tmp_path):
    model, _ = given(tmp_path)
    network, teacher = teacher_file(tmp_path)
    x = inputs_for("classes", 300)
    rows = rows_of(x)
    y = head_outputs(network, prepare_rows(network, rows, rows.train))[0].argmax(1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    events = []
    done = evolve(
        model,
        str(tmp_path / "d.npz"),
        settings=settings(epochs=8, **changes),
        teacher=teacher,
        run_dir=tmp_path / "run",
        workers=1,
        callbacks=events.append,
    )
    assert done.test.metric == "accuracy"
    assert done.test.accuracy > done.start.accuracy + 0.2
    assert (events[0]["rows"], events[0]["made_rows"]) == (180, changes.get("more_rows", 0))
    share = changes.get("teacher_weight", 0.5)
    assert f"trained towards '{teacher}' by {share:.0%}, towards the labels by {1 - share:.0%}" in events[0]["notes"]
    kept = {path.name for path in (tmp_path / "run" / "teacher").iterdir()}
    expected = {"teacher.json", "train-0.npy", "validation-0.npy"}
    assert kept == expected | ({"more-0.npy"} if "more_rows" in changes else set())


def test_settings_that_want_a_teacher_or_labels(tmp_path):
    model, data = given(tmp_path)
    np.savez(tmp_path / "d.npz", x=inputs_for("classes"), y=np.arange(ROWS) % 4)
    labelled = str(tmp_path / "d.npz")
    for rows, changes, reason in (
        (data, {"teacher_weight": 0.5}, "teacher-weight: mixes a teacher with labels, and the rows have none"),
        (
            labelled,
            {"temperature": 2.0},
            "temperature: is for a teacher, and there is none: --teacher or --teacher-weight",
        ),
        (labelled, {"more_rows": 10}, "more-rows: is for a teacher, and there is none: --teacher or --teacher-weight"),
    ):
        with pytest.raises(SettingsError, match=reason):
            evolve(model, rows, settings=settings(**changes), run_dir=tmp_path / "run", workers=1)
    assert not (tmp_path / "run").exists()
    for changes in ({"teacher_weight": 1.5}, {"teacher_weight": -0.1}, {"temperature": 0.0}, {"more_rows": 0}):
        with pytest.raises(SettingsError, match=next(iter(changes)).replace("_", "-")):
            settings(**changes)


def test_more_rows_of_a_run_without_labels(tmp_path):
    model, data = given(tmp_path)
    events = []
    evolve(model, data, settings=settings(more_rows=500), run_dir=tmp_path / "run", workers=1, callbacks=events.append)
    assert [events[0][key] for key in ("rows", "made_rows", "validation_rows")] == [180, 500, 60]
    made = np.load(tmp_path / "run" / "teacher" / "more-0.npy")
    assert made.shape == (500, 4)


# Kills and what is kept.


@pytest.mark.parametrize(("moment", "count"), [("checkpoint", 2), ("training", 5)])
def test_a_killed_run_without_labels_ends_in_the_same_bytes(moment, count, tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).random((300, 8, 8)).astype("f"))
    rows = str(tmp_path / "rows.npz")
    changes = SurgeonSettings.from_preset(
        "corrected",
        epochs=4,
        epoch_step=2,
        initial_epochs=2,
        recuperation_batches=2,
        seed=6,
        learning_rate=0.1,
        more_rows=50,
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    killed = killed_and_resumed(moment, count, tmp_path / "a" / "run", changes, rows)
    whole = evolve(start_model(tmp_path / "b"), rows, settings=changes, workers=1, run_dir=tmp_path / "b" / "run")
    assert (killed.test, killed.start) == (whole.test, whole.start)
    assert killed.test.metric == "agreement"
    assert branch_digests(tmp_path / "a" / "run") == branch_digests(tmp_path / "b" / "run")


def stopped_run(folder, teacher=None):
    """A run that stopped at its first decision point, and its settings."""
    model, data = given(folder)

    def stop(event):
        if event["event"] == "decided":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve(model, data, settings=settings(), teacher=teacher, run_dir=folder / "run", workers=1, callbacks=stop)
    return folder / "run"


@pytest.mark.parametrize("own", [True, False], ids=["itself", "file"])
def test_what_the_teacher_put_out_is_used_again(own, tmp_path, monkeypatch):
    run = stopped_run(tmp_path, None if own else teacher_file(tmp_path)[1])
    if not own:
        (tmp_path / "teacher.onnx").unlink()
    times = {path: path.stat().st_mtime_ns for path in (run / "teacher").iterdir()}

    def fails(*given, **named):
        raise AssertionError("the teacher was run again")

    monkeypatch.setattr(teaching, "taught_by", fails)
    done = resume(run, workers=1)
    assert done.test.metric == "agreement"
    assert {path: path.stat().st_mtime_ns for path in (run / "teacher").iterdir()} == times


def truncated(folder):
    path = folder / "train-0.npy"
    path.write_bytes(path.read_bytes()[:-5])


def pickled(folder):
    np.save(folder / "train-0.npy", np.array([[object()]]), allow_pickle=True)


def of_other_rows(folder):
    np.save(folder / "validation-0.npy", np.zeros((3, 4), np.float32))


def not_finite(folder):
    values = np.load(folder / "test-0.npy")
    values[5, 1] = np.nan
    np.save(folder / "test-0.npy", values)


def of_another_teacher(folder):
    record = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps({**record, "digest": "0" * 64}))


def no_record(folder):
    (folder / "teacher.json").write_text("[1, 2")


def linked(folder):
    other = folder.parent.parent / "elsewhere.npy"
    (folder / "train-0.npy").rename(other)
    (folder / "train-0.npy").symlink_to(other)


DAMAGES = [truncated, pickled, of_other_rows, not_finite, of_another_teacher, no_record, linked]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_computed_again(damage, tmp_path):
    _, teacher = teacher_file(tmp_path)
    run = stopped_run(tmp_path, teacher)
    before = {path.name: path.read_bytes() for path in (run / "teacher").iterdir()}
    damage(run / "teacher")
    resume(run, workers=1)
    assert {path.name: path.read_bytes() for path in (run / "teacher").iterdir()} == before
    assert not any(path.is_symlink() for path in (run / "teacher").iterdir())


def test_a_teacher_that_is_needed_again_and_gone_or_another(tmp_path):
    _, teacher = teacher_file(tmp_path)
    run = stopped_run(tmp_path, teacher)
    truncated(run / "teacher")
    save(create((5, 4), seed=9), teacher, overwrite=True)
    with pytest.raises(
        RunError, match=r"teacher\.onnx: is not the teacher that the run was started with; its contents"
    ):
        resume(run, workers=1)
    teacher.unlink()
    with pytest.raises(RunError, match=r"teacher put out is gone, and so is the teacher: .*no such file"):
        resume(run, workers=1)


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path):
    run = stopped_run(tmp_path)
    (run / "teacher").rename(tmp_path / "outside")
    truncated(tmp_path / "outside")
    (run / "teacher").symlink_to(tmp_path / "outside")
    before = {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    with pytest.raises(RunError, match="teacher: is a link; expected a folder of the run's own"):
        resume(run, workers=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()} == before


# The command line.


def test_evolve_and_evaluate_on_the_command_line(cli, tmp_path):
    given(tmp_path)
    network, _ = teacher_file(tmp_path)
    options = ("--epochs", "3", "--workers", "1", "--ensemble", "1")
    code, out, err = cli(
        "evolve", "m.onnx", "--data", "rows.npz", "--teacher", "teacher.onnx", "--run-dir", "run", *options
    )
    assert (code, err) == (0, "")
    assert "judged by agreement" in out
    assert "the rows have no labels: 'teacher.onnx' is imitated, and is the measure" in out
    code, out, err = cli("evaluate", "run/best.onnx", "--data", "rows.npz", "--teacher", "teacher.onnx", "--json")
    record = json.loads(out)
    assert (code, err, record["metric"], record["rows"]) == (0, "", "agreement", 60)
    dataset = load_dataset(str(tmp_path / "rows.npz"))
    logits = [
        head_outputs(each, prepare_rows(each, dataset, dataset.test))[0]
        for each in (network, load(tmp_path / "run" / "best.onnx"))
    ]
    assert record["accuracy"] == (logits[0].argmax(1) == logits[1].argmax(1)).mean()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Agreement" in page
    assert "by the teacher&#39;s class" in page or "by the teacher's class" in page
    assert "--teacher teacher.onnx" in page
    code, out, err = cli("evolve", "--resume", "run", "--teacher", "teacher.onnx")
    assert (code, err) == (2, "onnxsurgeon: --resume takes model, data and settings from the run: give none of them\n")
    code, out, err = cli("evaluate", "m.onnx", "--data", "rows.npz", "--teacher", "no.onnx")
    assert (code, out, err) == (2, "", "onnxsurgeon: no.onnx: no such file\n")


def policy():
    """A robot policy as exporters write it: a normaliser, three layers of Swish, half of the outputs, Tanh; batch 1."""
    rng, width = np.random.default_rng(0), 12
    values = {"mean": rng.standard_normal(width), "scale": rng.random(width) + 0.5}
    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["h0"]),
    ]
    sizes = (width, 32, 24, 8)
    for i, (n, m) in enumerate(pairwise(sizes)):
        values |= {f"W{i}": rng.standard_normal((n, m)) * 1.5 / np.sqrt(n), f"b{i}": 0.1 * rng.standard_normal(m)}
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [f"h{i}", f"W{i}", f"b{i}"], [f"z{i}"]))
        if not last:
            nodes.append(helper.make_node("Sigmoid", [f"z{i}"], [f"s{i}"]))
            nodes.append(helper.make_node("Mul", [f"z{i}", f"s{i}"], [f"h{i + 1}"]))
    nodes.append(helper.make_node("Split", ["z2"], ["location", "spread"], axis=-1))
    nodes.append(helper.make_node("Tanh", ["location"], ["actions"]))
    obs = helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, width])
    actions = helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 4])
    constants = [numpy_helper.from_array(v.astype("f"), name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "policy", [obs], [actions], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_policy_and_recorded_inputs_without_labels(cli, tmp_path):
    onnx.save(policy(), tmp_path / "policy.onnx")
    np.savez(tmp_path / "rows.npz", obs=np.random.default_rng(1).standard_normal((800, 12)).astype("f"))
    code, out, err = cli(
        "evolve",
        "policy.onnx",
        "--data",
        "rows.npz",
        "--max-parameters",
        "900",
        "--epochs",
        "12",
        "--run-dir",
        "run",
        "--json",
    )
    record = json.loads(out)
    assert (code, err) == (0, "")
    assert record["start_test_accuracy"] == pytest.approx(1)
    assert record["parameters"] <= 900
    code, out, err = cli("evaluate", "run/best.onnx", "--data", "rows.npz", "--teacher", "policy.onnx", "--json")
    measured = json.loads(out)
    assert (code, err, measured["metric"]) == (0, "", "fidelity")
    assert measured["accuracy"] == pytest.approx(record["test_accuracy"], abs=1e-6)


def test_options_of_inputs_count_for_the_teacher_too(tmp_path):
    """Images of bytes are scaled for both."""
    network = randomised(create((16, 8, 3), input_shape=(4, 4)))
    save(network, tmp_path / "m.onnx")
    np.savez(tmp_path / "rows.npz", x=RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8))
    data = load_dataset(str(tmp_path / "rows.npz"))
    teacher = TeacherModel.read(tmp_path / "m.onnx")
    for options in (InputOptions(), InputOptions(scale=0.02, mean=(1.0,))):
        found = teacher.outputs(network, data, data.train, options).outputs[0]
        expected = head_outputs(network, prepare_rows(network, data, data.train, options))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
