"""Names that settings had before: read once more, with a remark; what is wanted and how it is sought are two things."""

import json
from dataclasses import fields

import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, evolve, resume
from onnxsurgeon.report.invocation import read_invocation
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.renamed import RENAMED
from tests.conftest import MODELS, branch_digests

SMALL = str(MODELS / "digits-small.onnx")
QUICK = {"epochs": 2, "initial_epochs": 1, "epoch_step": 1, "recuperation_batches": 2, "seed": 6}
OPTIONS = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_old_names_are_no_fields_and_new_ones_are():
    known = {field.name for field in fields(SurgeonSettings)}
    assert not set(RENAMED) & known
    assert set(RENAMED.values()) <= known


@pytest.mark.parametrize(
    ("old", "new", "remark"),
    [
        ({"memory": False}, {"step_back": False}, "--memory is called --step-back now"),
        ({"result": "best-score"}, {"pick": "best-score"}, "--result is called --pick now"),
        ({"validation": "test"}, {"decide_by": "test"}, "--validation is called --decide-by now"),
        ({"epsilon_relative": 0.1}, {"singular_relative": 0.1}, "--epsilon-relative is called --singular-relative"),
        ({"objective": "paper"}, {"search": "algorithm1"}, "--objective paper is called --search algorithm1 now"),
    ],
)
def test_an_old_name_is_read_with_a_remark(old, new, remark):
    with pytest.warns(FutureWarning, match=remark):
        found = SurgeonSettings.from_preset("corrected", **old)
    assert found == SurgeonSettings.from_preset("corrected", **new)


def test_the_command_line_reads_old_names_with_a_line_and_comes_to_the_same(cli, tmp_path):
    command = ("evolve", SMALL, "--data", "digits", *OPTIONS, "--widen", "split")
    code, _, err = cli(*command, "--objective", "paper", "--no-memory", "--warmup", "0", "--run-dir", "old", "--json")
    assert code == 0
    assert err.splitlines()[:2] == [
        "--memory is called --step-back now; the old name is refused in the next version",
        "--objective paper is called --search algorithm1 now; the old name is refused in the next version",
    ]
    assert cli(*command, "--search", "algorithm1", "--no-step-back", "--warmup", "0", "--run-dir", "new")[0] == 0
    assert branch_digests(tmp_path / "old") == branch_digests(tmp_path / "new")
    settings = json.loads((tmp_path / "old" / "settings.json").read_text())["settings"]
    assert (settings["search"], settings["objective"], settings["step_back"]) == ("algorithm1", "accuracy", False)
    _, out, _ = cli("evolve", "--help-all")
    assert not any(f"--{old.replace('_', '-')} " in out for old in RENAMED)


def test_a_run_that_was_recorded_by_old_names_goes_on_and_is_reported(tmp_path):
    settings = SurgeonSettings.from_preset("paper", **QUICK, step_back=False)
    done = evolve(SMALL, "digits", settings=settings, run_dir=tmp_path / "run", workers=1)
    before = branch_digests(done.run)
    path = done.run / "settings.json"
    record = json.loads(path.read_text())
    values = record["settings"]
    for old, new in RENAMED.items():
        values[old] = values.pop(new)
    values["objective"] = "paper"
    del values["search"]  # as in runs of before there were searches to choose from
    path.write_text(json.dumps(record))
    command = read_invocation(RunDirectory.open(done.run)).command
    assert "--no-step-back" in command
    assert "--objective" not in command
    assert branch_digests(resume(done.run, from_checkpoint=0, workers=1).run) == before


def test_runs_of_before_there_were_other_searches_are_of_algorithm_1():
    assert SurgeonSettings.from_record({"preset": "default"}).search == "algorithm1"
    assert SurgeonSettings.from_record({"preset": "default", "objective": "paper"}).search == "algorithm1"
    assert SurgeonSettings.from_record({"objective": "pareto", "widen": "gradient"}).search == "auto"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"memory": False, "step_back": True}, "memory: is called step-back now: give one of them"),
        (
            {"objective": "paper", "search": "shrink-trained"},
            "objective: paper is --search algorithm1 now",
        ),
        (
            {"preset": "corrected", "objective": "pareto"},
            "objective: Algorithm 1 .* looks for no front",
        ),
        ({"search": "algorithm1"}, "widen: gradient is not one of Algorithm 1's: .*; --preset corrected sets all"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, reason):
    with pytest.raises(SettingsError, match=f"^{reason}"):
        SurgeonSettings.from_preset(**settings)
