"""Every event of a run and its fields: the lines of journal.jsonl, and what callbacks are given.

One file: a table that is read as a whole. The searches build these types, and all observers of a run read them;
``runs/lines.py`` writes them as lines, and ``runs/checked.py`` reads them from the lines of a stranger's journal, where
each entry is checked against its type and its bounds.

An event is a dict. Its kind stands under "event"; ``EVENTS`` tells which class below describes which kind. They come in
this order: "run", then "started" ("resumed" in a resumed run, and "extended" where it goes on for longer), then for
every decision point "proposed", "operated", "dropped", "recuperated", "trained" and "chosen", some of them several
times, and "decided"; last "finished". Numbers of epochs count from the start of the run, and so do the numbers of
branches: the given model is branch 0.
"""

# Annotations are evaluated here: as texts they would hide from TypedDict which keys are NotRequired.
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from onnxsurgeon.task import Predicted

# Finite, and far beyond anything that a run counts: damage must not reach the axes of a picture.
LARGEST = 1e15
FINITE = 1e300  # of values that may have diverged


@dataclass(frozen=True)
class Bounds:
    """The bounds of a number in a journal; an integer without bounds of its own lies between 0 and ``LARGEST``.

    Attributes:
        least: the smallest possible value.
        most: the largest possible value.
    """

    least: float = -LARGEST
    most: float = LARGEST


Epochs = Annotated[float, Bounds(0)]
Accuracy = Annotated[float, Bounds(-FINITE, 1)]  # or R², which has no least value
Diverging = Annotated[float, Bounds(-FINITE, FINITE)]  # values that may become very large in training, such as a loss


class StartRecord(TypedDict):
    """Whether the given model is trained.

    Attributes:
        is_trained: whether it is trained, or was said to be.
        reason: why, in words.
    """

    is_trained: bool
    reason: str


class Run(TypedDict):
    """A process begins to work on a run, or goes on with it. The journal does not hold this one.

    Attributes:
        event: "run".
        path: the run directory.
        settings: every hyperparameter, by name.
        rows: given rows to train on.
        made_rows: number of rows that were made of them.
        batches_per_epoch: training steps in an epoch.
        validation_rows: rows to choose by.
        validation: the origin of those: "held-out" or "test".
        engine: "loop" or "artifacts".
        device: "cpu" or "cuda".
        workers: branches trained side by side.
        cluster: address of the cluster, or "".
        classes: number of classes; 0 where nothing is classified.
        task: the model's task, such as "multi-class".
        metric: the meaning of "accuracy" in all events: "accuracy", or "R²" for a regression; "agreement" or "fidelity"
            with a teacher.
        start: whether the given model is trained, "is_trained", and why, "reason".
        notes: notes on the model.
        other_versions: packages whose versions differ from those with which a resumed run was started.
    """

    event: Literal["run"]
    path: str
    settings: dict[str, Any]
    rows: int
    made_rows: int
    batches_per_epoch: int
    validation_rows: int
    validation: str
    engine: str
    device: str
    workers: int
    cluster: str
    classes: int
    task: str
    metric: str
    start: StartRecord
    notes: list[str]
    other_versions: list[str]


class Known(TypedDict):
    """A branch with which a resumed run goes on.

    Attributes:
        branch: its number.
        parent: number of the branch from which it was made; None for the given model.
        surgery: the surgery that made it.
        topology: widths of its layers.
        parameters: number of its parameters.
        accuracy: on the validation rows.
        gain: accuracy less that at the end of the step before.
        score: by eq. 16.
    """

    branch: int
    parent: int | None
    surgery: str
    topology: str
    parameters: int
    accuracy: Accuracy
    gain: Diverging
    score: Diverging


class Resumed(TypedDict):
    """A run goes on from a checkpoint. The journal does not hold this one.

    Attributes:
        event: "resumed".
        epoch: epoch of the checkpoint.
        branches: the branches that go on.
        best: the branch that would be the result if the run ended here.
        steps: training steps so far, over all branches.
        seconds: wall time so far.
    """

    event: Literal["resumed"]
    epoch: int
    branches: list[Known]
    best: Known
    steps: int
    seconds: float


class FrontModel(TypedDict):
    """A network that no other dominates; see ``Entry``.

    Attributes:
        branch: its number.
        file: name of its file among the branches, or its path in the run directory.
        digest: SHA-256 of that file.
        topology: widths of its layers.
        accuracy: on the validation rows.
        loss: mean loss on the validation rows.
        parameters: number of its parameters.
        size: bytes of its file.
        latency: milliseconds for a row; None where nothing asks for it.
        multiplications: with weights, for a row (MACs); None where nothing asks for it.
        memory: bytes of the tensors that are in memory at once for a row; None where nothing asks for it.
    """

    branch: int
    file: str
    digest: str
    topology: str
    accuracy: Accuracy
    loss: Diverging
    parameters: int
    size: int
    latency: NotRequired[Annotated[float, Bounds(0)] | None]
    multiplications: NotRequired[int | None]
    memory: NotRequired[int | None]


class Resumable(TypedDict):
    """A state from which a run can resume; see ``Checkpoint``."""

    epoch: int
    branches: list[int]
    topologies: list[str]
    parameters: list[int]
    accuracies: list[Accuracy]
    losses: list[Diverging]
    best: int
    best_accuracy: Accuracy
    files: dict[str, list[str]]
    states: NotRequired[dict[str, str]]
    next_number: int
    stale: int
    steps: int
    seconds: float
    training_seconds: float
    search: NotRequired[dict[str, Any]]
    front: NotRequired[list[FrontModel]]


class Checkpoint(Resumable):
    """The given model is measured, or a decision is taken: a state from which a run can resume.

    In the journal it also carries a "checksum"; see ``lines``.

    Attributes:
        epoch: epochs trained.
        branches: numbers of the branches that go on.
        topologies: topology of each of these branches, in the same order.
        parameters: number of parameters of each of them.
        accuracies: accuracy of each of them on the validation rows.
        losses: loss of each of them on the validation rows.
        best: number of the branch that would be the result if the run ended here.
        best_accuracy: its accuracy on the validation rows.
        files: by number, name and SHA-256 of the files of these branches.
        states: by number, SHA-256 of the optimizer's state, of branches that have one.
        next_number: number of the next branch.
        stale: decision points since the best accuracy rose.
        steps: training steps so far, over all branches.
        seconds: wall time so far, over all resumptions.
        training_seconds: the part of it inside ONNX Runtime's training.
        search: phase, cycle of the learning rate and other numbers of a search that is not Algorithm 1.
        front: the branches that no other dominates, for such a search.
        event: "started" or "decided".
    """

    event: Literal["started", "decided"]


class Extended(Resumable):
    """A run is to go on for longer than it was made for; it can resume from this state, which is the last checkpoint's.

    In the journal it also carries a "checksum"; see ``lines``. All entries except "run_epochs" are as in
    ``Checkpoint``.

    Attributes:
        epoch: epochs trained.
        branches: numbers of the branches that go on.
        topologies: topology of each of these branches, in the same order.
        parameters: number of parameters of each of them.
        accuracies: accuracy of each of them on the validation rows.
        losses: loss of each of them on the validation rows.
        best: number of the branch that would be the result if the run ended here.
        best_accuracy: its accuracy on the validation rows.
        files: by number, name and SHA-256 of the files of these branches.
        states: by number, SHA-256 of the optimizer's state, of branches that have one.
        next_number: number of the next branch.
        stale: decision points since the best accuracy rose.
        steps: training steps so far, over all branches.
        seconds: wall time so far, over all resumptions.
        training_seconds: the part of it inside ONNX Runtime's training.
        search: phase, cycle of the learning rate and other numbers of a search that is not Algorithm 1.
        front: the branches that no other dominates, for such a search.
        event: "extended".
        run_epochs: the length of the run from here on.
    """

    event: Literal["extended"]
    run_epochs: int


class Proposed(TypedDict):
    """A surgery is chosen to be tried.

    Attributes:
        event: "proposed".
        branch: number of the branch that it will make.
        parent: number of the branch on which it is performed.
        surgery: such as "widen:1:8", or "identity".
        score: score of the recommendation, between 0 and 1.
        parameters: number of parameters that the branch will have.
        reason: why it is recommended, a sentence.
        epoch: epoch of the decision point.
        draw: number of the draw at that decision point; 0 is the first.
    """

    event: Literal["proposed"]
    branch: int
    parent: int
    surgery: str
    score: float
    parameters: int
    reason: str
    epoch: int
    draw: int


class Spectrum(TypedDict):
    """Singular values of a layer.

    Attributes:
        count: number of singular values.
        values: up to 128 of them, descending.
    """

    count: int
    values: list[Annotated[float, Bounds(0, FINITE)]]


class Spectra(TypedDict):
    """The effect of a surgery on singular values; None where a large layer's would have to be computed for this alone.

    Attributes:
        layer: the hidden layer, counted from 1.
        before: the layer's spectrum.
        after: spectra of the layers in its place.
    """

    layer: int
    before: Spectrum | None
    after: list[Spectrum | None]


class Operated(Spectra):
    """A surgery is performed. A spectrum is None where a large layer's would have to be computed for this alone.

    Attributes:
        layer: the hidden layer, counted from 1.
        before: the layer's spectrum.
        after: spectra of the layers in its place.
        event: "operated".
        branch: number of the branch that it makes.
    """

    event: Literal["operated"]
    branch: int


class Digests(TypedDict):
    """The digests that identify the files of a branch.

    Attributes:
        digest: SHA-256 of its file.
        state_digest: SHA-256 of its optimizer's state, where that has one.
    """

    digest: str
    state_digest: NotRequired[str]


class Measured(Digests):
    """A branch is trained and then measured.

    It is "recuperated" after the few batches that follow its surgery, and "trained" at the end of the epoch step.

    Attributes:
        digest: SHA-256 of its file.
        state_digest: SHA-256 of its optimizer's state, where that has one.
        event: "recuperated" or "trained".
        branch: its number.
        parent: number of the branch from which it was made.
        surgery: the surgery that made it.
        topology: widths of its layers.
        parameters: number of its parameters.
        epoch: epochs trained, with a fraction.
        accuracy: on the validation rows.
        gain: accuracy less the parent's.
        loss: mean loss on the validation rows.
        score: by eq. 16.
    """

    event: Literal["recuperated", "trained"]
    branch: int
    parent: int
    surgery: str
    topology: str
    parameters: int
    epoch: Epochs
    accuracy: Accuracy
    gain: Diverging
    loss: Diverging
    score: Diverging


class Chosen(TypedDict):
    """A race of a trained start is over.

    Attributes:
        event: "chosen".
        branch: the winner's number.
        learning_rate: the rate with which it was trained, and goes on.
        uses_made: whether rows that were made of the given ones are trained on.
        reason: why, in words.
    """

    event: Literal["chosen"]
    branch: int
    learning_rate: float
    uses_made: bool
    reason: str


class Dropped(TypedDict):
    """A branch does not go on.

    Attributes:
        event: "dropped".
        branch: its number.
        reason: "score" where others scored higher, else a reason in words.
    """

    event: Literal["dropped"]
    branch: int
    reason: str


class Costs(TypedDict):
    """The costs of a model.

    Attributes:
        parameters: number of its parameters.
        size: bytes of its file, external data included.
        latency: milliseconds for a row, as measured at the end; None where that would have taken too long.
        multiplications: with weights, for a row (MACs); None where nothing asks for it.
        memory: bytes of the tensors that are in memory at once for a row; None where nothing asks for it.
    """

    parameters: int
    size: int
    latency: Annotated[float, Bounds(0)] | None
    multiplications: NotRequired[int | None]
    memory: NotRequired[int | None]


class HeadResult(TypedDict):
    """One of several heads of the result and of the given model, on the test split.

    Attributes:
        head: name of the output that it becomes, or of its tensor.
        metric: name of its metric.
        test_accuracy: the result's value of it.
        test_loss: the result's mean loss there.
        start_test_accuracy: the given model's value of the metric.
    """

    head: str
    metric: str
    test_accuracy: Accuracy
    test_loss: Diverging
    start_test_accuracy: Accuracy


class Result(TypedDict):
    """The result of a run; see ``Finished``."""

    run: str
    best: str
    branch: int
    topology: str
    parameters: int
    surgeries: list[str]
    validation_accuracy: Accuracy
    test_accuracy: Accuracy
    test_loss: Diverging
    start_test_accuracy: Accuracy
    steps: int
    seconds: float
    training_seconds: float
    before: Costs
    after: Costs
    is_worse: bool
    remarks: list[str]
    heads: NotRequired[list[HeadResult]]
    front: NotRequired[list[FrontModel]]
    is_refitted: NotRequired[bool]
    shortfall: NotRequired[str]


class Finished(Result):
    """The run has ended, and its result is measured on the test split.

    Attributes:
        run: the run directory.
        best: path of the result's file.
        branch: number of the branch that is the result.
        topology: topology of the result.
        parameters: number of parameters of the result.
        surgeries: the surgeries that led from the given model to the result.
        validation_accuracy: the accuracy by which it was chosen.
        test_accuracy: on the test split.
        test_loss: mean loss on the test split.
        start_test_accuracy: the given model's accuracy on the test split.
        steps: training steps over all branches.
        seconds: wall time, over all resumptions.
        training_seconds: the part of it inside ONNX Runtime's training.
        before: the costs of the given model.
        after: the costs of the result.
        is_worse: whether the result is worse than the given model by more than chance on the test rows.
        remarks: remarks on the result, in sentences.
        heads: each of several heads apart; missing where there is one alone.
        front: with objective pareto the networks that no other dominates, as files in the run directory.
        is_refitted: whether it was trained once more on all rows, including those by which it was chosen.
        shortfall: what was asked for and not found, in words.
        event: "finished".
        predictions: for each head the result's predictions on the test split: counts of (true, predicted) classes,
            counts for each of several labels, or some of the true and predicted values.
    """

    event: Literal["finished"]
    predictions: list[Predicted]


EVENTS: Mapping[str, type] = {
    "run": Run,
    "resumed": Resumed,
    "started": Checkpoint,
    "proposed": Proposed,
    "operated": Operated,
    "recuperated": Measured,
    "trained": Measured,
    "dropped": Dropped,
    "chosen": Chosen,
    "decided": Checkpoint,
    "extended": Extended,
    "finished": Finished,
}

JournalEvent = Checkpoint | Extended | Proposed | Operated | Measured | Chosen | Dropped | Finished
Event = Run | Resumed | JournalEvent
