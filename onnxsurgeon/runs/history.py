"""The contents of a run's journal, as plain rows.

A resumption needs a state that it can trust, but a report shows whatever can be read: a damaged line is left out and
counted, and its branches are shown with what other lines tell of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from onnxsurgeon.errors import OnnxSurgeonError
from onnxsurgeon.runs import events
from onnxsurgeon.runs.branch import RECUPERATED, START, TRAINED, read_branch
from onnxsurgeon.runs.checked import event_of, read_lines
from onnxsurgeon.runs.damage import why_damaged
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.family import Decision, Finish, History, LayerSpectra, Member, Point, Spectrum
from onnxsurgeon.runs.footprint import Footprint
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.predictions import read_predictions

_FRONT_FILE = re.compile(r"front/\d+(-\d+)?\.onnx")
_FILE_NAME = re.compile(r"(\d{4,})-[a-z_]+\.onnx")


def read_history(run: RunDirectory) -> History:
    """Read the history of ``run``; whatever is damaged is left out."""
    lines = read_lines(run.journal)
    history = History(damaged=list(lines.damaged), cut_off=lines.cut_off)
    for line, record in lines.records:
        try:
            _enter(history, event_of(record))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            history.damaged.append(line)
            continue
        if why_damaged(record):  # the page does not need it, but a run would not go on from it
            history.damaged.append(line)
    history.damaged.sort()
    _complete(history, run.branches)
    return history


def _enter(history: History, event: events.Event) -> None:
    """Enter one event; where it cannot be read, nothing is changed."""
    if event["event"] == "started" or event["event"] == "decided":
        _decide(history, event)
    elif event["event"] == "proposed":
        _propose(history, event)
    elif event["event"] == "recuperated" or event["event"] == "trained":
        _measure(history, event)
    elif event["event"] == "operated":
        _update(history, event["branch"], operated=_operated(event))
    elif event["event"] == "dropped":
        _update(history, event["branch"], dropped=event["reason"])
    elif event["event"] == "finished":
        history.finish = _finish(event)


def _finish(event: events.Finished) -> Finish:
    """The result of the run; runs recorded before an entry existed lack it."""
    return Finish(
        event["branch"],
        event["topology"],
        event["parameters"],
        tuple(event["surgeries"]),
        event["validation_accuracy"],
        event["test_accuracy"],
        event["start_test_accuracy"],
        read_predictions(event.get("predictions", ())),
        (_footprint(event["before"]), _footprint(event["after"])) if "before" in event else None,
        event.get("is_worse", False),
        tuple(event.get("remarks", ())),
        event.get("shortfall", ""),
        tuple(map(_front, event.get("front", ()))),
        tuple(map(_head, event.get("heads", ()))),
    )


def _head(head: events.HeadResult) -> events.HeadResult:
    """One of several heads; each entry is checked as it is read."""
    return events.HeadResult(
        head=head["head"],
        metric=head["metric"],
        test_accuracy=head["test_accuracy"],
        test_loss=head["test_loss"],
        start_test_accuracy=head["start_test_accuracy"],
    )


def _front(model: events.FrontModel) -> Entry:
    """A model of RUN/front.

    ValueError where its file is none there, since a stranger's journal must not lead elsewhere.
    """
    if not _FRONT_FILE.fullmatch(model["file"]):
        raise ValueError(model["file"])
    return Entry(
        model["branch"],
        model["file"],
        model["digest"],
        model["topology"],
        model["accuracy"],
        model["loss"],
        model["parameters"],
        model["size"],
        model.get("latency"),
        model.get("multiplications"),
        model.get("memory"),
    )


def _decide(history: History, event: events.Checkpoint) -> None:
    decision = Decision(
        float(event["epoch"]),
        tuple(event["branches"]),
        tuple(event["topologies"]),
        event["best"],
        event["best_accuracy"],
        event["steps"],
        event["seconds"],
        event["training_seconds"],
    )
    if not decision.kept or len(decision.topologies) != len(decision.kept):
        raise ValueError("not one topology a branch")
    history.decisions.append(decision)
    if event["event"] == "started":
        point = Point(decision.epoch, TRAINED, decision.best_accuracy)
        _update(history, decision.best, surgery=START, topology=decision.topologies[0], points=(point,))


def _footprint(costs: events.Costs) -> Footprint:
    return Footprint(
        costs["parameters"], costs["size"], costs["latency"], costs.get("multiplications"), costs.get("memory")
    )


def _propose(history: History, event: events.Proposed) -> None:
    _update(
        history,
        event["branch"],
        parent=event["parent"],
        surgery=event["surgery"],
        epoch=float(event["epoch"]),
        draw=event["draw"],
        proposal=event["score"],
        parameters=event["parameters"],
        reason=event["reason"],
    )


def _measure(history: History, event: events.Measured) -> None:
    branch = event["branch"]
    loss = None
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a loss may have become infinite
        loss = event["loss"]
    point = Point(event["epoch"], event["event"], event["accuracy"], loss)
    known = history.members.get(branch)
    _update(
        history,
        branch,
        parent=event["parent"],
        surgery=event["surgery"],
        topology=event["topology"],
        parameters=event["parameters"],
        gain=event["gain"],
        score=event["score"],
        # A branch that was trained on without surgery was not proposed before.
        epoch=known.epoch if known else max((each.epoch for each in history.decisions), default=0.0),
        points=(*(known.points if known else ()), point),
    )


def _operated(event: events.Operated) -> LayerSpectra:
    after = tuple(None if each is None else _spectrum(each) for each in event["after"])
    return LayerSpectra(event["layer"], None if event["before"] is None else _spectrum(event["before"]), after)


def _spectrum(found: events.Spectrum) -> Spectrum:
    values = tuple(found["values"])
    if not values or found["count"] < len(values):
        raise ValueError("fewer singular values than are told")
    return Spectrum(found["count"], values)


def _update(history: History, branch: int, **changes: object) -> None:
    member = history.members.get(branch) or Member(branch)
    history.members[branch] = replace(member, **changes)  # type: ignore[arg-type]


def _complete(history: History, folder: Path) -> None:
    """Add what single events do not tell: which branches were kept, their files, the given model's size."""
    kept = {branch for decision in history.decisions for branch in decision.kept}
    parents = {member.parent for member in history.members.values()}
    files = _branch_files(folder)
    history.members = {
        branch: replace(history.members[branch], kept=branch in kept or branch in parents, file=files.get(branch, ""))
        for branch in sorted(history.members)
    }
    given = history.members.get(0)
    if given is not None and given.file:
        with contextlib.suppress(OnnxSurgeonError):  # the page then lacks only this figure
            history.members[0] = replace(given, parameters=read_branch(folder / given.file).network.parameter_count)


def _branch_files(folder: Path) -> dict[int, str]:
    names: Iterable[str] = (path.name for path in folder.iterdir() if path.is_file())
    return {int(found[1]): name for name in names if (found := _FILE_NAME.fullmatch(name))}


__all__ = ["RECUPERATED", "TRAINED", "Decision", "Finish", "History", "Member", "Point", "read_history"]
