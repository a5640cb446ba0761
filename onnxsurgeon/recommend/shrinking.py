"""Shrinking a network to a size: units taken from all layers, each from the layer that loses least by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxsurgeon.calibration.calibrate import WIDEST
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.recommend.resources import Bounds, Budget
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.prune import Prune, pruning_errors

STEP = 0.02  # share of a layer's units taken at a time
UNBOUNDED = Bounds()
SCALES = 40  # bisections of a factor for all widths


def widths_for(
    network: Network, losses: Mapping[int, Array], most: int | None, bounds: Bounds = UNBOUNDED, block: int = 1
) -> dict[int, int]:
    """Units that stay in each group, by its number, for at most ``most`` parameters, or as near to it as possible.

    The choice is greedy: the group that loses least for a parameter saved gives the next units. As long as ``bounds``
    are exceeded, it is the group that loses least for a saving of those, since early convolutions have few parameters
    and many multiplications.

    Args:
        network: the network.
        losses: for each group the loss where 1, 2, …, n_i units stay (n_i,); a group without an entry keeps all.
        most: parameter count at which it ends, whether the bounds are met or not; None: it ends where they are.
        bounds: bounds on what the network takes besides parameters.
        block: units go until a multiple of it is left; fewer than it are halved.
    """
    widths = {i: network.group(i).units for i in range(1, network.group_count + 1)}
    budget = Budget(network, bounds)

    def best(excess: Callable[[Mapping[int, int]], float]) -> tuple[int, int] | None:
        """The group that gives units next, and the number that it keeps."""
        found: tuple[float, int, int] | None = None
        have = excess(widths)
        for i, curve in losses.items():
            fewer = _fewer(widths[i], block)
            saved = have - excess({**widths, i: fewer}) if fewer >= 1 else 0
            if saved <= 0:
                continue
            loss = float(curve[fewer - 1] - curve[widths[i] - 1])
            if found is None or (loss / saved, i) < found[:2]:
                found = loss / saved, i, fewer
        return None if found is None else found[1:]

    while most is None or count_of(network, widths) > most:
        beyond = budget.excess(widths) if bounds.are_any else 0.0
        given = best(budget.excess) if beyond else None
        if given is None and most is not None:
            given = best(lambda other: count_of(network, other))
        if given is None:
            break
        widths[given[0]] = given[1]
    return widths


def _fewer(units: int, block: int) -> int:
    if block == 1:
        return units - max(1, round(STEP * units))
    return (units - 1) // block * block or units // 2


def least_count(network: Network) -> int:
    """Parameter count with one unit in each group that can be pruned, by data."""
    return count_of(network, dict.fromkeys(prunable(network), 1))


def prunable(network: Network) -> list[int]:
    """Groups whose readers are narrow enough for covariances of their inputs."""
    groups = range(1, network.group_count + 1)
    return [i for i in groups if all(layer.inputs <= WIDEST for layer in network.layers_of(i)[1])]


def widened_within(network: Network, bounds: Bounds) -> int:
    """Parameter count up to which the network can be widened, all groups alike, within bounds that it meets now."""
    budget, present = Budget(network, bounds), {i: network.group(i).units for i in range(1, network.group_count + 1)}

    def wider(times: float) -> dict[int, int]:
        return {i: int(times * units) for i, units in present.items()}

    low, high = 1.0, 2.0
    while high < WIDEST and not budget.excess(wider(high)):
        low, high = high, 2 * high
    for _ in range(SCALES):
        middle = (low + high) / 2
        low, high = (low, middle) if budget.excess(wider(middle)) else (middle, high)
    return count_of(network, wider(low))


def shrinkage(
    network: Network, moments: Moments, most: int | None, branch: int = 0, bounds: Bounds = UNBOUNDED
) -> Candidate | None:
    """The candidate of at most ``most`` parameters, or as near to that as possible; None where nothing can go.

    ``most`` and ``bounds`` are those of ``widths_for``.
    """
    errors: dict[int, Array] = {}
    for i in range(1, network.group_count + 1):
        try:
            errors[i] = pruning_errors(network, i, moments)
        except SurgeryError:  # too wide for moments
            continue
    widths = widths_for(network, {i: curve**2 for i, curve in errors.items()}, most, bounds)
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
