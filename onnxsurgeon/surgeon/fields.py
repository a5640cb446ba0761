"""The description of a run's setting: default, meaning, unit, range, choices, group; and the check of its value.

Options of the command line, their help and the checks of values are made from these. This module must not import numpy
or onnx.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.quantities import Quantity
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.training.settings import setting

LARGEST = 2**63 - 1  # the largest whole number that anyone can mean, and that files and libraries hold


@dataclass(frozen=True)
class Range:
    """The values that a setting may have: from ``least`` to ``most``, which may or may not be among them."""

    least: float = -math.inf
    most: float = math.inf
    is_least_in: bool = True
    is_most_in: bool = True

    def check(self, value: float, name: str) -> None:
        """Raise SettingsError, with a text that begins with ``name``, where the value is outside."""
        if isinstance(value, int) and abs(value) > LARGEST:
            what, wrong = f"a number of some {int(value.bit_length() * math.log10(2)) + 1} digits", "large"
            if value < 0:
                what, wrong = what.replace("a", "a negative", 1), "small"
            raise SettingsError(f"{name}: {what} is too {wrong}: expected {self}", "senseless-value")
        is_above = value >= self.least if self.is_least_in else value > self.least
        is_below = value <= self.most if self.is_most_in else value < self.most
        if is_above and is_below and math.isfinite(value):
            return
        shown = f"{value:.0f}" if math.isfinite(value) and value == int(value) else value
        if self.most < math.inf:
            is_percentage = self.most == 1 and 1 < value <= 100
            hint = f": did you mean {value / 100:g}, or {value:g}%?" if is_percentage else ""
            raise SettingsError(f"{name}: {shown} is not {self}{hint}", "senseless-value")
        raise SettingsError(
            f"{name}: {shown} is too {'large' if is_above else 'small'}: expected {self}", "senseless-value"
        )

    def __str__(self) -> str:
        least = f"{'at least' if self.is_least_in else 'more than'} {self.least:g}"
        most = f"{'at most' if self.is_most_in else 'below'} {self.most:g}"
        return " and ".join(text for text, bound in ((least, self.least), (most, self.most)) if math.isfinite(bound))


NOT_NEGATIVE, WHOLE_POSITIVE, POSITIVE = Range(0), Range(1), Range(0, is_least_in=False)
A_SHARE, SHARE_BELOW_ONE = Range(0, 1), Range(0, 1, is_most_in=False)


def quantity(default: Any, text: str, kind: Quantity, **more: Any) -> Any:
    """A field that is a number but may be given as a text with a unit."""
    return setting(default, text, quantity=kind, **more)


@dataclass(frozen=True)
class OwnSettings:
    """The base of the settings of one search: each field is a ``setting`` or ``quantity``.

    Each field becomes an option of ``evolve``, under a heading of the search, and is checked by its description.

    Raises:
        SettingsError: a value is out of range; the text names the setting.
    """

    looks_for_wishes: ClassVar[bool] = True  # and not for accuracy alone

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(settings: Any) -> None:
    """Read quantities, and check the value of every field.

    Raises:
        SettingsError: a value is not allowed; the text names the setting as the command line does.
    """
    described = fields(settings)
    for entry in described:
        value, kind = getattr(settings, entry.name), entry.metadata.get("quantity")
        if kind is not None and value is not None:
            object.__setattr__(settings, entry.name, kind.parse(value, option_name(entry.name)))
    for entry in described:
        value, allowed = getattr(settings, entry.name), entry.metadata.get("range")
        if allowed is not None and value is not None:
            allowed.check(value, option_name(entry.name))
    for entry in described:
        if "choices" in entry.metadata and not entry.metadata.get("is_checked_late"):
            require_choice(getattr(settings, entry.name), choices_of(entry.metadata["choices"]), entry.name)


def require_choice(value: str, choices: Iterable[str], name: str) -> None:
    """Raise SettingsError where the value of the setting of that name is none of the choices."""
    known = tuple(choices)
    if value not in known:
        text = f"{option_name(name)}: '{value}' is unknown: expected one of {', '.join(known)}"
        raise SettingsError(f"{text}{did_you_mean(str(value), known)}", "unknown-choice")


def choices_of(choices: Any) -> tuple[str, ...]:
    """The choices of a field's metadata, which may be a function that returns them."""
    return tuple(choices() if callable(choices) else choices)


def option_name(name: str) -> str:
    """A field's name as the command line spells it, without the dashes in front."""
    return name.replace("_", "-")
