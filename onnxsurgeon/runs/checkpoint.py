"""The state of a run between two decision points, and the event in the journal from which it is resumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import model_digest
from onnxsurgeon.runs.branch import TRAINED, Branch, digests, flush_branch, given_file, read_branch
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.events import FrontModel, Known, Resumable, Resumed
from onnxsurgeon.runs.lines import Line
from onnxsurgeon.runs.own_files import file_digest
from onnxsurgeon.runs.state_file import state_path

GROW, SETTLE, REFIT, SHRINK, DONE = "grow", "settle", "refit", "shrink", "done"
PRUNE, RACE = "prune", "race"  # of a trained start
_CHANGED = "was changed since the run wrote it; the run cannot be resumed"


@dataclass(frozen=True)
class CyclePosition:
    """The position of a search in its phases; see ``GrowAndShrink`` and ``ShrinkTrained``.

    Attributes:
        phase: GROW, SETTLE, REFIT, PRUNE, RACE, SHRINK or DONE.
        begin: epoch in which the current cycle of the learning rate began.
        end: epoch in which it ends.
        root: number of the branch with which settling, or the current cycle, began.
        top: parameters with which shrinking began.
        halvings: number of times that a step of shrinking was halved, since the network had lost too much.
        tries: number of sizes for which it is known whether a network is accurate enough.
        failed: parameters of the smallest network that was trained and not accurate enough; 0: none yet.
        rate: factor of the learning rate that fits a trained start.
        uses_made: whether rows that were made of the given ones are trained on.
        least: the loss on the deciding rows with which the current cycle began; None: it is the first.
    """

    phase: str = GROW
    begin: int = 0
    end: int = 0
    root: int = 0
    top: int = 0
    halvings: int = 0
    tries: int = 0
    failed: int = 0
    rate: float = 1.0
    uses_made: bool = True
    least: float | None = None


@dataclass
class State:
    """The state of a run at a checkpoint; the networks themselves are in the branch files.

    Attributes:
        epoch: epochs trained.
        branches: the current branches.
        best: the branch that would be the result if the run ended here.
        next_number: number of the next branch.
        stale: decision points since the best validation accuracy rose.
        steps: training steps over all branches.
        seconds: wall time, over all resumptions.
        training_seconds: the part of it spent inside ONNX Runtime training.
        search: the position of the search in its phases.
        front: the branches that no other dominates; empty where the search keeps none.
    """

    epoch: int
    branches: list[Branch]
    best: Branch
    next_number: int = 1
    stale: int = 0
    steps: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    search: CyclePosition = field(default_factory=CyclePosition)
    front: list[Entry] = field(default_factory=list)

    def new_number(self) -> int:
        """The number of the next branch, which is taken with that."""
        self.next_number += 1
        return self.next_number - 1


class _States(TypedDict, total=False):
    states: dict[str, str]


class _Front(TypedDict, total=False):
    search: dict[str, Any]
    front: list[FrontModel]


def checkpoint(state: State, folder: Path) -> Resumable:
    """Make the journal's event from which the run can resume: all except what the branches' files hold.

    The files are on the disk then.

    Raises:
        RunError: a branch's file cannot be read.
    """
    paths = {branch.number: branch.file_name for branch in (*state.branches, state.best)}
    for name in paths.values():
        flush_branch(folder / name)
    found = {number: digests(folder / name) for number, name in paths.items()}
    states = {str(number): each["state_digest"] for number, each in found.items() if "state_digest" in each}
    of_optimizers: _States = {"states": states} if states else {}
    of_front: _Front = {}
    if state.front:
        of_front = {"search": asdict(state.search), "front": [entry.record() for entry in state.front]}
    return Resumable(
        epoch=state.epoch,
        branches=[branch.number for branch in state.branches],
        topologies=[branch.network.topology for branch in state.branches],
        parameters=[branch.network.parameter_count for branch in state.branches],
        accuracies=[branch.accuracy for branch in state.branches],
        losses=[branch.history[-1].loss for branch in state.branches],
        best=state.best.number,
        best_accuracy=state.best.accuracy,
        files={str(number): [name, found[number]["digest"]] for number, name in paths.items()},
        **of_optimizers,
        next_number=state.next_number,
        stale=state.stale,
        steps=state.steps,
        seconds=state.seconds,
        training_seconds=state.training_seconds,
        **of_front,
    )


def restored(event: Resumable, folder: Path) -> State:
    """Read the state that a checkpoint describes, with its branches from their files.

    ``why_damaged`` must have found nothing wrong with the event.

    Raises:
        RunError: a file is not the one that the run wrote.
    """
    states = event.get("states", {})  # runs whose optimizer has no state do not have it
    found = {}
    for number, (name, digest) in event["files"].items():
        require_unchanged(folder / name, digest)
        if digests(folder / name).get("state_digest") != states.get(number):
            raise RunError(f"{state_path(folder / name)}: {_CHANGED}", "exchanged")
        branch = read_branch(folder / name)
        if (str(branch.number), branch.file_name) != (number, name) or not branch.history:
            raise RunError(f"{folder / name}: is another branch's file; the run cannot be resumed", "exchanged")
        found[branch.number] = branch
    front = [Entry(**each) for each in event.get("front", ())]
    for entry in front:
        if entry.branch not in found:
            require_unchanged(folder / entry.file, entry.digest)
    return State(
        event["epoch"],
        [found[number] for number in event["branches"]],
        found[event["best"]],
        event["next_number"],
        event["stale"],
        event["steps"],
        event["seconds"],
        event["training_seconds"],
        CyclePosition(**event.get("search", {})),
        front,
    )


def require_given(lines: Iterable[Line], folder: Path) -> None:
    """Check that the given model is the one that was measured, by the journal's lines up to a checkpoint.

    Raises:
        RunError: its file is gone, is another, or was changed.
    """
    is_measured = False
    for line in lines:
        is_measured = True
        file = cast(Resumable, line.record)["files"].get("0") if line.kind == "started" else None
        if file is not None:
            name, digest = file
            require_unchanged(folder / name, digest)
    path = given_file(folder)
    if not path.is_file():
        raise RunError(f"{path}: is gone; the run cannot be resumed", "gone")
    given = read_branch(path)
    if given.file_name != path.name or (is_measured and not given.history):
        raise RunError(f"{path}: is another branch's file; the run cannot be resumed", "exchanged")


def require_unchanged(path: Path, digest: str) -> None:
    """Raise RunError where a branch's file, or its external data, is not what the run wrote."""
    if not path.is_file():
        raise RunError(f"{path}: is gone; the run cannot be resumed from this checkpoint", "gone")
    # The digests of earlier runs do not include external data.
    if digest not in (model_digest(path), file_digest(path)):
        raise RunError(f"{path}: {_CHANGED}", "exchanged")


def resumed(state: State) -> Resumed:
    """The event that tells callbacks what they would have heard of the branches from which a run resumes."""
    return Resumed(
        event="resumed",
        epoch=state.epoch,
        branches=[_known(branch) for branch in state.branches],
        best=_known(state.best),
        steps=state.steps,
        seconds=state.seconds,
    )


def _known(branch: Branch) -> Known:
    ends = [entry.accuracy for entry in branch.history if entry.stage == TRAINED]
    return Known(
        branch=branch.number,
        parent=branch.parent,
        surgery=branch.surgery,
        topology=branch.network.topology,
        parameters=branch.network.parameter_count,
        accuracy=branch.accuracy,
        gain=ends[-1] - ends[-2] if len(ends) > 1 else 0.0,
        score=branch.score,
    )
