"""Every hyperparameter of the Surgeon: its default, its meaning, its source; and the presets.

The command line makes its options from them, so this module must not import numpy or onnx.

One file: a table of all fields in the order of the help, whose values are checked against one another.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from onnxsurgeon.choices import AUGMENTATIONS, BY_GRADIENTS, DATA, OBJECTIVES, RUN, TRAINING, WANTED, WIDEN_MODES
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.quantities import ACCURACY, COUNT, DURATION, LATENCY, MACS, SHARE, SIZE, TIMES
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.surgeon.fields import (
    A_SHARE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE_BELOW_ONE,
    WHOLE_POSITIVE,
    OwnSettings,
    Range,
    check_fields,
    option_name,
    quantity,
    require_choice,
)
from onnxsurgeon.surgeon.own_settings import (
    ALGORITHM_1,
    AUTO,
    OWN_SETTINGS,
    Algorithm1Settings,
    GrowAndShrinkSettings,
    owners,
    searches,
)
from onnxsurgeon.surgeon.renamed import renewed
from onnxsurgeon.training.rates import SCHEDULES
from onnxsurgeon.training.settings import OPTIMIZERS, TrainingSettings, setting, tuned

if TYPE_CHECKING:
    from onnxsurgeon.recommend import Thresholds

ROWS_PER_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 800, 16, 64
MOST_DROPOUT = 0.5
OF_MAPS = 8  # for dropout, parameters of networks with convolutions count this many times
RATED_PARAMETERS = 10_000  # a network with this many parameters is trained with the learning rate as it is given
VALIDATIONS = ("held-out", "test")
STARTS = ("auto", "trained", "untrained")
T = TypeVar("T", bound=OwnSettings)


def preset_names() -> tuple[str, ...]:
    """The presets that there are."""
    return tuple(PRESETS)


@dataclass(frozen=True)
class SurgeonSettings(TrainingSettings, GrowAndShrinkSettings, Algorithm1Settings):
    """All settings of a run; the names are those of the command line and of settings.json.

    The settings of onnxsurgeon's own searches come from a dataclass of each search and stand beside the others; those
    of another search are in ``own``, by name.

    Limits and shares may be given as texts with units, as on the command line ("50k", "200KB", "0.2ms", "0.5%",
    "5min"); they are kept as numbers: parameters, bytes, milliseconds, shares of 1, seconds.

    Raises:
        SettingsError: a value is out of range, or two exclude one another; the text names the setting.
    """

    preset: str = setting("default", "Sets all others.", group=RUN, choices=preset_names)
    objective: str = setting(
        "accuracy",
        "Or the best of every size.",
        group=WANTED,
        choices=OBJECTIVES,
    )
    search: str = setting(
        "auto",
        "How it is looked for.",
        group=RUN,
        choices=searches,
        is_checked_late=True,
    )
    max_parameters: int | None = quantity(
        None, "At most so many parameters: 50000, 50k.", COUNT, group=WANTED, range=WHOLE_POSITIVE
    )
    max_size: int | None = quantity(
        None, "A file of at most so many bytes: 200KB.", SIZE, group=WANTED, range=WHOLE_POSITIVE
    )
    max_latency: float | None = quantity(
        None, "At most so many ms a row, measured here: 0.2.", LATENCY, group=WANTED, range=POSITIVE
    )
    max_macs: int | None = quantity(
        None, "At most so many multiplications a row: 5M.", MACS, group=WANTED, range=WHOLE_POSITIVE
    )
    max_memory: int | None = quantity(
        None,
        "At most so many bytes of tensors at once, for a row: 128KB.",
        SIZE,
        group=WANTED,
        range=WHOLE_POSITIVE,
        is_expert=True,
    )
    min_accuracy: float | None = quantity(
        None,
        "The smallest of at least this accuracy: 95%.",
        ACCURACY,
        group=WANTED,
        range=Range(most=1),  # R² has no least value
    )
    tolerance: float | None = quantity(
        None, "The smallest within this of the best accuracy.", SHARE, group=WANTED, range=A_SHARE
    )
    shrink: float | None = quantity(
        None,
        "10: a tenth of the given one's parameters.",
        TIMES,
        group=WANTED,
        range=Range(1, is_least_in=False),
    )
    lose: float | None = quantity(
        None, "The smallest at most so much less accurate: 0.5%.", SHARE, group=WANTED, range=A_SHARE
    )
    start: str = setting(
        "auto",
        "Whether the given network is trained; auto: by its metric on the rows that decide.",
        group=RUN,
        choices=STARTS,
        is_expert=True,
    )
    seed: int = setting(0, "Seed of every random choice.", group=RUN, range=NOT_NEGATIVE)
    epochs: int = setting(100, "Length of the run.", group=RUN, range=WHOLE_POSITIVE)
    teacher_weight: float | None = setting(
        None,
        "With labels: share of the teacher in what is trained towards; by default 0.5 with --teacher, else 0.",
        group=TRAINING,
        range=A_SHARE,
        is_expert=True,
    )
    temperature: float = setting(
        1.0,
        "Softens the teacher's classes: softmax(t/T), with T² times the loss.",
        group=TRAINING,
        range=POSITIVE,
        is_expert=True,
    )
    more_rows: int | None = setting(
        None,
        "So many rows made from the training rows, mixed and with noise of their covariance; the teacher labels. "
        "Without labels some are made unasked, and trained on where that pays.",
        group=DATA,
        range=WHOLE_POSITIVE,
        is_expert=True,
    )
    learning_rate: float = tuned(0.004, "Step size of the optimizer.")
    size_rate: float = tuned(
        0.3,
        "The learning rate of more than 10,000 parameters is divided by (parameters / 10,000) to this power.",
        range=NOT_NEGATIVE,
        is_expert=True,
    )
    optimizer: str = tuned("adamw", "What makes a step.", choices=OPTIMIZERS)
    weight_decay: float = tuned(0.05, "Pull of all parameters towards 0.")
    schedule: str = tuned("cosine", "Course of the learning rate.", choices=tuple(SCHEDULES))
    warmup: float = tuned(1.0, "Epochs in which the rate rises.")
    size_dropout: float = tuned(
        0.05,
        "Added to --dropout, up to 0.5: this times log2(parameters / training rows); loop engine only.",
        range=NOT_NEGATIVE,
        is_expert=True,
    )
    standardise: bool = tuned(
        True, "Train as if inputs had mean 0 and like size, and targets mean 0 (not by Algorithm 1).", is_expert=True
    )
    standardised_dropout: float = tuned(
        0.1,
        "At least this is --input-dropout where all inputs are pixels and standardised; loop engine only.",
        range=SHARE_BELOW_ONE,
        is_expert=True,
    )
    augment: str = tuned(
        AUGMENTATIONS[0],
        "Images that convolutions read are moved by some pixels, mirrored or both, those of a batch alike; loop engine "
        "only.",
        choices=AUGMENTATIONS,
        is_expert=True,
    )
    batch_size: int | None = tuned(None, "Rows in a batch; by default 16 to 64, or 128.", range=WHOLE_POSITIVE)
    widen: str = setting(
        "gradient",
        "How units are added; by gradient not by Algorithm 1.",
        group=RUN,
        choices=(*WIDEN_MODES, BY_GRADIENTS),
        is_expert=True,
    )
    decide_by: str = setting(
        "held-out",
        "What decides: held-out training rows, or the test split as in the paper.",
        group=DATA,
        choices=VALIDATIONS,
        is_expert=True,
    )
    target_accuracy: float | None = quantity(
        None, "Stop once this accuracy is reached.", ACCURACY, group=RUN, range=A_SHARE
    )
    time_limit: float | None = quantity(
        None, "Stop after so many seconds: 90, 5min, 1h.", DURATION, group=RUN, range=POSITIVE
    )
    patience: int | None = setting(None, "Stop after so many decisions without gain.", group=RUN, range=WHOLE_POSITIVE)
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_fields(self)
        self._require_owned()
        for name, other, both in _EXCLUSIVE:
            if getattr(self, name) is not None and getattr(self, other) is not None:
                text = f"{option_name(name)}: {both}, as --{option_name(other)} does"
                raise SettingsError(f"{text}: give one of them", "exclusive")
        if not self.heeds_wishes:
            self._require_no_wish()
        is_algorithm_1 = self.search == ALGORITHM_1
        if is_algorithm_1 and self.widen == BY_GRADIENTS:
            text = "widen: gradient is not one of Algorithm 1's: expected split, equal or fresh"
            raise SettingsError(f"{text}; --preset corrected sets all that it needs", "other-search")
        # Other searches warm up for a part of each cycle, and do so in a run of one epoch too.
        self.check(self.epochs if is_algorithm_1 else max(self.epochs, 2))

    def _require_no_wish(self) -> None:
        """Check that there is no wish for a search that heeds none."""
        asked = [name for name in _WISHES if getattr(self, name) is not None]
        for name in [*asked, *(["objective"] if self.objective != OBJECTIVES[0] else [])]:
            called = "Algorithm 1" if self.search == ALGORITHM_1 else self.search
            what = "front" if name == "objective" else "such network"
            raise SettingsError(
                f"{option_name(name)}: {called} (--search {self.search}) looks for no {what}", "other-search"
            )

    @property
    def heeds_wishes(self) -> bool:
        """Whether the search looks for wishes, and not for accuracy alone."""
        return OWN_SETTINGS.get(self.search, OwnSettings).looks_for_wishes

    def _require_owned(self) -> None:
        """Check that settings of a stranger's search belong to the one that is asked for, and their values."""
        kind = OWN_SETTINGS.get(self.search)
        for name in self.own if kind is not None or self.search == AUTO else ():
            if kind is None or name not in {entry.name for entry in fields(kind)}:
                of = " or ".join(f"--search {search}" for search in owners(name))
                raise SettingsError(f"{option_name(name)}: is for {of or 'no search that is known'}", "other-search")
        if kind is not None:
            self.of(kind)

    def of(self, kind: type[T]) -> T:
        """The settings of one search alone, as its dataclass.

        Raises:
            SettingsError: a value is out of range.
        """
        known = {entry.name for entry in fields(self)}
        given = {name: getattr(self, name) for name in (entry.name for entry in fields(kind)) if name in known}
        return kind(**given, **{name: value for name, value in self.own.items() if name not in given})

    def batch_rows(self, rows: int, times: int = 1) -> int:
        """Rows in a batch for ``rows`` rows to train on; ``times`` as many, if that is no less than the least."""
        return self.batch_size or min(max(times * rows // ROWS_PER_BATCH, SMALLEST_BATCH), times * LARGEST_BATCH)

    def rate_of(self, parameters: int) -> float:
        """Learning rate of a network with that number of parameters."""
        return self.learning_rate * math.pow(max(1.0, parameters / RATED_PARAMETERS), -self.size_rate)

    def dropout_of(self, parameters: int, rows: int, *, has_maps: bool = False) -> float:
        """Dropout of a network of this size on that number of training rows.

        A network with no more parameters than rows keeps the dropout that was given.

        784-10-10 grown on Fashion-MNIST and pruned to 30,000 parameters, three seeds: 0.8961 of the validation rows
        without dropout of units, 0.8921 with a twentieth. With ``has_maps`` values of convolutions' maps are left out,
        whose neighbours tell much of what they would have told.
        """
        times = OF_MAPS * parameters / rows if has_maps else parameters / rows
        added = round(20 * min(self.size_dropout * math.log2(max(times, 1)), MOST_DROPOUT)) / 20
        return max(self.dropout, min(self.dropout + added, MOST_DROPOUT))

    @property
    def has_no_wish(self) -> bool:
        """Whether nothing is asked for: then the best accuracy is wanted, and the smallest network that is no worse."""
        asked = (*(getattr(self, name) for name in _WISHES), self.target_accuracy, self.ensemble)
        return self.heeds_wishes and self.objective == "accuracy" and all(each is None for each in asked)

    @property
    def thresholds(self) -> Thresholds:
        """What counts as a small singular value."""
        from onnxsurgeon.recommend import Thresholds

        return Thresholds(self.singular_relative, self.singular_absolute, self.rank_bound)

    def record(self) -> dict[str, Any]:
        """All settings by name, as settings.json has them; those of a stranger's search stand beside the others."""
        values = asdict(self)
        own = values.pop("own")
        return {**values, **own}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SurgeonSettings:
        """The settings that ``record`` gave. Missing ones are Algorithm 1's, which was the first and only search once.

        Raises:
            SettingsError: a value is out of range.
            TypeError: a setting is not known.
        """
        record, _ = renewed(record)
        known = {entry.name for entry in fields(cls)} - {"own"}
        is_known = record.get("search", AUTO) in searches()
        own = {
            name: value for name, value in record.items() if name not in known and (any(owners(name)) or not is_known)
        }
        given = {name: value for name, value in record.items() if name not in own}
        search = AUTO if "objective" in record else ALGORITHM_1
        return cls(**{**PRESETS["corrected"], "search": search, **given, "own": own})

    @classmethod
    def from_preset(cls, preset: str = "default", **overrides: Any) -> SurgeonSettings:
        """The preset's settings, with ``overrides`` for single ones.

        Raises:
            SettingsError: unknown preset or setting, or a value out of range.
        """
        require_choice(preset, PRESETS, "preset")
        overrides, remarks = renewed(overrides)
        for remark in remarks:
            warnings.warn(remark, FutureWarning, stacklevel=2)
        known = {entry.name for entry in fields(cls)}
        own = {name: value for name, value in overrides.items() if name not in known and any(owners(name))}
        for name in overrides:
            if name not in known and name not in own:
                every = known | {entry.name for kind in OWN_SETTINGS.values() for entry in fields(kind)}
                raise SettingsError(f"unknown setting '{name}'{did_you_mean(name, every)}", "unknown-choice")
        given: dict[str, Any] = {name: value for name, value in overrides.items() if name not in own}
        return replace(cls(preset=preset), **{"own": own, **PRESETS[preset], **given})


_WISHES = (
    *("max_parameters", "max_size", "max_latency", "max_macs", "max_memory"),
    *("min_accuracy", "tolerance", "shrink", "lose"),
)
# Two settings that say the same in different words, and what both say.
_EXCLUSIVE = (
    ("shrink", "max_parameters", "it says how many parameters the result may have"),
    ("lose", "min_accuracy", "it says how accurate the result must be"),
    ("lose", "tolerance", "it says how accurate the result must be"),
)

# "paper" follows its Appendix to the letter; "corrected" is the same Algorithm 1 with the design's departures from it.
_ALGORITHM_1: dict[str, Any] = {
    "search": ALGORITHM_1,
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
    "paper": {**_ALGORITHM_1, "widen": "equal", "rank_bound": False, "decide_by": "test", "pick": "best-score"},
}
