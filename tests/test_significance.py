"""What is better by more than chance, and the given model, which only that replaces."""

import math

import numpy as np
import pytest

from onnxsurgeon import SurgeonSettings, create, evolve, make_engine, save
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.significance import chance_loss, chance_scores, is_better, row_scores
from onnxsurgeon.surgeon.start import start_of
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task


def test_a_difference_must_exceed_its_standard_error():
    rng = np.random.default_rng(0)
    hard = 100 * rng.standard_normal(200)  # the same rows are hard for both
    noise = rng.standard_normal(200)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    limit = 1.645 / np.sqrt(200)
    assert is_better(hard + noise + 1.01 * limit, hard)
    assert not is_better(hard + noise + 0.99 * limit, hard)
    assert not is_better(hard - 1, hard)
    assert not is_better(hard, hard)
    assert is_better(hard + 1, hard)
    assert not is_better(hard[:1] + 1, hard[:1])


@pytest.mark.parametrize("rows", [50, 450])
@pytest.mark.parametrize("differ", [1, 3, 4, 5, 6, 10, 12, 13, 17, 30, 45])
def test_of_right_and_wrong_rows_the_test_is_mcnemars_exact_one(differ, rows):
    """A network is right on ``right`` of the rows that two differ on; by chance it were on half of them."""
    for right in range(differ + 1):
        first, second = np.zeros(rows), np.zeros(rows)
        first[:right], second[right:differ] = 1, 1
        by_chance = sum(math.comb(differ, k) for k in range(right, differ + 1)) / 2**differ
        assert is_better(first, second) == (right > differ - right and by_chance <= 0.05), right


def test_few_unequal_differences_are_tried_with_all_signs():
    rows = np.zeros(100)
    rows[:5] = [5.0, 4.0, 3.0, 2.0, 1.0]
    assert is_better(rows, 0 * rows)  # one of 32 sums is as large
    rows[4] = -1.0
    assert not is_better(rows, 0 * rows)  # two of 32 are


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Task(CROSS_ENTROPY, 3, "Softmax"), np.array([0, 1, 2, 1])),
        (Task(BINARY, 3, "Sigmoid"), np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])),
        (Task(SQUARED, 3, "", (2.0, 4.0, 1.0)), np.arange(12.0).reshape(4, 3)),
    ],
)
def test_scores_are_the_rows_shares_of_the_metric(task, labels):
    network = create((5, 4, 3), seed=1)
    features = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    examples = Examples((features,), (labels,), (task,))
    engine = make_engine("loop")
    scores = row_scores(network, engine, examples)
    assert scores.shape == (4,)

    def told(some):
        metrics = engine.evaluate(network, some)
        return -metrics.loss if task.loss == SQUARED else metrics.accuracy

    assert scores.mean() == pytest.approx(told(examples), rel=1e-6)
    for row in range(4):
        one = Examples((features[row : row + 1],), (labels[row : row + 1],), (task,))
        assert scores[row] == pytest.approx(told(one), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "labels", "told"),
    [
        (Task(CROSS_ENTROPY, 3, "Softmax"), np.array([0, 1, 2, 1]), [0, 1, 0, 1]),
        (Task(BINARY, 2, "Sigmoid"), np.array([[0, 1], [1, 1], [0, 0], [0, 1]]), [1, 0.5, 0.5, 1]),
        (Task(SQUARED, 2, "", (2.0, 1.0)), np.array([[0.0, 1], [4, 1], [0, 1], [4, 1]]), [-0.5] * 4),
        (Task(SQUARED, 1, "Sigmoid"), np.array([[0.0], [0.5], [1.0], [0.5]]), [-0.25, 0, -0.25, 0]),
        (Task(CROSS_ENTROPY, 2, "Softmax", imitates=True), np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]), [1, 0, 1]),
    ],
)
def test_chance_says_the_same_for_all_rows(task, labels, told):
    examples = Examples((np.zeros((len(labels), 1), np.float32),), (labels,), (task,))
    np.testing.assert_allclose(chance_scores(examples), told, atol=1e-9)


def test_a_regressions_given_model_stays_unless_another_is_better_by_more_than_chance(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    noise, signal = rng.standard_normal(60), x @ np.array([1.0, -2.0, 0.5, 3.0])
    settings = SurgeonSettings(epochs=12, seed=1, start="trained", ensemble=1)
    results = {}
    for name, y in (("noise", noise), ("signal", signal)):
        np.savez(tmp_path / f"{name}.npz", x=x, y=y.astype(np.float32))
        network = create((4, 3, 1), seed=2, softmax=False)
        silent = network.with_parameters(np.zeros_like(values) for _, values in network.parameters())
        save(silent if name == "noise" else network, tmp_path / f"{name}.onnx")
        results[name] = evolve(
            tmp_path / f"{name}.onnx",
            str(tmp_path / f"{name}.npz"),
            settings=settings,
            validation_fraction=0.1,
            run_dir=tmp_path / name,
            workers=1,
            callbacks=lambda event: None,
        )
    assert results["noise"].branch.number == 0
    assert results["signal"].branch.number > 0


def test_a_classifier_stays_unless_another_is_better_by_more_than_chance(tmp_path):
    """Of 100 rows eight decide: what is right on one more of them may be so by chance."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((100, 4)).astype(np.float32), rng.integers(0, 2, 100)
    np.savez(tmp_path / "noise.npz", x=x, y=y)
    save(create((4, 3, 2), seed=2), tmp_path / "start.onnx")
    settings = SurgeonSettings(epochs=20, seed=1, start="trained", ensemble=1)
    done = evolve(
        tmp_path / "start.onnx", str(tmp_path / "noise.npz"), settings=settings, run_dir=tmp_path / "run", workers=1
    )
    journal = RunDirectory.open(done.run).read_journal()
    start, *others = (max(event["accuracies"]) for event in journal if event["event"] in ("started", "decided"))
    assert max(others) > start
    assert done.branch.number == 0
    assert not done.is_refitted


@pytest.mark.parametrize("seed", [3, 4, 6])
def test_without_a_wish_the_given_network_stays_where_rows_are_too_few_to_tell(seed, tmp_path):
    """Labels by a coin, and twenty rows decide: of many networks one has a few more of them right."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((100, 4)).astype(np.float32), rng.integers(0, 2, 100)
    np.savez(tmp_path / "noise.npz", x=x, y=y)
    save(create((4, 6, 2), seed=2), tmp_path / "start.onnx")
    done = evolve(
        tmp_path / "start.onnx",
        str(tmp_path / "noise.npz"),
        settings=SurgeonSettings(epochs=20, seed=1, start="trained"),
        validation_fraction=0.25,
        run_dir=tmp_path / "run",
        workers=1,
    )
    journal = RunDirectory.open(done.run).read_journal()
    tried = [event["accuracy"] for event in journal if event["event"] in ("trained", "recuperated")]
    assert max(tried) > next(event for event in journal if event["event"] == "started")["best_accuracy"]
    assert done.is_given
    assert "nothing was better by more than chance on 20 rows, and nothing smaller surely as good" in done.remarks[0]


def test_the_loss_by_chance():
    labels = np.array([0, 0, 0, 1])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert chance_loss(Examples.classification(np.zeros((4, 1), np.float32), labels, 2)) == pytest.approx(entropy)
    targets = np.array([[1.0, 4.0], [3.0, 0.0]])
    examples = Examples((np.zeros((2, 1), np.float32),), (targets,), (Task("squared-error", 2, scale=(1.0, 2.0)),))
    assert chance_loss(examples) == pytest.approx(1.0)
    both = Examples((np.zeros((4, 1), np.float32),), (labels[:, None] * 1.0,), (Task("binary-cross-entropy", 1),))
    assert chance_loss(both) == pytest.approx(entropy)


def test_where_one_class_is_the_rule_the_loss_tells_that_a_network_is_trained():
    """Nine rows in ten are of class 0, and no row is more likely of class 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 1)).astype(np.float32)
    y = (rng.random(3000) < np.where(x[:, 0] > 0, 0.19, 0.01)).astype(np.int64)
    halves = [Examples.classification(x[part], y[part], 2) for part in (slice(0, 2000), slice(2000, 3000))]
    network = create((1, 2, 2), seed=1, activation="Sigmoid")
    # z of class 1 less z of class 0: the logarithms of the odds, −4.6 where x < 0 and −1.45 where x > 0.
    hidden, output = np.array([[-50.0, 50.0]], np.float32), np.array([[0.0, 0.0], [0.0, 3.15]], np.float32)
    knows = network.with_parameters([hidden, np.zeros(2, np.float32), output, np.array([0.0, -4.6], np.float32)])
    settings = SurgeonSettings.from_preset()
    assert "loss" in start_of(knows, settings, make_engine(), *halves).reason
    assert not start_of(network, settings, make_engine(), *halves).is_trained
