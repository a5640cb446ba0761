"""A search of one's own is a class: evolve, resume, report, diff and the terminal work with it."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, diff, evolve, read_run, resume
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.report.invocation import read_invocation
from onnxsurgeon.runs.checkpoint import DONE
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.fields import OwnSettings, Range
from onnxsurgeon.surgeon.registry import register, unregister
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgery import Widen
from onnxsurgeon.training.settings import setting
from tests.conftest import branch_digests, start_model


@pytest.fixture(autouse=True)
def toy():
    """Every second epoch the first hidden layer gets a unit more; the most accurate network is the result."""

    @dataclass(frozen=True)
    class ToySettings(OwnSettings):
        every: int = setting(2, "Epochs from one unit to the next.", range=Range(1))
        at_once: str = setting("one", "How many.", choices=("one", "two"), is_expert=True)

    @register
    class Toy(Surgeon):
        name: ClassVar[str] = "toy"
        settings_type: ClassVar[type] = ToySettings

        def advance(self, state):
            (branch,) = state.branches
            if state.epoch % self.own.every:
                count = branch.network.parameter_count
                units = {"one": 1, "two": 2}[self.own.at_once]
                wider = Candidate(Widen(1, units), 1.0, count, "a unit more", branch.number)
                branch = next(made for _, _, made in self.operated(state, [wider]))
            if state.epoch + 1 == self.settings.epochs:
                state.search = replace(state.search, phase=DONE)
            return self.train_on(state, [branch], 1, what="the network"), 1

        def result(self, state):
            return max([state.best, *state.branches], key=lambda branch: (branch.accuracy, -branch.number))

    yield Toy
    unregister("toy")


def settings(**changes):
    return SurgeonSettings.from_preset(search="toy", epochs=6, seed=3, **changes)


@pytest.fixture
def done(tmp_path):
    return evolve(start_model(tmp_path), "digits", settings=settings(), run_dir=tmp_path / "run", workers=1)


def test_it_evolves_and_tells(done):
    widths = [event["topology"] for event in read_run(done.run).history]
    assert widths[0] == "64-20-10-10"
    assert widths[-1] == "64-23-10-10"
    assert done.validation_accuracy == max(row["accuracy"] for row in read_run(done.run).history)


def test_it_is_resumed_to_the_same_bytes(done, tmp_path):
    def stop(event):
        if event["event"] == "decided" and event["epoch"] == 3:
            raise KeyboardInterrupt

    model = start_model(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evolve(model, "digits", settings=settings(), run_dir=tmp_path / "killed", workers=1, callbacks=stop)
    again = resume(tmp_path / "killed", workers=2)
    assert branch_digests(again.run) == branch_digests(done.run)


def test_its_run_is_compared_and_reported(done, tmp_path):
    pytest.importorskip("matplotlib")
    from onnxsurgeon.report import write_report

    found = diff(done.run / "branches" / "0000-start.onnx", done.run)
    assert found.done == tuple(done.branch.lineage)
    assert done.network.topology in write_report(done.run).read_text()


def test_a_search_that_is_unknown_is_refused(tmp_path):
    model = start_model(tmp_path)
    wanted = SurgeonSettings.from_preset(search="none", epochs=2)
    with pytest.raises(SettingsError, match=r"^search: 'none' is unknown: expected one of auto, .*toy"):
        evolve(model, "digits", settings=wanted, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_its_own_settings_are_options_of_evolve_under_its_name(cli, tmp_path):
    start_model(tmp_path)
    _, out, _ = cli("evolve", "--help")
    assert "[auto|grow-and-shrink|shrink-trained|algorithm1|toy]" in "".join(out.split())
    heading, option = out.split("Search toy:\n")[1].splitlines()[:2]
    assert " ".join(heading.split()) == "--every N Epochs from one unit to the next. [default: 2]"
    assert option == ""
    assert "--at-once [one|two]" in cli("evolve", "--help-all")[1]
    command = ("evolve", "start.onnx", "--data", "digits", "--search", "toy", "--epochs", "4", "-q")
    assert cli(*command, "--every", "3", "--at-once", "two", "--run-dir", "run")[0] == 0
    widths = [event["topology"] for event in read_run(tmp_path / "run").history]
    assert widths[-1] == "64-24-10-10"  # two units in the epochs 1 and 2, of those whose remainder by three is not 0
    record = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert (record["every"], record["at_once"]) == (3, "two")
    assert "--every 3" in read_invocation(RunDirectory.open(tmp_path / "run")).command
    again = resume(tmp_path / "run", from_checkpoint=0, workers=1)
    assert [event["topology"] for event in read_run(again.run).history] == widths


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--search", "toy", "--every", "0"), "every: 0 is too small: expected at least 1"),
        (
            ("--search", "toy", "--at-once", "tow"),
            "at-once: 'tow' is unknown: expected one of one, two: did you mean 'two'?",
        ),
        (("--search", "algorithm1", "--every", "3"), "every: is for --search toy"),
        (("--every", "3"), "every: is for --search toy"),
    ],
)
def test_its_settings_are_checked_by_what_they_say_of_themselves(options, reason, cli, tmp_path):
    start_model(tmp_path)
    code, out, err = cli("evolve", "start.onnx", "--data", "digits", *options)
    assert (code, out, err) == (2, "", f"onnxsurgeon: {reason}\n")
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_is_called_as_another_is_refused():
    @dataclass(frozen=True)
    class Clash(OwnSettings):
        epochs: int = setting(2, "Not this one.")

    with pytest.raises(SettingsError, match=r"^search clash: its setting 'epochs' is one of every search$"):
        register(type("Clash", (Surgeon,), {"name": "clash", "settings_type": Clash}))


def test_a_run_of_a_search_that_is_not_there_is_refused(done):
    unregister("toy")
    try:
        with pytest.raises(SettingsError, match="search: 'toy' is unknown"):
            resume(done.run)
    finally:
        register(type("Toy", (Surgeon,), {"name": "toy"}))  # for the fixture to take away
