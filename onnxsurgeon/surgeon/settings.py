"""Every hyperparameter of the Surgeon: its default, its meaning, its source; and the presets.

The command line makes its options from them: importing this must not import numpy or onnx.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from onnxsurgeon.choices import BY_GRADIENTS, OBJECTIVES, SELECTIONS, WIDEN_MODES
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.quantities import ACCURACY, COUNT, DURATION, LATENCY, SHARE, SIZE, TIMES, Quantity
from onnxsurgeon.training.rates import SCHEDULES
from onnxsurgeon.training.settings import OPTIMIZERS, TrainingSettings, setting

if TYPE_CHECKING:
    from onnxsurgeon.recommend import Thresholds

ROWS_PER_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 800, 16, 64
MOST_DROPOUT = 0.5
RATED_PARAMETERS = 10_000  # of a network that is trained with the learning rate as it is given
RETURNS = ("best-score", "most-accurate")
VALIDATIONS = ("held-out", "test")
STARTS = ("auto", "trained", "untrained")


def quantity(default: Any, text: str, kind: Quantity) -> Any:
    """A field that is a number but may be given as a text with a unit."""
    return field(default=default, metadata={"help": text, "quantity": kind})


@dataclass(frozen=True)
class SurgeonSettings(TrainingSettings):
    """All settings of a run; the names are those of the command line and of settings.json.

    Limits and shares may be given as texts with units, as on the command line ("50k", "200KB", "0.2ms", "0.5%",
    "5min"); they are kept as numbers: parameters, bytes, milliseconds, shares of 1, seconds.

    Raises:
        SettingsError: a value is out of range, or two exclude one another; the text names the setting.
    """

    preset: str = setting("default", "Where the other settings start from: default, corrected or paper.")
    objective: str = setting(
        "accuracy",
        "What is looked for: accuracy, pareto (the best networks of every size), or paper (Algorithm 1 and eq. 16).",
    )
    search: str = setting(
        "auto",
        "How it is looked for: auto, grow-and-shrink, shrink-trained or algorithm1 (auto with --objective paper).",
    )
    max_parameters: int | None = quantity(None, "The result has at most so many parameters: 50000, 50k.", COUNT)
    max_size: int | None = quantity(None, "The result's file has at most so many bytes: 200000, 200KB.", SIZE)
    max_latency: float | None = quantity(
        None, "The result takes at most so many ms for a row, measured here: 0.2, 200us.", LATENCY
    )
    min_accuracy: float | None = quantity(
        None, "The result is the smallest network of at least this accuracy: 0.95, 95%.", ACCURACY
    )
    tolerance: float | None = quantity(
        None, "The result is the smallest within this of the best accuracy: 0.005, 0.5%.", SHARE
    )
    shrink: float | None = quantity(
        None, "The result has at least so many times fewer parameters than the given network: 10.", TIMES
    )
    lose: float | None = quantity(
        None,
        "The result is the smallest that is at most so much less accurate than the given network: 0.005, 0.5%.",
        SHARE,
    )
    start: str = setting(
        "auto",
        f"Whether the given network is trained: {', '.join(STARTS)}; auto: by its metric on the rows that decide.",
    )
    seed: int = setting(0, "Seed of every random choice.")
    epochs: int = setting(100, "Length of the run.")
    growth: float = quantity(0.15, "Share of the run in which layers grow.", SHARE)
    growth_factor: float = setting(4.0, "Times the parameters that a growth makes, at most.")
    shrinkage: float = quantity(0.5, "Share of the run in which layers shrink, where the objective asks for it.", SHARE)
    shrink_step: int = setting(4, "Epochs between two shrinkages, at least.")
    trial: float = quantity(0.25, "Share of a growth after which the first half of the shapes is given up.", SHARE)
    overgrowth: float = setting(3.0, "Layers grow up to so many times a limit, to be shrunk to it afterwards.")
    ensemble: int | None = setting(
        None, "Networks that settle side by side and become one, each larger than without; by default 1."
    )
    refit: bool = setting(True, "What an ensemble becomes settles once more, on the rows that decided as well.")
    teacher_weight: float | None = setting(
        None, "With labels: share of the teacher in what is trained towards; by default 0.5 with --teacher, else 0."
    )
    temperature: float = setting(1.0, "Softens the teacher's classes: softmax(t/T), with T² times the loss.")
    more_rows: int | None = setting(
        None,
        "So many rows made from the training rows, mixed and with noise of their covariance; the teacher labels. "
        "Without labels some are made unasked, and trained on where that pays.",
    )
    learning_rate: float = setting(0.004, "Step size of the optimizer.")
    size_rate: float = setting(
        0.3, "The learning rate of more than 10,000 parameters is divided by (parameters / 10,000) to this power."
    )
    optimizer: str = setting("adamw", f"Optimizer: {', '.join(OPTIMIZERS)}.")
    weight_decay: float = setting(0.05, "Pull of all parameters towards 0; adamw's is apart from the gradient.")
    schedule: str = setting("cosine", f"Course of the learning rate: {', '.join(SCHEDULES)}.")
    warmup: float = setting(1.0, "Epochs over which the learning rate rises to its full value.")
    size_dropout: float = setting(
        0.05, "Added to --dropout, up to 0.5: this times log2(parameters / training rows); loop engine only."
    )
    standardise: bool = setting(
        True, "Train as if inputs had mean 0 and like size, and targets mean 0 (not by Algorithm 1)."
    )
    standardised_dropout: float = setting(
        0.1, "At least this is --input-dropout where all inputs are pixels and standardised; loop engine only."
    )
    batch_size: int | None = setting(
        None,
        "Rows in a batch; by default by the number of rows, 16 to 64; to 128 where numbers are imitated by the clock.",
    )
    initial_epochs: int = setting(10, "Objective paper: epochs before the first decision point.")
    epoch_step: int = setting(10, "Objective paper: epochs between decision points.")
    branches: int = setting(2, "Objective paper: how many branches are kept at a decision point.")
    redraws: int = setting(2, "Objective paper: how often candidates are redrawn where none is as accurate as before.")
    recuperation_batches: int = setting(
        25, "Objective paper: batches after a surgery, times 1 or 10 by operation, before it is judged."
    )
    epsilon_relative: float = setting(0.005, "A singular value below this fraction of the largest is small (eq. 13).")
    epsilon_absolute: float = setting(0.3, "A singular value below this is small (eq. 13).")
    rank_bound: bool = setting(
        True, "Count a linear layer's units beyond its rank bound as removable; factorize only where it saves."
    )
    selection: str = setting(
        "best-of-each", "Objective paper: which candidates are tried: best-of-each, top-n or random-walk."
    )
    top_n: int = setting(6, "How many candidates top-n tries.")
    random_draw: bool = setting(True, "Add one random candidate to best-of-each.")
    memory: bool = setting(
        True, "Objective paper: step back where no branch is as accurate as before (one-cycle memory)."
    )
    widen: str = setting("gradient", "How units are added: split, equal, fresh, or by gradient (not by Algorithm 1).")
    validation: str = setting("held-out", "What decides: held-out training rows, or the test split as in the paper.")
    result: str = setting(
        "most-accurate", "Objective paper: which branch is the result: most-accurate, or best-score of the final ones."
    )
    target_accuracy: float | None = quantity(
        None, "Stop at a decision point once this validation accuracy is reached.", ACCURACY
    )
    time_limit: float | None = quantity(
        None, "Stop at the first decision point after this many seconds: 90, 5min, 1h.", DURATION
    )
    patience: int | None = setting(None, "Stop after this many decision points without a better validation accuracy.")

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, kind = getattr(self, entry.name), entry.metadata.get("quantity")
            if kind is not None and value is not None:
                object.__setattr__(self, entry.name, kind.parse(value, _option(entry.name)))
        for name, bounds in _RANGES.items():
            value = getattr(self, name)
            if value is not None:
                bounds.check(value, _option(name))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                text = f"{_option(name)}: '{getattr(self, name)}' is unknown"
                raise SettingsError(f"{text}: expected one of {', '.join(choices)}")
        for name, other, both in _EXCLUSIVE:
            if getattr(self, name) is not None and getattr(self, other) is not None:
                raise SettingsError(f"{_option(name)}: {both}, as --{_option(other)} does: give one of them")
        for name in _WISHES if self.objective == "paper" else ():
            if getattr(self, name) is not None:
                raise SettingsError(f"{_option(name)}: Algorithm 1 (--objective paper) looks for no such network")
        if self.objective == "paper" and self.widen == BY_GRADIENTS:
            raise SettingsError("widen: gradient is not one of Algorithm 1's: expected split, equal or fresh")
        # Other objectives warm up for a part of each cycle, and do so in a run of one epoch too.
        self.check(self.epochs if self.objective == "paper" else max(self.epochs, 2))

    def batch_rows(self, rows: int, times: int = 1) -> int:
        """Rows in a batch where there are so many to train on; ``times`` as many, if that is no less than the least."""
        return self.batch_size or min(max(times * rows // ROWS_PER_BATCH, SMALLEST_BATCH), times * LARGEST_BATCH)

    def rate_of(self, parameters: int) -> float:
        """Learning rate of a network with so many parameters."""
        return self.learning_rate * math.pow(max(1.0, parameters / RATED_PARAMETERS), -self.size_rate)

    def dropout_of(self, parameters: int, rows: int) -> float:
        """Dropout of a network with so many parameters on so many training rows; of no more than rows, what is given.

        784-10-10 grown on Fashion-MNIST and pruned to 30,000 parameters, three seeds: 0.8961 of the validation rows
        without dropout of units, 0.8921 with a twentieth.
        """
        added = round(20 * min(self.size_dropout * math.log2(max(parameters / rows, 1)), MOST_DROPOUT)) / 20
        return max(self.dropout, min(self.dropout + added, MOST_DROPOUT))

    @property
    def has_no_wish(self) -> bool:
        """Whether nothing is asked for: wanted is the best accuracy, then the smallest network that is no worse."""
        asked = (*(getattr(self, name) for name in _WISHES), self.target_accuracy, self.ensemble)
        return self.objective == "accuracy" and all(each is None for each in asked)

    @property
    def thresholds(self) -> Thresholds:
        """What counts as a small singular value."""
        from onnxsurgeon.recommend import Thresholds

        return Thresholds(self.epsilon_relative, self.epsilon_absolute, self.rank_bound)

    @classmethod
    def from_preset(cls, preset: str = "default", **overrides: Any) -> SurgeonSettings:
        """The preset's settings, with ``overrides`` for single ones.

        Raises:
            SettingsError: unknown preset or setting, or a value out of range.
        """
        if preset not in PRESETS:
            raise SettingsError(f"preset: '{preset}' is unknown: expected one of {', '.join(PRESETS)}")
        known = {entry.name for entry in fields(cls)}
        for name in overrides:
            if name not in known:
                raise SettingsError(f"unknown setting '{name}'")
        return replace(cls(preset=preset), **{**PRESETS[preset], **overrides})


@dataclass(frozen=True)
class Range:
    """The values that a setting may have: from ``least`` to ``most``, which are among them or not."""

    least: float = -math.inf
    most: float = math.inf
    is_least_in: bool = True
    is_most_in: bool = True

    def check(self, value: float, name: str) -> None:
        """Raise SettingsError, with a text that begins with ``name``, where the value is outside."""
        is_above = value >= self.least if self.is_least_in else value > self.least
        is_below = value <= self.most if self.is_most_in else value < self.most
        if is_above and is_below and math.isfinite(value):
            return
        shown = f"{value:.0f}" if math.isfinite(value) and value == int(value) else value
        if self.most < math.inf:
            is_percentage = self.most == 1 and 1 < value <= 100
            hint = f": did you mean {value / 100:g}, or {value:g}%?" if is_percentage else ""
            raise SettingsError(f"{name}: {shown} is not {self}{hint}")
        raise SettingsError(f"{name}: {shown} is too {'large' if is_above else 'small'}: expected {self}")

    def __str__(self) -> str:
        least = f"{'at least' if self.is_least_in else 'more than'} {self.least:g}"
        most = f"{'at most' if self.is_most_in else 'below'} {self.most:g}"
        return " and ".join(text for text, bound in ((least, self.least), (most, self.most)) if math.isfinite(bound))


def _option(name: str) -> str:
    return name.replace("_", "-")


_NOT_NEGATIVE, _WHOLE_POSITIVE, _POSITIVE = Range(0), Range(1), Range(0, is_least_in=False)
_SHARE, _SHARE_BELOW_ONE = Range(0, 1), Range(0, 1, is_most_in=False)
_RANGES: Mapping[str, Range] = {
    "max_parameters": _WHOLE_POSITIVE,
    "max_size": _WHOLE_POSITIVE,
    "max_latency": _POSITIVE,
    "min_accuracy": Range(most=1),  # R² has no least value
    "tolerance": _SHARE,
    "shrink": Range(1, is_least_in=False),
    "lose": _SHARE,
    "seed": _NOT_NEGATIVE,
    "epochs": _WHOLE_POSITIVE,
    "growth": _SHARE,
    "growth_factor": Range(1.1),
    "shrinkage": _SHARE,
    "shrink_step": _WHOLE_POSITIVE,
    "trial": _SHARE,
    "overgrowth": Range(1),
    "ensemble": _WHOLE_POSITIVE,
    "teacher_weight": _SHARE,
    "temperature": _POSITIVE,
    "more_rows": _WHOLE_POSITIVE,
    "size_rate": _NOT_NEGATIVE,
    "size_dropout": _NOT_NEGATIVE,
    "standardised_dropout": _SHARE_BELOW_ONE,
    "batch_size": _WHOLE_POSITIVE,
    "initial_epochs": _NOT_NEGATIVE,
    "epoch_step": _WHOLE_POSITIVE,
    "branches": _WHOLE_POSITIVE,
    "redraws": _NOT_NEGATIVE,
    "recuperation_batches": _NOT_NEGATIVE,
    "epsilon_relative": _NOT_NEGATIVE,
    "epsilon_absolute": _NOT_NEGATIVE,
    "top_n": _WHOLE_POSITIVE,
    "target_accuracy": _SHARE,
    "time_limit": _POSITIVE,
    "patience": _WHOLE_POSITIVE,
}
_WISHES = ("max_parameters", "max_size", "max_latency", "min_accuracy", "tolerance", "shrink", "lose")
# Two settings that say the same in different words, and what both say.
_EXCLUSIVE = (
    ("shrink", "max_parameters", "it says how many parameters the result may have"),
    ("lose", "min_accuracy", "it says how accurate the result must be"),
    ("lose", "tolerance", "it says how accurate the result must be"),
)
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "objective": OBJECTIVES,
    "start": STARTS,
    "selection": SELECTIONS,
    "widen": (*WIDEN_MODES, BY_GRADIENTS),
    "validation": VALIDATIONS,
    "result": RETURNS,
}

# "paper" is its Appendix to the letter; "corrected" the same Algorithm 1 where the design departs from it.
_ALGORITHM_1: dict[str, Any] = {
    "objective": "paper",
    "learning_rate": 0.005,
    "optimizer": "sgd",
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "size_rate": 0.0,
    "size_dropout": 0.0,
    "standardise": False,
    "standardised_dropout": 0.0,
    "batch_size": 16,
    "widen": "split",
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "corrected": _ALGORITHM_1,
    "paper": {**_ALGORITHM_1, "widen": "equal", "rank_bound": False, "validation": "test", "result": "best-score"},
}
