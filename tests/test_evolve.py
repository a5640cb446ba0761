"""Algorithm 1 end to end on real data: decisions, bytes, journal, resume after a kill."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxsurgeon import (
    DataError,
    EngineError,
    InputOptions,
    OptimizerState,
    RunError,
    SettingsError,
    SurgeonSettings,
    create,
    evolve,
    load,
    make_engine,
    prepare,
    resume,
    save,
)
from onnxsurgeon.randomness import generator
from onnxsurgeon.recommend.candidates import PROPOSED
from onnxsurgeon.runs.branch import read_branch
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.runs.state_file import write_state
from onnxsurgeon.runtime import run as run_model
from onnxsurgeon.surgeon.score import paper_score
from onnxsurgeon.surgery import SURGERIES
from onnxsurgeon.training.artifacts import have_training
from tests.conftest import MODELS, needs_training, start_model
from tests.described import describe
from tests.killed_run import SETTINGS

SHORT = SurgeonSettings.from_preset("corrected", **SETTINGS)


def short(**changes):
    return replace(SHORT, **changes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The run that all others are compared with, and its events."""
    events = []
    folder = tmp_path_factory.mktemp("undisturbed")
    start = start_model(folder)
    return evolve(start, "digits", settings=SHORT, run_dir=folder / "run", workers=1, callbacks=events.append), events


@pytest.fixture
def start(tmp_path):
    return start_model(tmp_path)


def of(events, *kinds):
    return [event for event in events if event["event"] in kinds]


def test_it_learns_and_reports_both_figures(undisturbed, digits):
    evolved, events = undisturbed
    assert evolved.start.accuracy < 0.3
    assert evolved.test.accuracy > 0.8
    assert evolved.test.rows == 360
    net = load(evolved.run / "best.onnx")
    engine = make_engine("loop")
    assert engine.evaluate(net, prepare(net, digits, digits.test)) == evolved.test
    held_out = prepare(net, digits, digits.hold_out()[1])
    assert engine.evaluate(net, held_out).accuracy == evolved.validation_accuracy
    (finished,) = of(events, "finished")
    assert finished["test_accuracy"] == evolved.test.accuracy


def test_best_is_a_valid_model_with_the_given_ones_interface(undisturbed):
    evolved, _ = undisturbed
    path = evolved.run / "best.onnx"
    best, given = onnx.load(path), onnx.load(evolved.run.parent / "start.onnx")
    onnx.checker.check_model(best, full_check=True)
    for key in ("inputs", "outputs", "opsets", "ir", "producer", "docs"):
        assert describe(best)[key] == describe(given)[key]
    outputs = run_model(best, {"input": np.zeros((3, 8, 8), np.float32)})[0]
    assert outputs.shape == (3, 10)
    np.testing.assert_allclose(outputs.sum(1), 1, rtol=1e-5)


def test_the_journal_tells_the_whole_story(undisturbed):
    evolved, events = undisturbed
    run = RunDirectory.open(evolved.run)
    assert run.read_journal() == [event for event in events if event["event"] != "run"]
    proposed = {event["branch"]: event for event in of(events, "proposed")}
    assert [event["epoch"] for event in of(events, "decided")] == [2, 4, 6, 8, 10, 12]
    for event in of(events, "recuperated"):
        surgery = proposed[event["branch"]]
        assert (event["surgery"], event["parameters"]) == (surgery["surgery"], surgery["parameters"])
        assert 0 <= surgery["score"] <= 1
        parent = next(e for e in reversed(of(events, "trained", "started")) if e.get("branch", 0) == event["parent"])
        before = parent.get("accuracy", parent.get("best_accuracy"))
        assert event["gain"] == pytest.approx(event["accuracy"] - before)
        (file,) = evolved.run.glob(f"branches/{event['parent']:04d}-*.onnx")
        fraction = event["parameters"] / load(file).parameter_count
        assert event["score"] == pytest.approx(paper_score(event["accuracy"], event["gain"], fraction))
        operation = surgery["surgery"].partition(":")[0]
        batches = SHORT.recuperation_batches * (SURGERIES[operation].recuperation if operation in SURGERIES else 1)
        assert event["epoch"] == pytest.approx(surgery["epoch"] + batches / 81)  # 1293 rows in batches of 16
    settings = json.loads(run.settings_file.read_text())
    assert settings["settings"] == SHORT.record()
    assert settings["data"]["name"] == "digits"
    assert len(settings["data"]["digest"]) == 64


def test_the_best_scored_are_kept_at_each_draw(undisturbed):
    _, events = undisturbed
    draws = {}
    for event in events:
        if event["event"] == "proposed":
            draws.setdefault((event["epoch"], event["draw"]), {})[event["branch"]] = None
        elif event["event"] == "recuperated":
            next(draw for draw in draws.values() if event["branch"] in draw)[event["branch"]] = event["score"]
    trained = {event["branch"] for event in of(events, "trained")}
    assert len(draws) >= 3
    for draw in draws.values():
        scores = sorted((score for score in draw.values() if score is not None), reverse=True)
        kept = [score for branch, score in draw.items() if branch in trained]
        assert sorted(kept, reverse=True) == scores[: len(kept)]
        assert len(kept) == min(SHORT.branches, len(scores))


def test_no_surgery_is_tried_twice_at_a_decision_point(undisturbed):
    _, events = undisturbed
    tried = [(event["epoch"], event["parent"], event["surgery"]) for event in of(events, "proposed")]
    assert len(tried) == len(set(tried))
    assert {event["draw"] for event in of(events, "proposed")} > {0}  # else the redraws were not tested


def test_memory_keeps_nothing_worse_where_something_as_good_was_found(undisturbed):
    _, events = undisturbed
    best_before, trained_since, fell_back = None, [], 0
    for event in events:
        if event["event"] == "trained":
            trained_since.append(event)
        elif event["event"] == "decided":
            if best_before is not None:
                kept = [e["accuracy"] for e in trained_since if e["branch"] in event["branches"]]
                assert kept == event["accuracies"]
                if any(e["accuracy"] >= best_before for e in trained_since):
                    assert min(kept) >= best_before
                else:
                    fell_back += 1
                    assert kept == [max(e["accuracy"] for e in trained_since)]
            best_before, trained_since = max(event["accuracies"]), []


def test_every_branch_file_is_a_complete_model_with_its_lineage(undisturbed):
    evolved, events = undisturbed
    files = sorted(evolved.run.glob("branches/*.onnx"))
    assert len(files) == len({e["branch"] for e in of(events, "recuperated", "trained")}) + 1
    last = {event["branch"]: event for event in of(events, "recuperated", "trained")}
    for path in files[1:]:
        branch = read_branch(path)
        event = last[branch.number]
        assert path.name.startswith(f"{branch.number:04d}-{branch.operation}")
        assert (branch.surgery, branch.parent) == (event["surgery"], event["parent"])
        assert branch.accuracy == event["accuracy"]
        assert branch.network.topology == event["topology"]
        assert file_digest(path) == event["digest"]
    best = read_branch(evolved.run / "best.onnx")
    assert best.number == evolved.branch.number
    assert [entry.position for entry in best.history] == sorted(entry.position for entry in best.history)
    assert len(best.lineage) == sum(1 for _ in best.lineage if _ != "identity")


@pytest.mark.parametrize("workers", [2, 4])
def test_the_same_bytes_with_any_number_of_workers(start, workers, undisturbed, tmp_path):
    evolved, events = undisturbed
    again = []
    other = evolve(start, "digits", settings=SHORT, run_dir=tmp_path / "run", workers=workers, callbacks=again.append)
    assert (other.run / "best.onnx").read_bytes() == (evolved.run / "best.onnx").read_bytes()
    digests = [[(e["branch"], e["digest"]) for e in of(story, "recuperated", "trained")] for story in (events, again)]
    assert digests[0] == digests[1]


def test_another_seed_gives_another_run(start, undisturbed, tmp_path):
    other = evolve(start, "digits", settings=short(seed=7), run_dir=tmp_path / "run")
    assert (other.run / "best.onnx").read_bytes() != (undisturbed[0].run / "best.onnx").read_bytes()


MOMENTS = [
    ("training", 1),
    ("training", 9),
    ("training", 40),
    ("surgery", 3),
    ("surgery", 12),
    ("writing", 3),
    ("writing", 9),
    ("writing", 30),
    ("journal", 1),
    ("journal", 12),
    ("journal", 55),
    ("checkpoint", 3),
]


def killed(moment, count, folder, workers=2, engine="loop", **settings):
    arguments = [moment, str(count), str(folder), str(workers), engine, json.dumps(settings)]
    command = [sys.executable, "-m", "tests.killed_run", *arguments]
    done = subprocess.run(command, cwd=MODELS.parent, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("moment", "count"), MOMENTS)
def test_a_killed_run_resumes_to_the_same_bytes(moment, count, workers, undisturbed, tmp_path):
    evolved, _ = undisturbed
    folder = tmp_path / "run"
    killed(moment, count, folder, workers)
    resumed = resume(folder, workers=workers)
    assert (folder / "best.onnx").read_bytes() == (evolved.run / "best.onnx").read_bytes()
    assert (resumed.test, resumed.branch.lineage) == (evolved.test, evolved.branch.lineage)
    assert not list(folder.rglob(".*"))
    names = sorted(path.name for path in (evolved.run / "branches").iterdir())
    assert sorted(path.name for path in (folder / "branches").iterdir()) == names


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_directory_appears_complete_or_not_at_all(count, tmp_path):
    killed("writing", count, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_killed_twice_does_not_train_finished_branches_again(undisturbed, tmp_path):
    evolved, events = undisturbed
    folder = tmp_path / "run"
    killed("journal", len(of(events, *{e["event"] for e in events} - {"run"})) - 2, folder)  # before the last decision
    trained = []
    resumed = resume(folder, callbacks=trained.append)
    again = {e["branch"] for e in of(trained, "trained")}
    assert again
    assert (folder / "best.onnx").read_bytes() == (evolved.run / "best.onnx").read_bytes()
    assert resumed.training_seconds > 0


REMEMBERING = {
    "momentum": {"optimizer": "momentum", "learning_rate": 0.04, "schedule": "cosine", "warmup": 0.5, "epochs": 8},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.004, "weight_decay": 0.01, "schedule": "linear", "epochs": 8},
}


@pytest.fixture(scope="module", params=REMEMBERING)
def remembering(request, tmp_path_factory):
    """Undisturbed runs with optimizers that have a state."""
    folder, settings = tmp_path_factory.mktemp(request.param), REMEMBERING[request.param]
    events = []
    return settings, evolve(
        start_model(folder), "digits", settings=short(**settings), run_dir=folder / "run", workers=1,
        callbacks=events.append,
    ), events  # fmt: skip


def test_the_optimizers_state_is_beside_every_branch_and_in_the_journal(remembering):
    settings, evolved, events = remembering
    names = {path.stem.removesuffix(".state") for path in evolved.run.glob("branches/*.state.npz")}
    assert names == {path.stem for path in evolved.run.glob("branches/*.onnx")} - {"0000-start"}
    last = {event["branch"]: event for event in of(events, "recuperated", "trained")}
    per_epoch = 81
    for number, event in last.items():
        (path,) = evolved.run.glob(f"branches/{number:04d}-*.onnx")
        assert file_digest(path.with_suffix(".state.npz")) == event["state_digest"]
        state = read_branch(path).state
        assert state.steps == round(event["epoch"] * per_epoch)  # it was carried from surgery to surgery
        assert len(state.moments) == (1 if settings["optimizer"] == "momentum" else 2)
    assert evolved.test.accuracy > 0.8


@pytest.mark.parametrize("workers", [2, 4])
def test_with_a_state_the_same_bytes_with_any_number_of_workers(workers, remembering, start, tmp_path):
    settings, evolved, _ = remembering
    other = evolve(start, "digits", settings=short(**settings), run_dir=tmp_path / "run", workers=workers)
    files = [sorted((run / "branches").iterdir()) for run in (evolved.run, other.run)]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(*files, strict=True))


@pytest.mark.parametrize(
    ("moment", "count"),
    [("training", 9), ("training", 30), ("surgery", 7), ("writing", 8), ("writing", 9), ("writing", 24),
     ("writing", 25), ("journal", 12), ("journal", 30), ("checkpoint", 3)],
)  # fmt: skip
def test_with_a_state_a_killed_run_resumes_to_the_same_bytes(moment, count, remembering, tmp_path):
    settings, evolved, _ = remembering
    folder = tmp_path / "run"
    killed(moment, count, folder, **settings)
    resume(folder)
    assert (folder / "best.onnx").read_bytes() == (evolved.run / "best.onnx").read_bytes()
    assert not list(folder.rglob(".*"))
    for path in (evolved.run / "branches").iterdir():
        if path.name != "0000-start.onnx":
            assert (folder / "branches" / path.name).read_bytes() == path.read_bytes()


def test_a_state_that_was_changed_is_not_resumed_from(start, tmp_path):
    settings = short(epochs=2, optimizer="momentum", learning_rate=0.04)
    run = evolve(start, "digits", settings=settings, run_dir=tmp_path / "run").run
    (path,) = run.glob("branches/*.state.npz")
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + b"?")
    with pytest.raises(RunError, match=r"0001-identity\.state\.npz: was changed since the run wrote it"):
        resume(run)
    path.write_bytes(kept[:100])
    with pytest.raises(RunError, match="holds no optimizer's state"):
        read_branch(path.with_name("0001-identity.onnx"))
    write_state(OptimizerState.zeros(create((64, 20, 9, 10)), 1), path)
    with pytest.raises(RunError, match="holds the optimizer's state of another network"):
        read_branch(path.with_name("0001-identity.onnx"))
    path.unlink()
    with pytest.raises(RunError, match="was changed since the run wrote it"):
        resume(run)
    path.write_bytes(kept)
    resume(run)


def test_a_run_from_before_there_were_optimizers_resumes(undisturbed, tmp_path):
    evolved, _ = undisturbed
    folder = tmp_path / "run"
    killed("training", 20, folder)
    record = json.loads((folder / "settings.json").read_text())
    for name in ("momentum", "weight_decay", "beta1", "beta2", "epsilon", "schedule", "warmup"):
        del record["settings"][name]
    (folder / "settings.json").write_text(json.dumps(record))
    resume(folder)
    assert (folder / "best.onnx").read_bytes() == (evolved.run / "best.onnx").read_bytes()


def test_what_an_engine_lacks_is_told_before_anything_is_written(start, tmp_path):
    if not have_training():
        pytest.skip("this ONNX Runtime is no training build")
    with pytest.raises(EngineError, match="has no optimizer momentum; use the loop"):
        evolve(start, "digits", settings=short(optimizer="momentum"), run_dir=tmp_path / "run", engine="artifacts")
    assert not (tmp_path / "run").exists()


@needs_training
def test_adamw_on_the_artifacts_engine_resumes_to_the_same_bytes(start, tmp_path):
    settings = {"optimizer": "adamw", "learning_rate": 0.004, "schedule": "cosine", "epochs": 4, "redraws": 0}
    whole = evolve(start, "digits", settings=short(**settings), run_dir=tmp_path / "whole", engine="artifacts")
    killed("training", 9, tmp_path / "run", engine="artifacts", **settings)
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "best.onnx").read_bytes() == (whole.run / "best.onnx").read_bytes()


def test_resuming_a_finished_run_changes_nothing(undisturbed):
    evolved, _ = undisturbed
    before = (evolved.run / "best.onnx").read_bytes()
    assert resume(evolved.run).test == evolved.test
    assert (evolved.run / "best.onnx").read_bytes() == before


def test_a_run_is_worked_on_by_one_process_at_a_time(undisturbed):
    evolved, _ = undisturbed
    with (
        RunDirectory.open(evolved.run).exclusive(),
        pytest.raises(RunError, match="another process is working on this run"),
    ):
        resume(evolved.run)
    assert resume(evolved.run).test == evolved.test


@needs_training
def test_the_artifacts_engine_keeps_its_files_and_resumes_to_the_same_bytes(start, tmp_path):
    settings = short(epochs=4, redraws=0)
    whole = evolve(start, "digits", settings=settings, run_dir=tmp_path / "whole", engine="artifacts", workers=1)
    folders = sorted(whole.run.glob("branches/*.artifacts"))
    assert len(folders) == len(list(whole.run.glob("branches/*.onnx"))) - 1
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "training_model.onnx",
            "eval_model.onnx",
            "optimizer_model.onnx",
            "checkpoint",
        }
    other = evolve(start, "digits", settings=settings, run_dir=tmp_path / "other", engine="artifacts", workers=4)
    assert (other.run / "best.onnx").read_bytes() == (whole.run / "best.onnx").read_bytes()
    loop = evolve(start, "digits", settings=settings, run_dir=tmp_path / "loop", engine="loop")
    assert loop.network.topology == whole.network.topology
    assert loop.test.accuracy == pytest.approx(whole.test.accuracy, abs=0.02)


def test_the_paper_preset_validates_on_the_test_split(start, tmp_path):
    settings = SurgeonSettings.from_preset("paper", epochs=4, initial_epochs=2, epoch_step=2, learning_rate=0.05)
    assert (settings.widen, settings.rank_bound, settings.pick) == ("equal", False, "best-score")
    evolved = evolve(start, "digits", settings=settings, run_dir=tmp_path / "run")
    assert evolved.validation_accuracy == evolved.test.accuracy


def test_the_papers_preset_is_its_appendix():
    paper = SurgeonSettings.from_preset("paper")
    assert (paper.epochs, paper.initial_epochs, paper.epoch_step) == (100, 10, 10)
    assert (paper.branches, paper.redraws, paper.recuperation_batches) == (2, 2, 25)
    assert (paper.singular_relative, paper.singular_absolute) == (0.005, 0.3)
    assert (paper.learning_rate, paper.batch_size, paper.optimizer) == (0.005, 16, "sgd")
    assert (paper.selection, paper.random_draw, paper.step_back) == ("best-of-each", True, True)
    multipliers = {"identity": 1, "widen": 1, "insert_identity": 10, "narrow": 10, "merge": 10, "factorize": 1}
    assert multipliers == {"identity": 1} | {kind.operation: kind.recuperation for kind in PROPOSED}


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": "top-n", "top_n": 3},
        {"selection": "random-walk"},
        {"step_back": False},
        {"initial_epochs": 0},
        {"widen": "fresh", "branches": 3},
        {"recuperation_batches": 1000},
        {"epochs": 3, "initial_epochs": 10},
        {"batch_size": 100_000},
    ],
    ids=str,
)
def test_other_settings(start, changes, tmp_path):
    events = []
    settings = short(**{"epochs": 6, **changes})
    evolved = evolve(start, "digits", settings=settings, run_dir=tmp_path / "run", callbacks=events.append)
    assert of(events, "decided")[-1]["epoch"] == settings.epochs
    best = load(evolved.run / "best.onnx")
    assert (best.topology, best.parameter_count) == (evolved.network.topology, evolved.after.parameters)
    if settings.selection == "random-walk":
        assert all(len(e["branches"]) == 1 for e in of(events, "decided"))
        assert len(of(events, "proposed")) == 2
    if settings.selection == "top-n":
        assert {len([e for e in of(events, "proposed") if (e["epoch"], e["draw"]) == (2, 0)])} == {3}
    if not settings.step_back:
        assert {e["draw"] for e in of(events, "proposed")} == {0}


def test_a_model_without_hidden_layers_is_only_trained(tmp_path):
    save(create((64, 10), input_shape=(8, 8)), tmp_path / "linear.onnx")
    events = []
    evolve(tmp_path / "linear.onnx", "digits", settings=SHORT, run_dir=tmp_path / "run", callbacks=events.append)
    assert {event["surgery"] for event in of(events, "proposed")} == {"identity"}


def test_limits_end_a_run_at_a_decision_point(start, tmp_path):
    for name, changes, epochs in (
        ("target", {"target_accuracy": 0.3}, 2),
        ("time", {"time_limit": 1e-9}, 0),
        ("patience", {"patience": 1, "learning_rate": 1e-9}, 2),
    ):
        events = []
        settings = short(epochs=50, **changes)
        evolved = evolve(start, "digits", settings=settings, run_dir=tmp_path / name, callbacks=events.append)
        checkpoints = of(events, "started", "decided")
        assert checkpoints[-1]["epoch"] == epochs, name
        assert (evolved.run / "best.onnx").is_file()


def test_a_good_model_is_never_returned_worse(tmp_path, digits):
    exported = MODELS / "export-torch-legacy.onnx"
    settings = short(epochs=4, learning_rate=0.3)
    evolved = evolve(exported, "digits", settings=settings, run_dir=tmp_path / "run")
    net = load(exported)
    start = make_engine("loop").evaluate(net, prepare(net, digits, digits.hold_out()[1]))
    assert evolved.validation_accuracy >= start.accuracy


@pytest.mark.parametrize("path", sorted(MODELS.glob("export-*.onnx")), ids=lambda path: path.stem)
def test_every_export_evolves_and_keeps_its_interface(path, tmp_path):
    evolved = evolve(path, "digits", settings=short(epochs=4), run_dir=tmp_path / "run", options=InputOptions())
    best, given = onnx.load(evolved.run / "best.onnx"), onnx.load(path)
    assert describe(best)["inputs"] == describe(given)["inputs"]
    assert describe(best)["outputs"] == describe(given)["outputs"]
    assert describe(best)["opsets"] == describe(given)["opsets"]
    assert evolved.test.accuracy > 0.95


def test_what_is_wrong_with_the_test_split_is_told_at_the_start(start, tmp_path):
    x, y = np.zeros((60, 64), "f"), np.arange(60) % 10
    np.savez(tmp_path / "bad.npz", x_train=x, y_train=y, x_test=x[:3], y_test=np.array([0, 1, 12]))
    with pytest.raises(DataError, match="label 12 in row 2 is outside the 10 classes"):
        evolve(start, str(tmp_path / "bad.npz"), settings=SHORT, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_diverging_training_is_told(start, tmp_path):
    with pytest.raises(EngineError, match=r"training diverged: .*try a smaller --learning-rate"):
        evolve(start, "digits", settings=short(learning_rate=1e30), run_dir=tmp_path / "run")


def test_run_directories(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = short(epochs=1, initial_epochs=1)
    runs = [evolve(start, "digits", settings=settings, out="out.onnx", overwrite=True).run for _ in range(2)]
    assert [str(run) for run in runs] == ["runs/start-digits-1", "runs/start-digits-2"]
    assert (tmp_path / "out.onnx").read_bytes() == (runs[1] / "best.onnx").read_bytes()
    with pytest.raises(RunError, match="exists already"):
        evolve(start, "digits", settings=settings, run_dir=runs[0])


def test_resume_refuses_what_it_cannot_trust(start, tmp_path):
    with pytest.raises(RunError, match=r"not a run directory: no settings\.json in it"):
        resume(tmp_path)
    run = evolve(start, "digits", settings=short(epochs=2), run_dir=tmp_path / "run").run
    kept = read_branch(run / "best.onnx")
    bytes_kept = (run / "branches" / kept.file_name).read_bytes()
    (run / "branches" / kept.file_name).write_bytes(start.read_bytes())
    with pytest.raises(RunError, match="was changed since the run wrote it"):
        resume(run)
    settings = json.loads((run / "settings.json").read_text())
    digest, settings["data"]["digest"] = settings["data"]["digest"], "0" * 64
    (run / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match="its contents differ"):
        resume(run)
    settings["data"]["digest"] = digest
    settings["versions"]["numpy"] = "1.0"
    (run / "branches" / kept.file_name).write_bytes(bytes_kept)
    (run / "settings.json").write_text(json.dumps(settings))
    events = []
    resume(run, callbacks=events.append)
    assert of(events, "run")[0]["other_versions"] == ["numpy 1.0"]
    del settings["data"]
    (run / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match="lacks or misnames an entry: 'data'"):
        resume(run)
    (run / "settings.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        resume(run)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 0}, "epochs: 0 is too small: expected at least 1"),
        ({"learning_rate": float("nan")}, "learning-rate: nan is no positive step size"),
        ({"learning_rate": 0.0}, "no positive step size"),
        ({"selection": "best"}, "selection: 'best' is unknown"),
        ({"widen": "twice"}, "widen: 'twice' is unknown: expected one of split, equal, fresh"),
        ({"singular_absolute": float("nan")}, "singular-absolute: nan is too small"),
        ({"warmup": 200.0}, "warmup: 200.0 epochs is not at least 0 and shorter than the run of 100"),
        ({"optimizer": "adam"}, "optimizer: 'adam' is unknown: expected one of sgd, momentum, nesterov, adamw"),
        ({"colour": 1}, "unknown setting 'colour'"),
    ],
)
def test_settings_are_checked(changes, reason):
    with pytest.raises(SettingsError, match=reason):
        SurgeonSettings.from_preset("corrected", **changes)
    with pytest.raises(SettingsError, match="preset: 'best' is unknown"):
        SurgeonSettings.from_preset("best")


def test_random_generators_are_keyed_by_what_they_are_for():
    draws = {(p, k): generator(1, p, *k).random() for p in ("batches", "surgery") for k in ((0,), (1,), (0, 0))}
    assert len(set(draws.values())) == len(draws)
    assert generator(1, "surgery", 3).random() == generator(1, "surgery", 3).random()
    assert generator(2, "surgery", 3).random() != generator(1, "surgery", 3).random()


def test_engine_choice_is_recorded(undisturbed):
    record = json.loads((undisturbed[0].run / "settings.json").read_text())
    assert (record["engine"], record["device"]) == ("loop", "cpu")
    assert have_training() == ("onnxruntime-training-cpu" in record["versions"])
