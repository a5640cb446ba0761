"""The searches there are, by name."""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.surgeon.own_settings import OWN_SETTINGS
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.settings import SurgeonSettings

SEARCHES: dict[str, type[Surgeon]] = {}
T = TypeVar("T", bound="type[Surgeon]")


def register(kind: T) -> T:
    """Enter a search into the registry under its name; its own settings become options of ``evolve``.

    Raises:
        SettingsError: a setting of its own has the name of another.
    """
    taken = {entry.name: "every search" for entry in fields(SurgeonSettings)}
    for search, settings in OWN_SETTINGS.items():
        taken.update({entry.name: search for entry in fields(settings)} if search != kind.name else {})
    for entry in fields(kind.settings_type) if kind.name not in OWN_SETTINGS else ():
        if entry.name in taken:
            raise SettingsError(
                f"search {kind.name}: its setting '{entry.name}' is one of {taken[entry.name]}", "other-search"
            )
    SEARCHES[kind.name] = kind
    OWN_SETTINGS[kind.name] = kind.settings_type
    return kind


def unregister(name: str) -> None:
    """Take a search out of the registry."""
    del SEARCHES[name], OWN_SETTINGS[name]
