"""Surgeries on units as linear maps: one on the columns of what writes them, one on the rows of each reader, a shift.

A map is applied to parameters with its coefficients as they are; an optimizer's moments follow it with them raised to
a power. Where θ' = Σ c θ with c held fixed, the first moment is Σ c m, and the second (power 2) Σ c² v, the variance of
a sum of independent parts, which stays ≥ 0. So each map is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.calibration.moments import Moment, Moments, Place
from onnxsurgeon.graph.groups import Reader, UnitGroup, Writer
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.resize import resized
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.parameters import add_bias, filled, slope_of, unknown


@dataclass(frozen=True, eq=False)
class Fresh:
    """Values of units that nothing maps to, the last ones: their columns (n_in, k) and biases (k,)."""

    weight: Array
    bias: Array | float = 0.0


@dataclass(frozen=True, eq=False)
class Columns:
    """Unit j of a layer becomes what unit ``origin[j]`` was; the last ones are ``fresh``, where that is given.

    Attributes:
        origin: (m,); fresh units take the slope of their activation from there.
        places: where a new unit stands for several old ones (``merge_duplicates``), for each old one its place among
            the new ones, −1 for none: moments are then the means of theirs; None: they go as the parameters do.
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
        """Moments of its parameters, given as a layer; those of fresh units are ``unknown``."""
        if self.places is not None:
            return self._mean(past, power)
        taken = self._taken(past)
        if self.fresh is None:
            return taken
        fill = unknown(past, power)
        return filled(taken, np.full((past.inputs, self.fresh.weight.shape[1]), fill), fill)

    def _taken(self, layer: DenseLayer) -> DenseLayer:
        activation = layer.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(activation.slope[self.origin])
        bias = None if layer.bias is None else layer.bias[self.origin]
        return replace(layer, weight=take_columns(layer.weight, self.origin), bias=bias, activation=activation)

    def _mean(self, past: DenseLayer, power: int) -> DenseLayer:
        """What stands for several units takes the mean of their moments."""
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
        weight: W V, as it came out of the decomposition.
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
            if layer.is_linear:  # the squares add up to 1 but for rounding
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
        rows: which rows of the reader's block the values are for, (k,).
    """

    values: Array
    rows: Array

    def of(self, block: Array) -> Array:
        """C W, float64."""
        return matmul(self.values, block[self.rows])

    def carried(self, past: Array, power: int, bias: Array | None) -> Array:
        """What the moments of W add to those of the bias."""
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
    """Row j becomes row ``origin[j]``; rows ``shared`` of the new ones are ``shares`` of theirs.

    Attributes:
        origin: (m,); −1: fresh, ``values`` in their order.
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
        """Their moments; those of fresh rows are ``fill``."""
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
    """Rows ``kept`` stay, and take T times those that are ``gone``: W' = W_K + T W_R (``prune``)."""

    kept: Array
    gone: Array
    foretell: Array
    shift: Shift | Outside | None = None

    def of(self, block: Array) -> Array:
        """The rows mapped, of the weight's type."""
        return self.carried(block, 1, 0.0).astype(block.dtype)

    def carried(self, past: Array, power: int, fill: float) -> Array:
        """Their moments."""
        return np.asarray(past[self.kept] + matmul(self.foretell**power, past[self.gone]))


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
    """Row ``places[i]`` of ``count`` is the sum of all rows i; −1: of none (``merge_duplicates``)."""

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
    """What becomes of a group's units.

    Attributes:
        group: whose units.
        columns: for each of its writers.
        rows: for each of its readers.
        origin: for each new unit the old one whose constants in the file it takes.
        predicted: as in ``SurgeryRecord``.
    """

    group: UnitGroup
    columns: tuple[ColumnMap, ...]
    rows: tuple[RowMap, ...]
    origin: Array
    predicted: float | None = None


def apply(network: Network, change: Change) -> Network:
    """The network with the units changed; what does not change is shared with it.

    Raises:
        SurgeryError: the file's own constants cannot follow.
    """

    def bias(layer: DenseLayer, block: Array, rows: RowMap) -> Array | None:
        return add_bias(layer.bias, None if rows.shift is None else rows.shift.of(block), layer.weight.dtype)

    changed = _mapped(network, change, lambda rows, block, _: rows.of(block), bias, lambda each, layer: each.of(layer))
    return replace(changed, frame=resized(network.frame, change.group, change.origin))


def carry(past: Network, result: Network, change: Change, power: int) -> Network:
    """Moments of the parameters of ``result``, from those of the parent's, given as networks; see the module's text."""
    given = [past.segments[each.segment].layers[each.layer] for each in change.group.writers]
    before = given[0].bias if len(given) == 1 else None

    def bias(layer: DenseLayer, block: Array, rows: RowMap) -> Array | None:
        moved = None if rows.shift is None else rows.shift.carried(block, power, before)
        if moved is None or layer.bias is None:
            return layer.bias if moved is None else moved
        return np.asarray(moved + layer.bias)

    def rows(each: RowMap, block: Array, layer: DenseLayer) -> Array:
        return each.carried(block, power, unknown(layer, power))

    changed = _mapped(past, change, rows, bias, lambda each, layer: each.carried(layer, power))
    return replace(changed, frame=result.frame)


def cut_to(network: Network, i: int, units: int) -> Network:
    """The network with the first ``units`` units of a group alone: as small as after pruning, and of no other use."""
    group, kept = network.group(i), np.arange(units)
    rows = [Gather(by_row(kept, port.outer * port.inner)) for port in group.readers]
    return apply(network, Change(group, (Columns(kept),) * len(group.writers), tuple(rows), kept))


def follow(moments: Moments, network: Network, change: Change) -> Moments:
    """Moments of ``network``, without the units that a change takes away; what is left is not measured again.

    Only for changes that keep some units as they are; of others, those of the layers concerned are left out.
    """
    units, kept = change.group.units, change.origin
    inputs, sensitivities = dict(moments.inputs), dict(moments.sensitivities)
    gone: dict[Place, list[Array]] = {}
    for reader, rows in zip(change.group.readers, change.rows, strict=True):
        place = reader.segment, reader.layer
        own = rows_of(network.segments[reader.segment].layers[reader.layer], reader, units)
        gone.setdefault(place, []).append(np.delete(own, kept, axis=0).ravel())
        if not isinstance(rows, Refit):
            inputs.pop(place, None)
    for place, lost in gone.items():
        if place in inputs:
            left = np.delete(np.arange(len(inputs[place].mean)), np.concatenate(lost))
            inputs[place] = Moment(inputs[place].mean[left], inputs[place].covariance[np.ix_(left, left)])
    for writer, columns in zip(change.group.writers, change.columns, strict=True):
        metric = sensitivities.pop((writer.segment, writer.layer), None)
        if metric is not None and isinstance(columns, Columns) and columns.fresh is None:
            end = writer.begin + units
            left = np.concatenate([np.arange(writer.begin), writer.begin + kept, np.arange(end, len(metric))])
            sensitivities[writer.segment, writer.layer] = metric[np.ix_(left, left)]
    return replace(moments, inputs=inputs, sensitivities=sensitivities)


def _mapped(
    network: Network,
    change: Change,
    rows_of_block: Callable[[RowMap, Array, DenseLayer], Array],
    bias_of: Callable[[DenseLayer, Array, RowMap], Array | None],
    columns_of: Callable[[ColumnMap, DenseLayer], DenseLayer],
) -> Network:
    """Every layer that reads or writes the group mapped: parameters, or their moments.

    Ports of one layer are taken from the last unit to the first, so that those before are where they were.
    """
    segments, units = list(network.segments), change.group.units
    more = len(change.origin) - units
    readers = sorted(zip(change.group.readers, change.rows, strict=True), key=lambda pair: -pair[0].begin)
    for reader, rows in readers:
        layer = segments[reader.segment].layers[reader.layer]
        block = block_of(layer, reader, units)
        weight = _with_block(layer, reader, units, rows_of_block(rows, block, layer))
        _put(segments, reader, replace(layer, weight=weight, bias=bias_of(layer, block, rows)))
    writers = sorted(zip(change.group.writers, change.columns, strict=True), key=lambda pair: -pair[0].begin)
    for writer, columns in writers:
        layer = segments[writer.segment].layers[writer.layer]
        made = _columns(layer, writer.begin, units, partial(columns_of, columns))
        _put(segments, writer, made)
        if writer.layer == len(segments[writer.segment].layers) - 1:
            segments[writer.segment] = _side_by_side(segments[writer.segment], writer.begin, more)
    for number, begin in change.group.each:
        layer = segments[number].layers[0]
        taken = _columns(layer, begin, units, partial(columns_of, Columns(change.origin)))
        if taken.geometry is not None:
            taken = replace(taken, geometry=replace(taken.geometry, groups=taken.units))
        _put(segments, Writer(number, 0, begin), taken)
    return replace(network, segments=tuple(segments))


def by_row(units: Array, taps: int) -> Array:
    """Of units, their rows in a block: ``taps`` for each, one behind the other."""
    return units if taps == 1 else np.asarray(units[:, None] * taps + np.arange(taps)).ravel()


def parameters_per_unit(network: Network, i: int) -> int:
    """How many trained values come and go with each unit of group ``i``."""
    group, (writers, readers) = network.group(i), network.layers_of(i)
    count = sum(each.inputs + (each.bias is not None) + (slope_of(each) is not None) for each in writers)
    count += sum(port.outer * port.inner * each.units for port, each in zip(group.readers, readers, strict=True))
    alone = [network.segments[number].layers[0] for number, _ in group.each]
    return count + sum(each.inputs + (each.bias is not None) for each in alone)


def rows_of(layer: DenseLayer, reader: Reader, units: int) -> Array:
    """Which rows of the layer's weight read each unit of a group: (units, outer · inner)."""
    total = layer.inputs // (reader.outer * reader.inner)
    index = np.arange(layer.inputs).reshape(reader.outer, total, reader.inner)
    own = index[:, reader.begin : reader.begin + units].transpose(1, 0, 2)
    return np.ascontiguousarray(own).reshape(units, -1)


def block_of(layer: DenseLayer, reader: Reader, units: int) -> Array:
    """The rows that read a group's units, unit by unit."""
    if reader.outer == 1 and units * reader.inner == layer.inputs:
        return layer.weight
    return layer.weight[rows_of(layer, reader, units).ravel()]


def _with_block(layer: DenseLayer, reader: Reader, units: int, block: Array) -> Array:
    """The layer's weight with other rows for the group."""
    if reader.outer == 1 and units * reader.inner == layer.inputs:
        return block
    columns, taps = layer.units, reader.outer * reader.inner
    total = layer.inputs // taps
    whole = layer.weight.reshape(reader.outer, total, reader.inner, columns)
    made = block.reshape(-1, reader.outer, reader.inner, columns).transpose(1, 0, 2, 3)
    parts = (whole[:, : reader.begin], made, whole[:, reader.begin + units :])
    return np.concatenate(parts, axis=1).reshape(-1, columns)


def _columns(layer: DenseLayer, begin: int, units: int, of: Callable[[DenseLayer], DenseLayer]) -> DenseLayer:
    """The layer with other columns in the place of ``units`` of its own."""
    if units == layer.units:
        return of(layer)
    end, bias = begin + units, layer.bias
    own = of(replace(layer, weight=layer.weight[:, begin:end], bias=None if bias is None else bias[begin:end]))
    weight = np.concatenate([layer.weight[:, :begin], own.weight, layer.weight[:, end:]], axis=1)
    if bias is not None and own.bias is not None:
        bias = np.concatenate([bias[:begin], own.bias, bias[end:]])
    return replace(layer, weight=weight, bias=bias)


def _side_by_side(segment: DenseChain, begin: int, more: int) -> DenseChain:
    """Where each of the layers side by side in the last one is, after ``more`` units from ``begin`` on."""
    if not segment.readers:
        return segment
    readers = []
    for each in segment.readers:
        first = each.columns.start + (more if each.columns.start > begin else 0)
        last = each.columns.stop + (more if each.columns.stop > begin else 0)
        readers.append(replace(each, columns=slice(first, last)))
    return replace(segment, readers=tuple(readers))


def _put(segments: list[DenseChain], port: Writer | Reader, layer: DenseLayer) -> None:
    segment = segments[port.segment]
    layers = (*segment.layers[: port.layer], layer, *segment.layers[port.layer + 1 :])
    segments[port.segment] = replace(segment, layers=layers)


def summed(rows: Array, places: Array, count: int) -> Array:
    """Sums (count, …) of the rows that go to the same place, float64."""
    total = np.zeros((count, *rows.shape[1:]))
    there = places >= 0
    np.add.at(total, places[there], rows[there])
    return total
