"""The branches of a run, from the given model to its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxsurgeon.recommend.candidates import IDENTITY
from onnxsurgeon.runs.branch import START, TRAINED
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.events import HeadResult
from onnxsurgeon.runs.footprint import Footprint
from onnxsurgeon.runs.predictions import Predictions


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a layer, descending; of more than the journal holds, some evenly spaced by rank."""

    count: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class LayerSpectra:
    """A layer's singular values before a surgery, and those of the layers in its place; None: not computed."""

    layer: int
    before: Spectrum | None
    after: tuple[Spectrum | None, ...]


@dataclass(frozen=True)
class Point:
    """A measurement of a branch: when, at which stage, its accuracy, and its loss where the journal tells it."""

    epoch: float
    stage: str
    accuracy: float
    loss: float | None = None


@dataclass(frozen=True)
class Member:
    """A branch of the family, tried or kept; whatever the journal does not tell is None or empty.

    Attributes:
        number: its own.
        parent: number of the branch from which it was made.
        surgery: the surgery that made it.
        epoch: epoch of the decision point at which it was proposed.
        draw: number of the draw at that decision point; 0 is the first.
        proposal: score of the recommendation, before any training.
        reason: why the surgery was recommended.
        topology: widths of its layers.
        parameters: number of its parameters.
        points: its own measurements, without its ancestors'.
        gain: accuracy less the parent's, at its latest measurement.
        score: by eq. 16, or −loss, at its latest measurement.
        dropped: why it was not kept, in the journal's words.
        kept: whether the run went on with it.
        file: name of its file among the branches.
        operated: the effect of its surgery on the singular values.
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
    operated: LayerSpectra | None = None

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
    """The result of a finished run.

    Attributes:
        branch: number of the branch that is the result.
        topology: topology of the result.
        parameters: number of parameters of the result.
        surgeries: the surgeries that led from the given model to the result.
        validation_accuracy: the accuracy by which it was chosen.
        test_accuracy: on the test split.
        start_test_accuracy: the given model's accuracy on the test split.
        predictions: predictions of the result on the test split, each head's.
        costs: the costs of the given model and of the result; None in runs recorded before these were measured.
        is_worse: whether the result is worse than the given model by more than chance on the test rows.
        remarks: remarks on the result, in sentences.
        shortfall: what was asked for and not found.
        front: with objective pareto the models of RUN/front, the largest first.
        heads: each of several heads apart; () where there is one alone.
    """

    branch: int
    topology: str
    parameters: int
    surgeries: tuple[str, ...]
    validation_accuracy: float
    test_accuracy: float
    start_test_accuracy: float
    predictions: tuple[Predictions, ...] = ()
    costs: tuple[Footprint, Footprint] | None = None
    is_worse: bool = False
    remarks: tuple[str, ...] = ()
    shortfall: str = ""
    front: tuple[Entry, ...] = ()
    heads: tuple[HeadResult, ...] = ()


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

    @property
    def measured(self) -> list[Member]:
        """Every branch with a measurement."""
        return [member for member in self.members.values() if member.points]

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

    def plain(self) -> list[Member]:
        """The given model and its descendants by plain training alone, for as long as that was tried."""
        found = [self.members[0]] if 0 in self.members else []
        while found:
            children = [
                member
                for member in self.members.values()
                if member.parent == found[-1].number and member.operation == IDENTITY and member.points
            ]
            if not children or len(found) > len(self.members):
                break
            found.append(max(children, key=lambda member: (member.kept, len(member.points), -member.number)))
        return found

    def front(self) -> list[Member]:
        """Branches that no other one beats in accuracy with as few parameters, the smallest first."""
        sized = [member for member in self.measured if member.parameters is not None]
        found: list[Member] = []
        for member in sorted(sized, key=lambda each: (each.parameters, -each.points[-1].accuracy, each.number)):
            if not found or member.points[-1].accuracy > found[-1].points[-1].accuracy:
                found.append(member)
        return found

    def fate(self, member: Member) -> str:
        """The fate of a branch, in words."""
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
        # The journal has no event for branches of a draw that was followed by another.
        return "dropped: less accurate than before"
