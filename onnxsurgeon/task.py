"""What a network is trained for: a loss and a metric for each of its heads."""

from __future__ import annotations

from dataclasses import dataclass

CROSS_ENTROPY = "cross-entropy"
BINARY = "binary-cross-entropy"
SQUARED = "squared-error"
LOSSES = (CROSS_ENTROPY, BINARY, SQUARED)
ACCURACY, R2 = "accuracy", "R²"


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
    """

    loss: str
    outputs: int
    squash: str = ""
    scale: tuple[float, ...] = ()

    @property
    def metric(self) -> str:
        """What it is judged by: accuracy, or R² for a regression."""
        return R2 if self.loss == SQUARED else ACCURACY

    @property
    def kind(self) -> str:
        """Such as "multi-class" or "regression"."""
        if self.loss == SQUARED:
            return "regression"
        if self.loss == CROSS_ENTROPY:
            return "multi-class"
        return "binary" if self.outputs == 1 else "multi-label"
