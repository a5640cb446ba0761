"""The error of a surgery as it is found: both networks are run on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.calibration import branches
from onnxsurgeon.calibration.moments import Place
from onnxsurgeon.calibration.regression import relative
from onnxsurgeon.calibration.scan import run_tiles, scan_model, tiles
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import session
from onnxsurgeon.surgery.base import Lost, Surgery
from onnxsurgeon.surgery.operated import Operated
from onnxsurgeon.surgery.prune import Prune
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.evaluation import ROWS
from onnxsurgeon.training.forward import forward
from onnxsurgeon.training.resident import read_features

_ROWS = 4096  # pre-activations of so many rows are in memory at a time; those of many positions or places, of a tile's
_PLACES = 8  # pre-activations that one session computes


def found_error(network: Network, operated: Operated, examples: Examples, rows: Array) -> float:
    """Measure the error of any surgery on ``rows`` of the examples, as in ``SurgeryRecord.predicted``.

    It compares the pre-activation of the last layer that was replaced, or of those that read the changed units, in
    ``network`` and in the result; or, where a block's branch was taken out, the sum.

    Raises:
        EngineError: ONNX Runtime is missing or fails.
    """
    if operated.lost is not None:
        sums = _of_block(network, operated.lost, examples, rows)
        return relative(sums.error / sums.rows, sums.square / sums.rows - float(((sums.total / sums.rows) ** 2).sum()))
    found: dict[Place, _Sums] = {}
    for begin in range(0, len(operated.places), _PLACES):
        places = operated.places[begin : begin + _PLACES]
        for (before, _), sums in zip(places, _at(network, operated, examples, rows, places), strict=True):
            first = network.tied.get(before[0], before[0]), before[1]  # weights that are applied again: all their rows
            found[first] = sums.plus(found[first]) if first in found else sums
    error = sum(each.error / each.rows for each in found.values())
    variance = sum(each.square / each.rows - float(((each.total / each.rows) ** 2).sum()) for each in found.values())
    return relative(error, variance)


def changes_what_it_reads(network: Network, surgery: Surgery) -> bool:
    """Whether the surgery also changes the units that stay, as the layers read them; moments then predict too little.

    That may be so for units that several segments share: those of a residual stream are computed from earlier ones, and
    a normalisation changes the units that stay when others go.
    """
    return isinstance(surgery, Prune) and not network.group(surgery.layer).is_hidden


def with_measured_prediction(network: Network, surgery: Surgery, operated: Operated, examples: Examples) -> Operated:
    """The result with the predicted error found on the calibration sample, where moments predict too little.

    Raises:
        EngineError: ONNX Runtime is missing or fails.
    """
    if operated.record.predicted is None or not changes_what_it_reads(network, surgery):
        return operated
    found = found_error(network, operated, examples, np.arange(examples.rows))
    return replace(operated, record=replace(operated.record, predicted=found))


class _Sums(NamedTuple):
    """Sums over rows of a layer's pre-activation.

    Attributes:
        error: squares of its error.
        square: its squares.
        total: its values (units,).
        rows: number of rows.
    """

    error: float
    square: float
    total: Array
    rows: int

    def plus(self, other: _Sums) -> _Sums:
        """The sums over the rows of both."""
        return _Sums(
            self.error + other.error, self.square + other.square, self.total + other.total, self.rows + other.rows
        )


def _at(
    network: Network, operated: Operated, examples: Examples, rows: Array, places: Sequence[tuple[Place, Place]]
) -> list[_Sums]:
    """The errors of the layers' pre-activations at ``places``, in the network and in the result.

    Of a layer whose own units come and go too, those count that the result has.
    """
    both = [
        (each, session(_pre_activation_graph(each, examples, [place[side] for place in places])))
        for side, each in enumerate((network, operated.network))
    ]
    is_small = len(places) == 1 and network.segments[places[0][0][0]].rank == 2
    at_once = _ROWS if is_small else ROWS
    units = [network.segments[segment].layers[position].units for (segment, position), _ in places]
    stay = [operated.units.get(before, np.arange(count)) for (before, _), count in zip(places, units, strict=True)]
    sums = [_Sums(0.0, 0.0, np.zeros(len(each)), 0) for each in stay]
    for start in range(0, len(rows), at_once):
        for part in tiles(rows[start : start + at_once]):
            found = [run_tiles(made, each, examples, part) for each, made in both]
            for number, values in enumerate(zip(*found, strict=True)):
                old, new = (each.astype(np.float64) for each in values)
                old = old.reshape(-1, units[number])[:, stay[number]]
                new = new.reshape(-1, len(stay[number]))
                error, square = float(((new - old) ** 2).sum()), float((old**2).sum())
                sums[number] = sums[number].plus(_Sums(error, square, old.sum(axis=0), len(old)))
    return sums


def _of_block(network: Network, lost: Lost, examples: Examples, rows: Array) -> _Sums:
    """What a block's sum is off without its branch, and itself: all before it is as it was."""
    model, units = _block_graph(network, lost, examples), branches.units_of(network, lost.block)
    made, mean = session(model), 0.0 if lost.mean is None else lost.mean
    error, square, count = 0.0, 0.0, 0
    total: Array = np.zeros(units)
    for start in range(0, len(rows), ROWS):
        for part in tiles(rows[start : start + ROWS]):
            found = run_tiles(made, network, examples, part)
            branch, whole = (values.astype(np.float64).reshape(-1, units) for values in found)
            error += float(((branch - mean) ** 2).sum())
            square += float((whole**2).sum())
            total, count = total + whole.sum(axis=0), count + len(whole)
    return _Sums(error, square, total, count)


def _block_graph(network: Network, lost: Lost, examples: Examples) -> onnx.ModelProto:
    """The graph whose outputs are a branch's values and its sum, each (tiles, rows · positions of a tile, units)."""
    build = GraphBuilder(network.dtype)
    features, factors = read_features(build, network, examples)
    trace = forward(build, network, features, factors=factors)
    kind, block = helper.np_dtype_to_tensor_dtype(network.dtype), lost.block
    scanned = []
    for name, tensor in (("branch", block.branch), ("total", block.total)):
        build.add("Identity", branches.rows_of(build, network, trace, block, tensor), output=name)
        scanned.append(helper.make_tensor_value_info(name, kind, [None, branches.units_of(network, block)]))
    return scan_model("block", build, network, examples, scanned=scanned)


def _pre_activation_graph(network: Network, examples: Examples, places: Sequence[Place]) -> onnx.ModelProto:
    """The graph whose outputs are z (tiles, rows of a tile, units) of some layers."""
    build = GraphBuilder(network.dtype)
    features, factors = read_features(build, network, examples)
    trace = forward(build, network, features, factors=factors)
    kind, scanned = helper.np_dtype_to_tensor_dtype(network.dtype), []
    for number, (segment, position) in enumerate(places):
        layer, z = network.segments[segment].layers[position], trace.layers[segment][position].z
        if layer.geometry is not None:
            by_row = build.add("Reshape", z, build.integers(0, layer.units, -1))
            z = build.add("Reshape", build.add("Transpose", by_row, perm=[0, 2, 1]), build.integers(-1, layer.units))
        build.add("Identity", z, output=f"z{number}")
        scanned.append(helper.make_tensor_value_info(f"z{number}", kind, [None, layer.units]))
    return scan_model("pre_activation", build, network, examples, scanned=scanned)
