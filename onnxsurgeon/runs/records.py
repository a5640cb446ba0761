"""The contents of a run's settings.json, and the check of them: the file may be damaged, or a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypedDict

from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.task import Task
from onnxsurgeon.typed import check

# Annotations of these are texts, which hide NotRequired: the totality of a class says what may be missing.


class _File(TypedDict):
    file: str
    sha256: str


class _Model(_File, total=False):
    size: int


class _Rows(TypedDict):
    name: str
    folder: str | None
    digest: str
    options: dict[str, Any]


class _Data(_Rows, total=False):
    in_memory: bool
    target: list[str]
    impute: str | None
    validation_fraction: float | None


class _Start(TypedDict):
    is_trained: bool
    reason: str


class _Needed(TypedDict):
    settings: dict[str, bool | int | float | str | None]
    engine: str
    device: str
    model: _Model
    data: _Data


class Record(_Needed, total=False):
    """Everything with which a run was started; runs recorded before an entry existed lack it."""

    teacher: _File | None
    freeze: list[str]
    train_only: list[str]
    start: _Start
    tasks: list[dict[str, Any]]
    metric: str
    versions: dict[str, str]


def check_settings(record: object, hints: Mapping[str, Any]) -> None:
    """Check every entry of settings.json; settings without a type hint are not checked.

    Raises:
        UnfitError: an entry is not what it should be; names it.
    """
    check(record, Record, "")
    assert isinstance(record, dict)
    for name, value in record["settings"].items():
        check(value, hints.get(name, Any), f"settings.{name}")
    known = {entry.name for entry in fields(InputOptions)}
    options = record["data"]["options"]
    check({name: options[name] for name in options if name in known}, InputOptions, "data.options")
    for name in options.keys() - known:
        check(options[name], bool | int | float | str | None, f"data.options.{name}")
    for number, task in enumerate(record.get("tasks", ())):
        check(task, Task, f"tasks[{number}]")
