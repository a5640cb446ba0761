"""Untrained starts: weights are read as for standardised inputs; trained starts and small pixels are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import SurgeonSettings, create, evolve, load, save
from onnxsurgeon.runs.journal import RunDirectory
from tests.conftest import branch_digests, randomised, start_model

SETTINGS = SurgeonSettings.from_preset("default", epochs=8, growth=0.25, ensemble=1, refit=False)


def table(rng, rows=300):
    """Years, millions and shares; the target, a price, lies far from 0."""
    z = rng.standard_normal((rows, 4))
    x = z * [5, 1e4, 0.1, 1e-3] + [2000, 1e5, 0, 0]
    return x.astype(np.float32), (654 + 20 * (z[:, 0] + np.abs(z[:, 1]))).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "d.npz"
    (x_train, y_train), (x_test, y_test) = table(rng), table(rng, 100)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def run(folder, data, network, **changes):
    save(network, folder / "start.onnx", overwrite=True)
    settings = replace(SETTINGS, **changes)
    return evolve(folder / "start.onnx", str(data), settings=settings, run_dir=folder / "run", workers=1)


def standardised(done):
    return [e for e in RunDirectory.open(done.run).read_journal() if e.get("surgery") == "standardise"]


def test_an_untrained_start_is_read_as_for_standardised_inputs(tmp_path, data):
    start = create((4, 8, 1), seed=3, softmax=False)
    done = run(tmp_path, data, start)
    proposed, measured = standardised(done)
    assert (proposed["event"], measured["event"]) == ("proposed", "trained")
    assert (proposed["parent"], measured["parent"], measured["epoch"]) == (0, 0, 0)
    (path,) = (done.run / "branches").glob("*-standardise.onnx")
    network = load(path)
    x, y = np.load(data)["x_train"], np.load(data)["y_train"]
    # What enters the first layer's units is as if standardised rows entered the given weights.
    z = x.astype(np.float64) @ network.layers[0].weight + network.layers[0].bias
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.3)
    assert (np.linalg.norm(start.layers[0].weight, axis=0) / z.std(axis=0)).min() > 0.5
    assert abs(network.layers[-1].bias[0] - y.mean()) < 20
    assert done.start.accuracy < -1000
    assert done.test.accuracy > 0.9


def test_a_trained_start_is_not(tmp_path, data):
    (tmp_path / "first").mkdir()
    trained = run(tmp_path / "first", data, create((4, 8, 1), seed=3, softmax=False)).network
    assert not standardised(run(tmp_path, data, trained))


@pytest.mark.parametrize("changes", [{"start": "trained"}, {"standardise": False}])
def test_nor_where_it_is_said_so(changes, tmp_path, data):
    assert not standardised(run(tmp_path, data, create((4, 8, 1), seed=3, softmax=False), **changes))


def test_nor_are_images_of_small_values(tmp_path):
    done = evolve(start_model(tmp_path), "digits", settings=SETTINGS, run_dir=tmp_path / "run", workers=1)
    assert not standardised(done)


def test_images_of_large_values_are(tmp_path, digits):
    x, y = digits.train.inputs.reshape(-1, 64).astype(np.float32) * 16, digits.train.labels
    np.savez(tmp_path / "d.npz", x_train=x[:1000], y_train=y[:1000], x_test=x[1000:], y_test=y[1000:])
    assert standardised(run(tmp_path, tmp_path / "d.npz", create((64, 10, 10), seed=1)))


def test_a_start_that_is_better_as_it_is_stays(tmp_path, data):
    """A constant near the mean is no better than chance, and random weights for standardised rows are worse."""
    start = create((4, 8, 1), seed=3, softmax=False)
    parameters = [0 * v if name.startswith("layer1") else v for name, v in start.parameters()]
    parameters[-1] = parameters[-1] + np.float32(np.load(data)["y_train"].mean())
    assert not standardised(run(tmp_path, data, start.with_parameters(parameters)))


def test_a_resumed_run_begins_alike(tmp_path, data):
    """Killed after the start was read anew, and before the first checkpoint."""
    from onnxsurgeon import resume

    (tmp_path / "whole").mkdir()
    network = randomised(create((4, 8, 1), seed=3, softmax=False))
    whole = run(tmp_path / "whole", data, network)
    (tmp_path / "cut").mkdir()
    cut = run(tmp_path / "cut", data, network)
    journal = cut.run / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if '"decided"' in line)
    journal.write_text("".join(lines[: first - 1]))
    resumed = resume(cut.run, workers=1)
    assert branch_digests(resumed.run) == branch_digests(whole.run)


def test_without_a_wish_an_untrained_network_becomes_accurate_and_not_small(tmp_path):
    """It settles to the end, on all rows at last; nothing is pruned."""
    settings = SurgeonSettings.from_preset(epochs=12, seed=2)
    done = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=1)
    journal = RunDirectory.open(done.run).read_journal()
    proposed = [event["surgery"] for event in journal if event["event"] == "proposed"]
    assert any(surgery.startswith("widen") or surgery.startswith("grow") for surgery in proposed)
    assert not any(surgery.startswith("prune") for surgery in proposed)
    decided = [event for event in journal if event["event"] == "decided"]
    assert done.validation_accuracy == max(event["best_accuracy"] for event in decided)
    assert done.is_refitted
