"""The task of a network: a loss and a metric for each of its heads, and short summaries of its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

CROSS_ENTROPY = "cross-entropy"
BINARY = "binary-cross-entropy"
SQUARED = "squared-error"
LOSSES = (CROSS_ENTROPY, BINARY, SQUARED)
ACCURACY, R2 = "accuracy", "R²"
BALANCED = "balanced accuracy"
METRICS = ("auto", "balanced-accuracy")  # the names that can be asked for
CLASS_WEIGHTS = ("none", "balanced")
AGREEMENT, FIDELITY = "agreement", "fidelity"  # the names of accuracy and R² when a teacher is the measure


@dataclass(frozen=True)
class Task:
    """The task of one head.

    Attributes:
        loss: "cross-entropy" over the classes, "binary-cross-entropy" for each output alone, or "squared-error"; the
            latter two are means over the outputs.
        outputs: width of the head.
        squash: the function between the head and its prediction, "Softmax", "Sigmoid" or "".
        scale: for a regression, the unit s_k in which each output is trained and its loss is measured, a power of two
            near the targets' standard deviation; () stands for 1. The head's last layer is divided by it during
            training, which is exact, so that one learning rate fits targets in any unit.
        imitates: whether the labels are a teacher's outputs: distributions of classes, probabilities or values.
        temperature: the temperature T that softens the teacher's part of a cross-entropy, T² · CE(softmax(t/T),
            softmax(z/T)), where t and z are the teacher's and the head's logits; the factor T² keeps the gradient's
            size (Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.1).
        teacher_weight: the teacher's share w of the targets, 0 to 1; the rest is the labels' share.
        positions: the number of rows of outputs for one row of the data; it is 1 where the head has two axes. Losses
            and metrics are means over positions.
        class_weights: one factor for each class, by which the loss of a row of that class is multiplied; () for none.
        is_balanced: whether the metric is the mean over the classes of the share of each that is predicted right.
        is_weighed: whether the loss divides the head itself by ``scale``, because what stands between the head and the
            last dense layer (a Tanh, a Split) does not allow that layer to be divided.
    """

    loss: str
    outputs: int
    squash: str = ""
    scale: tuple[float, ...] = ()
    imitates: bool = False
    temperature: float = 1.0
    teacher_weight: float = 0.0
    positions: int = 1
    is_weighed: bool = False
    class_weights: tuple[float, ...] = ()
    is_balanced: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether labels name one class for each row, or one at each position."""
        return not self.imitates and (self.loss == CROSS_ENTROPY or (self.loss == BINARY and self.outputs == 1))

    @property
    def metric(self) -> str:
        """Name of the metric: accuracy, balanced or not; R² for a regression; agreement or fidelity with a teacher.

        Agreement is the share of rows, or of single labels, for which student and teacher predict the same. Fidelity is
        the R² of the student's outputs, with the teacher's as the truth.
        """
        if self.imitates:
            return FIDELITY if self.loss == SQUARED else AGREEMENT
        if self.is_balanced:
            return BALANCED
        return R2 if self.loss == SQUARED else ACCURACY

    @property
    def is_softened(self) -> bool:
        """Whether the teacher's part of the loss has another temperature than 1."""
        return self.loss != SQUARED and self.teacher_weight > 0 and self.temperature != 1

    @property
    def is_mixed(self) -> bool:
        """Whether targets are two blocks side by side, the labels' and the teacher's, for two terms of the loss.

        At temperature 1, and for squared errors, one mixed block has the same gradient.
        """
        return self.is_softened and self.teacher_weight < 1

    @property
    def kind(self) -> str:
        """Name of the kind of task, such as "multi-class" or "regression"."""
        if self.loss == SQUARED:
            return "regression"
        if self.loss == CROSS_ENTROPY:
            return "multi-class"
        return "binary" if self.outputs == 1 else "multi-label"


class ClassCounts(TypedDict):
    """How often each class was taken for another: rows of (true class, predicted class, how often)."""

    kind: Literal["classes"]
    classes: int
    names: list[str]
    cells: list[list[int]]


class LabelCounts(TypedDict):
    """Counts for each of several labels: rows of (true positives, false positives, false negatives, true negatives)."""

    kind: Literal["labels"]
    names: list[str]
    counts: list[list[int]]


class TargetValues(TypedDict):
    """Some pairs of (true, predicted) for each target of a regression."""

    kind: Literal["values"]
    targets: list[list[list[float]]]


Predicted = ClassCounts | LabelCounts | TargetValues
