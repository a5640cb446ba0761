"""The units that ``prune`` can take away by the data, which judge a trained network's widths where there are rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.operating.measure import changes_what_it_reads, found_error
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.operated import operate
from onnxsurgeon.surgery.prune import Prune, pruning_errors

# Largest recommended error of a layer, as a fraction of the next layer's standard deviation: 1 % of its variance.
MOST_LOST = 0.1
# Shares of a group's units, and number of rows, at which errors are found where moments predict too little.
FOUND_AT, ROWS = (0.25, 0.5, 0.75, 0.9), 1024


@dataclass(frozen=True)
class PruningReport:
    """The predicted loss by ``prune`` in a hidden layer, or in a width that several layers share.

    Attributes:
        layer: i, counted from 1 (``Network.group``).
        errors: (n_i,), with 1, 2, …, n_i units left (``pruning_errors``, or found on rows); None without moments.
        candidate: the fewest units with an error of at most ``MOST_LOST``; None where no unit can go. Its score is the
            share of the units that go.
        reason: why it is the candidate, or why there is none.
    """

    layer: int
    errors: Array | None
    candidate: Candidate | None
    reason: str

    def error_at(self, share: float) -> float | None:
        """The error with that share of the units left, at least one."""
        return None if self.errors is None else float(self.errors[max(1, round(share * len(self.errors))) - 1])


def inspect_pruning(network: Network, moments: Moments, examples: Examples | None = None) -> list[PruningReport]:
    """Report on every group of units, hidden layers first; each is judged with the others left as they are.

    Moments predict too little for units that several segments share (``changes_what_it_reads``). With ``examples``, the
    calibration sample, their errors are found on its rows.

    Raises:
        EngineError: there are examples, and ONNX Runtime is missing or fails.
    """
    return [_report(network, i, moments, examples) for i in range(1, network.group_count + 1)]


def _report(network: Network, i: int, moments: Moments, examples: Examples | None) -> PruningReport:
    is_found = examples is not None and changes_what_it_reads(network, Prune(i, 1))
    try:
        errors = pruning_errors(network, i, moments)
        if examples is not None and is_found:
            errors = np.maximum(errors, _found_errors(network, i, moments, examples))
    except SurgeryError as error:  # too wide for moments
        return PruningReport(i, None, None, str(error))
    units = len(errors)
    left = 1 + int((errors <= MOST_LOST).argmax())  # the error with all units is 0
    if left == units:
        lost = f": {errors[-2]:.3g} is lost with the first" if units > 1 else ""
        return PruningReport(i, errors, None, f"none of layer {i}'s {units} units can go{lost}")
    what = "error" if is_found else "predicted error"
    reason = f"{units - left} of layer {i}'s {units} units can go: {what} {errors[left - 1]:.3g}"
    widths = {j: network.group(j).units for j in range(1, network.group_count + 1)}
    candidate = Candidate(Prune(i, left), (units - left) / units, count_of(network, {**widths, i: left}), reason)
    return PruningReport(i, errors, candidate, reason)


def _found_errors(network: Network, i: int, moments: Moments, examples: Examples) -> Array:
    """Errors (n_i,) with 1, 2, …, n_i units left, found on rows at some widths and interpolated between these."""
    units, rows = network.group(i).units, np.arange(min(ROWS, examples.rows))
    widths = sorted({1, max(1, units - 1), *(max(1, round(share * units)) for share in FOUND_AT)} - {units})
    found = [found_error(network, operate(network, Prune(i, each), moments=moments), examples, rows) for each in widths]
    return np.interp(np.arange(1, units + 1), [*widths, units], [*found, 0.0])
