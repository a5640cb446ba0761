"""What a run's journal tells, as plain rows.

Unlike a resumption, which needs a state it can trust, a report shows what can be read: a damaged line is left out and
counted, and the branches it was about are shown with what other lines tell of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxsurgeon.errors import OnnxSurgeonError
from onnxsurgeon.runs.branch import RECUPERATED, START, TRAINED, read_branch
from onnxsurgeon.runs.checked import FINITE, entries, integer, integers, number, numbers, read_lines, text, texts
from onnxsurgeon.runs.checkpoint import why_damaged
from onnxsurgeon.runs.family import Decision, Finish, History, Member, Operated, Point, Spectrum
from onnxsurgeon.runs.footprint import Footprint
from onnxsurgeon.runs.journal import Event, RunDirectory
from onnxsurgeon.runs.predictions import read_predictions

_FRONT_FILE = re.compile(r"front/\d+(-\d+)?\.onnx")
_FILE_NAME = re.compile(r"(\d{4,})-[a-z_]+\.onnx")


def read_history(run: RunDirectory) -> History:
    """What is in ``run``; whatever is damaged is left out."""
    lines = read_lines(run.journal)
    history = History(damaged=list(lines.damaged), cut_off=lines.cut_off)
    for line, event in lines.events:
        try:
            _enter(history, event)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            history.damaged.append(line)
            continue
        if why_damaged(event):  # of no concern for the page, but a run would not go on from it
            history.damaged.append(line)
    history.damaged.sort()
    _complete(history, run.branches)
    return history


def _enter(history: History, event: Event) -> None:
    """Enter one event; nothing is changed where it cannot be read."""
    match event["event"]:
        case "started" | "decided":
            _decide(history, event)
        case "proposed":
            _propose(history, event)
        case "recuperated" | "trained":
            _measure(history, event)
        case "operated":
            _update(history, integer(event, "branch"), operated=_operated(event))
        case "dropped":
            _update(history, integer(event, "branch"), dropped=text(event, "reason"))
        case "finished":
            history.finish = Finish(
                integer(event, "branch"),
                text(event, "topology"),
                integer(event, "parameters"),
                texts(event, "surgeries"),
                number(event, "validation_accuracy", -FINITE, 1),
                number(event, "test_accuracy", -FINITE, 1),
                number(event, "start_test_accuracy", -FINITE, 1),
                read_predictions(event),
                (_footprint(event["before"]), _footprint(event["after"])) if "before" in event else None,
                event.get("is_worse") is True,
                texts(event, "remarks") if "remarks" in event else (),
                text(event, "shortfall") if "shortfall" in event else "",
                tuple(map(_front, event.get("front", ()))),
            )


def _front(record: Event) -> dict[str, Any]:
    """A model of RUN/front; raises what ``number`` does."""
    file = text(record, "file")
    if not _FRONT_FILE.fullmatch(file):  # a stranger's journal leads nowhere else
        raise ValueError(file)
    found: dict[str, Any] = {key: integer(record, key) for key in ("branch", "parameters", "size")}
    found |= {"file": file, "topology": text(record, "topology"), "accuracy": number(record, "accuracy", -FINITE, 1)}
    found |= {"loss": number(record, "loss", -FINITE, FINITE), "digest": text(record, "digest")}
    found |= {key: integer(record, key) for key in ("multiplications", "memory") if record.get(key) is not None}
    return found | ({} if record.get("latency") is None else {"latency": number(record, "latency", 0)})


def _decide(history: History, event: Event) -> None:
    decision = Decision(
        number(event, "epoch", 0),
        integers(event, "branches"),
        texts(event, "topologies"),
        integer(event, "best"),
        number(event, "best_accuracy", -FINITE, 1),
        integer(event, "steps"),
        number(event, "seconds"),
        number(event, "training_seconds"),
    )
    if not decision.kept or len(decision.topologies) != len(decision.kept):
        raise ValueError("not one topology a branch")
    history.decisions.append(decision)
    if event["event"] == "started":
        point = Point(decision.epoch, TRAINED, decision.best_accuracy)
        _update(history, decision.best, surgery=START, topology=decision.topologies[0], points=(point,))


def _footprint(found: Event) -> Footprint:
    latency = None if found["latency"] is None else number(found, "latency", 0)
    more = {key: integer(found, key) for key in ("multiplications", "memory") if found.get(key) is not None}
    return Footprint(integer(found, "parameters"), integer(found, "size"), latency, **more)


def _propose(history: History, event: Event) -> None:
    _update(
        history,
        integer(event, "branch"),
        parent=integer(event, "parent"),
        surgery=text(event, "surgery"),
        epoch=number(event, "epoch", 0),
        draw=integer(event, "draw"),
        proposal=number(event, "score"),
        parameters=integer(event, "parameters"),
        reason=text(event, "reason"),
    )


def _measure(history: History, event: Event) -> None:
    branch = integer(event, "branch")
    loss = None
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a loss may have become infinite
        loss = number(event, "loss", -FINITE, FINITE)
    point = Point(number(event, "epoch", 0), text(event, "event"), number(event, "accuracy", -FINITE, 1), loss)
    known = history.members.get(branch)
    _update(
        history,
        branch,
        parent=integer(event, "parent"),
        surgery=text(event, "surgery"),
        topology=text(event, "topology"),
        parameters=integer(event, "parameters"),
        gain=number(event, "gain", -FINITE, FINITE),
        score=number(event, "score", -FINITE, FINITE),
        # A branch that was trained on without surgery is not proposed before.
        epoch=known.epoch if known else max((each.epoch for each in history.decisions), default=0.0),
        points=(*(known.points if known else ()), point),
    )


def _operated(event: Event) -> Operated:
    after = tuple(_spectrum(each) for each in entries(event, "after"))
    return Operated(integer(event, "layer"), _spectrum(event["before"]), after)


def _spectrum(found: Event | None) -> Spectrum | None:
    if found is None:
        return None
    values = numbers(found, "values", 0, FINITE)
    if not values or integer(found, "count") < len(values):
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
        with contextlib.suppress(OnnxSurgeonError):  # the page then lacks this one figure
            history.members[0] = replace(given, parameters=read_branch(folder / given.file).network.parameter_count)


def _branch_files(folder: Path) -> dict[int, str]:
    names: Iterable[str] = (path.name for path in folder.iterdir() if path.is_file())
    return {int(found[1]): name for name in names if (found := _FILE_NAME.fullmatch(name))}


__all__ = ["RECUPERATED", "TRAINED", "Decision", "Finish", "History", "Member", "Point", "read_history"]
