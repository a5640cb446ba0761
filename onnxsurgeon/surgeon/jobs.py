"""The request to a worker, and its result."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.runs.branch import Branch


@dataclass(frozen=True)
class Job:
    """Train one branch from one position to another, then measure it.

    Attributes:
        branch: as it was before.
        start: position of the first batch.
        stop: position behind the last one.
        stage: the stage of the measurement, RECUPERATED or TRAINED.
        parent_accuracy: the accuracy against which the gain is measured.
        parent_parameters: the parameter count of which the branch's is a fraction.
        cycle: positions where the learning rate's course begins and ends; None: it is constant, or that of the run.
        member: number of the ensemble's member; members see different batches and masks.
        rate: factor of the learning rate.
        is_trained: whether the given network was trained before: unasked, nothing is dropped out then.
        uses_made: whether rows that were made of the given ones are trained on too.
        refits: whether it is also trained on the rows that decide; positions count batches of all rows then, and the
            measurement stays the previous one.
        keep_file: whether the branch's file is left as it is; it may hold more training already, from before a kill.
    """

    branch: Branch
    start: int
    stop: int
    stage: str
    parent_accuracy: float
    parent_parameters: int
    cycle: tuple[int, int] | None = None
    member: int = 0
    rate: float = 1.0
    is_trained: bool = False
    uses_made: bool = True
    refits: bool = False
    keep_file: bool = False


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    Attributes:
        branch: as it is now; unchanged where its weights did not stay finite.
        finite: whether they did.
        steps: batches trained.
        training_seconds: time inside ONNX Runtime's training.
        seconds: time of the whole job.
    """

    branch: Branch
    finite: bool
    steps: int
    training_seconds: float
    seconds: float


@dataclass(frozen=True)
class Manner:
    """How a search has its branches trained and scored.

    Attributes:
        standardises: whether inputs may be standardised (``--standardise``).
        follows_size: whether the learning rate falls with the network's size (``--size-rate``) and has a course in each
            cycle; else it is the run's own (``--schedule``).
        scores_paper: whether the score is the paper's eq. 16, and not −loss.
    """

    standardises: bool = True
    follows_size: bool = True
    scores_paper: bool = False
