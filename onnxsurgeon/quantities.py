"""Numbers with units, as people write them: 50k parameters, 200KB, 0.2ms, 0.5%, 5min; read and spelled.

A number without a unit is in the first of a quantity's units, as all numbers were before units could be written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from onnxsurgeon.errors import SettingsError

_TEXT = re.compile(r"\s*([+-]?(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([^\W\d_]*|%)\s*")
_MOST_DIGITS = 60  # a longer text is not read at all
_MOST_WHOLE = 18  # digits of a number that counts layers, rows or classes


@dataclass(frozen=True)
class Quantity:
    """A kind of number.

    Attributes:
        what: says, with its article, what kind of text can be read.
        units: the value of each unit in the one that is counted in; case does not matter.
        examples: texts that can be read.
        placeholder: stands for the value in the help of the command line.
        is_whole: whether fractions make no sense.
    """

    what: str
    units: Mapping[str, str]
    examples: tuple[str, ...]
    placeholder: str
    is_whole: bool = False

    def parse(self, value: str | float, name: str) -> float:
        """The number that ``value`` stands for; a number stands for itself. A whole number is returned as an ``int``.

        Raises:
            SettingsError: it stands for no number; the text begins with ``name``.
        """
        number = self._read(value)
        if number is None:
            raise SettingsError(
                f"{name}: '{value}' is no {self.what}: expected such as {' or '.join(self.examples)}", "senseless-value"
            )
        if not self.is_whole:
            return float(number)
        if not number.is_finite() or number != int(number):
            raise SettingsError(f"{name}: '{value}' is no whole {self.what}", "senseless-value")
        return int(number)

    def _read(self, value: str | float) -> Decimal | None:
        if not isinstance(value, str):
            return None if isinstance(value, bool) else Decimal(str(value))
        found = _TEXT.fullmatch(value) if len(value) <= _MOST_DIGITS else None
        factors = {unit.casefold(): factor for unit, factor in self.units.items()}
        factor = factors.get(found[2].casefold()) if found else None
        return Decimal(found[1]) * Decimal(factor) if found and factor else None


COUNT = Quantity(
    "number of parameters",
    {"": "1", "k": "1e3", "M": "1e6"},
    ("50000", "50k", "1.5M"),
    "N",
    is_whole=True,
)
SIZE = Quantity(
    "number of bytes",
    {
        **{"": "1", "B": "1", "kB": "1e3", "MB": "1e6", "GB": "1e9"},
        **{"KiB": "1024", "MiB": str(1024**2), "GiB": str(1024**3)},
    },
    ("200000", "200KB", "1.5MiB"),
    "BYTES",
    is_whole=True,
)
MACS = Quantity("number of multiplications", {**COUNT.units, "G": "1e9"}, ("200k", "5M"), "N", is_whole=True)
LATENCY = Quantity(
    "time in milliseconds",
    {"": "1", "ms": "1", "us": "1e-3", "µs": "1e-3", "ns": "1e-6", "s": "1e3"},
    ("0.2", "0.2ms", "200us"),
    "MS",
)
DURATION = Quantity(
    "time in seconds",
    {"": "1", "s": "1", "ms": "1e-3", "min": "60", "m": "60", "h": "3600"},
    ("90", "90s", "5min", "1h"),
    "SECONDS",
)
SHARE = Quantity("share", {"": "1", "%": "0.01"}, ("0.005", "0.5%"), "SHARE")
ACCURACY = Quantity("share", SHARE.units, ("0.95", "95%"), "SHARE")
TIMES = Quantity("factor", {"": "1", "x": "1", "×": "1"}, ("10", "2.5"), "TIMES")


def whole(text: str) -> int | None:
    """The number that a text of digits stands for; None if it is no number, or larger than anyone can mean."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_WHOLE else None


def spell_count(count: float) -> str:
    """Spell a number of parameters: "192,408", and from a million on with three digits: "1.57 M"."""
    return f"{count:,.0f}" if count < 1e6 else f"{_three(count / 1e6)} M"


def spell_size(size: float) -> str:
    """Spell a number of bytes with three digits, such as "5.45 kB"."""
    return _scaled(size, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), f"{size:.0f} B")


def spell_latency(milliseconds: float) -> str:
    """Spell a time given in ms with three digits, such as "8.21 µs"."""
    return _scaled(milliseconds, (("s", 1e3), ("ms", 1.0)), f"{_three(1e3 * milliseconds)} µs")


def spell_share(share: float) -> str:
    """Spell a share, such as "0.5%"."""
    return f"{100 * share:.4g}%"


def _scaled(value: float, units: tuple[tuple[str, float], ...], small: str) -> str:
    for unit, factor in units:
        if value >= 0.9995 * factor:  # three digits of it would be 1000 of the smaller unit
            return f"{_three(value / factor)} {unit}"
    return small


def _three(value: float) -> str:
    """Spell a value with three digits, never with an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
