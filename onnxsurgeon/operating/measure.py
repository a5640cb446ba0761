"""The error of a surgery as it is found: both networks run on the same rows."""

from __future__ import annotations

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
from onnxsurgeon.surgery.base import Lost, Operated
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.evaluation import ROWS
from onnxsurgeon.training.forward import forward
from onnxsurgeon.training.resident import read_features

_ROWS = 4096  # whose pre-activations are in memory at a time; of convolutions, with many positions each, a tile's


def found_error(network: Network, operated: Operated, examples: Examples, rows: Array) -> float:
    """Error that the surgery makes on ``rows`` of the examples, as in ``SurgeryRecord.predicted``.

    Any surgery's: compared is the pre-activation of the last layer that was replaced, or of those that read the units
    that were changed, in ``network`` and in the result; where a block's branch was taken out, the sum.

    Raises:
        EngineError: ONNX Runtime is missing or fails.
    """
    if operated.lost is not None:
        sums = _of_block(network, operated.lost, examples, rows)
        return relative(sums.error / sums.rows, sums.square / sums.rows - float(((sums.total / sums.rows) ** 2).sum()))
    found: dict[Place, _Sums] = {}
    for before, after in operated.places:
        first = network.tied.get(before[0], before[0]), before[1]  # of weights that are applied several times, all rows
        sums = _at(network, operated.network, examples, rows, before, after)
        found[first] = sums.plus(found[first]) if first in found else sums
    error = sum(each.error / each.rows for each in found.values())
    variance = sum(each.square / each.rows - float(((each.total / each.rows) ** 2).sum()) for each in found.values())
    return relative(error, variance)


class _Sums(NamedTuple):
    """Sums over rows of a layer's pre-activation.

    Attributes:
        error: of squares of what it is off.
        square: of its squares.
        total: of itself (units,).
        rows: how many.
    """

    error: float
    square: float
    total: Array
    rows: int

    def plus(self, other: _Sums) -> _Sums:
        """Over the rows of both."""
        return _Sums(
            self.error + other.error, self.square + other.square, self.total + other.total, self.rows + other.rows
        )


def _at(network: Network, result: Network, examples: Examples, rows: Array, before: Place, after: Place) -> _Sums:
    """What a layer's pre-activation is off, and itself."""
    both = [
        (each, session(_pre_activation_graph(each, examples, place)))
        for each, place in ((network, before), (result, after))
    ]
    layer = network.segments[before[0]].layers[before[1]]
    units, at_once = layer.units, _ROWS if layer.geometry is None else ROWS
    error, square, count = 0.0, 0.0, 0
    total: Array = np.zeros(units)
    for start in range(0, len(rows), at_once):
        for part in tiles(rows[start : start + at_once]):
            found = [run_tiles(made, each, examples, part)[0] for each, made in both]
            old, new = (values.astype(np.float64).reshape(-1, units) for values in found)
            error += float(((new - old) ** 2).sum())
            square += float((old**2).sum())
            total, count = total + old.sum(axis=0), count + len(old)
    return _Sums(error, square, total, count)


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


def _pre_activation_graph(network: Network, examples: Examples, place: Place) -> onnx.ModelProto:
    """The graph whose output is z (tiles, rows of a tile, units) of one layer."""
    build = GraphBuilder(network.dtype)
    features, factors = read_features(build, network, examples)
    trace = forward(build, network, features, factors=factors)
    segment, position = place
    layer, at = network.segments[segment].layers[position], trace.layers[segment][position]
    units, z = layer.units, at.z
    if layer.geometry is not None:
        by_position = build.add("Transpose", build.add("Reshape", z, build.integers(0, units, -1)), perm=[0, 2, 1])
        z = build.add("Reshape", by_position, build.integers(-1, units))
    build.add("Identity", z, output="z")
    kind = helper.np_dtype_to_tensor_dtype(network.dtype)
    scanned = helper.make_tensor_value_info("z", kind, [None, units])
    return scan_model("pre_activation", build, network, examples, scanned=[scanned])
