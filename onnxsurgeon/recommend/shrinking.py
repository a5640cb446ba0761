"""How a network could shrink to a size: units taken from all layers, from each where the next loses least by it."""

from __future__ import annotations

from collections.abc import Mapping

from onnxsurgeon.calibration.calibrate import WIDEST
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.surgery.prune import Prune, pruning_errors

STEP = 0.02  # share of a layer's units taken at a time


def widths_for(network: Network, losses: Mapping[int, Array], most: int) -> dict[int, int]:
    """Units that stay in each group, by its number, for at most ``most`` parameters; as near as they come.

    Greedy: whatever group loses least for a parameter saved gives the next units.

    Args:
        network: whose units they are.
        losses: for each group what is lost where 1, 2, …, n_i units stay (n_i,); one without keeps all.
        most: parameter count.
    """
    widths = {i: network.group(i).units for i in range(1, network.group_count + 1)}
    while count_of(network, widths) > most:
        best: tuple[float, int, int] | None = None
        for i, curve in losses.items():
            fewer = widths[i] - max(1, round(STEP * widths[i]))
            if fewer < 1:
                continue
            saved = count_of(network, widths) - count_of(network, {**widths, i: fewer})
            loss = float(curve[fewer - 1] - curve[widths[i] - 1])
            if best is None or (loss / saved, i) < best[:2]:
                best = loss / saved, i, fewer
        if best is None:
            break
        widths[best[1]] = best[2]
    return widths


def count_of(network: Network, widths: Mapping[int, int]) -> int:
    """Parameter count with these numbers of units in the groups, by number; those left out keep theirs."""
    present = {i: network.group(i).units for i in range(1, network.group_count + 1)} | dict(widths)
    count = 0
    for size in network.layer_sizes:
        inputs = size.inputs + sum(present[i] * taps for i, taps in size.rows)
        count += (size.units + sum(present[i] for i in size.columns)) * (inputs + size.each)
    return count


def least_count(network: Network) -> int:
    """Parameter count with one unit in each group that can be pruned, by data."""
    return count_of(network, dict.fromkeys(prunable(network), 1))


def prunable(network: Network) -> list[int]:
    """Groups whose readers are narrow enough for covariances of what they read."""
    groups = range(1, network.group_count + 1)
    return [i for i in groups if all(layer.inputs <= WIDEST for layer in network.layers_of(i)[1])]


def shrinkage(network: Network, moments: Moments, most: int, branch: int = 0) -> Candidate | None:
    """The candidate of at most ``most`` parameters, or as near to that as it comes; None where nothing can go."""
    errors: dict[int, Array] = {}
    for i in range(1, network.group_count + 1):
        try:
            errors[i] = pruning_errors(network, i, moments)
        except SurgeryError:  # too wide for moments
            continue
    widths = widths_for(network, {i: curve**2 for i, curve in errors.items()}, most)
    surgeries = [Prune(i, units) for i, units in widths.items() if units < network.group(i).units]
    if not surgeries:
        return None
    kept = ", ".join(f"layer {each.layer}: {network.group(each.layer).units} → {each.units}" for each in surgeries)
    return Candidate(
        surgeries[0],
        0.0,
        count_of(network, widths),
        f"units that others can stand in for: {kept}",
        branch,
        tuple(surgeries[1:]),
    )
