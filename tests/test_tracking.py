"""What TensorBoard's and MLflow's own readers find is what the journal holds."""

import json
import logging
import os
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxsurgeon import SettingsError, StopRun, SurgeonSettings, evolve, resume
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.tracking import Tracking, make_tracking
from tests.conftest import need, start_model
from tests.killed_run import SETTINGS

SHORT = SurgeonSettings.from_preset("corrected", **{**SETTINGS, "epochs": 8})
# MLflow 3 uses a loader strategy that SQLAlchemy 2.1 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def environment():
    """MLflow as on a machine where nobody has set it up, and not sending usage data."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


class InterruptOn:
    """A callback that interrupts when the ``count``-th event of a kind comes."""

    def __init__(self, kind, count, error=KeyboardInterrupt):
        self.kind, self.left, self.error = kind, count, error

    def __call__(self, event):
        self.left -= event["event"] == self.kind
        if not self.left:
            self.left = -1
            raise self.error


def run(folder, track, **others):
    start = start_model(folder)
    return evolve(start, "digits", settings=SHORT, run_dir=folder / "runs" / "run", track=track, **others)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same run without tracking."""
    return run(tmp_path_factory.mktemp("plain"), ())


def expected(events):
    """(name, step) → value, straight from the journal."""
    found, last = {}, {"steps": 0, "seconds": 0.0, "training_seconds": 0.0}
    parameters = {}
    for event in events:
        kind, branch = event["event"], event.get("branch")
        if kind == "proposed":
            found["candidate/proposal", branch] = event["score"]
        elif kind in ("recuperated", "trained"):
            stage = "candidate" if kind == "recuperated" else "trained"
            for key in ("accuracy", "gain", "loss", "score", "parameters"):
                found[f"{stage}/{key}", branch] = event[key]
            parameters[branch] = event["parameters"]
        elif kind in ("started", "decided"):
            epoch = event["epoch"]
            parameters.update(zip(event["branches"], event["parameters"], strict=True))
            found["accuracy/best", epoch] = event["best_accuracy"]
            found["branch/best", epoch] = event["best"]
            found["parameters/best", epoch] = parameters[event["best"]]
            for place, number in enumerate(event["branches"]):
                found[f"branch/kept-{place + 1}", epoch] = number
                found[f"accuracy/kept-{place + 1}", epoch] = event["accuracies"][place]
                found[f"loss/kept-{place + 1}", epoch] = event["losses"][place]
                found[f"parameters/kept-{place + 1}", epoch] = event["parameters"][place]
            seconds = event["seconds"] - last["seconds"]
            found["throughput/steps", epoch] = event["steps"]
            found["throughput/steps-per-second", epoch] = (event["steps"] - last["steps"]) / seconds
            training = event["training_seconds"] - last["training_seconds"]
            found["throughput/share-in-training", epoch] = training / seconds
            last = event
        elif kind == "finished":
            for name, key in {
                "accuracy": "test_accuracy",
                "loss": "test_loss",
                "start-accuracy": "start_test_accuracy",
                "validation-accuracy": "validation_accuracy",
                "parameters": "parameters",
            }.items():
                found[f"test/{name}", last["epoch"]] = event[key]
    return found


def timeless(values):
    """Without what depends on the clock, which a resumed run measures anew."""
    return {key: value for key, value in values.items() if not key[0].startswith("throughput/s")} | {
        key: value for key, value in values.items() if key[0] == "throughput/steps"
    }


def journal(run_directory):
    return RunDirectory.open(run_directory).read_journal()


class TensorBoardReader:
    """Reads with TensorBoard's own EventAccumulator."""

    def __init__(self, run_directory):
        need("tensorboard", everywhere=True)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.found = EventAccumulator(str(run_directory / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
        self.found.Reload()

    def rounded(self, value):
        return float(np.float32(value))

    def values(self):
        tags = self.found.Tags()["scalars"]
        return [((tag, event.step), event.value) for tag in tags for event in self.found.Scalars(tag)]

    def texts(self, name):
        return {event.step: event.tensor_proto.string_val[0].decode() for event in self.found.Tensors(name)}

    def settings(self):
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

        content = self.found.PluginTagToContent("hparams")[SESSION_START_INFO_TAG]
        hparams = parse_session_start_info_plugin_data(content).hparams
        return {name: getattr(value, value.WhichOneof("kind")) for name, value in hparams.items()}


class MLflowReader:
    """Reads with MLflow's own client."""

    def __init__(self, run_directory, identity=None):
        mlflow = need("mlflow")
        self.client = mlflow.MlflowClient(f"sqlite:///{run_directory.parent / 'mlflow.db'}")
        (experiment,) = self.client.search_experiments(filter_string="name = 'onnxsurgeon'")
        if identity is None:
            (self.run,) = self.client.search_runs([experiment.experiment_id])
        else:
            self.run = self.client.get_run(identity)

    def rounded(self, value):
        return value

    def values(self):
        identity = self.run.info.run_id
        return [
            ((metric.key, metric.step), metric.value)
            for name in self.run.data.metrics
            for metric in self.client.get_metric_history(identity, name)
        ]

    def story(self):
        return Path(self.client.download_artifacts(self.run.info.run_id, "story.md")).read_text()

    def texts(self, name):
        found = re.findall(rf"^\*\*(?:epoch|branch) (\d+), {name}\*\*\n\n(.*?)\n(?:\n|\Z)", self.story(), re.M | re.S)
        return {int(step): text for step, text in found}

    def settings(self):
        return self.run.data.params


READERS = {"tensorboard": TensorBoardReader, "mlflow": MLflowReader}


@pytest.fixture(scope="module", params=READERS)
def tool(request):
    need(request.param, everywhere=request.param == "tensorboard")
    return request.param


@pytest.fixture(scope="module")
def tracked(tool, tmp_path_factory):
    """A run that was tracked from its start to its end, and what its tool's reader finds."""
    evolved = run(tmp_path_factory.mktemp(tool), tool)
    return evolved, READERS[tool](evolved.run)


def test_every_number_of_the_journal_is_found_and_no_other(tracked):
    evolved, reader = tracked
    values = reader.values()
    wanted = expected(journal(evolved.run))
    assert len(wanted) > 60
    assert dict(values) == {key: reader.rounded(value) for key, value in wanted.items()}
    assert set(Counter(key for key, _ in values).values()) == {1}


def test_topologies_and_decisions_are_found_as_text(tracked):
    evolved, reader = tracked
    decided = [event for event in journal(evolved.run) if event["event"] in ("started", "decided")]
    kept = reader.texts("decision/kept")
    assert list(kept) == [event["epoch"] for event in decided]
    for event in decided:
        lines = kept[event["epoch"]].splitlines()
        for line, branch, topology in zip(lines, event["branches"], event["topologies"], strict=True):
            assert line.startswith(f"- branch {branch}: {topology}, ")
    measured = {event["branch"]: event for event in journal(evolved.run) if event["event"] == "recuperated"}
    assert reader.texts("candidate/topology") == {
        number: f"{event['topology']}, {event['surgery']} of branch {event['parent']}"
        for number, event in measured.items()
    }
    (result,) = reader.texts("result").values()
    assert evolved.network.topology in result


def test_settings_are_found(tracked):
    evolved, reader = tracked
    record = RunDirectory.open(evolved.run).read_settings()
    found = reader.settings()
    for name, value in record["settings"].items():
        assert str(found[name]) in (str(value), str(float(value)) if isinstance(value, int) else ""), name
    assert found["data"] == "digits"
    assert found["data_digest"] == record["data"]["digest"]
    assert found["model_sha256"] == record["model"]["sha256"]
    assert found["version_onnx"] == record["versions"]["onnx"]


def test_tracking_changes_no_byte_of_the_run(tracked, plain):
    evolved, _ = tracked
    for path in sorted((plain.run / "branches").glob("*.onnx")):
        assert (evolved.run / "branches" / path.name).read_bytes() == path.read_bytes()
    assert (evolved.run / "best.onnx").read_bytes() == (plain.run / "best.onnx").read_bytes()
    ours, theirs = (RunDirectory.open(each.run).read_settings() for each in (evolved, plain))
    assert {**ours, "model": None} == {**theirs, "model": None}
    extra = {path.name for path in evolved.run.iterdir()} - {path.name for path in plain.run.iterdir()}
    assert extra in ({"tensorboard"}, {"mlflow.json"})


@pytest.mark.parametrize("moment", [("recuperated", 7), ("decided", 2)])
def test_a_resumed_run_is_continued_and_nothing_is_logged_twice(tool, tmp_path, plain, moment):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tool, callbacks=InterruptOn(*moment))
    folder = tmp_path / "runs" / "run"
    if tool == "mlflow":
        assert MLflowReader(folder).run.info.status == "KILLED"
    evolved = resume(folder, track=tool)
    reader = READERS[tool](folder)
    values = reader.values()
    assert set(Counter(key for key, _ in values).values()) == {1}
    wanted = {key: reader.rounded(value) for key, value in expected(journal(folder)).items()}
    assert timeless(dict(values)) == timeless(wanted)
    assert set(dict(values)) == set(wanted)
    assert (folder / "best.onnx").read_bytes() == (plain.run / "best.onnx").read_bytes()
    assert evolved.test == plain.test
    assert len(reader.texts("decision/kept")) == 5
    if tool == "mlflow":
        assert reader.run.info.status == "FINISHED"


def test_a_run_that_was_not_tracked_before_is_logged_whole_when_resumed(tool, tmp_path):
    run(tmp_path, (), callbacks=InterruptOn("decided", 2, StopRun))
    folder = tmp_path / "runs" / "run"
    resume(folder, track=tool)
    reader = READERS[tool](folder)
    assert dict(reader.values()) == {key: reader.rounded(value) for key, value in expected(journal(folder)).items()}


def test_mlflow_keeps_the_result_as_an_artifact(tmp_path):
    need("mlflow")
    evolved = run(tmp_path, "mlflow")
    reader = MLflowReader(evolved.run)
    names = {entry.path for entry in reader.client.list_artifacts(reader.run.info.run_id)}
    assert names == {"best.onnx", "journal.jsonl", "settings.json", "story.md"}
    for name in ("best.onnx", "journal.jsonl", "settings.json"):
        copy = Path(reader.client.download_artifacts(reader.run.info.run_id, name))
        assert copy.read_bytes() == (evolved.run / name).read_bytes()
    assert reader.run.data.tags["topology/best"] == f"{evolved.network.topology} (branch {evolved.branch.number})"
    assert reader.run.info.run_name == "run"


def test_mlflow_starts_anew_where_the_store_does_not_know_the_run(tmp_path):
    need("mlflow")
    run(tmp_path, "mlflow", callbacks=InterruptOn("decided", 2, StopRun))
    folder = tmp_path / "runs" / "run"
    before = MLflowReader(folder).run.info.run_id
    (folder / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32}))
    resume(folder, track="mlflow")
    after = json.loads((folder / "mlflow.json").read_text())["run_id"]
    assert after not in (before, "0" * 32)
    assert dict(MLflowReader(folder, after).values()) == expected(journal(folder))


def test_mlflow_goes_where_its_own_variables_say(tmp_path, monkeypatch):
    need("mlflow")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'elsewhere' / 'own.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.chdir(tmp_path)
    evolved = run(tmp_path, "mlflow")
    assert not (evolved.run.parent / "mlflow.db").exists()
    import mlflow

    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert found.data.metrics["test/accuracy"] == evolved.test.accuracy


def test_a_server_that_does_not_answer_is_told_before_the_run_starts(tmp_path, monkeypatch):
    need("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SettingsError, match="no MLflow store answers at MLFLOW_TRACKING_URI") as caught:
        run(tmp_path, "mlflow")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_extra_is_told_before_the_run_starts(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=re.escape(f"track: '{name}' needs pip install 'onnxsurgeon[{name}]'")):
        run(tmp_path, name)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_tool_is_an_error_of_one_line_on_the_command_line(tmp_path, monkeypatch):
    from onnxsurgeon.cli import app

    monkeypatch.chdir(tmp_path)
    start = start_model(tmp_path)
    done = CliRunner().invoke(app, ["evolve", str(start), "--data", "digits", "--track", "tensorboard,wandb"])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception) == "track: 'wandb' is unknown: expected one of tensorboard, mlflow"
    assert not (tmp_path / "runs").exists()


def test_the_command_line_tracks_with_both(tmp_path, monkeypatch):
    need("mlflow")
    from onnxsurgeon.cli import app

    monkeypatch.chdir(tmp_path)
    options = [
        "--preset",
        "corrected",
        "--epochs",
        "2",
        "--initial-epochs",
        "1",
        "--epoch-step",
        "1",
        "--track",
        "tensorboard,mlflow",
    ]
    done = CliRunner().invoke(app, ["evolve", str(start_model(tmp_path)), "--data", "digits", *options])
    assert done.exception is None
    folder = tmp_path / "runs" / "start-digits-1"
    assert dict(MLflowReader(folder).values()) == expected(journal(folder))
    assert len(TensorBoardReader(folder).values()) == len(expected(journal(folder)))


class Failing:
    """A tracker that fails in one of its methods, as often as it is called."""

    name = "failing"

    def __init__(self, method):
        self.method, self.calls = method, []

    def _called(self, method):
        self.calls.append(method)
        if method == self.method:
            raise OSError("the disk is full")

    def begin(self, run, settings):
        self._called("begin")
        return set()

    def log(self, entry):
        self._called("log")

    def finish(self, run):
        self._called("finish")

    def close(self, outcome):
        self._called("close")


@pytest.mark.parametrize("method", ["begin", "log", "finish", "close"])
def test_a_tracker_that_fails_is_warned_of_once_and_the_run_goes_on(tmp_path, monkeypatch, caplog, plain, method):
    bad, good = Failing(method), Failing("none")
    good.name = "good"
    monkeypatch.setattr("onnxsurgeon.surgeon.run.make_tracking", lambda track, folder: Tracking([bad, good]))
    with caplog.at_level(logging.WARNING, logger="onnxsurgeon"):
        evolved = run(tmp_path, "failing")
    (warning,) = [record.message for record in caplog.records if record.name.startswith("onnxsurgeon.tracking")]
    assert warning == "tracking with failing failed, the run goes on without it: the disk is full"
    assert bad.calls[-1] == method
    assert bad.calls.count(method) == 1
    assert good.calls[-2:] == ["finish", "close"]
    assert (evolved.run / "best.onnx").read_bytes() == (plain.run / "best.onnx").read_bytes()


def test_the_tensorboard_folder_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    need("tensorboard", everywhere=True)

    def block(event):
        if event["event"] == "run":
            (Path(event["path"]) / "tensorboard").write_text("in the way")

    with caplog.at_level(logging.WARNING, logger="onnxsurgeon"):
        evolved = run(tmp_path, "tensorboard", callbacks=block)
    (warning,) = [record.message for record in caplog.records if record.name.startswith("onnxsurgeon.tracking")]
    assert warning.startswith("tracking with tensorboard failed")
    assert evolved.test.accuracy > 0.3


def test_names_may_be_repeated_and_spaced():
    need("tensorboard", everywhere=True)
    assert len(make_tracking([" tensorboard ", "tensorboard,"], Path())._trackers) == 1
