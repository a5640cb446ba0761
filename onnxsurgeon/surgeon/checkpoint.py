"""What a run is between two decision points, and the event in the journal that it is resumed from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from onnxsurgeon.errors import RunError
from onnxsurgeon.runs.branch import TRAINED, Branch, digests, flush_branch, read_branch
from onnxsurgeon.runs.journal import Event, file_digest
from onnxsurgeon.runs.state_file import state_path
from onnxsurgeon.surgeon.objective import Entry

GROW, SETTLE, REFIT, SHRINK, DONE = "grow", "settle", "refit", "shrink", "done"
PRUNE, RACE = "prune", "race"  # of a trained start


@dataclass(frozen=True)
class Search:
    """Where in its phases a search is; see ``GrowAndShrink`` and ``ShrinkTrained``.

    Attributes:
        phase: GROW, SETTLE, REFIT, PRUNE, RACE, SHRINK or DONE.
        begin: epoch in which the current cycle of the learning rate began.
        end: the one in which it ends.
        root: number of the branch that began to settle, or the current cycle.
        top: parameters that shrinking began with.
        halvings: how often a step of shrinking was halved, since the network had lost too much.
        tries: for how many sizes it was found whether a network is accurate enough.
        failed: parameters of the smallest network that was not, though it was trained; 0: none yet.
        rate: factor of the learning rate that fits a trained start.
        uses_made: whether rows that were made of the given ones are trained on.
        least: the loss on the rows that decide with which the current cycle began; None: it is the first.
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
    """What a run is at a checkpoint; the networks themselves are in the branch files.

    Attributes:
        epoch: epochs trained.
        branches: the current branches.
        best: the branch that would be the result if the run ended here.
        next_number: number of the next branch.
        stale: decision points since the best validation accuracy rose.
        steps: training steps over all branches.
        seconds: wall time, over all resumptions.
        training_seconds: the part of it spent inside ONNX Runtime training.
        search: where in its phases the search is.
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
    search: Search = field(default_factory=Search)
    front: list[Entry] = field(default_factory=list)


def checkpoint(state: State, folder: Path) -> Event:
    """What a run is resumed from, for the journal: all but what is in its branches' files, which are on the disk then.

    Raises:
        RunError: a branch's file cannot be read.
    """
    paths = {branch.number: branch.file_name for branch in (*state.branches, state.best)}
    for name in paths.values():
        flush_branch(folder / name)
    found = {number: digests(folder / name) for number, name in paths.items()}
    states = {str(number): each["state_digest"] for number, each in found.items() if "state_digest" in each}
    return {
        "epoch": state.epoch,
        "branches": [branch.number for branch in state.branches],
        "topologies": [branch.network.topology for branch in state.branches],
        "parameters": [branch.network.parameter_count for branch in state.branches],
        "accuracies": [branch.accuracy for branch in state.branches],
        "losses": [branch.history[-1].loss for branch in state.branches],
        "best": state.best.number,
        "best_accuracy": state.best.accuracy,
        "files": {str(number): [name, found[number]["digest"]] for number, name in paths.items()},
        **({"states": states} if states else {}),
        "next_number": state.next_number,
        "stale": state.stale,
        "steps": state.steps,
        "seconds": state.seconds,
        "training_seconds": state.training_seconds,
        **({"search": asdict(state.search), "front": [asdict(each) for each in state.front]} if state.front else {}),
    }


def restored(event: Event, folder: Path) -> State:
    """The state that a checkpoint describes, its branches read from their files.

    Raises:
        RunError: a file is not the one that the run wrote.
    """
    files = {int(number): (folder / name, digest) for number, (name, digest) in event["files"].items()}
    states = event.get("states", {})  # runs whose optimizer has no state do not have it
    found = {}
    for number, (path, digest) in files.items():
        wanted = {"digest": digest} | ({"state_digest": states[str(number)]} if str(number) in states else {})
        if digests(path) != wanted:
            what = path if file_digest(path) != digest else state_path(path)
            raise RunError(f"{what}: was changed since the run wrote it; the run cannot be resumed")
        found[number] = read_branch(path)
    return State(
        event["epoch"],
        [found[number] for number in event["branches"]],
        found[event["best"]],
        event["next_number"],
        event["stale"],
        event["steps"],
        event["seconds"],
        event["training_seconds"],
        Search(**event.get("search", {})),
        [Entry(**each) for each in event.get("front", ())],
    )


def summary(state: State) -> Event:
    """What callbacks are told of the state that a run resumes from: what they would have heard of its branches."""
    return {
        "epoch": state.epoch,
        "branches": [_described(branch) for branch in state.branches],
        "best": _described(state.best),
        "steps": state.steps,
        "seconds": state.seconds,
    }


def _described(branch: Branch) -> Event:
    ends = [entry.accuracy for entry in branch.history if entry.stage == TRAINED]
    return {
        "branch": branch.number,
        "parent": branch.parent,
        "surgery": branch.surgery,
        "topology": branch.network.topology,
        "parameters": branch.network.parameter_count,
        "accuracy": branch.accuracy,
        "gain": ends[-1] - ends[-2] if len(ends) > 1 else 0.0,
        "score": branch.score,
    }
