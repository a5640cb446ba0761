"""Training on standardised inputs: the network there computes the same, and what is standardised and what is not."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, create, evolve, load, save
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgeon.algorithm1 import Algorithm1
from onnxsurgeon.surgeon.trainer import TrainingContext
from onnxsurgeon.task import SQUARED, Task
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.training.schedule import BatchSchedule
from onnxsurgeon.training.settings import TrainingSettings
from onnxsurgeon.training.standardised import OF_COLUMNS, OF_PIXELS, Standardised, are_like_pixels
from tests.conftest import randomised, with_bias_removed

ENGINE = make_engine("loop")
ROWS = 500


@pytest.fixture
def network():
    return randomised(create((6, 5, 4, 2), seed=1))


@pytest.fixture
def values():
    """Columns of all kinds: years, millions, a constant, a rare one, one around 0, and zeros."""
    rng = np.random.default_rng(0)
    found = rng.standard_normal((ROWS, 6))
    found[:, 0] = 2000 + 5 * found[:, 0]
    found[:, 1] *= 1e6
    found[:, 2] = 7
    found[:, 3] = np.arange(ROWS) == 3
    found[:, 5] = 0
    return found.astype(np.float32)


def examples_of(values):
    return Examples.classification(values, np.arange(len(values)) % 2, 2)


def test_the_network_on_standardised_inputs_computes_the_same(network, values):
    examples = examples_of(values / [1, 1e6, 1, 1, 1, 1])  # in float32, millions leave no digits for the others
    inputs = Standardised.of(network, examples)
    inside = inputs.into(network)
    before, after = ENGINE.evaluate(network, examples), ENGINE.evaluate(inside, inputs.examples)
    assert after.loss == pytest.approx(before.loss, rel=1e-4)
    assert not np.allclose(inside.layers[0].weight, network.layers[0].weight)
    for (name, old), (_, new) in zip(network.parameters(), inputs.out_of(inside).parameters(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5, err_msg=name)


def test_inputs_have_mean_0_and_none_is_blown_up(network, values):
    (found,) = Standardised.of(network, examples_of(values)).examples.features
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found[:, [0, 1, 4]].std(axis=0), 1, rtol=1e-3)  # of a table, tails are let be
    assert np.abs(found[:, 3]).max() == pytest.approx(1 / OF_COLUMNS, rel=1e-3)
    np.testing.assert_allclose(found[:, [2, 5]], 0)


def lit(rng, shape, shares):
    """Values from 0 to 1, columns with more and with fewer zeros."""
    return (rng.random(shape) * (rng.random(shape) < shares)).astype(np.float32)


def test_pixels_that_are_hardly_ever_lit_are_not_blown_up():
    """Of pixels the scale is half of the largest deviation at least, whether they are stored as bytes or not."""
    rng = np.random.default_rng(0)
    network = randomised(create((40, 5, 2), seed=1))
    values = lit(rng, (ROWS, 40), np.linspace(0.01, 0.9, 40))
    for stored in (values, (255 * values).astype(np.uint8)):
        inputs = Standardised.of(network, examples_of(Rows(stored, np.dtype(np.float32))))
        (found,) = inputs.examples.features
        assert inputs.are_pixels
        np.testing.assert_allclose(np.abs(found).max(axis=0)[:20], 1 / OF_PIXELS, rtol=1e-3)
    few = Standardised.of(randomised(create((8, 5, 2), seed=1)), examples_of(np.ascontiguousarray(values[:, :8])))
    assert not few.are_pixels


def test_what_is_like_pixels(digits, fashion):
    """Images of few rows are, in whatever size, and the columns of a table are not, in their units or standardised."""
    for images, rows in ((digits.train.inputs, 1000), (fashion.train.inputs, 8000), (fashion.train.inputs, 60)):
        flat = images[:rows].reshape(rows, -1).astype(np.float64)
        assert are_like_pixels(flat)
        assert are_like_pixels((flat / flat.max() - 0.3) / 0.5)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((ROWS, 50))
    units = np.exp(rng.standard_normal(50))
    for table in (normal, normal * units, np.exp(normal), np.where(np.arange(50) < 40, normal, normal > 0)):
        assert not are_like_pixels(table)


def test_bytes_stay_bytes(network):
    """Neither rows nor the selection of them are copied."""
    source = np.random.default_rng(0).integers(0, 256, (100, 6), np.uint8)
    rows = Rows(source, np.dtype(np.float32), np.arange(10, 90), 1 / 255, -0.5)
    plain = Examples((rows,), (np.arange(80) % 2,), examples_of(np.zeros((80, 6), np.float32)).tasks)
    inputs = Standardised.of(network, plain)
    (found,) = inputs.examples.stored
    assert inputs.are_pixels
    assert found.source is source
    assert found.numbers is rows.numbers
    centre, scale = inputs.inputs["input"]
    np.testing.assert_allclose(found.take(), (rows.take() - centre) / scale, atol=1e-5)


def test_what_is_not_standardised(values):
    """A layer without a bias cannot take the mean in; of three axes, and behind glue, inputs stay as they are."""
    plain = randomised(create((6, 5, 4, 2), seed=1))
    assert Standardised.of(plain, examples_of(values)).is_complete
    bare = Standardised.of(with_bias_removed(plain, 0), examples_of(values))
    assert (bare.inputs, bare.is_complete) == ({}, False)
    np.testing.assert_array_equal(bare.examples.features[0], values)
    higher = replace(plain, segments=(replace(plain.chain, rank=3),))
    assert Standardised.of(higher, examples_of(values)).inputs == {}


def context(values, **changes):
    settings = SurgeonSettings.from_preset("default", **changes)
    return TrainingContext(settings, ENGINE, examples_of(values), examples_of(values), threading.Event())


def test_pixels_are_left_out_where_their_mean_takes_their_place():
    pixels = lit(np.random.default_rng(0), (ROWS, 40), 0.5)
    network = randomised(create((40, 5, 2), seed=1))
    assert context(pixels).dropouts(network)["input_dropout"] == 0.1
    assert context(pixels, input_dropout=0.25).dropouts(network)["input_dropout"] == 0.25
    assert context(pixels, standardised_dropout=0.3).dropouts(network)["input_dropout"] == 0.3
    assert context(pixels, standardise=False).dropouts(network)["input_dropout"] == 0
    assert context(pixels, standardise=False, input_dropout=0.25).dropouts(network)["input_dropout"] == 0.25
    assert context(pixels).dropouts(with_bias_removed(network, 0))["input_dropout"] == 0
    with pytest.raises(SettingsError, match="standardised-dropout: 1 is not at least 0 and below 1"):
        SurgeonSettings.from_preset("default", standardised_dropout=1)


def test_columns_of_a_table_are_left_out_only_where_it_is_said(network, values):
    assert context(values).dropouts(network)["input_dropout"] == 0
    assert context(values, standardised_dropout=0.3).dropouts(network)["input_dropout"] == 0
    assert context(values, input_dropout=0.25).dropouts(network)["input_dropout"] == 0.25


def regression(values, targets, scale=()):
    tasks = (Task(SQUARED, targets.shape[1], "", scale),)
    return Examples((values,), (targets,), tasks)


def test_targets_are_centred_while_training():
    """The inner network is trained towards targets around 0, and is the same network: it has the same loss."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((ROWS, 6)).astype(np.float32)
    targets = np.stack([654 + 20 * values[:, 0], -3 + values[:, 1]], axis=1)
    network = randomised(create((6, 5, 2), seed=1, softmax=False))
    examples = regression(values, targets, (16.0, 1.0))
    inputs = Standardised.of(network, examples)
    (towards,) = inputs.examples.targets
    np.testing.assert_allclose(towards.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(towards[:, 0], (targets[:, 0] - targets[:, 0].mean()) / 16, atol=1e-5)
    np.testing.assert_array_equal(inputs.examples.labels[0], targets)  # what is measured against
    inside = inputs.into(network)
    np.testing.assert_allclose(network.layers[-1].bias - inside.layers[-1].bias, targets.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(inputs.out_of(inside).layers[-1].bias, network.layers[-1].bias, rtol=1e-3)
    bare = with_bias_removed(network, 1)
    assert Standardised.of(bare, examples).targets == {"logits": None}


def test_weight_decay_does_not_pull_predictions_to_0():
    """Nothing is to be learnt here but a mean far from 0: with strong decay it is kept where targets are centred."""
    values = np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32)
    examples = regression(values, np.full((256, 1), 100.0))
    network = create((3, 4, 1), seed=1, softmax=False)
    network = network.with_parameters(
        np.full_like(v, 100) if name.endswith("bias") and v.size == 1 else 0 * v for name, v in network.parameters()
    )
    spec = TrainingSettings(learning_rate=0.01, optimizer="adamw", weight_decay=1.0).spec(1, 16)
    losses = []
    for inputs in (Standardised.none(network, examples), Standardised.of(network, examples)):
        batches = BatchSchedule(256, 16, 0).window(0, 160)
        trained = ENGINE.train(inputs.into(network), inputs.examples, batches, spec).network
        losses.append(ENGINE.evaluate(inputs.out_of(trained), examples).loss)
    assert losses[1] < 1e-6
    assert losses[0] > 0.01


@pytest.mark.parametrize("preset", ["paper", "corrected"])
def test_algorithm_1_sees_inputs_as_they_are(network: Network, values, preset):
    settings = SurgeonSettings.from_preset(preset)
    assert not settings.standardise
    train = examples_of(values)
    for chosen in (settings, replace(settings, standardise=True)):
        context = TrainingContext(chosen, ENGINE, train, train, threading.Event(), manner=Algorithm1.manner)
        assert context.standardised(network).examples is train


def test_a_table_of_years_and_millions_is_learnt(tmp_path):
    """As it is, such a table cannot be learnt at the default learning rate; standardised, it can."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 4))
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    x = x * [5, 1e4, 1, 1e-3] + [2000, 1e5, 0, 0]
    lines = [",".join([*(f"{value:.6g}" for value in row), str(label)]) for row, label in zip(x, y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,y", *lines]) + "\n")
    save(create((4, 8, 2)).with_parameters(_small(create((4, 8, 2)))), tmp_path / "start.onnx")
    found = {}
    for standardise in (True, False):
        settings = SurgeonSettings.from_preset("default", standardise=standardise, epochs=30, max_parameters=200)
        run = tmp_path / f"run-{standardise}"
        options = {"target": ["y"], "settings": settings, "run_dir": run, "workers": 1}
        found[standardise] = evolve(tmp_path / "start.onnx", str(tmp_path / "t.csv"), **options).test.accuracy
    assert found[True] > 0.85
    assert found[False] < 0.7


def _small(network):
    return [values * np.float32(1e-5) for _, values in network.parameters()]


@pytest.mark.parametrize("name", ["autoencoder-torch-legacy", "unet-torch-dynamo"])
def test_targets_of_a_convolution_that_is_a_head_are_neither_centred_nor_scaled_by_its_units(name, tmp_path):
    """Its units lie on the second axis, not on the last, along which targets are told."""
    file = Path(__file__).parent / "convolutions" / f"{name}.onnx"
    network = load(file)
    (source,), (head,) = network.frame.trunk.features.values(), network.heads
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, *source)).astype(np.float32)
    (given,) = onnxruntime.InferenceSession(file).run(None, {onnx.load(file).graph.input[0].name: x})
    np.savez(tmp_path / "maps.npz", x=x, y=5 + 40 * given)
    settings = SurgeonSettings.from_preset(epochs=1, learning_rate=1e-5)
    evolved = evolve(file, tmp_path / "maps.npz", settings=settings, run_dir=tmp_path / "run")
    assert head.width == given.shape[-1] != given.shape[1]
    assert np.isfinite(evolved.test.loss)
