"""``--resume RUN --epochs N``: a run goes on for longer than it was made for, and its journal tells so."""

import json

import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, evolve, read_run, resume
from onnxsurgeon.report.invocation import read_invocation
from onnxsurgeon.runs.journal import RunDirectory
from tests.conftest import MODELS, branch_digests, start_model

ALGORITHM_1 = {"preset": "corrected", "epochs": 3, "initial_epochs": 1, "epoch_step": 1, "recuperation_batches": 2}
RUNS = {
    "algorithm1": ALGORITHM_1,
    "no wish": {"epochs": 8},
    "too short for less": {"epochs": 4},
    "limit": {"epochs": 8, "max_parameters": 900},
    "ensemble": {"epochs": 6, "ensemble": 2},
    "pareto": {"epochs": 8, "objective": "pareto"},
    "trained": {"epochs": 8, "start": "trained", "shrink": 2},
    "trained, no wish": {"epochs": 8, "start": "trained"},
}


def settings(changes):
    return SurgeonSettings.from_preset(**{"preset": "default", "seed": 4, **changes})


def journal(run):
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def stopping(kind, epoch=0):
    def stop(event):
        if event["event"] == kind and event["epoch"] > epoch:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_a_run_that_had_ended_goes_on_and_ends_in_the_same_bytes_after_a_kill(changes, tmp_path):
    model = start_model(tmp_path)
    for name in ("whole", "killed"):
        evolve(model, "digits", settings=settings(changes), run_dir=tmp_path / name, workers=1)
    longer = changes["epochs"] + 6
    done = resume(tmp_path / "whole", epochs=longer, workers=1)
    events = journal(done.run)
    (extended,) = [event for event in events if event["event"] == "extended"]
    assert (extended["epoch"] <= changes["epochs"], extended["run_epochs"]) == (True, longer)
    decided = [event["epoch"] for event in events if event["event"] == "decided"]
    assert max(decided) <= longer
    if changes.get("start") != "trained":  # which may find nothing more to do
        assert max(decided) > changes["epochs"]
    before = max(event["best_accuracy"] for event in events[: events.index(extended)] if event["event"] == "decided")
    if changes in (RUNS["algorithm1"], RUNS["no wish"]):
        assert done.validation_accuracy >= before - 0.02
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "killed", epochs=longer, workers=1, callbacks=stopping("decided", extended["epoch"] - 1))
    again = resume(tmp_path / "killed", workers=2)  # its length is not given again
    assert branch_digests(again.run) == branch_digests(done.run)
    assert read_run(again.run).damaged == ()
    read_invocation(RunDirectory.open(again.run))


def test_a_killed_run_becomes_longer_and_once_more(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        evolve(
            start_model(tmp_path),
            "digits",
            settings=settings(ALGORITHM_1),
            run_dir=tmp_path / "run",
            workers=1,
            callbacks=stopping("decided", 1),
        )
    resume(tmp_path / "run", epochs=4, workers=1)
    resume(tmp_path / "run", epochs=6, workers=1)
    events = journal(tmp_path / "run")
    assert [event["run_epochs"] for event in events if event["event"] == "extended"] == [4, 6]
    assert [event["epoch"] for event in events if event["event"] == "decided"] == [1, 2, 3, 4, 5, 6]
    line = next(number for number, event in enumerate(events, 1) if event["event"] == "decided")
    resume(tmp_path / "run", from_checkpoint=line, workers=1)  # from before it became longer
    assert max(event["epoch"] for event in journal(tmp_path / "run") if event["event"] == "decided") == 3


def test_the_command_line(cli, tmp_path):
    small = str(MODELS / "digits-small.onnx")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in ALGORITHM_1.items()]
    assert cli("evolve", small, "--data", "digits", *options, "--run-dir", "run", "-q")[0] == 0
    code, out, err = cli("evolve", "--resume", "run", "--epochs", "5")
    assert (code, err) == (0, "")
    assert "epoch   3: goes on to epoch 5" in out
    assert "epoch   5: keep" in out
    code, out, err = cli("evolve", "--resume", "run", "--epochs", "5")
    reason = "epochs: 5: the run has 5; with --resume, expected more than these"
    assert (code, out, err) == (2, "", f"onnxsurgeon: {reason}\n")
    code, _, err = cli("evolve", "--resume", "run", "--epochs", "9", "--seed", "1")
    assert (code, err) == (2, "onnxsurgeon: --resume takes model, data and settings from the run: give none of them\n")


def test_a_run_cannot_become_shorter(tmp_path):
    run = evolve(
        start_model(tmp_path), "digits", settings=settings(ALGORITHM_1), run_dir=tmp_path / "run", workers=1
    ).run
    with pytest.raises(SettingsError, match="epochs: 2: the run has 3"):
        resume(run, epochs=2)
