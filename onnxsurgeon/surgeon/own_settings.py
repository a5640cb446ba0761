"""The settings of each search alone, by the search's name, so that help need not load the search.

A stranger's search has a dataclass of its own, which ``surgeon.registry.register`` enters here. This module must not
import numpy or onnx.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

from onnxsurgeon.choices import SELECTIONS
from onnxsurgeon.quantities import SHARE
from onnxsurgeon.surgeon.fields import A_SHARE, NOT_NEGATIVE, WHOLE_POSITIVE, OwnSettings, Range, quantity
from onnxsurgeon.training.settings import setting

RESULT_CHOICES = ("most-accurate", "best-score")
AUTO = "auto"
GROW_AND_SHRINK, SHRINK_TRAINED, ALGORITHM_1 = "grow-and-shrink", "shrink-trained", "algorithm1"


@dataclass(frozen=True)
class GrowAndShrinkSettings(OwnSettings):
    """Settings of the search "grow-and-shrink"; see ``surgeon.grow_and_shrink``."""

    growth: float = quantity(0.15, "Share of the run to grow in.", SHARE, range=A_SHARE)
    growth_factor: float = setting(
        4.0, "Times the parameters that a growth makes, at most.", range=Range(1.1), is_expert=True
    )
    shrinkage: float = quantity(0.5, "Share of the run to shrink in.", SHARE, range=A_SHARE)
    shrink_step: int = setting(4, "Epochs between two shrinkages, at least.", range=WHOLE_POSITIVE, is_expert=True)
    trial: float = quantity(
        0.25,
        "Share of a growth after which the first half of the shapes is given up.",
        SHARE,
        range=A_SHARE,
        is_expert=True,
    )
    overgrowth: float = setting(
        3.0, "Layers grow up to so many times a limit, to be shrunk to it afterwards.", range=Range(1), is_expert=True
    )
    ensemble: int | None = setting(
        None,
        "Networks that settle side by side and become one.",
        range=WHOLE_POSITIVE,
    )
    refit: bool = setting(
        True, "What an ensemble becomes settles once more, on the rows that decided as well.", is_expert=True
    )


@dataclass(frozen=True)
class ShrinkTrainedSettings(OwnSettings):
    """Settings of the search "shrink-trained": it has none of its own."""


@dataclass(frozen=True)
class Algorithm1Settings(OwnSettings):
    """Settings of the paper's Algorithm 1; see ``surgeon.algorithm1``."""

    looks_for_wishes: ClassVar[bool] = False

    epoch_step: int = setting(10, "Epochs between decision points.", range=WHOLE_POSITIVE)
    initial_epochs: int = setting(10, "Before the first decision point.", range=NOT_NEGATIVE)
    branches: int = setting(2, "Kept at a decision point.", range=WHOLE_POSITIVE)
    redraws: int = setting(
        2,
        "How often candidates are redrawn where none is as accurate as before.",
        range=NOT_NEGATIVE,
        is_expert=True,
    )
    recuperation_batches: int = setting(
        25,
        "Batches after a surgery, times 1 or 10 by operation, before it is judged.",
        range=NOT_NEGATIVE,
        is_expert=True,
    )
    singular_relative: float = setting(
        0.005,
        "A singular value below this fraction of the largest is small (eq. 13).",
        range=NOT_NEGATIVE,
        is_expert=True,
    )
    singular_absolute: float = setting(
        0.3, "A singular value below this is small (eq. 13).", range=NOT_NEGATIVE, is_expert=True
    )
    rank_bound: bool = setting(
        True,
        "Count a linear layer's units beyond its rank bound as removable; factorize only where it saves.",
        is_expert=True,
    )
    selection: str = setting("best-of-each", "Which candidates are tried.", choices=SELECTIONS, is_expert=True)
    top_n: int = setting(6, "How many candidates top-n tries.", range=WHOLE_POSITIVE, is_expert=True)
    random_draw: bool = setting(True, "Add one random candidate to best-of-each.", is_expert=True)
    step_back: bool = setting(
        True, "Draw again where no branch is as accurate as before (one-cycle memory).", is_expert=True
    )
    pick: str = setting(
        "most-accurate",
        "Which branch is the result: the most accurate of all, or the final one of the best score.",
        choices=RESULT_CHOICES,
        is_expert=True,
    )


OWN_SETTINGS: dict[str, type[OwnSettings]] = {
    GROW_AND_SHRINK: GrowAndShrinkSettings,
    SHRINK_TRAINED: ShrinkTrainedSettings,
    ALGORITHM_1: Algorithm1Settings,
}


def searches() -> tuple[str, ...]:
    """The choices of ``--search``."""
    return (AUTO, *OWN_SETTINGS)


def owners(name: str) -> Iterator[str]:
    """The searches that have a setting of that name."""
    yield from (search for search, kind in OWN_SETTINGS.items() if name in {each.name for each in fields(kind)})


def group_of(kind: type, name: str) -> str:
    """The group in help of a dataclass's field: the one in its metadata, or the search to which the setting belongs."""
    group = kind.__dataclass_fields__[name].metadata.get("group")  # type: ignore[attr-defined]
    if group:
        return str(group)
    bases = [base for base in kind.__mro__ if is_dataclass(base) and name in base.__dataclass_fields__]
    found = next((search for search, settings in OWN_SETTINGS.items() if settings is bases[-1]), "")
    return f"Search {found}" if found else "Options"
