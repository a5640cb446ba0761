"""Every hyperparameter of the Surgeon: its default, its meaning, its source; and the presets.

The command line makes its options from them: importing this must not import numpy or onnx.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from onnxsurgeon.choices import BY_GRADIENTS, OBJECTIVES, SELECTIONS, WIDEN_MODES
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.training.rates import SCHEDULES
from onnxsurgeon.training.settings import OPTIMIZERS, TrainingSettings, setting

if TYPE_CHECKING:
    from onnxsurgeon.recommend import Thresholds

ROWS_PER_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 800, 16, 64
MOST_DROPOUT = 0.5
RATED_PARAMETERS = 10_000  # of a network that is trained with the learning rate as it is given
RETURNS = ("best-score", "most-accurate")
VALIDATIONS = ("held-out", "test")

# How many times --recuperation-batches each operation is trained before it is judged (paper, Appendix).
RECUPERATION = {
    "identity": 1,
    "widen": 1,
    "insert_identity": 10,
    "narrow": 10,
    "merge": 10,
    "factorize": 1,
}


@dataclass(frozen=True)
class SurgeonSettings(TrainingSettings):
    """All settings of a run; the names are those of the command line and of settings.json.

    Raises:
        SettingsError: a value is out of range; the text names the setting.
    """

    preset: str = setting("default", "Where the other settings start from: default, corrected or paper.")
    objective: str = setting(
        "accuracy",
        "What is looked for: accuracy, pareto (the best networks of every size), or paper (Algorithm 1 and eq. 16).",
    )
    max_parameters: int | None = setting(None, "The result has at most so many parameters.")
    max_size: int | None = setting(None, "The result's file has at most so many bytes.")
    max_latency: float | None = setting(None, "The result takes at most so many ms for a row, measured here.")
    min_accuracy: float | None = setting(None, "The result is the smallest network of at least this accuracy.")
    tolerance: float | None = setting(None, "The result is the smallest within this of the best accuracy.")
    seed: int = setting(0, "Seed of every random choice.")
    epochs: int = setting(100, "Length of the run.")
    growth: float = setting(0.15, "Share of the run in which layers grow.")
    growth_factor: float = setting(4.0, "Times the parameters that a growth makes, at most.")
    shrinkage: float = setting(0.5, "Share of the run in which layers shrink, where the objective asks for it.")
    shrink_step: int = setting(4, "Epochs between two shrinkages, at least.")
    trial: float = setting(0.25, "Share of a growth after which the first half of the shapes is given up.")
    overgrowth: float = setting(3.0, "Layers grow up to so many times a limit, to be shrunk to it afterwards.")
    ensemble: int | None = setting(
        None, "Networks that settle side by side and become one; by default 4 where nothing limits the result, else 1."
    )
    refit: bool = setting(
        True, "Where nothing limits the result, it settles once more, on the rows that decided as well."
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
    standardise: bool = setting(True, "Train as if inputs had mean 0 and like size (not by Algorithm 1).")
    standardised_dropout: float = setting(
        0.1, "At least this is --input-dropout where all inputs are standardised; loop engine only."
    )
    batch_size: int | None = setting(None, "Rows in a batch; by default by the number of rows, 16 to 64.")
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
    target_accuracy: float | None = setting(None, "Stop at a decision point once this validation accuracy is reached.")
    time_limit: float | None = setting(None, "Stop at the first decision point after this many seconds.")
    patience: int | None = setting(None, "Stop after this many decision points without a better validation accuracy.")

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise SettingsError(f"{name.replace('_', '-')}: {value} is too small: expected at least {least}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                text = f"{name.replace('_', '-')}: '{getattr(self, name)}' is unknown"
                raise SettingsError(f"{text}: expected one of {', '.join(choices)}")
        if self.objective == "paper" and self.widen == BY_GRADIENTS:
            raise SettingsError("widen: gradient is not one of Algorithm 1's: expected split, equal or fresh")
        if self.standardised_dropout >= 1:
            raise SettingsError(f"standardised-dropout: {self.standardised_dropout} is not at least 0 and below 1")
        # Other objectives warm up for a part of each cycle, and do so in a run of one epoch too.
        self.check(self.epochs if self.objective == "paper" else max(self.epochs, 2))

    def batch_rows(self, rows: int) -> int:
        """Rows in a batch where there are so many to train on."""
        return self.batch_size or min(max(rows // ROWS_PER_BATCH, SMALLEST_BATCH), LARGEST_BATCH)

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


_AT_LEAST: Mapping[str, float] = {
    "seed": 0,
    "max_parameters": 1,
    "max_size": 1,
    "max_latency": 0,
    "tolerance": 0,
    "epochs": 1,
    "growth": 0,
    "growth_factor": 1.1,
    "shrinkage": 0,
    "shrink_step": 1,
    "trial": 0,
    "overgrowth": 1,
    "ensemble": 1,
    "size_rate": 0,
    "size_dropout": 0,
    "standardised_dropout": 0,
    "initial_epochs": 0,
    "epoch_step": 1,
    "branches": 1,
    "redraws": 0,
    "recuperation_batches": 0,
    "epsilon_relative": 0,
    "epsilon_absolute": 0,
    "top_n": 1,
    "batch_size": 1,
    "target_accuracy": 0,
    "time_limit": 0,
    "patience": 1,
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "objective": OBJECTIVES,
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
