"""What a network is trained for, a loss and a metric for each of its heads; and how its predictions are told in few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

CROSS_ENTROPY = "cross-entropy"
BINARY = "binary-cross-entropy"
SQUARED = "squared-error"
LOSSES = (CROSS_ENTROPY, BINARY, SQUARED)
ACCURACY, R2 = "accuracy", "R²"
BALANCED = "balanced accuracy"
METRICS = ("auto", "balanced-accuracy")  # as they are asked for
CLASS_WEIGHTS = ("none", "balanced")
AGREEMENT, FIDELITY = "agreement", "fidelity"  # accuracy and R² where a teacher is the measure


@dataclass(frozen=True)
class Task:
    """What one head is trained for.

    Attributes:
        loss: "cross-entropy" over the classes, "binary-cross-entropy" for each output alone, or "squared-error"; the
            latter two are means over the outputs.
        outputs: width of the head.
        squash: what stands between the head and its prediction, "Softmax", "Sigmoid" or "".
        scale: for a regression, the unit s_k that each output is trained and its loss is measured in, a power of two
            near the targets' standard deviation; () for 1. The head's last layer is divided by it while it is trained,
            which is exact, so that one learning rate fits whatever the targets are measured in.
        imitates: whether the labels are a teacher's outputs: distributions of classes, probabilities or values.
        temperature: T that the teacher's part of a cross-entropy is softened by: T² · CE(softmax(t/T), softmax(z/T)),
            t and z the teacher's and the head's logits; the factor keeps the gradient's size (Hinton, Vinyals, Dean,
            "Distilling the knowledge in a neural network", 2015, section 2.1).
        teacher_weight: the teacher's share w of what the head is trained towards, 0 to 1; the rest is the labels'.
        positions: rows of outputs that one row of the data has, 1 where the head has two axes; losses and metrics are
            means over them.
        class_weights: what the loss of a row is multiplied by, by its class, where classes are weighed; () where not.
        is_balanced: whether the metric is the mean over the classes of the share of each that is predicted right.
        is_weighed: whether the loss divides the head itself by ``scale``, since what stands between it and the last
            dense layer (a Tanh, a Split) keeps that layer from being divided.
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
        """Whether a row has one class, or one at each position, that labels tell."""
        return not self.imitates and (self.loss == CROSS_ENTROPY or (self.loss == BINARY and self.outputs == 1))

    @property
    def metric(self) -> str:
        """What it is judged by: accuracy, balanced or not; R² for a regression; agreement and fidelity with a teacher.

        Agreement is the share of rows, or of single labels, for which student and teacher predict the same. Fidelity
        is the R² of the student's outputs, the teacher's being the truth.
        """
        if self.imitates:
            return FIDELITY if self.loss == SQUARED else AGREEMENT
        if self.is_balanced:
            return BALANCED
        return R2 if self.loss == SQUARED else ACCURACY

    @property
    def is_softened(self) -> bool:
        """Whether the teacher's part of the loss is at another temperature than 1."""
        return self.loss != SQUARED and self.teacher_weight > 0 and self.temperature != 1

    @property
    def is_mixed(self) -> bool:
        """Whether targets are two blocks side by side, of the labels and of the teacher, as two terms of the loss.

        At temperature 1, and for squared errors, one mixed block has the same gradient.
        """
        return self.is_softened and self.teacher_weight < 1

    @property
    def kind(self) -> str:
        """Such as "multi-class" or "regression"."""
        if self.loss == SQUARED:
            return "regression"
        if self.loss == CROSS_ENTROPY:
            return "multi-class"
        return "binary" if self.outputs == 1 else "multi-label"


class ClassCounts(TypedDict):
    """How often a class was taken for another: rows of (true class, predicted class, how often)."""

    kind: Literal["classes"]
    classes: int
    names: list[str]
    cells: list[list[int]]


class LabelCounts(TypedDict):
    """For each of several labels: rows (rightly told to have it, wrongly, wrongly told to lack it, rightly)."""

    kind: Literal["labels"]
    names: list[str]
    counts: list[list[int]]


class TargetValues(TypedDict):
    """For each target of a regression: (true, predicted) of some rows."""

    kind: Literal["values"]
    targets: list[list[list[float]]]


Predicted = ClassCounts | LabelCounts | TargetValues
