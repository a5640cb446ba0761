"""Dropout in a trainer's files: masks that follow from seed, step and place alone, the same in every runner."""

import json

import jsonschema
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxsurgeon_runner import Trainer

from onnxsurgeon import TrainingSettings, create, export_trainer, import_state
from onnxsurgeon.deploy import dropout as files
from onnxsurgeon.deploy.operators import WEBGPU
from onnxsurgeon.training import dropout as engines
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.loop import LoopEngine
from tests.trainers import CASES, SCHEMA, SEED, Case, given, largest_difference

UNITS, INPUTS = 0.25, 0.1


def hashed(seed, purpose, left, right):
    """The same numbers in Python's own integers."""
    high, low = divmod(seed, 2**15)
    keys = []
    for number in range(8 * purpose, 8 * purpose + 8):
        a, b = (5167 * number + 9973) % 2**14, (7411 * number + 3571) % 2**14
        keys.append(2048 + (low * a + high * b + (104729 * number + 15485863) % 2**24) % 11519)
    left, right = np.broadcast_arrays(np.asarray(left) % 2**15, np.asarray(right) % 2**15)
    for key in keys:
        left, right = right, (left + (right + key) ** 2 // 256) % 2**15
    return right * 2**15 + left


def pool(seed, purpose, rate, rows, batch):
    values = hashed(seed, purpose, np.arange(rows)[:, None], np.arange(batch))
    return np.where(values >= round(rate * 2**30), 1 / (1 - rate), 0.0)


def replicated(network, rate, seed, positions, batch_size, input_rate=0.0):
    """What the engine feeds, but by the files' masks."""
    found = {}
    given = ((engines.POOL, rate, engines.masked_layers), (engines.INPUT_POOL, input_rate, engines.masked_inputs))
    for purpose, (name, share, widths_of) in enumerate(given):
        widths = widths_of(network)
        if share and widths:
            found[name] = pool(SEED, purpose, share, 1023 + max(widths), batch_size).astype(network.dtype)
            for number in range(len(widths)):
                steps = np.asarray(positions)
                places = hashed(SEED, 2, steps // 2**15 + 2 * number + purpose, steps % 2**15) % 1024
                found[f"{name}_offset_{number}s"] = places.reshape(-1, 1)
    return found


@pytest.mark.parametrize("rates", [(UNITS, 0.0), (0.0, INPUTS), (UNITS, INPUTS)])
@pytest.mark.parametrize("name", ["classes", "residual", "regression", "slopes", "float64"])
def test_both_files_train_as_the_engine_does_with_their_masks(tmp_path, monkeypatch, name, rates):
    model, options = CASES[name]
    how = {"optimizer": "adamw", "learning_rate": 2**-10, "dropout": rates[0], "input_dropout": rates[1]}
    made = Case(tmp_path, model, **options, **how)
    jsonschema.validate(json.loads((made.folder / "trainer.json").read_text()), SCHEMA)
    monkeypatch.setattr(engines, "feeds", replicated)
    batches = made.batches(30)
    expected = made.expected(batches).network
    state, losses = made.train("train", batches)
    assert largest_difference(import_state(made.network, state).network, expected) <= 1e-4
    one_by_one, alike = made.train("step", batches)
    assert largest_difference(import_state(made.network, one_by_one).network, expected) <= 1e-4
    assert losses.mean() == pytest.approx(alike.mean(), rel=1e-5)
    monkeypatch.undo()
    without = LoopEngine().train(
        made.network,
        made.examples,
        [batches],
        TrainingSettings(**{**how, "dropout": 0, "input_dropout": 0}).spec(1, 30),
    )
    assert largest_difference(without.network, expected) > 1e-2


def hashes(seed, purpose, left, right):
    """What the nodes give."""
    build = GraphBuilder(np.dtype(np.float32))
    name = files.Hash(build, "seed", purpose)("left", "right")
    inputs = [
        helper.make_tensor_value_info("seed", TensorProto.INT32, []),
        helper.make_tensor_value_info("left", TensorProto.INT32, [None, 1]),
        helper.make_tensor_value_info("right", TensorProto.INT32, [None]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT32, None)]
    graph = helper.make_graph(build.nodes, "g", inputs, outputs, list(build.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"seed": np.array(seed, np.int32), "left": left.astype(np.int32)[:, None], "right": right.astype(np.int32)}
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


@pytest.mark.parametrize("purpose", [files.UNITS, files.INPUTS, files.BEGINNINGS])
@pytest.mark.parametrize("seed", [0, 1, 32767, 32768, 2**31 - 1])
def test_a_hash_is_that_of_whole_numbers_without_overflow(seed, purpose):
    """Largest halves and largest keys too: in int32 nothing wraps around."""
    places = np.array([0, 1, 7, 1000, 32766, 32767])
    found = hashes(seed, purpose, places, places)
    np.testing.assert_array_equal(found, hashed(seed, purpose, places[:, None], places))
    assert found.min() >= 0
    assert found.max() < 2**30


def test_masks_look_random():
    """Shares, neighbours along both axes, seeds beside one another: within five deviations of independent draws."""
    rows, batch, rate = 2000, 32, 0.3
    masks = np.stack([pool(seed, 0, rate, rows, batch) > 0 for seed in (0, 1, 2, 12345)]).astype(float)
    count = rows * batch
    assert np.abs(masks.mean(axis=(1, 2)) - 0.7).max() < 5 * np.sqrt(0.21 / count)
    assert np.abs(masks.mean(axis=2) - 0.7).max() < 5.5 * np.sqrt(0.21 / batch)
    assert np.abs(masks.mean(axis=1) - 0.7).max() < 5 * np.sqrt(0.21 / rows)
    centred = masks - 0.7
    for shift in (1, 2, 3, 8):
        assert np.abs((centred[:, shift:] * centred[:, :-shift]).mean(axis=(1, 2))).max() < 5 * 0.21 / np.sqrt(
            count * 0.9
        )
        assert np.abs((centred[:, :, shift:] * centred[:, :, :-shift]).mean(axis=(1, 2))).max() < 5 * 0.21 / np.sqrt(
            count * 0.7
        )
    between = np.einsum("aij,bij->ab", centred, centred) / count - 0.21 * np.eye(4)
    assert np.abs(between - np.diag(np.diag(between))).max() < 5 * 0.21 / np.sqrt(count)
    begin = hashed(3, 2, 0, np.arange(20_000)) % 1024
    counts = np.bincount(begin, minlength=1024)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 1024 + 5 * np.sqrt(2 * 1024)


def test_a_resumed_training_leaves_out_the_same(tmp_path):
    case = Case(tmp_path, "torch-dynamo-documented.onnx", learning_rate=0.01, dropout=UNITS, input_dropout=INPUTS)
    rows, targets = given(case)
    whole = Trainer(case.folder)
    losses = [epoch.loss for epoch in whole.train(rows, targets, epochs=3, seed=1)]
    first = Trainer(case.folder)
    parts = [epoch.loss for epoch in first.train(rows, targets, epochs=1, seed=1, course=3)]
    first.save(tmp_path / "s")
    second = Trainer(case.folder, tmp_path / "s")
    parts += [epoch.loss for epoch in second.train(rows, targets, epochs=2, seed=1)]
    assert parts == losses
    assert all(np.array_equal(second.state[name], whole.state[name]) for name in whole.state)
    other = Trainer(case.folder)
    assert next(iter(other.train(rows, targets, seed=2**32 + 2))).loss != losses[0]
    assert whole.evaluate(rows, targets)["accuracy"] > 0.9  # nothing is left out of it


def test_browsers_gpus_have_all_that_step_needs(tmp_path):
    how = TrainingSettings(dropout=UNITS, input_dropout=INPUTS)
    exported = export_trainer(create((6, 5, 4, 3), seed=1), tmp_path / "t", settings=how, step=True)
    assert exported.operators["step.onnx"].lacking[WEBGPU] == ()
    assert exported.description["dropout"] == {"units": UNITS, "inputs": INPUTS, "seed": "seed"}


def test_where_nothing_can_be_left_out_it_is_told(tmp_path):
    how = TrainingSettings(dropout=UNITS)
    exported = export_trainer(create((6, 3), seed=1), tmp_path / "t", settings=how)
    assert "dropout" not in exported.description
    assert exported.remarks == ("dropout: nothing of 'model' is left out: it has no hidden layer of two axes",)
