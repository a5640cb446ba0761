"""What data say less loudly than they should, and classes that are named, weighed and judged alike."""

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    DataError,
    EngineError,
    InputOptions,
    SurgeonSettings,
    TrainingSpec,
    create,
    evolve,
    load_dataset,
    make_engine,
    prepare,
    resume,
    save,
)
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.told import data_notes
from onnxsurgeon.surgeon.significance import RowScores, chance_loss, chance_scores, row_scores
from onnxsurgeon.training.artifacts_engine import ArtifactsEngine
from onnxsurgeon.training.loop import LoopEngine
from tests.conftest import needs_training

RNG = np.random.default_rng(0)
BALANCED = InputOptions(class_weight="balanced", metric="balanced-accuracy")


def dataset(labels, *, names=(), x=None, test=None, name="mine", **others):
    labels = np.asarray(labels)
    x = RNG.standard_normal((len(labels), 4)) if x is None else x
    test = labels if test is None else np.asarray(test)
    whole = Split(x, labels)
    held = Split(x[: len(test)], test)
    classes = int(labels.max()) + 1 if labels.dtype.kind == "i" else 0
    return Dataset(name, whole, held, len(names) or classes, class_labels=names, **others)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def uneven(rows=40):
    return np.array([0] * (rows * 3 // 4) + [1] * (rows // 5) + [2] * (rows - rows * 3 // 4 - rows // 5))


@pytest.mark.parametrize("width", [1, 3])
def test_a_step_is_that_of_the_weighed_loss(width):
    labels = uneven() if width == 3 else (np.arange(40) % 10 == 0).astype(np.int64)
    data = dataset(labels)
    network = create((4, width), seed=1, softmax=width > 1)
    examples = prepare(network, data, data.train, BALANCED)
    (task,) = examples.tasks
    counts = np.bincount(labels)
    np.testing.assert_allclose(task.class_weights, len(labels) / (len(counts) * counts))
    spec = TrainingSpec(learning_rate=0.1, report_loss=True)
    done = LoopEngine().train(network, examples, iter([np.arange(40)[None]]), spec)
    x, w = data.train.inputs, np.array(task.class_weights)[labels]
    (weight, bias) = (values.astype(np.float64) for _, values in network.parameters())
    z = x @ weight + bias
    if width == 3:
        p, t = softmax(z), np.eye(3)[labels]
        losses = -np.log((p * t).sum(axis=1))
    else:
        p, t = 1 / (1 + np.exp(-z)), labels[:, None]
        losses = -(t * np.log(p) + (1 - t) * np.log(1 - p))[:, 0]
    slope = w[:, None] * (p - t)
    trained, shifted = (values for _, values in done.network.parameters())
    np.testing.assert_allclose(trained, weight - 0.1 * x.T @ slope / 40, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(shifted, bias - 0.1 * slope.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert done.mean_loss == pytest.approx((w * losses).mean(), rel=1e-5)
    told = LoopEngine().evaluate(network, examples)
    assert told.loss == pytest.approx((w * losses).mean(), rel=1e-6)
    assert told.metric == "balanced accuracy"
    predicted = z.argmax(axis=1) if width == 3 else (z[:, 0] > 0).astype(int)
    recalls = [(predicted[labels == c] == c).mean() for c in range(len(counts))]
    assert told.accuracy == pytest.approx(np.mean(recalls), abs=1e-12)


@pytest.mark.parametrize("width", [1, 3])
def test_rows_add_up_to_the_metric_and_to_chance(width):
    labels = uneven(200) if width == 3 else (np.arange(200) % 10 == 0).astype(np.int64)
    data = dataset(labels)
    network = create((4, 8, width), seed=1, softmax=width > 1)
    examples = prepare(network, data, data.train, BALANCED)
    engine = LoopEngine()
    classes = max(2, width)
    assert row_scores(network, engine, examples).mean() == pytest.approx(engine.evaluate(network, examples).accuracy)
    assert chance_scores(examples).mean() == pytest.approx(1 / classes)
    assert chance_loss(examples) == pytest.approx(np.log(classes))
    plain = prepare(network, data, data.train)
    assert chance_scores(plain).mean() == pytest.approx(np.bincount(labels).max() / 200)
    shares = np.bincount(labels) / 200
    assert chance_loss(plain) == pytest.approx(-(shares * np.log(shares)).sum())


def test_classes_at_positions_are_balanced_as_well():
    task = replace(prepare(create((4, 3)), dataset(uneven()), dataset(uneven()).train, BALANCED).tasks[0], positions=2)
    labels = np.array([[0, 0], [0, 1], [0, 2]])
    scores = RowScores(task)
    scores.add(np.eye(3)[[[0, 0], [0, 0], [0, 2]]], labels)
    assert scores.record()["scores"].mean() == pytest.approx((1 + 0 + 1) / 3)


def test_weights_alone_leave_the_metric_and_the_metric_the_loss():
    data = dataset(uneven())
    network = create((4, 8, 3), seed=1)
    told = {}
    for weight in ("none", "balanced"):
        for metric in ("auto", "balanced-accuracy"):
            examples = prepare(network, data, data.train, InputOptions(class_weight=weight, metric=metric))
            told[weight, metric] = LoopEngine().evaluate(network, examples)
    plain = told["none", "auto"]
    assert plain.metric == told["balanced", "auto"].metric == "accuracy"
    assert plain.accuracy == told["balanced", "auto"].accuracy
    assert plain.loss == pytest.approx(told["none", "balanced-accuracy"].loss)
    assert plain.loss != pytest.approx(told["balanced", "auto"].loss)


def test_a_class_without_training_rows_has_weight_1():
    data = dataset([0, 0, 0, 2])
    (task,) = prepare(create((4, 3)), data, data.train, BALANCED).tasks
    assert task.class_weights == pytest.approx((4 / 6, 1.0, 2.0))


@pytest.mark.parametrize("options", [InputOptions(class_weight="balanced"), InputOptions(metric="balanced-accuracy")])
def test_what_has_no_classes_is_told(options):
    data = replace(dataset(RNG.standard_normal(20)), classes=0)
    with pytest.raises(DataError, match=r"balanced.* is for classes, one a row; 'model' is trained for none"):
        prepare(create((4, 1), softmax=False), data, data.train, options)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"class_weight": "heavy"}, "unknown class-weight 'heavy': expected none or balanced"),
        ({"metric": "auc"}, "unknown metric 'auc': expected auto or balanced-accuracy"),
        ({"classes": ("a", "a")}, "classes: a, a: expected a name for each, no two alike"),
    ],
)
def test_options_that_are_unknown(given, reason):
    with pytest.raises(DataError, match=reason):
        InputOptions(**given)


@needs_training
def test_the_artifacts_engine_says_that_it_does_not_weigh():
    data = dataset(uneven())
    network = create((4, 3))
    examples = prepare(network, data, data.train, BALANCED)
    with pytest.raises(EngineError, match=r"the artifacts engine does not weigh classes .*; use the loop"):
        ArtifactsEngine().train(network, examples, iter([np.arange(4)[None]]), TrainingSpec())


def test_auto_is_the_loop():
    assert make_engine("auto", network=create((4, 3))).name == "loop"


def test_a_run_that_balances_finds_the_rare_class(tmp_path):
    rng = np.random.default_rng(1)
    y = (rng.random(1500) < 0.06).astype(np.int64)
    x = (rng.standard_normal((1500, 6)) + 0.9 * y[:, None]).astype("f")
    np.savez(tmp_path / "d.npz", x=x, y=y)
    save(create((6, 8, 2), seed=1), tmp_path / "m.onnx")
    settings = SurgeonSettings.from_preset(epochs=8)
    found = {}
    for name, options in (("plain", InputOptions(metric="balanced-accuracy")), ("balanced", BALANCED)):
        run = tmp_path / name
        done = evolve(
            tmp_path / "m.onnx", str(tmp_path / "d.npz"), settings=settings, options=options, run_dir=run, workers=1
        )
        found[name] = done.test.accuracy
        assert done.test.metric == "balanced accuracy"
    assert found["balanced"] > found["plain"] + 0.05
    record = json.loads((tmp_path / "balanced" / "settings.json").read_text())
    assert record["metric"] == "balanced accuracy"
    assert record["data"]["options"]["class_weight"] == "balanced"
    page = (tmp_path / "balanced" / "journal.jsonl").read_text().splitlines()
    (tmp_path / "balanced" / "journal.jsonl").write_text("\n".join(page[:-1]) + "\n")  # as if stopped before its end
    again = resume(tmp_path / "balanced", workers=1)
    assert again.test.accuracy == found["balanced"]


def test_labels_that_decide_the_order_are_told():
    network = create((4, 5, 2), seed=1)
    data = dataset(np.arange(20) % 2, names=("no", "yes"))
    notes = data_notes(network, data, InputOptions())
    assert notes[0].startswith(
        "the model names no classes, so the labels are its outputs in ascending order: 0 'no', 1"
    )
    numbers = replace(data, class_labels=(3, 7))
    assert "0 '3', 1 '7'; --classes gives another" in data_notes(network, numbers, InputOptions())[0]
    named = InputOptions(classes=("yes", "no"))
    assert not [note for note in data_notes(network, data, named) if "names no classes" in note]
    assert not [n for n in data_notes(network, replace(data, class_labels=()), InputOptions()) if "names no" in n]
    plain, other = (prepare(network, data, data.train, options) for options in (InputOptions(), named))
    np.testing.assert_array_equal(plain.labels[0], np.arange(20) % 2)
    np.testing.assert_array_equal(other.labels[0], 1 - np.arange(20) % 2)


def test_one_logit_takes_names_as_well():
    network = create((4, 5, 1), seed=1, softmax=False)
    data = dataset(np.arange(20) % 2, names=("no", "yes"))
    (labels,) = prepare(network, data, data.train, InputOptions(classes=("yes", "no"))).labels
    np.testing.assert_array_equal(labels[:, 0], 1 - np.arange(20) % 2)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (("a", "b"), r"label 'no' in row 0 is not among the classes of 'model': a, b"),
        (("no", "yes", "maybe"), "classes: 3 names for the 2 classes of 'model'"),
    ],
)
def test_names_that_do_not_fit(classes, reason):
    data = dataset(np.arange(20) % 2, names=("no", "yes"))
    with pytest.raises(DataError, match=reason):
        prepare(create((4, 5, 2)), data, data.train, InputOptions(classes=classes))


@pytest.mark.parametrize(("most", "said"), [(16, True), (1, True), (63, True), (64, False), (255, False), (0, True)])
def test_pixels_that_are_divided_by_far_more_are_told(most, said):
    x = np.zeros((20, 4), np.uint8)
    x[3, 2] = most
    network = create((4, 5, 2), seed=1)
    notes = [n for n in data_notes(network, dataset(np.arange(20) % 2, x=x), InputOptions()) if "uint8" in n]
    assert bool(notes) == said
    if said:
        assert notes[0].startswith(f"the inputs are uint8 0..{most} divided by 255")
    assert not [
        n for n in data_notes(network, dataset(np.arange(20) % 2, x=x), InputOptions(scale=1.0)) if "uint8" in n
    ]
    wider = dataset(np.arange(20) % 2, x=x.astype(np.int64))
    assert not [n for n in data_notes(network, wider, InputOptions()) if "uint8" in n]
    own = replace(dataset(np.arange(20) % 2, x=x), maximum=16.0)
    assert bool([n for n in data_notes(network, own, InputOptions()) if "uint8" in n]) == (most < 4)


def test_digits_of_the_package_have_nothing_to_be_told(digits):
    assert data_notes(create((64, 10, 10)), digits, InputOptions()) == ()


def test_counts_and_how_uneven_they_are():
    network = create((4, 5, 3), seed=1)
    notes = data_notes(network, dataset(uneven(200)), InputOptions())
    assert notes[0] == "training rows by class: '0' 150, '1' 40, '2' 10"
    assert "who always says '0' is right in 75.0% of the training rows; --class-weight balanced" in notes[1]
    assert len(data_notes(network, dataset(uneven(200)), BALANCED)) == 1
    assert data_notes(network, dataset(np.arange(30) % 3), InputOptions()) == (
        "training rows by class: '0' 10, '1' 10, '2' 10",
    )
    many = dataset(np.concatenate([np.arange(40), [7, 7, 7]]))
    assert data_notes(create((4, 40)), many, InputOptions())[0] == (
        "training rows by class: 40 classes of 1 ('0') to 4 ('7')"
    )
    assert data_notes(create((4, 1), softmax=False), dataset(RNG.standard_normal(20)), InputOptions()) == ()


def test_rows_of_a_class_that_is_not_trained_on_are_told():
    network = create((4, 5, 3), seed=1)
    data = dataset([0, 1] * 10, test=[0, 1, 2, 2, 2])
    data = replace(data, validation=Split(data.test.inputs, np.array([2, 0, 1, 0, 1])), classes=3)
    notes = data_notes(network, data, InputOptions())
    assert notes[0] == "training rows by class: '0' 10, '1' 10, '2' 0"
    assert "1 of the 5 validation rows are of classes without a training row, which nothing can learn: '2'" in notes
    assert "3 of the 5 test rows are of classes without a training row, which nothing can learn: '2'" in notes


@pytest.mark.parametrize("command", ["evaluate", "train", "evolve", "inspect", "operate"])
def test_every_command_says_it(command, cli, tmp_path):
    x = np.random.default_rng(0).integers(0, 17, (300, 64)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.where(np.arange(300) % 20 == 0, "yes", "no"))
    save(create((64, 6, 2), seed=1), tmp_path / "m.onnx")
    options = {
        "train": ("-o", "o.onnx", "--epochs", 1),
        "evolve": ("--epochs", 1, "--workers", 1),
        "operate": ("prune:1:4", "-o", "o.onnx"),
    }.get(command, ())
    code, out, err = cli(command, "m.onnx", *options, "--data", "d.npz")
    assert code == 0
    assert err == ""
    for text in (
        "the inputs are uint8 0..16 divided by 255; --scale 0.0625 makes them 0..1",
        "ascending order: 0 'no', 1 'yes'; --classes gives another order",
        "training rows by class: 'no' 228, 'yes' 12",
        "right in 95.0% of the training rows; --class-weight balanced",
    ):
        assert text in " ".join(out.split())
    _, out, err = cli("evaluate", "m.onnx", "--data", "d.npz", "--json")
    assert json.loads(out)["metric"] == "accuracy"
    assert "training rows by class" in err


def test_the_command_that_a_report_repeats_has_the_options(cli, tmp_path):
    np.savez(tmp_path / "d.npz", x=RNG.standard_normal((200, 4)), y=np.where(np.arange(200) % 5 == 0, "yes", "no"))
    save(create((4, 6, 2), seed=1), tmp_path / "m.onnx")
    given = ("--classes", "yes,no", "--class-weight", "balanced", "--metric", "balanced-accuracy")
    code, _, err = cli("evolve", "m.onnx", "--data", "d.npz", *given, "--epochs", 1, "--run-dir", "run", "--workers", 1)
    assert (code, err) == (0, "")
    page = (tmp_path / "run" / "report.html").read_text()
    for option in ("--classes yes,no", "--class-weight balanced", "--metric balanced-accuracy"):
        assert option in page
    assert "balanced accuracy" in page


def test_a_teacher_is_no_measure_to_balance(cli, tmp_path):
    np.savez(tmp_path / "d.npz", x=RNG.standard_normal((100, 4)))
    save(create((4, 6, 2), seed=1), tmp_path / "m.onnx")
    for option in (("--class-weight", "balanced"), ("--metric", "balanced-accuracy")):
        code, _, err = cli("evolve", "m.onnx", "--data", "d.npz", *option)
        assert (code, err.count("\n")) == (2, 1)
        assert "goes by labels; here a teacher's outputs are what is measured by" in err
    np.savez(tmp_path / "l.npz", x=RNG.standard_normal((100, 4)), y=np.arange(100) % 2)
    code, _, err = cli("evolve", "m.onnx", "--data", "l.npz", "--teacher", "m.onnx", "--class-weight", "balanced")
    assert (code, err.count("\n")) == (2, 1)
    assert "class-weight: balanced is for labels alone" in err


def test_tables_say_it_too(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 7},{'ok' if i % 9 else 'bad'}\n" for i in range(90)))
    network = create((2, 3, 2), seed=1)
    data = load_dataset(str(tmp_path / "t.csv"), target=("y",), networks=(network,))
    notes = data_notes(network, data, InputOptions())
    assert "0 'bad', 1 'ok'" in notes[0]
    assert notes[1] == "training rows by class: 'bad' 8, 'ok' 64"
