"""The Python interface: models and rows however they come, what a result gives, and what is said of anything else."""

import json
import subprocess
import sys
import types

import numpy as np
import onnx
import pytest

import onnxsurgeon
from onnxsurgeon import (
    DataError,
    Dataset,
    ModelError,
    NotebookProgress,
    RunError,
    SettingsError,
    Split,
    SurgeryError,
    Widen,
    attach_head,
    create,
    diff,
    evaluate,
    evolve,
    load,
    operate,
    read_run,
    resume,
    save,
    to_model,
)
from onnxsurgeon.graph.files import write_model
from onnxsurgeon.report.invocation import read_invocation
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runtime import run
from tests.conftest import MODELS, need

NETWORK = create((64, 12, 10), seed=1, input_shape=(8, 8))
SETTINGS = {"epochs": 3, "seed": 1}


@pytest.fixture(scope="module")
def rows(request):
    digits = request.getfixturevalue("digits")
    return np.asarray(digits.train.inputs)[:300] / np.float32(16), digits.train.labels[:300]


@pytest.fixture(scope="module")
def result(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("python") / "run"
    return evolve(NETWORK, rows, settings=SETTINGS, run_dir=folder, workers=1)


def forms(folder):
    save(NETWORK, folder / "m.onnx", overwrite=True)
    model = to_model(NETWORK)
    return [str(folder / "m.onnx"), folder / "m.onnx", (folder / "m.onnx").read_bytes(), model, NETWORK]


def test_a_model_in_every_form_is_the_same_model(rows, tmp_path):
    found = forms(tmp_path)
    assert len({evaluate(model, rows) for model in found}) == 1
    assert {operate(model, "widen:1:4").network.topology for model in found} == {"64-16-10"}
    for model in found:
        assert diff(model, NETWORK).random.outputs[0].maximum == 0
        assert attach_head(model, 3).network.topology == "12-128-3"
    assert evaluate(bytearray(found[2]), rows) == evaluate(memoryview(found[2]), rows) == evaluate(NETWORK, rows)


def test_a_given_model_is_not_changed(rows):
    model = to_model(NETWORK)
    before = model.SerializeToString(deterministic=True)
    evaluate(model, rows)
    operate(model, Widen(1, 4))
    assert model.SerializeToString(deterministic=True) == before


def test_a_run_from_memory_ends_in_the_bytes_of_one_from_files(result, rows, tmp_path):
    save(NETWORK, tmp_path / "model.onnx")
    x, y = rows
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    other = evolve(
        tmp_path / "model.onnx", tmp_path / "rows.npz", settings=SETTINGS, run_dir=tmp_path / "run", workers=1
    )
    assert (other.run / "best.onnx").read_bytes() == (result.run / "best.onnx").read_bytes()
    assert other.test == result.test
    record = json.loads((result.run / "settings.json").read_text())
    assert (record["model"]["file"], record["data"]["name"], record["data"]["in_memory"]) == ("model", "arrays", True)
    assert read_invocation(RunDirectory.open(result.run)).command.startswith("none: its rows were in memory")
    assert record["data"]["digest"] == json.loads((other.run / "settings.json").read_text())["data"]["digest"]


def test_such_a_run_goes_on_with_the_same_rows_only(result, rows, cli):
    best = (result.run / "best.onnx").read_bytes()
    with pytest.raises(RunError, match=r"its rows were in memory: give them again, from Python, as resume\(run, data="):
        resume(result.run)
    assert "its rows were in memory" in cli("evolve", "--resume", result.run)[2]
    with pytest.raises(RunError, match=r"data set 'arrays' is not the one the run was started with"):
        resume(result.run, data=(rows[0] + 1, rows[1]))
    again = resume(result.run, data=rows, from_checkpoint=0, workers=1)
    assert (again.run / "best.onnx").read_bytes() == best


def test_rows_in_every_form(rows, digits):
    x, y = rows
    whole = {"x_train": x[:200], "y_train": y[:200], "x_test": x[200:], "y_test": y[200:]}
    dataset = Dataset("mine", Split(x[:200], y[:200]), Split(x[200:], y[200:]), 10)
    by_hand = evaluate(NETWORK, whole)
    assert by_hand == evaluate(NETWORK, dataset)
    assert by_hand.rows == 100
    logits = run(to_model(NETWORK), {"input": x[200:]})[0]
    assert by_hand.accuracy == pytest.approx((logits.argmax(axis=1) == y[200:]).mean())
    assert evaluate(NETWORK, (x.tolist(), y.tolist())) == evaluate(NETWORK, (x, y))
    assert evaluate(NETWORK, {"x": x, "y": y}, split="train").rows == 240
    assert evaluate(NETWORK, (x, y), split="validation", validation_fraction=0.25).rows == 60
    assert evaluate(NETWORK, digits) == evaluate(NETWORK, "digits")


def test_several_inputs_and_classes_as_texts(tmp_path):
    path = MODELS / "exports" / "torch-dynamo-two-inputs.onnx"
    data = np.load(MODELS / "exports" / "data" / "digits-halves.npz")
    inputs = {name: data[name] for name in data.files if name != "y"}
    found = evaluate(path, (inputs, data["y"]))
    assert found == evaluate(path, MODELS / "exports" / "data" / "digits-halves.npz")
    words = np.array([f"digit {k}" for k in data["y"]], object)  # as pandas keeps texts
    assert evaluate(path, (inputs, words)).accuracy == found.accuracy


def test_tables_of_pandas():
    pandas = need("pandas")
    need("pyarrow", everywhere=True)
    path = MODELS / "exports" / "data" / "iris.csv"
    table = pandas.read_csv(path)
    target = table.columns[-1]
    model = MODELS / "exports" / "sklearn-pipeline.onnx"
    inputs, column = table.drop(columns=target), table[target]
    network = create((inputs.shape[1], 6, 3), seed=2)
    found = evaluate(network, path, target=target)
    assert model.exists()
    assert evaluate(network, table, target=target) == found
    assert evaluate(network, (inputs, column)) == evaluate(network, (inputs, column.tolist())) == found
    assert evaluate(network, (inputs, column.to_frame())) == found
    assert evaluate(network, (inputs.to_numpy(), column)).accuracy == pytest.approx(found.accuracy, abs=0.2)
    for data, more, message in (
        (table, {"target": "nothing"}, r"DataFrame: "),
        (table.rename(columns={target: 3}), {}, r"DataFrame: its columns must have names that are texts; found int 3"),
        ((inputs, column[:5]), {}, rf"data: {len(table)} rows in the table; y is Series \(5,\)"),
        ((inputs, column), {"target": target}, r"target: names columns of the table; the pair's second part is"),
        (table.assign(**{target: [{}] * len(table)}), {"target": target}, r"DataFrame: "),
    ):
        with pytest.raises(DataError, match=message) as raised:
            evaluate(network, data, **more)
        assert "\n" not in str(raised.value)
        assert "/tmp" not in str(raised.value)


def test_pandas_is_not_imported_for_those_who_have_not():
    code = """
import sys, numpy as np
from onnxsurgeon import create, evaluate
evaluate(create((4, 3)), (np.zeros((30, 4)), np.arange(30) % 3))
assert "pandas" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=MODELS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_models_of_a_result(result, rows):
    assert result.front
    assert [each.parameters for each in result.front] == sorted((e.parameters for e in result.front), reverse=True)
    for each in (*result.front, result.best):
        network = each.load()
        assert (network.topology, network.parameter_count) == (each.topology, each.parameters)
        model = onnx.load_from_string(each.to_bytes())
        (found,) = each.session().run(None, {"input": rows[0][:7]})
        np.testing.assert_array_equal(found, run(model, {"input": rows[0][:7]})[0])
    assert result.best.path == result.run / "best.onnx"
    assert load(result.best).topology == result.best.topology
    assert diff(NETWORK, result.best).after.parameters == result.best.parameters
    assert read_run(result.run).front == result.front
    with pytest.raises(ModelError, match="no such file"):
        onnxsurgeon.RunModel(result.run, "branches/0999-x.onnx", 9, "1-1", 2, 0.5).session()


def test_a_front_on_the_disk_is_the_results(rows, tmp_path):
    settings = {"epochs": 4, "seed": 1, "objective": "pareto"}
    found = evolve(NETWORK, rows, settings=settings, run_dir=tmp_path / "run", workers=1)
    assert all(each.path.parent.name == "front" and each.latency is not None for each in found.front)
    assert read_run(found.run).front == found.front
    assert [each.load().topology for each in found.front] == [each.topology for each in found.front]


def test_a_journal_of_a_stranger_leads_to_no_other_folder(rows, tmp_path):
    settings = {"epochs": 2, "seed": 1, "objective": "pareto"}
    found = evolve(NETWORK, rows, settings=settings, run_dir=tmp_path / "run", workers=1)
    journal = found.run / "journal.jsonl"
    lines = journal.read_text().splitlines()
    event = json.loads(lines[-1])
    assert event["event"] == "finished"
    for file in ("../secret.onnx", "front/../../secret.onnx", "/etc/passwd", "branches/x"):
        event["front"][0]["file"] = file
        event.pop("crc", None)
        journal.write_text("\n".join([*lines[:-1], json.dumps(event)]) + "\n")
        read = read_run(found.run)
        assert all((found.run / "branches") in each.path.parents for each in read.front)


def test_summary_plot_and_report(result):
    lines = result.summary().splitlines()
    assert lines[0] == f"{result.network.topology}, {result.network.parameter_count} parameters: {result.run}/best.onnx"
    assert any(line.startswith("test accuracy") for line in lines)
    assert read_run(result.run).summary().splitlines()[0].startswith(f"RunRecord {result.run}: finished")
    need("matplotlib")
    need("jinja2")
    figure = result.plot("size")
    assert figure.axes
    assert result.report() == result.run / "report.html"
    with pytest.raises(RunError, match=r"plot: 'acuracy' is unknown: .*: did you mean 'accuracy'\?"):
        result.plot("acuracy")


def test_progress_in_a_notebook(rows, tmp_path, monkeypatch):
    """IPython is no dependency: a module of its shape stands for it."""
    shown = []

    class Handle:
        def update(self, page):
            shown.append(page)

    def display(page, display_id):
        assert display_id is True
        shown.append(page)
        return Handle()

    module = types.ModuleType("IPython.display")
    module.HTML, module.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    progress = NotebookProgress()
    found = evolve(NETWORK, rows, settings=SETTINGS, run_dir=tmp_path / "<run>", workers=1, callbacks=progress)
    assert len(shown) > 3
    assert shown[-1] == progress.html
    assert '<progress value="3" max="3"></progress> epoch 3' in progress.html
    assert f"accuracy {found.test.accuracy:.4f} on the test rows" in progress.html
    assert "&lt;run&gt;" in shown[0]
    assert "<run>" not in "".join(shown)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(RunError, match="NotebookProgress is for notebooks: there is no IPython here"):
        NotebookProgress()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: evaluate(3, x),
            ModelError,
            "model: expected a path, bytes, an onnx.ModelProto or a Network; found int 3",
        ),
        (lambda x: evaluate(None, x), ModelError, "model: expected .*; found None"),
        (lambda x: evaluate(b"", x), ModelError, "model: not an ONNX model"),
        (lambda x: evaluate(b"no model", x), ModelError, "model: not an ONNX model"),
        (lambda x: evaluate(onnx.ModelProto(), x), ModelError, "model: not an ONNX model"),
        (lambda x: evaluate(NETWORK, None), DataError, "data: expected the name of a data set, .*; found None"),
        (lambda x: evaluate(NETWORK, x[0]), DataError, r"data: expected .*; found ndarray \(300, 8, 8\) of float32"),
        (lambda x: evaluate(NETWORK, (*x, 1)), DataError, "data: expected .*; found tuple of 3"),
        (lambda x: evaluate(NETWORK, (x[0], x[1][:3])), DataError, r"arrays: 'y' must have shape \(300,\)"),
        (lambda x: evaluate(NETWORK, ([[1], [2, 3]], [0, 1])), DataError, "data: 'x' is no array: list of 2: "),
        (
            lambda x: evaluate(NETWORK, (x[0], [{}] * 300)),
            DataError,
            "data: 'y' must hold numbers or texts; found list",
        ),
        (lambda x: evaluate(NETWORK, x, target="y"), DataError, "target: is for tables; found tuple of 2"),
        (
            lambda x: evaluate(NETWORK, x, split="tset"),
            SettingsError,
            "split: 'tset' is unknown: .*: did you mean 'test'",
        ),
        (lambda x: evaluate(NETWORK, x, options={}), DataError, "options: expected InputOptions; found dict of 0"),
        (
            lambda x: evolve(NETWORK, x, settings=5),
            SettingsError,
            "settings: expected SurgeonSettings, .*; found int 5",
        ),
        (
            lambda x: evolve(NETWORK, x, settings={"epoch": 5}),
            SettingsError,
            "unknown setting 'epoch': did you mean 'epochs'",
        ),
        (lambda x: evolve(NETWORK, x, freeze=[3]), SettingsError, "freeze: expected names of layers; found int 3"),
        (lambda x: operate(NETWORK, 3), SurgeryError, "surgery: expected one such as .*; found int 3"),
        (lambda x: operate(NETWORK, "prune:1:5"), SurgeryError, "prune:1:5: "),
        (lambda x: diff(NETWORK, 3), ModelError, "model: expected .*; found int 3"),
        (lambda x: evaluate(create((9, 3)), x), DataError, "arrays: "),
    ],
)
def test_what_was_given_is_said(call, error, message, rows):
    with pytest.raises(error, match=message) as raised:
        call(rows)
    assert "\n" not in str(raised.value)


def test_bytes_whose_tensors_lie_elsewhere_need_the_path(tmp_path):
    content = (MODELS / "exports" / "torch-dynamo-external.onnx").read_bytes()
    with pytest.raises(ModelError, match="its data is in another file: give the model's path instead"):
        evaluate(content, "digits")


def test_operate_by_rows_is_what_the_command_does(rows, cli, tmp_path):
    x, y = rows
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    write_model(to_model(NETWORK), tmp_path / "m.onnx")
    assert cli("operate", "m.onnx", "prune:1:6", "--data", "rows.npz", "-o", "p.onnx")[0] == 0
    made = operate(tmp_path / "m.onnx", "prune:1:6", data=rows).network
    for (_, a), (_, b) in zip(made.parameters(), load(tmp_path / "p.onnx").parameters(), strict=True):
        np.testing.assert_array_equal(a, b)
