"""Surgeries on units as linear maps: one on the columns of each writer, one on the rows of each reader, a shift.

A map is applied to parameters with its coefficients as they are; an optimizer's moments follow it with the coefficients
raised to a power. Where θ' = Σ c θ with c held fixed, the first moment is Σ c m, and the second (power 2) Σ c² v, the
variance of a sum of independent parts, which stays ≥ 0. So each map is written once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.graph.groups import UnitGroup
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.parameters import fill_for_new, filled


@dataclass(frozen=True, eq=False)
class Fresh:
    """Values of the last units, to which nothing maps: their columns (n_in, k) and biases (k,)."""

    weight: Array
    bias: Array | float = 0.0


@dataclass(frozen=True, eq=False)
class Columns:
    """Unit j of a layer takes the place of the old unit ``origin[j]``.

    The last ones are ``fresh``, where that is given.

    Attributes:
        origin: (m,); fresh units take the slope of their activation from there.
        places: where a new unit stands for several old ones (``merge_duplicates``), for each old one its place among
            the new ones, −1 for none. Its moments are then the means of theirs. With None moments follow the
            parameters.
    """

    origin: Array
    fresh: Fresh | None = None
    places: Array | None = None

    def of(self, layer: DenseLayer) -> DenseLayer:
        """The layer with the units mapped."""
        taken = self._taken(layer)
        if self.fresh is None:
            return taken
        return filled(taken, self.fresh.weight, self.fresh.bias)

    def carried(self, past: DenseLayer, power: int) -> DenseLayer:
        """Moments of its parameters, given as a layer; those of fresh units are ``fill_for_new``."""
        if self.places is not None:
            return self._mean(past, power)
        taken = self._taken(past)
        if self.fresh is None:
            return taken
        fill = fill_for_new(past, power)
        return filled(taken, np.full((past.inputs, self.fresh.weight.shape[1]), fill), fill)

    def _taken(self, layer: DenseLayer) -> DenseLayer:
        activation = layer.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(activation.slope[self.origin])
        bias = None if layer.bias is None else layer.bias[self.origin]
        return replace(layer, weight=take_columns(layer.weight, self.origin), bias=bias, activation=activation)

    def _mean(self, past: DenseLayer, power: int) -> DenseLayer:
        """A unit that stands for several takes the mean of their moments."""
        assert self.places is not None
        places, count = self.places, len(self.origin)
        counts = np.bincount(places[places >= 0], minlength=count).astype(np.float64) ** power

        def mean(values: Array) -> Array:
            return summed(values.T, places, count).T / counts

        arrays = (np.ascontiguousarray(mean(values)) for _, values in past.parameters())
        return past.with_parameters(arrays)


@dataclass(frozen=True, eq=False)
class Rotation:
    """W' = W V, b' = b V, and slopes V² s, for V (n, m) with orthonormal columns.

    Attributes:
        basis: Vᵀ (m, n).
        weight: W V, as the decomposition gave it.
    """

    basis: Array
    weight: Array

    def of(self, layer: DenseLayer) -> DenseLayer:
        """The layer with its units rotated onto fewer."""
        dtype, bias = layer.weight.dtype, None
        if layer.bias is not None:
            bias = matmul(layer.bias, self.basis.T).astype(dtype)
        activation = layer.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(matmul(self.basis**2, activation.slope, dtype=dtype))
            if layer.is_linear:  # the squares add up to 1 except for rounding
                activation = activation.with_slope(np.ones(len(self.basis), dtype))
        return replace(layer, weight=self.weight, bias=bias, activation=activation)

    def carried(self, past: DenseLayer, power: int) -> DenseLayer:
        """Moments of its parameters."""
        v = self.basis.T**power
        activation = past.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(matmul(self.basis ** (2 * power), activation.slope))
        bias = None if past.bias is None else matmul(past.bias, v)
        return replace(past, weight=matmul(past.weight, v), bias=bias, activation=activation)


@dataclass(frozen=True, eq=False)
class Shift:
    """A constant for each of a reader's rows that goes into its bias: b' = b + c W.

    Attributes:
        values: c, (k,).
        rows: the rows of the reader's block to which the values belong, (k,).
    """

    values: Array
    rows: Array

    def of(self, block: Array) -> Array:
        """c W, float64."""
        return matmul(self.values, block[self.rows])

    def carried(self, past: Array, power: int, bias: Array | None) -> Array:
        """The contribution of W's moments to those of the bias."""
        return matmul(self.values**power, past[self.rows])


@dataclass(frozen=True, eq=False)
class Outside:
    """The part of the writer's bias that a rotation leaves out goes into the reader's: b' = b + β (I − V Vᵀ) W.

    Attributes:
        bias: β, (n,), the writer's.
        basis: Vᵀ, (m, n).
        weight: W, (n · rows of each unit, columns).
    """

    bias: Array
    basis: Array
    weight: Array

    def of(self, block: Array) -> Array:
        """β (I − V Vᵀ) W, float64."""
        return matmul(self._rest(), block)

    def carried(self, past: Array, power: int, bias: Array | None) -> Array:
        """The product rule: both β and W move."""
        units, columns = len(self.bias), past.shape[1]
        whole = self.weight.reshape(units, -1, columns).sum(axis=1)  # a bias reaches all of a unit's rows
        through = whole - matmul(self.basis.T, matmul(self.basis, whole))
        moved = matmul(self._rest() ** power, past)
        return moved if bias is None else matmul(bias, through**power) + moved

    def _rest(self) -> Array:
        rest = np.asarray(self.bias - matmul(matmul(self.bias, self.basis.T), self.basis))
        return np.repeat(rest, len(self.weight) // len(rest))


@dataclass(frozen=True, eq=False)
class Gather:
    """Row ``origin[j]`` becomes row j; the new rows ``shared`` are multiplied by ``shares``.

    Attributes:
        origin: (m,); −1 stands for a fresh row, from ``values`` in their order.
        shared: new rows that are no plain copies.
        shares: their coefficients (len(shared), columns); a fraction for each weight.
        values: fresh rows (k, columns).
    """

    origin: Array
    shared: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    shares: Array = field(default_factory=lambda: np.zeros((0, 1)))
    values: Array | None = None
    shift: Shift | Outside | None = None

    def of(self, block: Array) -> Array:
        """The rows mapped, of the weight's type."""
        return self._rows(block, 1, self.values)

    def carried(self, past: Array, power: int, fill: float) -> Array:
        """The moments of the new rows; those of fresh rows are ``fill``."""
        return self._rows(past, power, fill)

    def _rows(self, block: Array, power: int, values: Array | float | None) -> Array:
        made = np.empty((len(self.origin), block.shape[1]), block.dtype)
        fresh = self.origin < 0
        made[~fresh] = block[self.origin[~fresh]]
        if len(self.shared):
            made[self.shared] = block[self.origin[self.shared]].astype(np.float64) * self.shares**power
        if fresh.any():
            made[fresh] = 0 if values is None else values
        return made


@dataclass(frozen=True, eq=False)
class Refit:
    """Rows ``kept`` stay, and T times the rows that are ``gone`` is added: W' = W_K + T W_R (``prune``)."""

    kept: Array
    gone: Array
    reconstruct: Array
    shift: Shift | Outside | None = None

    def of(self, block: Array) -> Array:
        """The rows mapped, of the weight's type."""
        return self.carried(block, 1, 0.0).astype(block.dtype)

    def carried(self, past: Array, power: int, fill: float) -> Array:
        """Their moments."""
        return np.asarray(past[self.kept] + matmul(self.reconstruct**power, past[self.gone]))


@dataclass(frozen=True, eq=False)
class Turn:
    """W' = M W, at each of a unit's rows (``narrow``).

    Attributes:
        matrix: M (m, n).
    """

    matrix: Array
    shift: Shift | Outside | None = None

    def of(self, block: Array) -> Array:
        """The rows mapped, of the weight's type."""
        rows = block.reshape(self.matrix.shape[1], -1)
        return matmul(self.matrix, rows, dtype=block.dtype).reshape(-1, block.shape[1])

    def carried(self, past: Array, power: int, fill: float) -> Array:
        """Their moments."""
        rows = past.reshape(self.matrix.shape[1], -1)
        return matmul(self.matrix**power, rows).reshape(-1, past.shape[1])


@dataclass(frozen=True, eq=False)
class Sum:
    """Row p of ``count`` new ones is the sum of all rows i with ``places[i]`` = p.

    −1 drops a row (``merge_duplicates``).
    """

    places: Array
    count: int
    shift: Shift | Outside | None = None

    def of(self, block: Array) -> Array:
        """The rows mapped, of the weight's type."""
        return summed(block, self.places, self.count).astype(block.dtype)

    def carried(self, past: Array, power: int, fill: float) -> Array:
        """Their moments: all coefficients are 1."""
        return summed(past, self.places, self.count)


ColumnMap = Columns | Rotation
RowMap = Gather | Refit | Turn | Sum


@dataclass(frozen=True, eq=False)
class Change:
    """A change of a group's units.

    Attributes:
        group: the group.
        columns: a map for each of its writers.
        rows: a map for each of its readers.
        origin: for each new unit the old one whose constants in the file it takes.
        predicted: as in ``SurgeryRecord``.
    """

    group: UnitGroup
    columns: tuple[ColumnMap, ...]
    rows: tuple[RowMap, ...]
    origin: Array
    predicted: float | None = None


def by_row(units: Array, taps: int) -> Array:
    """The rows of units in a block: ``taps`` rows for each unit, one behind the other."""
    return units if taps == 1 else np.asarray(units[:, None] * taps + np.arange(taps)).ravel()


def summed(rows: Array, places: Array, count: int) -> Array:
    """Sums (count, …) of the rows that go to the same place, float64."""
    total = np.zeros((count, *rows.shape[1:]))
    there = places >= 0
    np.add.at(total, places[there], rows[there])
    return total
