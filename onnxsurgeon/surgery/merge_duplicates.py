"""Units that compute the same thing as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.base import Replacement, Surgery, add_bias, moments_like, register, slope_of, spell
from onnxsurgeon.surgery.effects import Effect, Narrowed


class _Groups(NamedTuple):
    """The units that stay, for each unit the place of what stands for it among those, and the units that are constant.

    Constant units stand for nothing and are not among those that stay; their place is −1.
    """

    kept: Array
    places: Array
    constant: Array


@register
@dataclass(frozen=True)
class MergeDuplicates(Surgery):
    """Keep one of all units of hidden layer ``layer`` that have the same incoming weights, bias and slope.

    Its outgoing weights become the sum of theirs. Units without incoming weights are constant: φ(b) times their
    outgoing weights goes to the next layer's bias. Exact always; no data are needed.
    """

    operation: ClassVar[str] = "merge_duplicates"
    summary: ClassVar[str] = "of equal units one stays"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "8"
    layer: int

    @property
    def effect(self) -> Effect:
        """As its text tells it."""
        return Narrowed(None)

    def require(self, network: Network) -> None:
        """Some unit must be redundant, and not all be constant."""
        layer = network.hidden(self.layer)
        groups = _groups(layer)
        if len(groups.kept) == layer.units:
            raise SurgeryError(f"{spell(self)}: no unit is constant or the same as another")
        if not len(groups.kept):
            raise SurgeryError(f"{spell(self)}: every unit is constant: none would stay")

    def is_exact(self, network: Network) -> bool:
        """Always."""
        return True

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """Add up rows of W_{i+1}, and drop columns of W_i."""
        layer, following = network.pair(self.layer)
        kept, places, constant = _groups(layer)
        values = _constants(layer, constant)
        activation = layer.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(activation.slope[kept])
        bias = None if layer.bias is None else layer.bias[kept]
        merged = replace(layer, weight=take_columns(layer.weight, kept), bias=bias, activation=activation)
        lost = None
        if len(constant):
            lost = matmul(values, following.weight[constant])
        refitted = replace(
            following,
            weight=_summed(following.weight, places, len(kept)).astype(following.weight.dtype),
            bias=add_bias(following.bias, lost, following.weight.dtype),
        )

        def carry(past: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """The one that stays takes the mean of its copies' incoming moments, and the sum of the outgoing ones."""
            first, second = past
            counts = np.bincount(places[places >= 0], minlength=len(kept)).astype(np.float64) ** power

            def mean(values: Array | None) -> Array | None:
                return None if values is None else _summed(values.T, places, len(kept)).T / counts

            moved = second.bias
            if len(constant):
                extra = matmul(values**power, second.weight[constant])
                moved = extra if moved is None else moved + extra
            return (
                moments_like(merged, np.ascontiguousarray(mean(first.weight)), mean(first.bias), mean(slope_of(first))),
                moments_like(refitted, _summed(second.weight, places, len(kept)), moved, slope_of(second)),
            )

        return Replacement(2, (merged, refitted), carry)


def _groups(layer: DenseLayer) -> _Groups:
    slope = slope_of(layer)
    rows = [layer.weight, *(values[None] for values in (layer.bias, slope) if values is not None)]
    columns = np.ascontiguousarray(np.concatenate(rows).T) + 0.0  # −0 is 0
    varies = layer.weight.any(axis=0)
    places = np.full(layer.units, -1)
    firsts: dict[bytes, int] = {}
    for unit in np.flatnonzero(varies):
        places[unit] = firsts.setdefault(columns[unit].tobytes(), len(firsts))
    # What stands for a group is its first unit, so that those that stay keep their order.
    kept = np.unique(places[varies], return_index=True)[1]
    return _Groups(np.flatnonzero(varies)[kept], places, np.flatnonzero(~varies))


def _summed(rows: Array, places: Array, count: int) -> Array:
    """Sums (count, …) of the rows that go to the same place, float64."""
    total = np.zeros((count, *rows.shape[1:]))
    there = places >= 0
    np.add.at(total, places[there], rows[there])
    return total


def _constants(layer: DenseLayer, units: Array) -> Array:
    """φ(b) of units without incoming weights."""
    bias = np.zeros(layer.units) if layer.bias is None else layer.bias.astype(np.float64)
    if layer.activation is None:
        return bias[units]
    slope = slope_of(layer)
    activation = layer.activation.with_slope(None if slope is None else slope[units])
    return activation(bias[units])
