"""The settings of training as plain numbers, with the same names on the command line, in settings.json and here.

The command line makes its options from them, so this module must not import numpy or onnx.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxsurgeon.choices import AUGMENTATIONS, TRAINING
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.training.rates import SCHEDULES, RateSchedule
from onnxsurgeon.training.threads import one_thread

if TYPE_CHECKING:
    from onnxsurgeon.linear_algebra import Array

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adamw")


def setting(default: Any, text: str, **more: Any) -> Any:
    """A field whose description the command line shows.

    ``more`` may be its ``group`` in help; ``is_expert``, where only ``--help-all`` shows it; its ``choices``, or a
    function that returns them; and in settings of runs its ``range`` (``surgeon.fields``).
    """
    return field(default=default, metadata={"help": text, **more})


def tuned(default: Any, text: str, **more: Any) -> Any:
    """A setting of the group "Training"."""
    return setting(default, text, **{"group": TRAINING, **more})


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its numbers, as PyTorch defines them, and dropout, which an engine may lack as well."""

    learning_rate: float = tuned(0.005, "Step size of the optimizer.")
    optimizer: str = tuned("sgd", "What makes a step.", choices=OPTIMIZERS)
    momentum: float = tuned(0.9, "Share of the last step in the next: of momentum and nesterov.", is_expert=True)
    weight_decay: float = tuned(0.0, "Pull of all parameters towards 0.")
    beta1: float = tuned(0.9, "adamw: share of the old mean gradient in the new.", is_expert=True)
    beta2: float = tuned(0.999, "adamw: the same of the mean squared gradient.", is_expert=True)
    epsilon: float = tuned(1e-8, "adamw: added to the root of the mean squared gradient.", is_expert=True)
    dropout: float = tuned(0.0, "Share of units left out.")
    input_dropout: float = tuned(0.0, "Share of inputs left out.")

    def check_optimizer(self) -> None:
        """Raise SettingsError where a number of the optimizer is out of range; the text names the setting."""
        if self.optimizer not in OPTIMIZERS:
            raise SettingsError(
                f"optimizer: '{self.optimizer}' is unknown: expected one of {', '.join(OPTIMIZERS)}"
                f"{did_you_mean(self.optimizer, OPTIMIZERS)}",
                "unknown-choice",
            )
        if not 0 < self.momentum < 1:
            hint = "; without momentum, the optimizer is sgd" if self.momentum == 0 else ""
            raise SettingsError(f"momentum: {self.momentum} is not between 0 and 1{hint}", "senseless-value")
        if not 0 <= self.weight_decay < math.inf:
            raise SettingsError(
                f"weight-decay: {self.weight_decay} is no finite value of at least 0", "senseless-value"
            )
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name}: {getattr(self, name)} is not at least 0 and below 1", "senseless-value")
        if not 0 < self.epsilon < math.inf:
            raise SettingsError(f"epsilon: {self.epsilon} is no positive value", "senseless-value")
        for name in ("dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(
                    f"{name.replace('_', '-')}: {getattr(self, name)} is not at least 0 and below 1", "senseless-value"
                )


@dataclass(frozen=True)
class TrainingSpec(OptimizerSettings):
    """How to train for some batches.

    Attributes:
        report_loss: whether the mean training loss is computed along the way.
        artifact_directory: where the artifacts engine keeps its files; None: it does not keep them.
        schedule: the factors of the learning rate.
        position: position in the run of the first batch that is trained.
        seed: seed of dropout.
        threads: returns how many threads are free at the moment; called before every array of batches.
        augment: how images are moved; see ``augmentation``.
    """

    report_loss: bool = False
    artifact_directory: Path | None = None
    schedule: RateSchedule = field(default_factory=RateSchedule)
    position: int = 0
    seed: int = 0
    threads: Callable[[], int] = one_thread
    augment: str = AUGMENTATIONS[0]

    def rates(self, start: int, count: int) -> Array:
        """Learning rates η of ``count`` batches, float64; the first has the number ``start`` of those trained here."""
        return self.learning_rate * self.schedule.factors(self.position + start, count)


@dataclass(frozen=True)
class TrainingSettings(OptimizerSettings):
    """How to train for a whole run."""

    schedule: str = tuned("constant", "Course of the learning rate.", choices=tuple(SCHEDULES))
    warmup: float = tuned(0.0, "Epochs in which the rate rises.")

    def check(self, epochs: int) -> None:
        """Raise SettingsError where a value is out of range; the text names the setting."""
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"learning-rate: {self.learning_rate} is no positive step size", "senseless-value")
        self.check_optimizer()
        if self.schedule not in SCHEDULES:
            raise SettingsError(
                f"schedule: '{self.schedule}' is unknown: expected one of {', '.join(SCHEDULES)}"
                f"{did_you_mean(self.schedule, SCHEDULES)}",
                "unknown-choice",
            )
        if not 0 <= self.warmup < epochs and self.warmup != 0:
            raise SettingsError(
                f"warmup: {self.warmup} epochs is not at least 0 and shorter than the run of {epochs}",
                "senseless-value",
            )
        if self.warmup and self.schedule == "one-cycle":
            raise SettingsError(f"warmup: {self.warmup}: the schedule one-cycle has a warm-up of its own", "exclusive")

    def spec(self, epochs: int, batches_per_epoch: int, position: int = 0, **others: Any) -> TrainingSpec:
        """How to train from ``position`` on in a run of ``epochs`` epochs; ``others`` are fields of the spec."""
        shared = {entry.name: getattr(self, entry.name) for entry in fields(OptimizerSettings)}
        schedule = RateSchedule(self.schedule, epochs * batches_per_epoch, round(self.warmup * batches_per_epoch))
        return TrainingSpec(**shared, schedule=schedule, position=position, **others)
