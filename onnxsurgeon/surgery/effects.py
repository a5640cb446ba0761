"""The effect of a surgery on the list of layers, as far as its text tells it.

Lineages, spectra and drawings depend on this alone: they know no surgery by name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """All layers stay, and their widths."""


@dataclass(frozen=True)
class Widened:
    """The layer gets ``added`` more units."""

    added: int


@dataclass(frozen=True)
class Narrowed:
    """The layer keeps ``kept`` of its units; None where the text does not say how many."""

    kept: int | None


@dataclass(frozen=True)
class Preceded:
    """A linear layer of ``units`` units, made of the layer's weight, stands before the layer, whose width stays."""

    units: int


@dataclass(frozen=True)
class Followed:
    """A new layer of the same width stands behind the layer."""


@dataclass(frozen=True)
class BehindPool:
    """A new layer of the same width stands behind the pool that reads the layer."""


@dataclass(frozen=True)
class Absorbed:
    """The layer becomes a part of the one that reads it."""


@dataclass(frozen=True)
class Multiplied:
    """Every hidden layer has the units of ``times`` networks side by side."""

    times: int


@dataclass(frozen=True)
class Removed:
    """The branch of residual block ``block`` is gone, with all its layers; which these were is not told."""

    block: int


@dataclass(frozen=True)
class Repeated:
    """A block like residual block ``block`` stands behind it."""

    block: int


Effect = Kept | Widened | Narrowed | Preceded | Followed | BehindPool | Absorbed | Multiplied | Removed | Repeated
REBUILT = (
    BehindPool,
    Removed,
    Repeated,
)  # after these the file is read anew, and what its segments are then is not told
