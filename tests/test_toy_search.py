"""A search of one's own is a class: evolve, resume, report, diff and the terminal work with it."""

from dataclasses import replace
from typing import ClassVar

import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, diff, evolve, read_run, resume
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.runs.checkpoint import DONE
from onnxsurgeon.surgeon.evolve import SEARCHES, Surgeon, register
from onnxsurgeon.surgery import Widen
from tests.conftest import branch_digests, start_model


@pytest.fixture(autouse=True)
def toy():
    """Every second epoch the first hidden layer gets a unit more; the most accurate network is the result."""

    @register
    class Toy(Surgeon):
        name: ClassVar[str] = "toy"

        def advance(self, state):
            (branch,) = state.branches
            if state.epoch % 2:
                count = branch.network.parameter_count
                wider = Candidate(Widen(1, 1), 1.0, count, "a unit more", branch.number)
                branch = next(made for _, _, made in self.operated(state, [wider]))
            if state.epoch + 1 == self.settings.epochs:
                state.search = replace(state.search, phase=DONE)
            return self.train_on(state, [branch], 1, what="the network"), 1

        def result(self, state):
            return max([state.best, *state.branches], key=lambda branch: (branch.accuracy, -branch.number))

    yield Toy
    del SEARCHES["toy"]


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


def test_searches_that_are_unknown_or_do_not_fit_are_refused(tmp_path):
    model = start_model(tmp_path)
    for name, reason in (
        ("none", r"^search: 'none' is unknown: expected one of auto, .*toy"),
        ("algorithm1", "together"),
    ):
        wanted = SurgeonSettings.from_preset(search=name, epochs=2)
        with pytest.raises(SettingsError, match=reason):
            evolve(model, "digits", settings=wanted, run_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists()
