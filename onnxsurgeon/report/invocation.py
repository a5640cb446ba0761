"""How a run was started, by its settings.json."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from onnxsurgeon.choices import GROUPS
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.errors import RunError, SettingsError
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.own_settings import ALGORITHM_1, OWN_SETTINGS, group_of
from onnxsurgeon.surgeon.renamed import renewed
from onnxsurgeon.surgeon.settings import PRESETS, SurgeonSettings
from onnxsurgeon.task import AGREEMENT, FIDELITY

FROM_MEMORY = "none: its rows were in memory; it was started from Python, by onnxsurgeon.evolve"


@dataclass(frozen=True)
class Setting:
    """A setting, its value, its meaning, and whether the value differs from the preset's."""

    name: str
    value: Any
    meaning: str
    changed: bool


@dataclass(frozen=True)
class Invocation:
    """How a run was started.

    Attributes:
        model: the model's file, as it was given.
        data: the data set's name, as it was given.
        settings: every hyperparameter.
        recorded: engine, device, and the other records of settings.json, by name.
        versions: versions of everything on which the result may depend.
        command: the command that would run the same again, or why none would.
        metric: the metric that decides, "accuracy" or "R²", "agreement" or "fidelity".
    """

    model: str
    data: str
    settings: tuple[Setting, ...]
    recorded: dict[str, str]
    versions: dict[str, str]
    command: str
    metric: str = "accuracy"

    @property
    def imitates(self) -> bool:
        """Whether a teacher's outputs were the measure."""
        return bool({AGREEMENT, FIDELITY} & set(self.metric.split(" and ")))

    @property
    def is_by_singular_values(self) -> bool:
        """Whether the search used the weights' singular values, as Algorithm 1 does and all searches did at first."""
        return self.value("search") == ALGORITHM_1 or (self.value("search") or self.value("objective")) is None

    @property
    def title(self) -> str:
        """Such as "mlp.onnx on digits"."""
        return f"{Path(self.model).name} on {self.data}"

    def value(self, name: str) -> Any:
        """Value of the setting of that name; None where the run has none."""
        return next((setting.value for setting in self.settings if setting.name == name), None)


def read_invocation(run: RunDirectory) -> Invocation:
    """Read how ``run`` was started.

    Raises:
        RunError: settings.json is damaged.
    """
    record = run.read_settings(get_type_hints(SurgeonSettings))
    try:
        settings = tuple(_settings(record["settings"]))
        data, model = record["data"], record["model"]
        recorded = {
            "engine": record["engine"],
            "device": record["device"],
            "data folder": data["folder"] or "",
            **{f"input {name}": _spell(value) for name, value in data["options"].items()},
            "SHA-256 of the model": model["sha256"],
            "SHA-256 of the teacher": (record.get("teacher") or {}).get("sha256"),
            "digest of the data set": data["digest"],
        }
        return Invocation(
            str(model["file"]),
            str(data["name"]),
            settings,
            {name: str(value) for name, value in recorded.items() if value},
            {name: str(version) for name, version in record["versions"].items()},
            FROM_MEMORY
            if data.get("in_memory")
            else shlex.join(["onnxsurgeon", "evolve", *_arguments(record, settings)]),
            str(record.get("metric", "accuracy")),
        )
    except (KeyError, TypeError, AttributeError, SettingsError) as error:
        raise RunError(f"{run.settings_file}: lacks or misnames an entry: {error}", "settings-of-run") from error


def _settings(recorded: Mapping[str, Any]) -> Iterator[Setting]:
    """The settings in the order in which help shows them, then those that this version does not know."""
    values, _ = renewed(recorded)
    kinds: list[type[Any]] = [SurgeonSettings, *OWN_SETTINGS.values()]
    known = {setting.name: setting for kind in kinds for setting in _described(kind)}
    preset = PRESETS.get(values["preset"], {})
    for name in sorted(values, key=lambda name: list(known).index(name) if name in known else len(known)):
        usual = preset.get(name, known[name].default if name in known else None)
        meaning = known[name].metadata["help"] if name in known else ""
        yield Setting(name, values[name], meaning, name != "preset" and values[name] != usual)


def _described(kind: type[Any]) -> list[Field[Any]]:
    """The fields that are options, group by group."""

    def place(entry: Field[Any]) -> int:
        group = group_of(kind, entry.name)
        return GROUPS.index(group) if group in GROUPS else len(GROUPS)

    return sorted((entry for entry in fields(kind) if "help" in entry.metadata), key=place)


def _arguments(record: Mapping[str, Any], settings: tuple[Setting, ...]) -> Iterator[str]:
    """Model, data set, and every option that differs from the command's defaults."""
    yield str(record["model"]["file"])
    yield from _data_arguments(record)
    for name in ("freeze", "train_only"):
        for layer in record.get(name) or ():
            yield from (f"--{name.replace('_', '-')}", str(layer))
    for setting in settings:
        option = setting.name.replace("_", "-")
        if setting.name == "preset" and setting.value != "default":
            yield from ("--preset", str(setting.value))
        elif setting.changed and isinstance(setting.value, bool):
            yield f"--{option}" if setting.value else f"--no-{option}"
        elif setting.changed and setting.value is not None:
            yield from (f"--{option}", str(setting.value))
    usual = InputOptions()
    for name, value in record["data"]["options"].items():
        wanted = tuple(value) if isinstance(value, list) else value
        if wanted != getattr(usual, name, None):
            yield from (f"--{name.replace('_', '-')}", _spell(value))
    # "auto" may choose another engine elsewhere, and with it other bytes.
    yield from ("--engine", str(record["engine"]))
    if record["device"] != "cpu":
        yield from ("--device", str(record["device"]))


def _data_arguments(record: Mapping[str, Any]) -> Iterator[str]:
    """The data set, how it is read, and the teacher."""
    data = record["data"]
    yield from ("--data", str(data["name"]))
    if data["folder"]:
        yield from ("--data-dir", str(data["folder"]))
    for column in data.get("target") or ():
        yield from ("--target", str(column))
    for name in ("impute", "validation_fraction"):
        if data.get(name) is not None:
            yield from (f"--{name.replace('_', '-')}", str(data[name]))
    if record.get("teacher"):
        yield from ("--teacher", str(record["teacher"]["file"]))


def _spell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(entry) for entry in value)
    return "" if value is None else str(value)
