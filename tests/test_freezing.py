"""Layers that are frozen: theirs stay to the byte, the others learn as if all did, by both engines and every search."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsurgeon import (
    BatchSchedule,
    Examples,
    ModelError,
    SettingsError,
    SurgeonSettings,
    TrainingSettings,
    TrainingSpec,
    create,
    evolve,
    from_model,
    load,
    make_engine,
    resume,
    save,
)
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph.attach import attach_head
from onnxsurgeon.graph.opening import open_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.report.invocation import read_invocation
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runtime import run
from onnxsurgeon.task import CROSS_ENTROPY, Task
from tests.conftest import MODELS, needs_training
from tests.graphs import Graph

NETWORK = create((6, 8, 7, 5, 3), seed=3, activation="Tanh")
ENGINES = ["loop", pytest.param("artifacts", marks=needs_training)]


def values(network):
    model = to_model(network)
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def step(network, engine="loop", batches=1):
    """A few steps of SGD on random rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6)).astype("f")
    (entry,) = network.frame.model.graph.input
    features = tuple(compute_features(network, {entry.name: x}, 40).values())
    examples = Examples(features, (rng.integers(0, 3, 40),), (Task(CROSS_ENTROPY, 3, "Softmax"),))
    how = TrainingSettings(optimizer="sgd")
    schedule = BatchSchedule(40, 8, seed=0)
    made = make_engine(engine, "cpu", network, how)
    return made.train(network, examples, schedule.window(0, batches), TrainingSpec(0.1)).network


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("frozen", [("layer1",), ("layer2",), ("layer4",), ("layer2", "layer3"), ("layer1", "layer3")])
def test_the_others_learn_as_if_all_did_and_the_frozen_ones_stay(frozen, engine):
    network = open_model(NETWORK, freeze=frozen).network
    before, whole, some = values(NETWORK), values(step(NETWORK, engine)), values(step(network, engine))
    assert before.keys() == whole.keys() == some.keys()
    for name, start in before.items():
        if name.split(".")[0] in frozen:
            assert some[name].tobytes() == start.tobytes()
            assert whole[name].tobytes() != start.tobytes()
        else:
            assert np.abs(whole[name] - start).max() > 1e-4
            np.testing.assert_allclose(some[name], whole[name], rtol=1e-4, atol=1e-6)


def test_what_is_frozen_before_all_else_is_computed_once():
    network = open_model(NETWORK, freeze=["layer1", "layer2"]).network
    assert network.topology == "7-5-3"
    assert [node.op_type for node in network.frame.prefix_nodes] == ["Gemm", "Tanh", "Gemm", "Tanh"]
    note = "'layer1', 'layer2' stay as they are: they are frozen, as was asked for"
    assert note in network.frame.notes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"freeze": ["1"]}, ["layer1"]),
        ({"freeze": ["1", "3"]}, ["layer1", "layer3"]),
        ({"freeze": ["1,3"]}, ["layer1", "layer3"]),
        ({"freeze": ["layer[12]*"]}, ["layer1", "layer2"]),
        ({"freeze": []}, []),
        ({"train_only": ["layer4"]}, ["layer1", "layer2", "layer3"]),
        ({"train_only": ["2", "layer4"]}, ["layer1", "layer3"]),
        ({"train_only": ["*"]}, []),
    ],
)
def test_layers_by_name_number_and_pattern(given, expected):
    network = open_model(NETWORK, **given).network
    assert sorted(network.frame.frozen.layers) == expected
    again = from_model(to_model(network))
    assert again.topology == network.topology
    assert again.frame.frozen == network.frame.frozen


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"freeze": ["layer5"]}, SettingsError, "freeze: model has no layer called 'layer5': did you mean 'layer4'"),
        ({"freeze": ["Layer1"]}, SettingsError, "freeze: model has no layer called 'Layer1': did you mean 'layer1'"),
        ({"train_only": ["x*"]}, SettingsError, r"train-only: model has no layer called 'x\*'$"),
        ({"freeze": ["4"]}, SettingsError, "freeze: model has no hidden layer 4: they are numbered 1 to 3"),
        ({"freeze": ["0"]}, SettingsError, "freeze: model has no hidden layer 0: they are numbered 1 to 3"),
        ({"freeze": ["*"]}, ModelError, "model: every dense layer is frozen: nothing is left to be trained"),
        ({"freeze": ["1"], "train_only": ["2"]}, SettingsError, "freeze, train-only: each says what the other leaves"),
    ],
)
def test_what_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        open_model(NETWORK, **given)


def test_a_mark_in_the_file_is_lifted_by_naming_what_is_trained(tmp_path):
    save(create((64, 20, 10, 7), seed=1, input_shape=(8, 8)), tmp_path / "old.onnx")
    save(attach_head(tmp_path / "old.onnx", 10).network, tmp_path / "start.onnx")
    assert open_model(tmp_path / "start.onnx").network.topology == "10-128-10"
    assert open_model(tmp_path / "start.onnx", freeze=["head/dense_1"]).network.topology == "128-10"
    only = open_model(tmp_path / "start.onnx", train_only=["head/logits"]).network
    assert (only.topology, only.frame.frozen.before) == ("128-10", ("layer2/output",))
    assert open_model(tmp_path / "start.onnx", train_only=["*"]).network.topology == "64-20-10-128-10"
    one = open_model(tmp_path / "start.onnx", train_only=["layer2", "head/*"]).network
    assert (one.topology, one.frame.frozen.before) == ("20-10-128-10", ())


def test_a_frozen_layer_between_branches_passes_the_gradient():
    """y = W3 (tanh(W1 x) + W2 tanh(W1 x)): with W2 frozen, W1 gets its share by both ways."""
    made = Graph()
    made.inputs, made.outputs = {"x": ("batch", 6)}, {"y": ("batch", 3)}
    made.dense("first", "x", "a", 6, 5)
    made.op("Tanh", "a", "b")
    made.dense("second", "b", "c", 5, 5)
    made.op("Add", "b c", "d")
    made.dense("third", "d", "y", 5, 3)
    network = from_model(made.model())
    frozen = open_model(network, freeze=["second"]).network
    whole, some, before = values(step(network)), values(step(frozen)), values(network)
    assert some["second.W"].tobytes() == before["second.W"].tobytes()
    for name in ("first.W", "first.b", "third.W"):
        np.testing.assert_allclose(some[name], whole[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["torch-dynamo-residual", "torch-legacy-rank3", "tf2onnx-normalised", "torch-dynamo-float16"]
)
def test_every_layer_of_a_real_export_can_be_frozen(name):
    path = MODELS / "exports" / f"{name}.onnx"
    network = load(path)
    nodes = [layer.names.node for layer in network.layers if len(network.layers) > 1]
    for node in nodes:
        frozen = open_model(path, freeze=[node]).network
        assert node not in [layer.names.node for layer in frozen.layers]
        assert frozen.parameter_count < network.parameter_count
        rng = np.random.default_rng(0)
        model = to_model(frozen)
        shapes = {v.name: [d.dim_value or 3 for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
        kinds = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in model.graph.input}
        feeds = {key: rng.standard_normal(shape).astype(kinds[key]) for key, shape in shapes.items()}
        for before, after in zip(run(to_model(network), feeds), run(model, feeds), strict=True):
            np.testing.assert_allclose(after, before, rtol=2e-2 if "float16" in name else 1e-4, atol=1e-3)


@pytest.mark.parametrize("wish", [{}, {"max_parameters": 700}])
def test_a_run_leaves_frozen_layers_as_they_are(wish, tmp_path):
    save(create((64, 12, 12, 10), seed=1, input_shape=(8, 8)), tmp_path / "m.onnx")
    settings = SurgeonSettings.from_preset(epochs=4, seed=1, **wish)
    evolved = evolve(
        tmp_path / "m.onnx", "digits", freeze="layer1", settings=settings, run_dir=tmp_path / "run", workers=1
    )
    before, after = values(load(tmp_path / "m.onnx")), values(load(evolved.run / "best.onnx"))
    assert after["layer1.weight"].tobytes() == before["layer1.weight"].tobytes()
    assert after["layer1.bias"].tobytes() == before["layer1.bias"].tobytes()
    assert evolved.test.accuracy > evolved.start.accuracy
    assert json.loads((evolved.run / "settings.json").read_text())["freeze"] == ["layer1"]
    assert "m.onnx --data digits --freeze layer1 " in read_invocation(RunDirectory.open(evolved.run)).command
    for branch in (evolved.run / "branches").glob("*.onnx"):
        assert load(branch).frame.frozen.layers == ("layer1",)


def test_a_killed_run_with_frozen_layers_ends_in_the_same_bytes(tmp_path):
    """The mark is in the branches' files, and needs no option when the run goes on."""
    save(create((64, 12, 12, 10), seed=1, input_shape=(8, 8)), tmp_path / "m.onnx")
    settings = SurgeonSettings.from_preset(epochs=4, seed=1)
    whole = evolve(
        tmp_path / "m.onnx", "digits", freeze=["1"], settings=settings, run_dir=tmp_path / "whole", workers=1
    )
    line = next(
        number
        for number, text in enumerate((whole.run / "journal.jsonl").read_text().splitlines(), start=1)
        if '"decided"' in text
    )
    best = (whole.run / "best.onnx").read_bytes()
    again = resume(whole.run, from_checkpoint=line, workers=2)
    assert (again.run / "best.onnx").read_bytes() == best


def test_the_options(cli, tmp_path):
    save(create((64, 12, 12, 10), seed=1, input_shape=(8, 8)), tmp_path / "m.onnx")
    code, _, _ = cli("train", "m.onnx", "--data", "digits", "--epochs", 1, "--train-only", "layer3", "-o", "t.onnx")
    before, after = values(load(tmp_path / "m.onnx")), values(load(tmp_path / "t.onnx"))
    moved = {name.split(".")[0] for name in before if before[name].tobytes() != after[name].tobytes()}
    assert (code, moved) == (0, {"layer3"})
    code, _, err = cli("evolve", "m.onnx", "--data", "digits", "--freeze", "layre2")
    assert (code, err) == (
        2,
        "onnxsurgeon: freeze: m.onnx has no layer called 'layre2': did you mean 'layer2'?\n",
    )
    code, _, err = cli("evolve", "--resume", "run", "--freeze", "1")
    assert (code, err.startswith("onnxsurgeon: --resume takes model, data and settings from the run")) == (2, True)
