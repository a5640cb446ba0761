"""What a run's journal tells, as plain rows.

Unlike a resumption, which needs a state it can trust, a report shows what can be read: a damaged line is left out and
counted, and the branches it was about are shown with what other lines tell of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxsurgeon.errors import OnnxSurgeonError
from onnxsurgeon.report.events import integer, integers, number, read_lines, text, texts
from onnxsurgeon.surgeon.branch import RECUPERATED, START, TRAINED, read_branch
from onnxsurgeon.surgeon.journal import Event, RunDirectory

_FILE_NAME = re.compile(r"(\d{4,})-[a-z_]+\.onnx")


@dataclass(frozen=True)
class Point:
    """A branch measured: when, at which stage, how accurate it was, and its loss where the journal tells it."""

    epoch: float
    stage: str
    accuracy: float
    loss: float | None = None


@dataclass(frozen=True)
class Member:
    """A branch of the family, tried or kept; what the journal does not tell is None or empty.

    Attributes:
        number: its own.
        parent: number of the branch it was made from.
        surgery: what made it.
        epoch: of the decision point it was proposed at.
        draw: which draw of that decision point; 0 is the first.
        proposal: score of the recommendation, before any training.
        reason: why the surgery was recommended.
        topology: widths of its layers.
        parameters: how many.
        points: its own measurements, without its ancestors'.
        gain: accuracy less the parent's, at the latest of them.
        score: by eq. 16, at the latest of them.
        dropped: why it was not kept, in the journal's words.
        kept: whether the run went on with it.
        file: name of its file among the branches.
    """

    number: int
    parent: int | None = None
    surgery: str = ""
    epoch: float = 0.0
    draw: int = 0
    proposal: float | None = None
    reason: str = ""
    topology: str = ""
    parameters: int | None = None
    points: tuple[Point, ...] = ()
    gain: float | None = None
    score: float | None = None
    dropped: str = ""
    kept: bool = False
    file: str = ""

    @property
    def operation(self) -> str:
        """Name of the surgery without its numbers."""
        return self.surgery.partition(":")[0]

    @property
    def latest(self) -> Point | None:
        """Its latest measurement."""
        return self.points[-1] if self.points else None

    def at(self, stage: str) -> Point | None:
        """Its latest measurement at that stage."""
        return next((point for point in reversed(self.points) if point.stage == stage), None)


@dataclass(frozen=True)
class Decision:
    """A decision point, or the start: the branches that go on from it, and the best so far."""

    epoch: float
    kept: tuple[int, ...]
    topologies: tuple[str, ...]
    best: int
    best_accuracy: float
    steps: int
    seconds: float
    training_seconds: float


@dataclass(frozen=True)
class Finish:
    """What a finished run came to."""

    branch: int
    topology: str
    parameters: int
    surgeries: tuple[str, ...]
    validation_accuracy: float
    test_accuracy: float
    start_test_accuracy: float


@dataclass
class History:
    """A run so far.

    Attributes:
        members: every branch by number, in ascending order.
        decisions: the start and every decision point.
        finish: None while the run goes on, or where it was stopped.
        damaged: numbers of the journal's lines that cannot be read, counted from 1.
        cut_off: whether the last line has no end yet.
    """

    members: dict[int, Member] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    finish: Finish | None = None
    damaged: list[int] = field(default_factory=list)
    cut_off: bool = False

    @property
    def result(self) -> int | None:
        """Number of the branch that is the result, or would be if the run ended here."""
        if self.finish is not None:
            return self.finish.branch
        return self.decisions[-1].best if self.decisions else None

    def lineage(self) -> list[Member]:
        """The result's ancestors from the oldest on, and the result."""
        found: list[Member] = []
        wanted = self.result
        while wanted is not None and wanted in self.members:
            member = self.members[wanted]
            if member in found:  # only a damaged journal makes a branch its own ancestor
                break
            found.append(member)
            wanted = member.parent
        return found[::-1]

    def fate(self, member: Member) -> str:
        """What became of a branch, in words."""
        if member.surgery == START:
            return "given model"
        if member.kept:
            return "kept"
        if member.dropped:
            return "dropped: " + ("scored below those kept" if member.dropped == "score" else member.dropped)
        if not any(decision.epoch > member.epoch for decision in self.decisions):
            return "not decided"
        if self.damaged or member.at(TRAINED) is None:
            return "not known"
        # The journal has no event for those trained in a draw that was followed by another.
        return "dropped: less accurate than before"


def read_history(run: RunDirectory) -> History:
    """What is in ``run``; whatever is damaged is left out."""
    lines = read_lines(run.journal)
    history = History(damaged=list(lines.damaged), cut_off=lines.cut_off)
    for line, event in lines.events:
        try:
            _enter(history, event)
        except (KeyError, TypeError, ValueError):
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
        case "dropped":
            _update(history, integer(event, "branch"), dropped=text(event, "reason"))
        case "finished":
            history.finish = Finish(
                integer(event, "branch"),
                text(event, "topology"),
                integer(event, "parameters"),
                texts(event, "surgeries"),
                number(event, "validation_accuracy", most=1),
                number(event, "test_accuracy", most=1),
                number(event, "start_test_accuracy", most=1),
            )


def _decide(history: History, event: Event) -> None:
    decision = Decision(
        number(event, "epoch", 0),
        integers(event, "branches"),
        texts(event, "topologies"),
        integer(event, "best"),
        number(event, "best_accuracy", most=1),
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
        loss = number(event, "loss")
    point = Point(number(event, "epoch", 0), text(event, "event"), number(event, "accuracy", most=1), loss)
    known = history.members.get(branch)
    _update(
        history,
        branch,
        parent=integer(event, "parent"),
        surgery=text(event, "surgery"),
        topology=text(event, "topology"),
        parameters=integer(event, "parameters"),
        gain=number(event, "gain"),
        score=number(event, "score"),
        # A branch that was trained on without surgery is not proposed before.
        epoch=known.epoch if known else max((each.epoch for each in history.decisions), default=0.0),
        points=(*(known.points if known else ()), point),
    )


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
