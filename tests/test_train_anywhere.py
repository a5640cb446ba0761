"""A trainer's files, run by ONNX Runtime alone, give the loop engine's numbers; a state comes home."""

import json

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxsurgeon import (
    InputOptions,
    ModelError,
    SettingsError,
    TrainingSettings,
    create,
    export_trainer,
    import_state,
    load,
    save,
)
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.deploy import state_file
from onnxsurgeon.deploy.scalars import scalars
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.optimizers import make_optimizer
from tests.conftest import MODELS, randomised
from tests.trainers import CASES, EXPORTS, OPTIMIZERS, SCHEMA, STEPS, STRANGE, Case, largest_difference


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("case", CASES)
def test_the_files_train_as_the_engine_does(tmp_path, case, optimizer):
    model, given = CASES[case]
    made = Case(tmp_path, model, **given, **OPTIMIZERS[optimizer])
    jsonschema.validate(json.loads((made.folder / "trainer.json").read_text()), SCHEMA)
    batches = made.batches()
    expected = made.expected(batches)
    state, losses = made.train("train", batches)
    found = import_state(made.network, state).network
    assert largest_difference(found, expected.network) <= (1e-4 if optimizer == "adamw" else 1e-6)
    assert losses.mean() == pytest.approx(expected.mean_loss, rel=1e-5)
    assert int(state["steps"]) == STEPS
    one_by_one = import_state(made.network, made.train("step", batches)[0]).network
    assert largest_difference(one_by_one, found) <= (1e-4 if optimizer == "adamw" else 1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov"])
def test_other_optimizers(tmp_path, optimizer):
    made = Case(tmp_path, "torch-dynamo-documented.onnx", **OPTIMIZERS[optimizer])
    batches = made.batches()
    found = import_state(made.network, made.train("train", batches)[0]).network
    assert largest_difference(found, made.expected(batches).network) <= 1e-5


@pytest.mark.parametrize("taken", [0, 1, 9, 1000, 10**6])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_scalars_of_a_step_are_the_engines(optimizer, taken):
    """In float32 to its rounding: 1 − 0.999 is no small difference of large numbers."""
    settings = TrainingSettings(**OPTIMIZERS[optimizer])
    rule, build = make_optimizer(settings), GraphBuilder(np.dtype(np.float32))
    given = {"rates": "rates", "size": "size", "taken": "taken", "count": "count"}
    series, constant = scalars(build, rule, given)
    inputs = [helper.make_tensor_value_info("rates", TensorProto.FLOAT, [5])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("size", "taken", "count")]
    outputs = [onnx.ValueInfoProto(name=name) for name in (*series.values(), *constant.values())]
    graph = helper.make_graph(build.nodes, "g", inputs, outputs, list(build.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rates = np.full(5, settings.learning_rate, "f")
    feeds = {"rates": rates, "size": np.array(13), "taken": np.array(taken), "count": np.array(5)}
    read = {value.name for value in inputs} & {name for node in build.nodes for name in node.input}
    session = ort.InferenceSession(model.SerializeToString())
    found = session.run(None, {name: values for name, values in feeds.items() if name in read})
    expected = dict(zip(rule.scalars, rule.values(rates.astype(np.float64), 13, taken), strict=True))
    for name, values in zip((*series, *constant), found, strict=True):
        np.testing.assert_allclose(np.broadcast_to(values, 5), expected[name], rtol=5e-7, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_what_evaluate_sums_is_what_the_engine_measures(tmp_path, case):
    model, given = CASES[case]
    made = Case(tmp_path, model, **given)
    parameters = {name: values for name, values in made.state.items() if name.startswith("parameter/")}
    fed, rows = made.fed(), made.examples.rows
    parts = [
        made.run("evaluate", {**fed, **parameters, "numbers": part.astype(np.int32)})
        for part in np.array_split(np.arange(rows), 3)
    ]
    sums = {name: sum(part[name].astype(np.float64) for part in parts) for name in parts[0]}
    metrics = LoopEngine().evaluate(made.network, made.examples)
    assert sums["loss"] / rows == pytest.approx(metrics.loss, rel=1e-4)
    shares = []
    for each, labels in zip(made.description["targets"], made.examples.labels, strict=True):
        metric = each["metric"]
        if metric["name"] == "r2":
            spread = ((labels - labels.mean(axis=0)) ** 2).reshape(-1, each["outputs"]).sum(axis=0)
            shares.append(float((1 - sums[metric["output"]] / spread).mean()))
        else:
            shares.append(float(sums[metric["output"]]) / (rows * metric["per_row"]))
    assert np.mean(shares) == pytest.approx(metrics.accuracy, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_predict_is_the_model_with_the_states_weights(tmp_path, case):
    model, given = CASES[case]
    made = Case(tmp_path, model, **given)
    parameters = {name: values for name, values in made.state.items() if name.startswith("parameter/")}
    raw = {name: values[:8] for name, values in made.raw().items()}
    own = {
        name: rows.take(slice(0, 8))
        for name, rows in model_inputs(made.network, made.dataset, made.dataset.train, made.options).items()
    }
    given = EXPORTS / model if isinstance(model, str) else to_model(model).SerializeToString()
    session = ort.InferenceSession(given)
    for output, expected in zip(session.get_outputs(), session.run(None, own), strict=True):
        if not isinstance(expected, list):  # ZipMap's maps
            found = made.run("predict", {**raw, **parameters})[output.name]
            assert found.dtype == expected.dtype
            if found.dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-3 if found.dtype == np.float16 else 1e-5, atol=1e-5)
            else:
                assert found.tolist() == expected.tolist()


def test_pixels_stay_bytes_and_targets_in_their_units(tmp_path):
    made = Case(tmp_path, "torch-dynamo-documented.onnx")
    (rows,) = made.description["rows"]
    assert (rows["dtype"], rows["scale"], rows["shape"]) == ("uint8", 1 / 16, [8, 8])
    assert "features" not in made.description["files"]
    (tmp_path / "b").mkdir()
    made = Case(tmp_path / "b", "torch-dynamo-regression.onnx", "diabetes.csv", target=("progression",))
    assert made.description["targets"][0]["units"] == [64.0]
    assert made.fed()["targets"].max() > 300


def test_frozen_layers_stay_and_are_no_part_of_the_state(tmp_path):
    made = Case(tmp_path, "torch-dynamo-residual.onnx", freeze=("1", "entry.bias"), **OPTIMIZERS["adamw"])
    frozen = {"blocks.0.0.weight", "blocks.0.0.bias", "entry.bias"}
    assert set(made.description["frozen"]) == frozen
    assert not any(name.partition("/")[2] in frozen for name in made.state)
    imported = import_state(made.network, made.train("train", made.batches())[0])
    assert set(imported.kept) == frozen
    before, after = dict(made.network.parameters()), dict(imported.network.parameters())
    assert {name for name in before if np.array_equal(before[name], after[name])} == frozen


@pytest.mark.parametrize(
    ("model", "freeze", "feature"),
    [
        ("torch-dynamo-documented.onnx", ("1",), [32]),
        ("torch-dynamo-documented.onnx", ("1", "2"), [16]),
        ("torch-dynamo-residual.onnx", ("entry.weight", "entry.bias", "1"), [24]),
        ("torch-legacy-rank3.onnx", ("1",), [8, 24]),
    ],
)
def test_frozen_first_layers_are_computed_once(tmp_path, monkeypatch, model, freeze, feature):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    once = Case(tmp_path / "a", model, freeze=freeze, **OPTIMIZERS["sgd"])
    assert feature in [each["shape"] for each in once.description["rows"]]
    monkeypatch.setattr("onnxsurgeon.deploy.export.trained_part", lambda network, frozen: network)
    always = Case(tmp_path / "b", model, freeze=freeze, **OPTIMIZERS["sgd"])
    states = [each.train("train", each.batches())[0] for each in (once, always)]
    assert states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        np.testing.assert_allclose(values, states[1][name], rtol=1e-3, atol=1e-5)
    raw = {name: values[:9] for name, values in once.raw().items()}
    parameters = {name: values for name, values in states[0].items() if name.startswith("parameter/")}
    for name, values in once.run("predict", {**raw, **parameters}).items():
        np.testing.assert_array_equal(values, always.run("predict", {**raw, **parameters})[name])
    imported = import_state(once.network, states[0])
    assert set(imported.kept) == set(once.description["frozen"])


def test_a_head_to_which_nothing_trained_leads_is_refused(tmp_path):
    network = load(EXPORTS / "torch-legacy-two-heads.onnx")
    nodes = [layer.names.node for segment in (network.segments[0], network.segments[2]) for layer in segment.layers]
    with pytest.raises(SettingsError, match=r"of what leads to the head '.*', nothing is left to train"):
        export_trainer(network, tmp_path / "t", options=InputOptions(loss="squared-error"), freeze=nodes)


def test_what_is_frozen_behind_is_trained_through(tmp_path):
    """The first layer's gradient passes the frozen ones: in one step it moves as if nothing were frozen."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    frozen = Case(tmp_path / "a", "torch-dynamo-documented.onnx", freeze=("2",))
    free = Case(tmp_path / "b", "torch-dynamo-documented.onnx")
    batch = frozen.batches(3)[:1]
    states = [each.train("step", batch)[0] for each in (frozen, free)]
    assert set(states[1]) - set(states[0]) == {"parameter/3.weight", "parameter/3.bias"}
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name])


def test_a_model_that_is_not_trained_whole_gets_features(tmp_path):
    made = Case(tmp_path, "torch-legacy-batchnorm.onnx")
    assert "features" in made.description["files"]
    assert [each["input"] for each in made.description["rows"]] == [None]
    found = import_state(made.network, made.train("train", made.batches())[0]).network
    assert largest_difference(found, made.expected(made.batches()).network) <= 1e-5


@pytest.mark.parametrize("path", sorted(EXPORTS.glob("*.onnx")), ids=lambda path: path.stem)
def test_files_are_of_old_versions(tmp_path, path):
    try:
        network = load(path)
    except ModelError:
        pytest.skip("refused by the reader")
    loss = "auto"
    if all(not head.squash for head in network.heads):
        loss = "cross-entropy" if min(head.width for head in network.heads) > 1 else "squared-error"
    exported = export_trainer(network, tmp_path / "t", options=InputOptions(loss=loss), step=True)
    told = " ".join(exported.remarks)
    for name, asked in exported.operators.items():
        assert (asked.opset <= 17 and asked.ir <= 9) or f"{name}: stays in" in told
        if asked.opset <= 17 and not (name == "predict.onnx" and "bfloat16" in told):
            ort.InferenceSession(tmp_path / "t" / name)
    jsonschema.validate(json.loads((tmp_path / "t" / "trainer.json").read_text()), SCHEMA)


def test_the_command_prints_the_operators_and_what_builds_lack(tmp_path, cli):
    code, told, errors = cli(
        "export-trainer", MODELS / "digits-small.onnx", "-o", tmp_path / "t", "--optimizer", "adamw", "--step"
    )
    assert (code, errors) == (0, "")
    assert "operators: Add, " in told
    assert "train.onnx: the browser's WebGPU lacks Max, Scan, Sign" in told
    assert "step.onnx: the browser's WebGPU" not in told
    code, told, _ = cli("export-trainer", MODELS / "digits-small.onnx", "-o", tmp_path / "u", "--json", "--batch", 8)
    assert code == 0
    assert json.loads(told)["batch"] == {"size": 8, "fixed": True}
    code, _, errors = cli("export-trainer", MODELS / "digits-small.onnx", "-o", tmp_path / "v", "--batch", "many")
    assert (code, errors) == (2, "onnxsurgeon: batch: 'many' is neither dynamic nor a number of rows\n")


def small(tmp_path, **given):
    network = randomised(create((6, 5, 3), seed=1))
    return network, export_trainer(network, tmp_path / "t", **given)


def test_the_model_alone_tells_its_loss(tmp_path):
    _, exported = small(tmp_path)
    (target,) = exported.description["targets"]
    assert (target["loss"], target["dtype"], target["shape"]) == ("cross-entropy", "int32", [])
    assert "parameter/layer1.weight" in {each["name"] for each in exported.description["state"]}


def test_a_batch_of_one_size_and_no_losses(tmp_path):
    _, exported = small(tmp_path, batch_size=4, fixed_batch=True, report_loss=False)
    model = onnx.load(exported.folder / "train.onnx")
    (batches,) = [value for value in model.graph.input if value.name == "batches"]
    assert batches.type.tensor_type.shape.dim[1].dim_value == 4
    assert "losses" not in {value.name for value in model.graph.output}
    assert exported.description["batch"] == {"size": 4, "fixed": True}


def test_the_same_model_gives_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    folders = [small(tmp_path / name, step=True)[1].folder for name in "ab"]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]


def test_a_trainer_is_three_times_its_model_at_most(tmp_path):
    network = create((784, 128, 10), seed=0)
    save(network, tmp_path / "m.onnx")
    folder = export_trainer(network, tmp_path / "t").folder
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3 * (tmp_path / "m.onnx").stat().st_size


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"freeze": ("7",)}, "freeze: '7' is no layer"),
        ({"freeze": ("1", "layer2.weight", "layer2.bias")}, "nothing of 'model' is left to train"),
        ({"labels": 2}, "a row of 'model' has 1 for its head"),
        ({"options": InputOptions(loss="squared-error")}, "ends in a Softmax"),
        ({"rows": "uint8", "options": InputOptions(mean=(1.0, 2.0))}, "one value each"),
        ({"settings": TrainingSettings(dropout=1.0)}, "dropout: 1.0 is not at least 0 and below 1"),
        ({"temperature": 2.0}, "temperature: there is no teacher"),
        ({"temperature": -1.0}, "temperature: -1.0 is no positive number"),
        ({"batch_size": 0}, "batch: 0"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, given, told):
    with pytest.raises(SettingsError, match=told):
        small(tmp_path, **given)
    assert list(tmp_path.iterdir()) == []


def test_logits_alone_do_not_tell_their_loss(tmp_path):
    with pytest.raises(SettingsError, match="may be logits or values: say --loss cross-entropy"):
        export_trainer(load(EXPORTS / "torch-legacy-smooth.onnx"), tmp_path / "t")


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    small(tmp_path, step=True)
    with pytest.raises(ModelError, match="not empty"):
        small(tmp_path)
    small(tmp_path, overwrite=True)
    assert not (tmp_path / "t" / "step.onnx").exists()


class TestImportingAState:
    def test_plain_names_do_too_and_outputs_follow(self, tmp_path):
        network = randomised(create((6, 5, 3), seed=1))
        other = randomised(network, seed=2)
        plain = {name: values.T if values.ndim == 2 else values for name, values in other.parameters()}
        found = import_state(network, plain)
        assert largest_difference(found.network, other) == 0
        assert (len(found.changed), found.kept) == (4, ())

    @pytest.mark.parametrize(
        ("name", "values", "told"),
        [
            ("parameter/layer9.weight", np.zeros((5, 6), "f"), "'layer9.weight' is no parameter of 'model', which has"),
            (
                "parameter/layer1.weight",
                np.zeros((6, 5), "f"),
                r"has the shape \(6, 5\); in 'model' it is \(5, 6\), one row",
            ),
            (
                "parameter/layer1.bias",
                np.array([0, 1, np.nan, 3, 4], "f"),
                r"'layer1.bias' is nan at \(2,\): the training",
            ),
            ("parameter/layer1.bias", np.zeros(5, "i4"), "holds int32"),
            ("parameter/layer1.bias", np.full(5, 1e300), "holds values that float32 cannot"),
            ("strange", np.zeros(5, "f"), "'strange' is no parameter"),
            ("steps", np.array(3, "i4"), "holds no parameter"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, name, values, told):
        with pytest.raises(ModelError, match=told):
            import_state(create((6, 5, 3)), {name: values})

    def test_float16_weights_are_rounded_and_the_interface_stays(self, tmp_path, cli):
        made = Case(tmp_path, "torch-legacy-float16.onnx", learning_rate=0.1)
        state, _ = made.train("train", made.batches())
        (tmp_path / "s.safetensors").write_bytes(state_file.to_bytes(state))
        model, new = EXPORTS / "torch-legacy-float16.onnx", tmp_path / "n.onnx"
        code, told, errors = cli("import-state", model, tmp_path / "s.safetensors", "-o", new)
        assert (code, errors) == (0, "")
        assert "6 parameters taken from" in told
        before, after = onnx.load(model), onnx.load(new)
        assert list(before.graph.input) == list(after.graph.input)
        assert list(before.graph.output) == list(after.graph.output)
        assert {tensor.data_type for tensor in after.graph.initializer if tensor.dims} >= {TensorProto.FLOAT16}
        found = dict(load(new).parameters())
        trained = made.state["parameter/1.weight"]
        assert not np.array_equal(found["1.weight"].T, trained)
        np.testing.assert_allclose(found["1.weight"].T, state["parameter/1.weight"], atol=1e-3)

    def test_a_state_of_another_model_is_refused_by_name_and_nothing_is_written(self, tmp_path, cli):
        save(create((6, 5, 3)), tmp_path / "m.onnx")
        state = {"parameter/layer1.weight": np.zeros((5, 6), "f"), "parameter/extra": np.zeros(2, "f")}
        (tmp_path / "s.safetensors").write_bytes(state_file.to_bytes(state))
        code, _, errors = cli(
            "import-state", tmp_path / "m.onnx", tmp_path / "s.safetensors", "-o", tmp_path / "n.onnx"
        )
        assert code == 2
        assert "s.safetensors: 'extra' is no parameter of 'm', which has 'layer1.weight'" in errors
        assert not (tmp_path / "n.onnx").exists()
        state = {"parameter/layer1.weight": np.zeros((5, 6), "f")}
        (tmp_path / "s.safetensors").write_bytes(state_file.to_bytes(state))
        code, told, _ = cli("import-state", tmp_path / "m.onnx", tmp_path / "s.safetensors", "-o", tmp_path / "n.onnx")
        assert code == 0
        assert "1 parameters taken from" in told
        assert "3 stay as they are" in told

    @pytest.mark.parametrize("damage", STRANGE)
    def test_a_strangers_file_is_refused(self, tmp_path, damage):
        (tmp_path / "s.safetensors").write_bytes(STRANGE[damage])
        with pytest.raises(ModelError, match="holds no tensors that can be read"):
            state_file.read(tmp_path / "s.safetensors")

    @pytest.mark.parametrize("cut", [0, 4, 9, 60, -1])
    def test_a_damaged_file_is_told(self, tmp_path, cut):
        content = state_file.to_bytes({"parameter/a": np.zeros(100, "f")})
        (tmp_path / "s.safetensors").write_bytes(content[:cut])
        with pytest.raises(ModelError, match="holds no tensors that can be read"):
            state_file.read(tmp_path / "s.safetensors")

    def test_a_header_of_any_length_is_not_believed(self, tmp_path):
        (tmp_path / "s.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
        with pytest.raises(ModelError, match="holds no tensors that can be read"):
            state_file.read(tmp_path / "s.safetensors")
