"""What every surgery has in common: its contract, its spelling and its registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.surgery.effects import Effect
from onnxsurgeon.surgery.maps import Change


class Needs(IntEnum):
    """What a surgery needs besides the network; each level includes those before it."""

    NOTHING = 0
    MOMENTS = 1
    GRADIENTS = 2


class Surgery(ABC):
    """One rewrite of a network, as plain data: which operation, which layer, how much. Subclasses are dataclasses.

    A surgery that changes a number of units is a ``Change`` of a group of units (``surgery.maps``); one that changes
    the number of layers is a ``Replacement`` of layers of one segment, or a ``Rebuilt`` network with other segments.

    Attributes:
        operation: the name on the command line, such as "widen".
        summary: what becomes of the layer, in half a sentence.
        exact_if: when the function stays the same, in half a sentence.
        marker: its mark in pictures, one of matplotlib's markers.
        needs: what it needs besides the network.
        is_for_one: whether it can be done to one network.
        recuperation: how many times --recuperation-batches it is trained before it is judged (paper, Appendix).
        layer: the hidden layer, counted from 1 at the input; for a change of units any group (``Network.group``); 0 for
            a surgery on no layer.
    """

    operation: ClassVar[str]
    summary: ClassVar[str]
    exact_if: ClassVar[str]
    marker: ClassVar[str] = "X"
    needs: ClassVar[Needs] = Needs.NOTHING
    is_for_one: ClassVar[bool] = True
    recuperation: ClassVar[int] = 1
    layer: int

    @property
    @abstractmethod
    def effect(self) -> Effect:
        """Its effect on the list of layers."""

    @abstractmethod
    def require(self, network: Network) -> None:
        """Raise SurgeryError, with the reason, where the surgery cannot be done on ``network``."""

    @abstractmethod
    def is_exact(self, network: Network) -> bool:
        """Whether the result computes the same function as ``network``, up to rounding."""

    @abstractmethod
    def rewrite(self, network: Network, rng: np.random.Generator) -> Rewrite:
        """Compute what becomes of layers or of units; ``network`` is not changed, and shares the weights that stay."""

    def parameters_after(self, network: Network) -> int | None:
        """Parameter count of the result, without performing the surgery; None where only the result tells it."""
        return None


class DataAware(Surgery):
    """A surgery that needs the moments of a calibration sample, which ``operate`` hands to it.

    It knows nothing else about data: the same network and moments give the same result.
    """

    needs: ClassVar[Needs] = Needs.MOMENTS

    def rewrite(self, network: Network, rng: np.random.Generator) -> Rewrite:
        """Raise SurgeryError, since it cannot be done without moments."""
        raise SurgeryError(f"{spell(self)}: needs moments of a calibration sample", "needs-data")

    @abstractmethod
    def refit(self, network: Network, moments: Moments) -> Rewrite:
        """Compute what becomes of layers or of units, as ``Surgery.rewrite`` does.

        Raises:
            SurgeryError: the moments lack the layer, or are another network's.
        """


class Replacement(NamedTuple):
    """Layers in the places of others, and the map of the optimizer's moments that belongs to them.

    The last new layer computes what the last replaced one did, in the same units: the two are compared by their
    pre-activation z = x W + b.

    Attributes:
        replaced: number of layers that are replaced, from the surgery's hidden layer on.
        layers: the new ones.
        carry: from an optimizer's moments of the replaced layers, given as layers, to those of the new ones. A moment
            follows the parameters as their velocity does, with what was decided for the weights (singular vectors,
            shares) held fixed: where θ' = Σ c θ, the first moment is Σ c m, and the second (power 2) Σ c² v, the
            variance of a sum of independent parts, which stays ≥ 0.
        predicted: for a data-aware surgery, the error on the calibration sample, as in ``SurgeryRecord``.
    """

    replaced: int
    layers: tuple[DenseLayer, ...]
    carry: Callable[[Sequence[DenseLayer], int], tuple[DenseLayer, ...]]
    predicted: float | None = None


class Lost(NamedTuple):
    """What a removal takes away: the values of a branch, which were added to others.

    Attributes:
        block: whose branch it was, in the parent.
        mean: a constant for each unit that is added in its place (units,); None: nothing.
    """

    block: Block
    mean: Array | None


class Rebuilt(NamedTuple):
    """A network with whole segments more or less.

    Attributes:
        network: what came of it. Parameters that stay have their names.
        lost: the values that are lost, where a branch went.
        predicted: as in ``SurgeryRecord``, of the sum that the values are missing in.
        copies: for the name of each new parameter, that of the one that it is a copy of, or zero in the place of one.
    """

    network: Network
    lost: Lost | None = None
    predicted: float | None = None
    copies: Mapping[str, str] = {}


Rewrite = Replacement | Change | Rebuilt


SURGERIES: dict[str, type[Surgery]] = {}
T = TypeVar("T", bound=Surgery)


def register(kind: type[T]) -> type[T]:
    """Enter a surgery into the registry under its operation's name."""
    SURGERIES[kind.operation] = kind
    return kind


def usage(kind: type[Surgery]) -> str:
    """How the command line takes a surgery, such as "widen:LAYER:UNITS"."""
    return ":".join([kind.operation, *(name.upper() for name in _numbers(kind))])


def example(kind: type[Surgery]) -> Surgery:
    """The surgery with the smallest numbers, for statements that hold for all surgeries of a kind."""
    return kind(*(1 for _ in _numbers(kind)))


def _numbers(kind: type[Surgery]) -> list[str]:
    return [each.name for each in fields(kind) if each.type in (int, "int") and each.init]  # type: ignore[arg-type]


def spell(surgery: Surgery) -> str:
    """The surgery as on the command line, such as "widen:1:8"."""
    values = [getattr(surgery, field.name) for field in fields(surgery) if field.init]  # type: ignore[arg-type]
    return ":".join([surgery.operation, *(str(value) for value in values if not isinstance(value, str))])


def parse(text: str, **options: Any) -> Surgery:
    """The surgery that ``text`` names: OPERATION:LAYER or OPERATION:LAYER:AMOUNT.

    ``options`` are passed to the surgeries that have a field of that name (``mode`` of widen).

    Raises:
        SurgeryError: the operation is unknown, or the numbers are none, too few or too many.
    """
    operation, *numbers = text.split(":")
    kind = SURGERIES.get(operation)
    if kind is None:
        known = sorted(name for name, each in SURGERIES.items() if each.is_for_one)
        raise SurgeryError(
            f"unknown surgery '{operation}': expected one of {', '.join(known)}{did_you_mean(operation, known)}",
            "unknown-surgery",
        )
    names = _numbers(kind)
    try:
        values = [int(number) for number in numbers]
    except ValueError:
        values = []
    if len(values) != len(names):
        raise SurgeryError(f"'{text}': expected {usage(kind)}", "unknown-surgery")
    taken = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(*values, **{key: value for key, value in options.items() if key in taken})


def require_amount(surgery: Surgery, amount: int, most: int | None, what: str) -> None:
    """Raise SurgeryError unless 1 ≤ ``amount`` ≤ ``most`` (None: no upper bound)."""
    if amount < 1 or (most is not None and amount > most):
        allowed = "at least 1" if most is None else f"1 to {most}"
        raise SurgeryError(f"{spell(surgery)}: {what} must be {allowed}", "amount")
