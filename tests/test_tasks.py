"""What heads are trained for: losses and their gradients, metrics, and how labels become targets."""

import math
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxsurgeon import (
    DataError,
    Dataset,
    Examples,
    InputOptions,
    Split,
    TrainingSpec,
    create,
    from_model,
    make_engine,
    prepare,
)
from onnxsurgeon.data.heads import encode, resolve_tasks
from onnxsurgeon.errors import EngineError
from onnxsurgeon.runtime import run
from onnxsurgeon.surgeon.score import paper_score
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import make_model
from onnxsurgeon.training.losses import LOSSES, loss_nodes
from onnxsurgeon.training.metrics import combined, tally
from tests.conftest import as_float64, needs_training, randomised
from tests.several_heads import heads_model

RNG = np.random.default_rng(0)
ROWS = 40
TASKS = [
    Task(CROSS_ENTROPY, 4, "Softmax"),
    Task(CROSS_ENTROPY, 2),
    Task(BINARY, 1, "Sigmoid"),
    Task(BINARY, 1),
    Task(BINARY, 3, "Sigmoid"),
    Task(SQUARED, 1),
    Task(SQUARED, 3),
    Task(SQUARED, 1, "Sigmoid"),
    Task(SQUARED, 3, "Sigmoid"),
]


def spelled(task):
    return f"{task.loss}-{task.outputs}-{task.squash}"


def labels_for(task, rows=ROWS, seed=1):
    """Labels as ``Examples`` holds them."""
    rng = np.random.default_rng(seed)
    if task.loss == CROSS_ENTROPY:
        return rng.integers(0, task.outputs, rows)
    if task.loss == BINARY:
        return rng.integers(0, 2, (rows, task.outputs)).astype(np.float64)
    return rng.random((rows, task.outputs)) if task.squash else rng.standard_normal((rows, task.outputs))


def loss_model(task, dtype):
    """A model of the loss alone: outputs "loss", the sum over the rows, and "gradient"."""
    build = GraphBuilder(np.dtype(dtype))
    nodes = loss_nodes(build, task, "z", "t", report=True)
    build.add("Identity", nodes.total, output="loss")
    build.add("Identity", nodes.gradient, output="gradient")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info(name, kind, ["rows", task.outputs]) for name in "zt"]
    outputs = [
        helper.make_tensor_value_info("loss", kind, []),
        helper.make_tensor_value_info("gradient", kind, ["rows", task.outputs]),
    ]
    return make_model("loss", build, inputs, outputs)


def metric_and_loss(task, z, labels):
    collected = tally(task)
    half = len(z) // 2
    collected.add(z[:half], labels[:half])
    collected.add(z[half:], labels[half:])
    return collected.result()


def one_task(task, rows=ROWS, dtype=np.float32, seed=1):
    features = np.random.default_rng(seed).standard_normal((rows, 5)).astype(dtype)
    return Examples((features,), (labels_for(task, rows),), (task,))


@pytest.mark.parametrize("task", TASKS, ids=spelled)
def test_gradients_of_losses_against_finite_differences(task):
    """Of the loss that the metrics report, which is numpy's."""
    z, labels, h = RNG.standard_normal((6, task.outputs)) * 2, labels_for(task, 6), 1e-6
    targets = Examples((z,), (labels,), (task,)).targets[0]
    loss, gradient = ReferenceEvaluator(loss_model(task, np.float64)).run(None, {"z": z, "t": targets})
    assert float(loss) == pytest.approx(metric_and_loss(task, z, labels)[1], rel=1e-12)
    expected = np.zeros_like(z)
    for index in np.ndindex(z.shape):
        sides = []
        for sign in (1, -1):
            moved = z.copy()
            moved[index] += sign * h
            sides.append(metric_and_loss(task, moved, labels)[1])
        expected[index] = (sides[0] - sides[1]) / (2 * h)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)
    assert np.abs(expected).max() > 0.01


def test_every_loss_is_tested():
    assert {task.loss for task in TASKS} == set(LOSSES)


@pytest.mark.parametrize("task", TASKS, ids=spelled)
def test_the_reported_loss_is_the_metrics_loss(task):
    """At rate 0, training reports the mean over all rows of the loss that evaluation reports."""
    net = as_float64(randomised(create((5, 6, task.outputs), activation="Tanh", softmax=False), scale=0.8))
    examples, engine = one_task(task, dtype=np.float64), make_engine("loop")
    measured = engine.evaluate(net, examples)
    trained = engine.train(net, examples, [np.arange(ROWS).reshape(4, 10)], TrainingSpec(0.0, report_loss=True))
    assert trained.mean_loss == pytest.approx(measured.loss, rel=1e-9)
    assert measured.rows == ROWS
    assert measured.metric == ("R²" if task.loss == SQUARED else "accuracy")


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
@pytest.mark.parametrize("task", [task for task in TASKS if task.loss != SQUARED or task.squash], ids=spelled)
def test_extreme_logits_stay_finite_in_float32(task, size):
    z = np.array([[size] * task.outputs, [-size] * task.outputs] * 2, np.float32)
    z[:2, 0] *= -1
    labels = labels_for(task, 4)
    targets = Examples((z,), (labels,), (task,)).targets[0]
    loss, gradient = run(loss_model(task, np.float32), {"z": z, "t": targets})
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() <= 1
    value, summed = metric_and_loss(task, z, labels)
    assert math.isfinite(value)
    assert math.isfinite(summed)


def test_the_binary_loss_of_extreme_logits_is_exact_where_it_is_small_or_large():
    z, t = np.array([[100.0], [-100.0], [100.0], [-100.0]], np.float32), np.array([[1.0], [0.0], [0.0], [1.0]])
    loss, gradient = run(loss_model(Task(BINARY, 1), np.float32), {"z": z, "t": t.astype("f")})
    assert loss == pytest.approx(200)
    np.testing.assert_allclose(gradient[:, 0], [0, 0, 1, -1], atol=1e-6)


@needs_training
@pytest.mark.parametrize("task", [task for task in TASKS if task.loss != SQUARED or not task.squash], ids=spelled)
def test_both_engines_give_the_same_numbers(task):
    net = randomised(create((5, 6, task.outputs), activation="Tanh", softmax=False))
    examples = one_task(task, 160)
    batches = [np.arange(160).reshape(10, 16)] * 2
    ours, theirs = (
        make_engine(name).train(net, examples, batches, TrainingSpec(0.05, report_loss=True))
        for name in ("loop", "artifacts")
    )
    assert ours.steps == theirs.steps == 20
    assert ours.mean_loss == pytest.approx(theirs.mean_loss, abs=1e-6)
    for (name, a), (_, b) in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6, err_msg=name)


@needs_training
def test_the_artifacts_engine_is_finite_where_logits_are_large():
    """ONNX Runtime's own BCEWithLogitsLoss is not."""
    net = create((5, 6, 1), activation="Tanh", softmax=False, seed=1)
    net = net.with_parameters(values * 40 for _, values in net.parameters())
    examples = one_task(Task(BINARY, 1), 64)
    ours, theirs = (
        make_engine(name).train(net, examples, [np.arange(64).reshape(4, 16)], TrainingSpec(0.5, report_loss=True))
        for name in ("loop", "artifacts")
    )
    assert theirs.network.is_finite
    assert ours.mean_loss == pytest.approx(theirs.mean_loss, rel=1e-6)


@needs_training
def test_what_the_artifacts_engine_cannot_train_is_said():
    squashed = Task(SQUARED, 1, "Sigmoid")
    with pytest.raises(EngineError, match="has no squared-error behind a Sigmoid; use the loop"):
        make_engine("artifacts").train(
            create((5, 6, 1), softmax=False), one_task(squashed), [np.arange(8)[None]], TrainingSpec()
        )
    network = from_model(heads_model(((3, ""), (2, ""))))
    examples = Examples(
        (X,), (labels_for(Task(SQUARED, 3)), labels_for(Task(SQUARED, 2))), (Task(SQUARED, 3), Task(SQUARED, 2))
    )
    with pytest.raises(EngineError, match="trains one head, not 2; use the loop"):
        make_engine("artifacts").train(network, examples, [np.arange(8)[None]], TrainingSpec())


# Metrics.


@pytest.mark.parametrize("outputs", [1, 4])
def test_r2_is_scikit_learns(outputs):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    t = rng.standard_normal((50, outputs)) * [1, 10, 0.1, 3][:outputs] + 5
    for p in (t + rng.standard_normal(t.shape), np.full_like(t, 5), t, -t):
        value, loss = metric_and_loss(Task(SQUARED, outputs), p, t)
        assert value == pytest.approx(metrics.r2_score(t, p), rel=1e-12)
        assert loss / 50 == pytest.approx(metrics.mean_squared_error(t, p), rel=1e-12)


def test_r2_of_a_constant_target_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    t = np.stack([rng.standard_normal(50), np.full(50, 2.0), np.full(50, -1.0)], axis=1)
    p = np.stack([t[:, 0] + 0.3, np.full(50, 2.0), np.full(50, 4.0)], axis=1)  # the second always right
    value, _ = metric_and_loss(Task(SQUARED, 3), p, t)
    assert value == pytest.approx(metrics.r2_score(t, p), rel=1e-12)
    for column in (1, 2):
        alone, _ = metric_and_loss(Task(SQUARED, 1), p[:, [column]], t[:, [column]])
        assert alone == metrics.r2_score(t[:, column], p[:, column]) == (column == 1)


@pytest.mark.parametrize("constant", [0.1, 1e-8, 1e10, 0.7])
def test_a_constant_target_whose_mean_is_rounded_is_still_constant(constant):
    t = np.full((37, 1), constant)
    value, _ = metric_and_loss(Task(SQUARED, 1), t * 1.5, t)
    assert value == 0


def test_accuracy_of_several_labels_counts_each():
    z = np.array([[2.0, -1.0, 0.5], [-3.0, 0.1, -0.2]])
    t = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    value, loss = metric_and_loss(Task(BINARY, 3), z, t)
    assert value == 4 / 6
    p = 1 / (1 + np.exp(-z))
    assert loss == pytest.approx(-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=1).sum())


def test_squared_error_behind_a_sigmoid_judges_the_prediction():
    z, t = np.array([[0.0], [2.0], [-2.0], [800.0], [-800.0]]), np.array([[0.5], [0.9], [0.1], [1.0], [0.0]])
    p = np.array([0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 1, 0])[:, None]
    value, loss = metric_and_loss(Task(SQUARED, 1, "Sigmoid"), z, t)
    assert loss == pytest.approx(((p - t) ** 2).sum())
    assert value == pytest.approx(1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum())


def test_several_heads_are_averaged_and_their_losses_added():
    tasks = (Task(CROSS_ENTROPY, 2), Task(SQUARED, 1))
    tallies = [tally(task) for task in tasks]
    tallies[0].add(np.array([[5.0, 0.0], [5.0, 0.0]]), np.array([0, 1]))
    tallies[1].add(np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]]))
    metrics = combined(tasks, tallies, 2, ("kind", "value"))
    assert metrics.accuracy == pytest.approx((0.5 + (1 - 1 / 2)) / 2)
    assert metrics.loss == pytest.approx((np.log1p(np.exp(-5)) + np.log1p(np.exp(5))) / 2 + 0.5)
    assert metrics.metric == "accuracy and R²"
    assert [(head.head, head.metric) for head in metrics.heads] == [("kind", "accuracy"), ("value", "R²")]
    assert [head.accuracy for head in metrics.heads] == pytest.approx([0.5, 0.5])
    assert sum(head.loss for head in metrics.heads) == pytest.approx(metrics.loss)


@pytest.mark.parametrize("accuracy", [1.0, 0.0, -1.0, -3.5, -1e300, -math.inf])
@pytest.mark.parametrize("gain", [2.0, 0.0, -5.0, 1e300, -1e300, math.inf, -math.inf])
@pytest.mark.parametrize("fraction", [0.0, 1e-9, 1.0, 50.0, 1e5])
def test_the_score_never_overflows(accuracy, gain, fraction):
    score = paper_score(accuracy, gain, fraction)
    assert math.isfinite(score)
    a, change = max(accuracy, -1), min(max(gain, -2), 2)
    assert score == pytest.approx(a + (math.exp(change - fraction) if fraction < 700 else 0))


def test_r2_below_minus_1_counts_as_minus_1():
    assert paper_score(-7.0, 0.0, 1.0) == paper_score(-1.0, 0.0, 1.0)
    assert paper_score(-1.0, 0.0, 1.0) < paper_score(-0.9, 0.0, 1.0)


# What a model's outputs and the labels suggest, and the targets they become.

X = RNG.standard_normal((ROWS, 5)).astype("f")


def dataset(labels, classes=0, class_labels=()):
    split = Split(X[: len(labels)], labels)
    return Dataset("mine", split, split, classes, class_labels=class_labels)


def classes(k):
    return np.arange(ROWS) % k


COLUMNS = RNG.integers(0, 2, (ROWS, 3))
FLOATS = RNG.standard_normal((ROWS, 3))
SHARES = RNG.random((ROWS, 3))
# squash, width, labels, number of classes → the loss, or the text of the error.
SUGGESTIONS = {
    "Softmax, classes": ("Softmax", 3, classes(3), 3, CROSS_ENTROPY),
    "Softmax, two classes": ("Softmax", 2, classes(2), 2, CROSS_ENTROPY),
    "Softmax, one column of classes in two axes": ("Softmax", 3, classes(3)[:, None], 3, CROSS_ENTROPY),
    "Softmax, columns of 0 and 1": ("Softmax", 3, COLUMNS, 0, "ends in a Softmax; expected one column of classes"),
    "Softmax, floats": ("Softmax", 3, FLOATS, 0, "ends in a Softmax; expected one column of classes"),
    "Softmax, one output": ("Softmax", 1, classes(2), 2, "a single output, which has no cross-entropy"),
    "LogSoftmax, classes": ("LogSoftmax", 3, classes(3), 3, CROSS_ENTROPY),
    "Sigmoid, classes": ("Sigmoid", 3, classes(3), 3, CROSS_ENTROPY),
    "Sigmoid, two classes, one output": ("Sigmoid", 1, classes(2), 2, BINARY),
    "Sigmoid, three classes, one output": (
        "Sigmoid",
        1,
        classes(3),
        3,
        "mine: 3 classes in the data, the model",
    ),
    "Sigmoid, three classes, of which two are trained on": ("Sigmoid", 1, classes(2), 3, "mine: 3 classes in the data"),
    "Sigmoid, columns of 0 and 1": ("Sigmoid", 3, COLUMNS, 0, BINARY),
    "Sigmoid, floats 0 and 1": ("Sigmoid", 3, COLUMNS.astype(float), 0, BINARY),
    "Sigmoid, floats 0 and 1, one output": ("Sigmoid", 1, COLUMNS[:, 0].astype(float), 0, BINARY),
    "Sigmoid, shares": ("Sigmoid", 3, SHARES, 0, SQUARED),
    "Sigmoid, shares, one output": ("Sigmoid", 1, SHARES[:, 0], 0, SQUARED),
    "none, classes": ("", 3, classes(3), 3, CROSS_ENTROPY),
    "none, two classes, one output": ("", 1, classes(2), 2, BINARY),
    "none, five classes, one output": ("", 1, classes(5), 5, SQUARED),
    "none, columns of 0 and 1": ("", 3, COLUMNS, 0, BINARY),
    "none, floats 0 and 1": ("", 3, COLUMNS.astype(float), 0, SQUARED),
    "none, floats": ("", 3, FLOATS, 0, SQUARED),
    "none, floats, one output": ("", 1, FLOATS[:, 0], 0, SQUARED),
    "none, floats, one output, two axes": ("", 1, FLOATS[:, :1], 0, SQUARED),
}


@pytest.mark.parametrize("name", SUGGESTIONS)
def test_suggested_losses_and_targets(name):
    squash, width, labels, count, wanted = SUGGESTIONS[name]
    network, data = from_model(heads_model([(width, squash)])), dataset(labels, count)
    if wanted not in LOSSES:
        with pytest.raises(DataError, match=wanted):
            resolve_tasks(network, data)
        return
    (task,) = tasks = resolve_tasks(network, data)
    assert (task.loss, task.outputs, task.squash) == (wanted, width, squash.removeprefix("Log"))
    (encoded,) = encode(network, data, data.train, tasks)
    flat = labels.reshape(ROWS, -1)
    if wanted == CROSS_ENTROPY:
        assert (encoded.dtype, encoded.shape) == (np.int64, (ROWS,))
        np.testing.assert_array_equal(encoded, flat[:, 0])
    else:
        assert (encoded.dtype, encoded.shape) == (np.float64, (ROWS, width))
        np.testing.assert_array_equal(encoded, flat)
    metrics = make_engine("loop").evaluate(network, prepare(network, data, data.train))
    assert metrics.metric == ("R²" if wanted == SQUARED else "accuracy")


# squash, width, labels, classes, --loss → None where it works, else the text of the error.
OVERRIDES = {
    "squared error of 0 and 1": ("", 3, COLUMNS, 0, SQUARED, None),
    "squared error of one column of classes": ("", 1, classes(2), 2, SQUARED, None),
    "binary of floats 0 and 1": ("", 3, COLUMNS.astype(float), 0, BINARY, None),
    "squared error behind a Sigmoid": ("Sigmoid", 3, COLUMNS, 0, SQUARED, None),
    "cross-entropy behind a Sigmoid": ("Sigmoid", 2, classes(2), 2, CROSS_ENTROPY, None),
    "cross-entropy of one output": ("", 1, classes(2), 2, CROSS_ENTROPY, "a single output, which has no cross-entropy"),
    "cross-entropy of floats": (
        "",
        3,
        FLOATS,
        0,
        CROSS_ENTROPY,
        r"takes one column of classes; found float64 \(40, 3\)",
    ),
    "binary of floats": (
        "",
        3,
        np.where(FLOATS < 9, 0.25, 1),
        0,
        BINARY,
        "target 0.25 in row 0, column 0; expected 0 or 1",
    ),
    "binary of classes on several outputs": ("", 3, classes(3), 3, BINARY, "expected 3 targets a row"),
    "squared error behind a Softmax": (
        "Softmax",
        3,
        FLOATS,
        0,
        SQUARED,
        "ends in a Softmax, which has no squared-error",
    ),
    "binary behind a Softmax": (
        "Softmax",
        3,
        COLUMNS,
        0,
        BINARY,
        "ends in a Softmax, which has no binary-cross-entropy",
    ),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_loss_that_the_user_chose(name):
    squash, width, labels, count, loss, problem = OVERRIDES[name]
    network, data = from_model(heads_model([(width, squash)])), dataset(labels, count)
    options = InputOptions(loss=loss)
    if problem is None:
        examples = prepare(network, data, data.train, options)
        assert [task.loss for task in examples.tasks] == [loss]
    else:
        with pytest.raises(DataError, match=problem):
            prepare(network, data, data.train, options)


def test_an_unknown_loss():
    with pytest.raises(DataError, match="unknown loss 'hinge': expected auto, cross-entropy, binary-cross-entropy"):
        InputOptions(loss="hinge")


@pytest.mark.parametrize(
    ("width", "labels", "expected", "found"),
    [(3, FLOATS[:, :2], 3, 2), (1, FLOATS, 1, 3), (2, COLUMNS, 2, 3), (4, FLOATS[:, 0], 4, 1)],
)
def test_wrong_numbers_of_columns(width, labels, expected, found):
    network, data = from_model(heads_model([(width, "")])), dataset(labels)
    with pytest.raises(DataError, match=f"expected {expected} targets a row, one for each output .* found {found}"):
        prepare(network, data, data.train)


def test_a_class_outside_the_outputs_names_its_row():
    labels = classes(3).copy()
    labels[7] = 4
    network = from_model(heads_model([(3, "Softmax")]))
    with pytest.raises(DataError, match=r"label 4 in row 7 is outside the 3 classes of 'model' \(0 to 2\)"):
        prepare(network, dataset(labels, 5), dataset(labels, 5).train)
    named = dataset(labels, 5, ("ant", "bee", "cow", "dog", "eel"))
    with pytest.raises(DataError, match="5 classes, from 'ant' to 'eel'; 'model' has 3, and gives them no names"):
        prepare(network, named, named.train)


# Class labels that the model has names for.


def suffix(kind, strings):
    """Nodes behind the probabilities y0 that call three classes by names, and the outputs of the model."""
    names = [b"cow", b"ant", b"bee"] if strings else [7, 3, 5]
    typed = TensorProto.STRING if strings else TensorProto.INT64
    probabilities = helper.make_tensor_value_info("y0", TensorProto.FLOAT, ["batch", 3])
    best = helper.make_node("ArgMax", ["y0"], ["best"], axis=1, keepdims=0)
    attribute = "strings" if strings else "int64s"
    ml = {"domain": "ai.onnx.ml"}
    if kind == "ZipMap":
        node = helper.make_node("ZipMap", ["y0"], ["maps"], **{f"classlabels_{attribute}": names}, **ml)
        key = helper.make_map_type_proto(typed, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        maps = helper.make_value_info("maps", helper.make_sequence_type_proto(key))
        return [node], [maps, probabilities], {}
    label = helper.make_tensor_value_info("label", typed, None)
    if kind == "ArrayFeatureExtractor":
        constants = {"names": np.array([n.decode() for n in names], object) if strings else np.array(names)}
        node = helper.make_node("ArrayFeatureExtractor", ["names", "best"], ["label"], **ml)
        return [best, node], [label, probabilities], constants
    given = {"keys_int64s": [0, 1, 2], f"values_{attribute}": names}
    return [best, helper.make_node("LabelEncoder", ["best"], ["label"], **given, **ml)], [label, probabilities], {}


@pytest.mark.parametrize("strings", [True, False], ids=["strings", "gaps"])
@pytest.mark.parametrize("kind", ["ZipMap", "ArrayFeatureExtractor", "LabelEncoder"])
def test_labels_are_mapped_by_the_models_own_names(kind, strings):
    extra, outputs, constants = suffix(kind, strings)
    network = from_model(heads_model([(3, "Softmax")], extra, outputs, constants))
    assert network.heads[0].labels == (("cow", "ant", "bee") if strings else (7, 3, 5))
    data = dataset(classes(3), 3, ("ant", "bee", "cow") if strings else (3, 5, 7))
    examples = prepare(network, data, data.train)
    np.testing.assert_array_equal(examples.labels[0][:3], [1, 2, 0])
    assert examples.tasks == (Task(CROSS_ENTROPY, 3, "Softmax"),)
    unknown = replace(data, class_labels=("ant", "bee", "yak") if strings else (3, 5, 8))
    name = "'yak'" if strings else "8"
    listed = "cow, ant, bee" if strings else "7, 3, 5"
    with pytest.raises(DataError, match=f"label {name} in row 2 is not among the classes of 'model': {listed}"):
        prepare(network, unknown, unknown.train)


def test_labels_that_the_model_counts_itself_need_no_names():
    extra, outputs, constants = suffix("LabelEncoder", strings=False)
    extra[1].attribute[1].ints[:] = [0, 1, 2]
    network = from_model(heads_model([(3, "Softmax")], extra, outputs, constants))
    assert network.heads[0].labels == ()


def test_two_classes_with_names_on_a_single_output():
    extra = [
        helper.make_node("Greater", ["y0", "half"], ["above"]),
        helper.make_node("Cast", ["above"], ["number"], to=TensorProto.INT64),
        helper.make_node("ArrayFeatureExtractor", ["names", "number"], ["label"], domain="ai.onnx.ml"),
    ]
    outputs = [helper.make_tensor_value_info("label", TensorProto.STRING, None)]
    constants = {"half": np.float32(0.5), "names": np.array(["no", "maybe"], object)}
    network = from_model(heads_model([(1, "Sigmoid")], extra, outputs, constants))
    assert network.heads[0].labels == ("no", "maybe")
    data = dataset(classes(2), 2, ("maybe", "no"))
    examples = prepare(network, data, data.train)
    assert examples.tasks == (Task(BINARY, 1, "Sigmoid"),)
    np.testing.assert_array_equal(examples.labels[0][:, 0], 1 - classes(2))


def test_more_classes_than_one_output_can_tell_apart():
    """Whatever the classes are called; of several heads the one is named."""
    network = from_model(heads_model([(1, "Sigmoid")]))
    for names in ((), ("a", "b", "c"), (3, 5, 7)):
        with pytest.raises(DataError) as error:
            resolve_tasks(network, dataset(classes(3), 3, names))
        said, _, cure = str(error.value).partition("; ")
        assert said == "mine: 3 classes in the data, the model 'model' has one output (2 classes)"
        assert cure == "for 3 classes, put a new head on it: onnxsurgeon head MODEL --classes 3 -o FILE"
    network = from_model(heads_model([(3, "Softmax"), (1, "Sigmoid")]))
    labels = np.stack([classes(3), classes(4)], axis=1)
    with pytest.raises(DataError, match="mine: 4 classes in the data, head 'z1' of the model 'model' has one output"):
        resolve_tasks(network, dataset(labels))


# Several heads.


def test_several_heads_take_one_column_each():
    network = from_model(heads_model([(3, "Softmax"), (2, "Softmax"), (1, "")]))
    labels = np.stack([classes(3), classes(2), classes(2)[::-1]], axis=1)
    data = dataset(labels)
    examples = prepare(network, data, data.train)
    assert [task.loss for task in examples.tasks] == [CROSS_ENTROPY, CROSS_ENTROPY, BINARY]
    assert [y.shape for y in examples.labels] == [(ROWS,), (ROWS,), (ROWS, 1)]
    for i in range(3):
        np.testing.assert_array_equal(examples.labels[i].reshape(-1), labels[:, i])


def test_several_heads_take_one_column_an_output():
    network = from_model(heads_model([(2, ""), (1, ""), (3, "Sigmoid")]))
    labels = RNG.random((ROWS, 6))
    data = dataset(labels)
    examples = prepare(network, data, data.train)
    assert [(task.loss, task.outputs) for task in examples.tasks] == [(SQUARED, 2), (SQUARED, 1), (SQUARED, 3)]
    np.testing.assert_array_equal(np.concatenate(examples.labels, axis=1), labels)
    engine = make_engine("loop")
    batches = [np.arange(ROWS).reshape(4, 10)] * 20
    for report in (True, False):
        trained = engine.train(network, examples, batches, TrainingSpec(0.02, report_loss=report)).network
        assert engine.evaluate(trained, examples).loss < engine.evaluate(network, examples).loss


@pytest.mark.parametrize("count", [1, 3, 5])
def test_several_heads_and_another_number_of_columns(count):
    network = from_model(heads_model([(2, ""), (4, "")]))
    labels = RNG.random((ROWS, count)) if count > 1 else RNG.random(ROWS)
    reason = (
        f"{count} columns? of labels for the 2 heads of 'model', 'z0' \\(2\\), 'z1' \\(4\\): expected one column a "
        "head, 2, or one an output, 6"
    )
    with pytest.raises(DataError, match=reason):
        prepare(network, dataset(labels), dataset(labels).train)


def test_a_head_of_three_axes_wants_labels_of_its_shape():
    weight = numpy_helper.from_array(np.eye(5, dtype="f"), "W")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 5])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "W"], ["y"], name="m")], "g", [x], [y], [weight])
    network = from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    split = Split(np.zeros((4, 3, 5), "f"), np.zeros(4, np.int64))
    reason = r"the head 'y' of 'model' has 3 axes, the last of them 5 wide: expected labels of that shape, or a class"
    with pytest.raises(DataError, match=reason):
        prepare(network, Dataset("mine", split, split, 2), split)


SHAPES = {
    "rows and columns": ((), (-1, 2, 3), (2, 3), (3, 2)),
    "a last axis of 1": ((), (0, 3, 2, 1), (3, 2, 1), (2, 3, 1)),
    "steps laid out one behind the other": ((4,), (-1, 12), (12,), (6, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_targets_may_have_the_shape_of_an_output_that_is_the_head_in_another_shape(name):
    """A model's own outputs are targets of R² 1."""
    steps, shape, row, other = SHAPES[name]
    units = 3 if steps else 6
    rng = np.random.default_rng(2)
    constants = {"W": rng.standard_normal((5, units)).astype("f"), "shape": np.array(shape)}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], name="m"),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *steps, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *row])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = from_model(model)
    rows = rng.standard_normal((40, *steps, 5)).astype("f")
    (labels,) = run(model, {"x": rows})
    assert labels.shape[1:] == row
    split = Split(rows, labels)
    examples = prepare(network, Dataset("mine", split, split, 0), split)
    assert examples.tasks[0].loss == SQUARED
    assert make_engine("loop").evaluate(network, examples).accuracy == pytest.approx(1)
    wrong = Split(rows, labels.reshape(40, *other))  # as many numbers
    with pytest.raises(DataError, match=r"labels of (that )?shape"):
        prepare(network, Dataset("mine", wrong, wrong, 0), wrong)


def test_whole_floats_are_classes_of_a_softmax():
    """A table with a missing value somewhere makes floats of its integers; a column 0.0, 1.0, 2.0 was refused."""
    network = from_model(heads_model([(3, "Softmax")]))
    given = dataset(classes(3).astype(float))
    examples = prepare(network, given, given.train)
    assert examples.tasks[0].loss == CROSS_ENTROPY
    np.testing.assert_array_equal(np.asarray(examples.targets[0]).argmax(1), classes(3))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.eye(3)[classes(3)], "found 3 columns, one-hot: give the number of the 1 in each row"),
        (FLOATS, "found 3 columns$"),
        (np.array([*[1.0] * (ROWS - 1), 0.25]), "found numbers such as 0.25$"),
    ],
)
def test_labels_that_are_no_classes_are_told_as_they_were_found(labels, found):
    network = from_model(heads_model([(3, "Softmax")]))
    with pytest.raises(DataError, match=f"expected one column of classes; {found}"):
        prepare(network, dataset(labels), dataset(labels).train)


def test_a_single_class_is_called_so():
    """It was "1 classes, from 'a' to 'a'"."""
    network = from_model(heads_model([(3, "Softmax")]))
    split = Split(X, np.zeros(ROWS, np.int64))
    with pytest.raises(DataError, match=r"mine: a single class, 'a'; 'model' has 3, and gives them no names$"):
        prepare(network, Dataset("mine", split, split, 1, class_labels=("a",)), split)
