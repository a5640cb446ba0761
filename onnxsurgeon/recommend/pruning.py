"""What ``prune`` would take away, by the data: the judge of a trained network's widths, where rows are at hand."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.prune import Prune, pruning_errors

# Largest error of a layer that is recommended, of the next layer's standard deviation: 1 % of its variance.
MOST_LOST = 0.1


@dataclass(frozen=True)
class PruningReport:
    """What ``prune`` is predicted to lose of a hidden layer, or of a width that several layers share.

    Attributes:
        layer: i, counted from 1 (``Network.group``).
        errors: (n_i,), with 1, 2, …, n_i units left (``pruning_errors``); None where there are no moments.
        candidate: the fewest units with an error of at most ``MOST_LOST``; None where no unit can go. Its score is the
            share of the units that go.
        reason: of the candidate, or why there is none.
    """

    layer: int
    errors: Array | None
    candidate: Candidate | None
    reason: str

    def error_at(self, share: float) -> float | None:
        """The error with that share of the units left, at least one."""
        return None if self.errors is None else float(self.errors[max(1, round(share * len(self.errors))) - 1])


def inspect_pruning(network: Network, moments: Moments) -> list[PruningReport]:
    """A report of every group of units, hidden layers first; each for itself, the others left as they are."""
    return [_report(network, i, moments) for i in range(1, network.group_count + 1)]


def _report(network: Network, i: int, moments: Moments) -> PruningReport:
    try:
        errors = pruning_errors(network, i, moments)
    except SurgeryError as error:  # too wide for moments
        return PruningReport(i, None, None, str(error))
    units = len(errors)
    left = 1 + int((errors <= MOST_LOST).argmax())  # errors fall, and that of all units is 0
    if left == units:
        lost = f": {errors[-2]:.3g} is lost with the first" if units > 1 else ""
        return PruningReport(i, errors, None, f"none of layer {i}'s {units} units can go{lost}")
    reason = f"{units - left} of layer {i}'s {units} units can go: predicted error {errors[left - 1]:.3g}"
    widths = {j: network.group(j).units for j in range(1, network.group_count + 1)}
    candidate = Candidate(Prune(i, left), (units - left) / units, count_of(network, {**widths, i: left}), reason)
    return PruningReport(i, errors, candidate, reason)
