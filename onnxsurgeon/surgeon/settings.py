"""Every hyperparameter of the Surgeon: its default, its meaning, its source; and the presets.

The command line makes its options from them: importing this must not import numpy or onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from onnxsurgeon.choices import SELECTIONS, WIDEN_MODES
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.training.settings import TrainingSettings, setting

if TYPE_CHECKING:
    from onnxsurgeon.recommend import Thresholds

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

    preset: str = setting("default", "Where the other settings start from: default or paper.")
    seed: int = setting(0, "Seed of every random choice.")
    epochs: int = setting(100, "Length of the run.")
    initial_epochs: int = setting(10, "Epochs before the first decision point.")
    epoch_step: int = setting(10, "Epochs between decision points.")
    branches: int = setting(2, "How many branches are kept at a decision point.")
    redraws: int = setting(2, "How often candidates are drawn anew where none is as accurate as before.")
    recuperation_batches: int = setting(25, "Batches after a surgery, times 1 or 10 by operation, before it is judged.")
    epsilon_relative: float = setting(0.005, "A singular value below this fraction of the largest is small (eq. 13).")
    epsilon_absolute: float = setting(0.3, "A singular value below this is small (eq. 13).")
    rank_bound: bool = setting(True, "Count units beyond the rank bound as removable; factorize only where it saves.")
    selection: str = setting("best-of-each", "Which candidates are tried: best-of-each, top-n or random-walk.")
    top_n: int = setting(6, "How many candidates top-n tries.")
    random_draw: bool = setting(True, "Add one random candidate to best-of-each.")
    memory: bool = setting(True, "Step back where no branch is as accurate as before (one-cycle memory).")
    widen: str = setting("split", "How units are added: split, equal or fresh.")
    batch_size: int = setting(16, "Rows in a batch.")
    validation: str = setting("held-out", "What decides: held-out training rows, or the test split as in the paper.")
    result: str = setting(
        "most-accurate", "Which branch is the result: most-accurate, or best-score of the final ones."
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
        self.check(self.epochs)

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
    "epochs": 1,
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
    "selection": SELECTIONS,
    "widen": WIDEN_MODES,
    "validation": VALIDATIONS,
    "result": RETURNS,
}

# "paper" is its Appendix to the letter; the dataclass's defaults differ where the design found better ones.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"widen": "equal", "rank_bound": False, "validation": "test", "result": "best-score"},
}
