"""A change of units, applied to a network, to an optimizer's moments, and to moments of the layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from onnxsurgeon.calibration.moments import Moment, Moments, Place
from onnxsurgeon.graph.groups import Reader, Writer
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.resize import resized
from onnxsurgeon.graph.tied import sharing
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgery.maps import Change, ColumnMap, Columns, Gather, Refit, RowMap, by_row
from onnxsurgeon.surgery.parameters import add_bias, fill_for_new

P = TypeVar("P", Reader, Writer)
M = TypeVar("M")


def apply(network: Network, change: Change) -> Network:
    """The network with the units changed; layers that do not change are shared with it.

    Raises:
        SurgeryError: the file's own constants cannot follow.
    """
    network = network.parted()

    def bias(layer: DenseLayer, block: Array, rows: RowMap) -> Array | None:
        return add_bias(layer.bias, None if rows.shift is None else rows.shift.of(block), layer.weight.dtype)

    changed = _mapped(network, change, lambda rows, block, _: rows.of(block), bias, lambda each, layer: each.of(layer))
    return replace(changed, frame=resized(network.frame, change.group, change.origin))


def carry(past: Network, result: Network, change: Change, power: int) -> Network:
    """Moments of the parameters of ``result``, from the parent's; both are given as networks, see ``surgery.maps``."""
    given = [past.segments[each.segment].layers[each.layer] for each in change.group.writers]
    before = given[0].bias if len(given) == 1 else None

    def bias(layer: DenseLayer, block: Array, rows: RowMap) -> Array | None:
        moved = None if rows.shift is None else rows.shift.carried(block, power, before)
        if moved is None or layer.bias is None:
            return layer.bias if moved is None else moved
        return np.asarray(moved + layer.bias)

    def rows(each: RowMap, block: Array, layer: DenseLayer) -> Array:
        return each.carried(block, power, fill_for_new(layer, power))

    changed = _mapped(past, change, rows, bias, lambda each, layer: each.carried(layer, power))
    return replace(changed, frame=result.frame)


def cut_to(network: Network, i: int, units: int) -> Network:
    """The network with only the first ``units`` units of a group: as small as after pruning, and of no other use.

    With more units than there are, it has copies of them and is as large as after widening.
    """
    group = network.group(i)
    kept = np.arange(units) % group.units
    rows = [Gather(by_row(kept, port.outer * port.inner)) for port in group.readers]
    return apply(network, Change(group, (Columns(kept),) * len(group.writers), tuple(rows), kept))


def follow(moments: Moments, network: Network, change: Change) -> Moments:
    """Moments of ``network``, without the units that a change takes away; what is left is not measured again.

    This holds for changes that keep some units as they are; for others, the layers concerned are left out.
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
    """Map every layer that reads or writes the group: its parameters, or their moments.

    Ports of one layer are mapped from the last unit to the first, so that the earlier ones stay in their places. Where
    the layer's weights are applied elsewhere too, it is mapped alike there.
    """
    segments, units = list(network.segments), change.group.units
    more = len(change.origin) - units
    readers = sorted(zip(change.group.readers, change.rows, strict=True), key=lambda pair: -pair[0].begin)
    for reader, rows in _everywhere(network, readers):
        layer = segments[reader.segment].layers[reader.layer]
        block = block_of(layer, reader, units)
        weight = _with_block(layer, reader, units, rows_of_block(rows, block, layer))
        _put(segments, reader, replace(layer, weight=weight, bias=bias_of(layer, block, rows)))
    writers = sorted(zip(change.group.writers, change.columns, strict=True), key=lambda pair: -pair[0].begin)
    for writer, columns in _everywhere(network, writers):
        layer = segments[writer.segment].layers[writer.layer]
        made = _columns(layer, writer.begin, units, partial(columns_of, columns))
        _put(segments, writer, made)
        if writer.layer == len(segments[writer.segment].layers) - 1:
            segments[writer.segment] = _side_by_side(segments[writer.segment], writer.begin, more)
    each = [(Writer(number, 0, begin), Columns(change.origin)) for number, begin in change.group.each]
    for port, columns in _everywhere(network, each):
        layer = segments[port.segment].layers[0]
        taken = _columns(layer, port.begin, units, partial(columns_of, columns))
        if taken.geometry is not None:
            taken = replace(taken, geometry=replace(taken.geometry, groups=taken.units))
        _put(segments, port, taken)
    return replace(network, segments=sharing(segments))


def _everywhere(network: Network, ports: Sequence[tuple[P, M]]) -> Iterator[tuple[P, M]]:
    """Ports, and those of all segments that have the same weights, each with its map."""
    for port, mapped in ports:
        for number in network.uses(port.segment):
            yield replace(port, segment=number), mapped


def count_of(network: Network, widths: Mapping[int, int]) -> int:
    """Parameter count with these numbers of units in the groups, by number; those left out keep theirs."""
    return network.parameter_counts.of(widths)


def rows_of(layer: DenseLayer, reader: Reader, units: int) -> Array:
    """The rows of the layer's weight that read each unit of a group: (units, outer · inner)."""
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
    """The layers side by side in the last one, after ``more`` units have come in from ``begin`` on."""
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
