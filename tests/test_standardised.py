"""Training on standardised inputs: the network there computes the same, and what is standardised and what is not."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, create, evolve, save
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgeon.trainer import Bench
from onnxsurgeon.training.engine import make_engine
from onnxsurgeon.training.standardised import SMALLEST_SCALE, Standardised
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
    largest = np.abs(found).max(axis=0)
    np.testing.assert_allclose(largest[[0, 1, 3, 4]], 1 / SMALLEST_SCALE, rtol=1e-3)  # normal ones reach 3 σ and more
    np.testing.assert_allclose(found[:, [2, 5]], 0)
    even = Standardised.of(network, examples_of(np.sign(values - values.mean(axis=0)))).examples.features[0]
    np.testing.assert_allclose(even[:, [0, 1, 4]].std(axis=0), 1, rtol=1e-3)  # what deviates by no more than σ


def test_bytes_stay_bytes(network):
    """Neither rows nor the selection of them are copied."""
    source = np.random.default_rng(0).integers(0, 256, (100, 6), np.uint8)
    rows = Rows(source, np.dtype(np.float32), np.arange(10, 90), 1 / 255, -0.5)
    plain = Examples((rows,), (np.arange(80) % 2,), examples_of(np.zeros((80, 6), np.float32)).tasks)
    inputs = Standardised.of(network, plain)
    (found,) = inputs.examples.stored
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


def bench(values, **changes):
    settings = SurgeonSettings.from_preset("default", **changes)
    return Bench(settings, ENGINE, examples_of(values), examples_of(values), threading.Event())


def test_inputs_are_left_out_where_their_mean_takes_their_place(network, values):
    assert bench(values).dropouts(network)["input_dropout"] == 0.1
    assert bench(values, input_dropout=0.25).dropouts(network)["input_dropout"] == 0.25
    assert bench(values, standardised_dropout=0.3).dropouts(network)["input_dropout"] == 0.3
    assert bench(values, standardise=False).dropouts(network)["input_dropout"] == 0
    assert bench(values, standardise=False, input_dropout=0.25).dropouts(network)["input_dropout"] == 0.25
    assert bench(values).dropouts(with_bias_removed(network, 0))["input_dropout"] == 0
    with pytest.raises(SettingsError, match="standardised-dropout: 1 is not at least 0 and below 1"):
        SurgeonSettings.from_preset("default", standardised_dropout=1)


@pytest.mark.parametrize("preset", ["paper", "corrected"])
def test_algorithm_1_sees_inputs_as_they_are(network: Network, values, preset):
    settings = SurgeonSettings.from_preset(preset)
    assert not settings.standardise
    train = examples_of(values)
    for chosen in (settings, replace(settings, standardise=True)):
        assert Bench(chosen, ENGINE, train, train, threading.Event()).standardised(network).examples is train


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
