"""Callbacks: every event as documented, errors of the user's, and stopping early."""

import inspect
import re
from dataclasses import replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import onnx
import pytest

from onnxsurgeon import StopRun, SurgeonSettings, evolve, resume
from onnxsurgeon.runs.events import EVENTS
from onnxsurgeon.runs.journal import RunDirectory
from tests.actors import actor
from tests.conftest import start_model
from tests.killed_run import SETTINGS

SHORT = SurgeonSettings.from_preset("corrected", **SETTINGS)


def run(folder, name="run", callbacks=(), **changes):
    settings = replace(SHORT, **changes)
    return evolve(start_model(folder), "digits", settings=settings, run_dir=folder / name, callbacks=callbacks)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Those of a run that drops branches for every reason it can, by an optimizer that has a state, and is resumed.

    And of one along the front, one that does not find what it is asked for, one that nothing limits, one that begins
    with a network that is said to be trained, and one of two heads; two of them go on for longer.
    """
    folder, found = tmp_path_factory.mktemp("events"), []
    run(folder, callbacks=found.append, optimizer="adamw", learning_rate=0.02)
    run(folder, name="plain", callbacks=found.append)
    resume(folder / "run", callbacks=found.append)
    resume(folder / "run", epochs=found[0]["settings"]["epochs"] + 1, callbacks=found.append)
    for name, wishes in (("front", {"objective": "pareto"}), ("short", {"min_accuracy": 1.0})):
        wanted = SurgeonSettings.from_preset(epochs=6, shrink_step=1, **wishes)
        evolve(start_model(folder), "digits", settings=wanted, run_dir=folder / name, callbacks=found.append)
    wanted = SurgeonSettings.from_preset(epochs=4, ensemble=2)
    evolve(start_model(folder), "digits", settings=wanted, run_dir=folder / "free", callbacks=found.append)
    resume(folder / "free", epochs=6, callbacks=found.append)
    wanted = SurgeonSettings.from_preset(epochs=5, start="trained", shrink=2)
    evolve(start_model(folder), "digits", settings=wanted, run_dir=folder / "trained", callbacks=found.append)
    onnx.save(actor(), folder / "heads.onnx")
    x, wanted = np.random.default_rng(0).standard_normal((200, 6)).astype("f"), SurgeonSettings.from_preset(epochs=1)
    np.savez(folder / "rows.npz", x=x, y=np.concatenate([x[:, :3], x[:, :1]], axis=1))
    rows = str(folder / "rows.npz")
    evolve(folder / "heads.onnx", rows, settings=wanted, run_dir=folder / "heads", callbacks=found.append)
    return found


def fits(value, hint):
    """Whether a value is of the type that is documented; an int is a float as well, as for mypy."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        return set(value) == set(hints) and all(fits(each, hints[key]) for key, each in value.items())
    if hint is Any:
        return True
    if origin is list:
        return isinstance(value, list) and all(fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if hint is None:
        return isinstance(value, NoneType)
    return type(value) in ((int, float) if hint is float else (hint,))


def test_every_event_has_the_fields_that_are_documented(events):
    assert {event["event"] for event in events} == set(EVENTS)
    for event in events:
        documented = EVENTS[event["event"]]
        assert documented.__required_keys__ <= set(event) <= set(documented.__annotations__), event["event"]
        hints = get_type_hints(documented)
        for key, value in event.items():
            assert fits(value, hints[key]), (event["event"], key, value)


def test_every_field_that_may_be_there_was_there(events):
    for kind, documented in EVENTS.items():
        seen = {key for event in events if EVENTS[event["event"]] is documented for key in event}
        assert seen == set(documented.__annotations__), kind


@pytest.mark.parametrize("kind", EVENTS)
def test_every_field_is_described(kind):
    documented = EVENTS[kind]
    assert is_typeddict(documented)
    described = re.findall(r"^    (\w+): ", inspect.getdoc(documented).partition("Attributes:")[2], re.MULTILINE)
    assert described == list(documented.__annotations__)


def test_several_callbacks_are_called_in_order(tmp_path):
    order, first = [], []

    def second(event):
        order.append(("second", event["event"]))

    run(tmp_path, callbacks=[lambda event: (first.append(event), order.append(("first", event["event"]))), second])
    assert order == [(name, event["event"]) for event in first for name in ("first", "second")]
    journal = RunDirectory.open(tmp_path / "run").read_journal()
    assert first[0]["event"] == "run"
    assert first[1:] == journal


@pytest.mark.parametrize("kind", ["run", "started", "proposed", "recuperated", "decided", "finished"])
def test_what_a_callback_raises_ends_a_run_that_can_be_resumed(tmp_path, undisturbed, kind):
    class OwnError(Exception):
        pass

    def fail(event):
        if event["event"] == kind:
            raise OwnError("mine")

    with pytest.raises(OwnError, match="mine"):
        run(tmp_path, callbacks=fail)
    resumed = resume(tmp_path / "run")
    assert (tmp_path / "run" / "best.onnx").read_bytes() == (undisturbed.run / "best.onnx").read_bytes()
    assert resumed.test == undisturbed.test


@pytest.mark.parametrize(("kind", "epochs"), [("run", [0]), ("proposed", [0, 2, 4]), ("decided", [0, 2])])
def test_a_run_is_stopped_at_its_next_decision_point_and_goes_on_when_resumed(tmp_path, undisturbed, kind, epochs):
    later = []

    def stop(event):
        if event["event"] == kind:
            raise StopRun

    stopped = run(tmp_path, callbacks=[stop, later.append])
    assert [event["epoch"] for event in later if event["event"] in ("started", "decided")] == epochs
    assert later[-1]["event"] == "finished"
    assert later[-1]["test_accuracy"] == stopped.test.accuracy
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "best.onnx").read_bytes() == (undisturbed.run / "best.onnx").read_bytes()
