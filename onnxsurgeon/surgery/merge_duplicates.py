"""Merges units that compute the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgery.base import Surgery, register, spell
from onnxsurgeon.surgery.effects import Effect, Narrowed
from onnxsurgeon.surgery.maps import Change, Columns, Shift, Sum, by_row
from onnxsurgeon.surgery.parameters import is_padded, slope_of


class _Groups(NamedTuple):
    """The units that stay, for each unit the place of its representative among those, and the units that are constant.

    Constant units do not stay and have no representative; their place is −1.
    """

    kept: Array
    places: Array
    constant: Array


@register
@dataclass(frozen=True)
class MergeDuplicates(Surgery):
    """Keep one of all units of hidden layer ``layer`` that have the same incoming weights, bias and slope.

    Its outgoing weights become the sum of theirs. Units without incoming weights are constant: φ(b) times their
    outgoing weights goes to the next layer's bias, except where that is a convolution that reads zeros at its border.
    It is always exact and needs no data.
    """

    operation: ClassVar[str] = "merge_duplicates"
    summary: ClassVar[str] = "of equal units one stays"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "8"
    layer: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Narrowed(None)

    def require(self, network: Network) -> None:
        """Some unit must be redundant, and not all be constant."""
        layer = network.hidden(self.layer)
        groups = _groups(*network.pair(self.layer))
        if len(groups.kept) == layer.units:
            raise SurgeryError(f"{spell(self)}: no unit is constant or the same as another", "unlike-layer")
        if not len(groups.kept):
            raise SurgeryError(f"{spell(self)}: every unit is constant: none would stay", "unlike-layer")

    def is_exact(self, network: Network) -> bool:
        """Always."""
        return True

    def rewrite(self, network: Network, rng: np.random.Generator) -> Change:
        """Add up rows of W_{i+1}, and drop columns of W_i."""
        layer, following = network.pair(self.layer)
        kept, places, constant = _groups(layer, following)
        taps = following.inputs // layer.units
        shift = None
        if len(constant):
            shift = Shift(np.repeat(_constants(layer, constant), taps), by_row(constant, taps))
        where = np.where(np.repeat(places, taps) < 0, -1, by_row(places, taps))
        rows = Sum(where, len(kept) * taps, shift)
        return Change(network.group(self.layer), (Columns(kept, places=places),), (rows,), kept)


def _groups(layer: DenseLayer, following: DenseLayer) -> _Groups:
    slope = slope_of(layer)
    rows = [layer.weight, *(values[None] for values in (layer.bias, slope) if values is not None)]
    columns = np.ascontiguousarray(np.concatenate(rows).T) + 0.0  # −0 becomes 0
    varies = layer.weight.any(axis=0)
    if is_padded(following):  # a constant reads as 0 behind the border, so it goes into no bias
        varies |= _constants(layer, np.arange(layer.units)) != 0
    places = np.full(layer.units, -1)
    firsts: dict[bytes, int] = {}
    for unit in np.flatnonzero(varies):
        places[unit] = firsts.setdefault(columns[unit].tobytes(), len(firsts))
    # The representative of a group is its first unit, so that the units that stay keep their order.
    kept = np.unique(places[varies], return_index=True)[1]
    return _Groups(np.flatnonzero(varies)[kept], places, np.flatnonzero(~varies))


def _constants(layer: DenseLayer, units: Array) -> Array:
    """φ(b) of units without incoming weights."""
    bias = np.zeros(layer.units) if layer.bias is None else layer.bias.astype(np.float64)
    if layer.activation is None:
        return bias[units]
    slope = slope_of(layer)
    activation = layer.activation.with_slope(None if slope is None else slope[units])
    return activation(bias[units])
