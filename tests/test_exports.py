"""Every real export through reading, writing and surgery; some through the Surgeon."""

import csv
import re

import export_checks
import exports_table
import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from onnxsurgeon import InputOptions, ModelError, SurgeonSettings, evolve, load, prepare
from onnxsurgeon.cli import app
from onnxsurgeon.graph.files import read_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.surgeon import teaching
from tests.conftest import skip_newer

FIXTURES = exports_table.fixtures()
READ = [fixture for fixture in FIXTURES if not fixture.refused]
SHORT = SurgeonSettings.from_preset("corrected", initial_epochs=1, epoch_step=1, epochs=3, learning_rate=0.001)
EVOLVED = (
    "converted-float16-io",
    "jax2onnx-smooth",
    "ort-fused-gemm",
    "sklearn-column-inputs",
    "sklearn-gaps",
    "sklearn-multi-label",
    "sklearn-regression-several",
    "tf2onnx-rank3",
    "torch-dynamo-bfloat16",
    "torch-dynamo-external",
    "torch-dynamo-if",
    "torch-dynamo-residual",
    "torch-dynamo-two-heads",
    "torch-dynamo-two-inputs",
    "torch-legacy-binary-sigmoid",
    "torch-legacy-hidden-output",
    "torch-legacy-initializers-as-inputs",
)


def by_name(names):
    return [fixture for fixture in FIXTURES if fixture.file.removesuffix(".onnx") in names]


def runnable(fixture):
    skip_newer(next(entry.version for entry in onnx.load(fixture.path).opset_import if entry.domain in ("", "ai.onnx")))


def test_every_file_is_listed_and_the_lists_of_this_module_exist():
    assert {fixture.file for fixture in FIXTURES} == {path.name for path in exports_table.EXPORTS.glob("*.onnx")}
    assert len(by_name(EVOLVED)) == len(EVOLVED)
    assert len(READ) >= 100


def test_the_page_on_models_has_a_row_for_each():
    page = (exports_table.ROOT / "docs" / "models.md").read_text()
    for fixture in FIXTURES:
        rows = re.findall(rf"^\| {re.escape(fixture.file.removesuffix('.onnx'))} \|.*$", page, re.MULTILINE)
        assert len(rows) == 1
        assert ("| refused: " in rows[0]) == bool(fixture.refused)


@pytest.mark.parametrize("fixture", READ, ids=lambda fixture: fixture.file)
def test_reading_writing_and_exact_surgery(fixture, tmp_path):
    runnable(fixture)
    network = load(fixture.path)
    feeds = exports_table.rows_of(network, fixture, fixture.dataset())
    assert export_checks.check_interface(fixture.path, network, feeds, tmp_path).startswith("same")
    again = load(tmp_path / "same.onnx")
    assert again.topology == network.topology
    assert to_model(again) == to_model(load(tmp_path / "same.onnx"))
    exact, _, tried = exports_table.check_surgeries(fixture, network, feeds).partition(",")[0].partition(" of ")
    assert exact == tried
    assert int(tried) >= 2


@pytest.mark.parametrize("fixture", [f for f in FIXTURES if f.refused], ids=lambda fixture: fixture.file)
def test_what_cannot_be_operated_on_is_refused_with_advice(fixture):
    with pytest.raises(ModelError, match=r"node '.*' \(.*\).*(is quantized.*quantize the result again|for inference)"):
        load(fixture.path)


def found_otherwise(fixture):
    """Topologies that differ from the exporter's for a reason."""
    convolutions, gate, head = "c1-c12+c12-c8", "8-4-8", "128-64-32-10"
    return {
        "torch-dynamo-if.onnx": "32-16-10",
        "torch-dynamo-cnn.onnx": f"{convolutions}+{head}",
        "torch-legacy-cnn.onnx": f"{convolutions}+{head}",
        "torch-dynamo-cnn-excite.onnx": f"{convolutions}+{gate}+{head}",
        "torch-legacy-cnn-excite.onnx": f"{convolutions}+{gate}+{head}",
    }.get(fixture.file)


@pytest.mark.parametrize("fixture", READ, ids=lambda fixture: fixture.file)
def test_every_layer_is_found(fixture):
    network = load(fixture.path)
    wanted = exports_table.spelled_out(fixture.topology)
    assert network.topology in (wanted, found_otherwise(fixture)) or joined(network.topology) == joined(wanted)


def joined(topology):
    """The widths, however the layers are grouped into segments: an output in the middle ends one."""
    return [width for i, part in enumerate(topology.split("+")) for width in part.split("-")[i > 0 :]]


@pytest.mark.parametrize("fixture", by_name(EVOLVED), ids=lambda fixture: fixture.file)
def test_evolving(fixture, tmp_path):
    runnable(fixture)
    row = exports_table.Row(fixture.file, fixture.exporter)
    exports_table.check_evolution(fixture, tmp_path, row)
    assert row.evolves.startswith("yes")
    untouched = {t.name: t for t in load(fixture.path).frame.model.graph.initializer}
    best = {t.name: t for t in read_model(tmp_path / "run" / "best.onnx").graph.initializer}
    assert untouched == {name: best[name] for name in untouched}


def test_a_pipeline_evolves_from_its_csv_and_its_callers_notice_nothing(tmp_path):
    """Columns of numbers and of texts, one input each; predictions by code that knows the original only."""
    fixture = by_name(["sklearn-column-inputs"])[0]
    table = exports_table.ROOT / fixture.data

    def predictions(path):
        session = onnxruntime.InferenceSession(str(path))
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        feeds = {}
        for value in session.get_inputs():
            column = [row[value.name] for row in rows]
            kind = np.float32 if value.type == "tensor(float)" else object
            feeds[value.name] = np.array(column, dtype=kind).reshape(-1, 1)
        labels, probabilities = session.run(None, feeds)
        assert all(sum(row.values()) == pytest.approx(1, abs=1e-5) for row in probabilities)
        return labels, [row[fixture.target[0]] for row in rows]

    options = [
        "--preset",
        "corrected",
        "--target",
        fixture.target[0],
        "--epochs",
        "4",
        "--initial-epochs",
        "2",
        "--epoch-step",
        "1",
    ]
    out = tmp_path / "evolved.onnx"
    arguments = ["evolve", str(fixture.path), "--data", str(table), *options, "--learning-rate", "0.02"]
    done = CliRunner().invoke(app, [*arguments, "--run-dir", str(tmp_path / "run"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    before, truth = predictions(fixture.path)
    after, _ = predictions(out)
    assert set(after) <= set(truth)
    assert np.mean(np.array(before) == truth) > 0.9
    assert np.mean(np.array(after) == truth) > 0.9
    assert load(out).topology != load(fixture.path).topology or not np.array_equal(
        load(out).layers[0].weight, load(fixture.path).layers[0].weight
    )


def test_features_are_computed_once(monkeypatch, tmp_path, digits):
    """However long the run: the prefix is run over each split once."""
    calls = []

    def counted(*given, **others):
        calls.append(given[2].rows)
        return prepare(*given, **others)

    monkeypatch.setattr(teaching, "prepare", counted)
    fixture = by_name(["torch-legacy-views"])[0]
    evolve(fixture.path, "digits", settings=SHORT, run_dir=tmp_path / "run")
    assert sorted(calls) == [144, 360, 1293]


def test_the_loss_can_be_said(digits):
    network = load(by_name(["torch-legacy-views"])[0].path)
    examples = prepare(network, digits, digits.test, InputOptions(loss="cross-entropy"))
    assert examples.tasks[0].loss == "cross-entropy"
