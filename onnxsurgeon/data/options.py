"""Options of how a data set and a model meet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsurgeon.choices import LAYOUTS
from onnxsurgeon.errors import DataError
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.task import CLASS_WEIGHTS, LOSSES, METRICS
from onnxsurgeon.typed import kind_of


@dataclass(frozen=True)
class InputOptions:
    """Options of how a data set and a model meet.

    Attributes:
        layout: order in which images are laid out in a flat input: "hwc", as in the paper, or "chw".
        scale: factor for the values; None: 1/255 (1/16 for digits) for integer pixels, 1 for other values.
        mean: subtracted after scaling, one value or one for each channel.
        std: divides after that, one value or one for each channel.
        loss: one of ``task.LOSSES``; "auto": the one that the model's outputs and the targets suggest.
        classes: names of the model's classes in the order of its outputs, where it names none; (): labels in order.
        class_weight: "none", or "balanced": the loss of a row is weighed by the inverse of its class's share.
        metric: "auto", or "balanced-accuracy", the mean over classes, where rows have classes.
    """

    layout: str = "hwc"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    loss: str = "auto"
    classes: tuple[str, ...] = ()
    class_weight: str = "none"
    metric: str = "auto"

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise DataError(
                f"unknown layout '{self.layout}': expected hwc or chw{did_you_mean(self.layout, LAYOUTS)}",
                "unknown-choice",
            )
        if not all(math.isfinite(value) for value in (self.scale or 0.0, *self.mean, *self.std)):
            raise DataError("scale, mean and std must be finite numbers", "senseless-value")
        if self.scale == 0:
            raise DataError("a scale of 0 leaves nothing of the values", "senseless-value")
        if 0 in self.std:
            raise DataError("a standard deviation of 0 cannot divide", "senseless-value")
        if self.loss not in ("auto", *LOSSES):
            text = f"unknown loss '{self.loss}': expected auto, {', '.join(LOSSES)}"
            raise DataError(f"{text}{did_you_mean(self.loss, LOSSES)}", "unknown-choice")
        for name, value, known in (
            ("class-weight", self.class_weight, CLASS_WEIGHTS),
            ("metric", self.metric, METRICS),
        ):
            if value not in known:
                raise DataError(
                    f"unknown {name} '{value}': expected {' or '.join(known)}{did_you_mean(value, known)}",
                    "unknown-choice",
                )
        if len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise DataError(
                f"classes: {', '.join(self.classes)}: expected a name for each, no two alike", "class-names"
            )


def input_options(given: InputOptions | None) -> InputOptions:
    """The given options, or the defaults.

    Raises:
        DataError: the argument is something else.
    """
    if given is not None and not isinstance(given, InputOptions):
        raise DataError(f"options: expected InputOptions; found {kind_of(given)}", "wrong-type")
    return given or InputOptions()
