"""Ways to make a trained network as small as asked: by units, ranks, layers or blocks; each at equal size.

What a plan takes away is chosen by what it costs at the network's outputs (``calibration.sensitivity``), greedily:
what costs least for a parameter saved goes first, or for a MAC where these are too many. Which plan is best is then
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.recommend.blocks import removals
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.recommend.ranks import factorized, spelled_ranks
from onnxsurgeon.recommend.resources import Bounds, Budget
from onnxsurgeon.recommend.shrinking import UNBOUNDED, least_count, widths_for
from onnxsurgeon.recommend.trials import corrected
from onnxsurgeon.surgery import (
    FactorizeData,
    MergeData,
    MergeDuplicates,
    Prune,
    RemoveBlock,
    RemoveBlockData,
    Surgery,
    operate,
)
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.prune import pruning_costs

Measure = Callable[[Network], Moments]
HOPELESS = 4.0  # a plan with this many times the least predicted cost is not performed
# A plan, and its predicted cost at the outputs; 0 where there is no prediction.
Plan = tuple[Candidate, float]
UNITS, RANKS, BOTH, LAYERS, BRANCHES = "units", "ranks", "units and ranks", "a layer", "blocks"


def without_duplicates(network: Network, branch: int = 0) -> Candidate | None:
    """A candidate without units that are copies of others or constant, which is exact.

    None where there are no such units.
    """
    surgeries: list[Surgery] = []
    smaller = network
    for i in range(1, network.hidden_count + 1):
        surgery = MergeDuplicates(i)
        try:
            smaller = operate(smaller, surgery).network
        except SurgeryError:  # there are none, or none would stay
            continue
        surgeries.append(surgery)
    if not surgeries:
        return None
    return _candidate(surgeries, smaller.parameter_count, "units that are the same as others, or constant", branch)


def reductions(
    network: Network,
    measure: Measure,
    most: int | None,
    branch: int = 0,
    kinds: Sequence[str] | None = None,
    bounds: Bounds = UNBOUNDED,
) -> list[Candidate]:
    """Plans that bring ``network`` to at most ``most`` parameters, the most obvious first; none where it has no more.

    Without ``most``, to ``bounds``.

    Args:
        network: the branch's network.
        measure: calibrates a network, with sensitivities where it can.
        most: parameter count that must not be exceeded, and at which a plan ends, whether it is within the bounds or
            not; a plan that comes no nearer to it is left out. None: a plan ends where the bounds are met.
        branch: the branch's number, passed on.
        kinds: of which kinds, as of ``kind_of``; by default of all.
        bounds: of what is computed, which the choice of units and ranks goes by; see ``widths_for``.
    """
    if not _is_beyond(network, most, bounds):
        return []
    plans = {UNITS: _by_units, RANKS: _by_ranks, BOTH: _by_both, LAYERS: _by_layers, BRANCHES: _by_blocks}
    chosen = [plan for kind, plan in plans.items() if kinds is None or kind in kinds]
    found = [
        each
        for plan in chosen
        for each in plan(network, measure, most, branch, bounds)
        if most is None or each[0].parameters <= most
    ]
    least = min((cost for _, cost in found if cost), default=0.0)
    return [candidate for candidate, cost in found if cost <= HOPELESS * least or not cost]


def by_units(
    network: Network, moments: Moments, most: int | None, branch: int = 0, bounds: Bounds = UNBOUNDED, block: int = 1
) -> Candidate | None:
    """A candidate with units taken from all layers, as near to ``most`` parameters as possible; None where none can go.

    ``most``, ``bounds`` and ``block`` are those of ``widths_for``.
    """
    plan = _units(network, moments, most, branch, bounds, block)
    return None if plan is None else plan[0]


def _units(
    network: Network, moments: Moments, most: int | None, branch: int, bounds: Bounds, block: int = 1
) -> Plan | None:
    surgeries, cost = _pruned(network, moments, most, bounds, block)
    if not surgeries:
        return None
    widths = {each.layer: each.units for each in surgeries}
    kept = ", ".join(f"layer {i}: {network.group(i).units} → {units}" for i, units in widths.items())
    reason = f"units that others can stand in for: {kept}"
    return _candidate(surgeries, count_of(network, widths), reason, branch), cost


def _is_beyond(network: Network, most: int | None, bounds: Bounds) -> bool:
    """Whether a network is larger than plans are to leave it."""
    if most is None:
        return Budget(network, bounds).excess({}) > 0
    return network.parameter_count > most


def _by_units(network: Network, measure: Measure, most: int | None, branch: int, bounds: Bounds) -> Iterator[Plan]:
    found = _units(network, measure(network), most, branch, bounds)
    if found is not None:
        yield found


def _by_ranks(network: Network, measure: Measure, most: int | None, branch: int, bounds: Bounds) -> Iterator[Plan]:
    surgeries, count, cost = factorized(network, measure(network), most, bounds)
    if surgeries:
        yield _candidate(surgeries, count, f"{RANKS}: {spelled_ranks(surgeries)}", branch), cost


def _by_both(network: Network, measure: Measure, most: int | None, branch: int, bounds: Bounds) -> Iterator[Plan]:
    """Units first, down to the mean of both sizes by ratio; then ranks."""
    if most is None:
        between, wider = None, bounds.times((1 + Budget(network, bounds).excess({})) ** 0.5)
    else:
        between, wider = int((network.parameter_count * most) ** 0.5), bounds
    first, lost = _pruned(network, measure(network), between, wider)
    smaller = _operated(network, first, measure)
    surgeries, count, cost = factorized(smaller, measure(smaller), most, bounds)
    if first and surgeries:
        plan: list[Surgery] = [*first, *surgeries]
        yield _candidate(plan, count, f"{BOTH}: {spelled_ranks(surgeries)}", branch), lost + cost


def _by_layers(network: Network, measure: Measure, most: int | None, branch: int, bounds: Bounds) -> Iterator[Plan]:
    """One hidden layer gone, and units of the others; the layer whose loss is least by what the moments predict."""
    moments = measure(network)
    best: tuple[float, int] | None = None
    for i in range(1, network.hidden_count + 1):
        if network.depth(i)[1] < 2:  # a segment keeps its last hidden layer
            continue
        try:
            MergeData(i).require(network)
            predicted = MergeData(i).refit(network, moments).predicted or 0.0
        except SurgeryError:
            continue
        if best is None or (predicted, i) < best:
            best = predicted, i
    if best is None:
        return
    merge = MergeData(best[1])
    rest, count = _rest(_operated(network, [merge], measure), measure, most, bounds)
    plan: list[Surgery] = [merge, *rest]
    yield _candidate(plan, count, f"{LAYERS}: hidden layer {best[1]} is merged into the next", branch), 0.0


def _by_blocks(network: Network, measure: Measure, most: int | None, branch: int, bounds: Bounds) -> Iterator[Plan]:
    """Branches of residual blocks gone, and units of what is left."""
    for candidate, shallower in without_blocks(network, measure, branch, most):
        rest, count = _rest(shallower, measure, most, bounds)
        yield replace(candidate, parameters=count, further=(*candidate.further, *rest)), 0.0


def without_blocks(
    network: Network, measure: Measure, branch: int = 0, most: int | None = None
) -> Iterator[tuple[Candidate, Network]]:
    """Candidates without branches of residual blocks, and what each leaves; one for each number of ``removals``.

    ``measure``, ``branch`` and ``most`` are those of ``reductions``.
    """
    if not network.blocks:
        return
    fits = None if most is None else lambda left: least_count(left) <= most
    for surgeries, left in removals(network, measure(network), fits):
        reason = f"{BRANCHES}: {len(surgeries)} without their branches"
        yield _candidate(surgeries, left.parameter_count, reason, branch), left


def _rest(network: Network, measure: Measure, most: int | None, bounds: Bounds) -> tuple[list[Prune], int]:
    """The prunes that a network needs still to be as small as asked, and the parameters that it then has."""
    rest = _pruned(network, measure(network), most, bounds)[0] if _is_beyond(network, most, bounds) else []
    return rest, count_of(network, {each.layer: each.units for each in rest})


def _pruned(
    network: Network, moments: Moments, most: int | None, bounds: Bounds, block: int = 1
) -> tuple[list[Prune], float]:
    """The number of units that stay in each group, where any go, and the cost of that."""
    costs: dict[int, Array] = {}
    for i in range(1, network.group_count + 1):
        try:
            costs[i] = corrected(moments, Prune.operation, i, pruning_costs(network, i, moments))
        except SurgeryError:  # too wide for moments
            continue
    widths = widths_for(network, costs, most, bounds, block)
    chosen = [Prune(i, units) for i, units in widths.items() if units < network.group(i).units]
    return chosen, sum(float(costs[each.layer][each.units - 1]) for each in chosen)


def _operated(network: Network, surgeries: Sequence[Surgery], measure: Measure) -> Network:
    rng = np.random.default_rng(0)  # none of them draws
    for surgery in surgeries:
        network = operate(network, surgery, rng, moments=measure(network)).network
    return network


def _candidate(surgeries: Sequence[Surgery], count: int, reason: str, branch: int) -> Candidate:
    return Candidate(surgeries[0], 0.0, count, reason, branch, tuple(surgeries[1:]))


def kind_of(surgeries: str) -> str:
    """The kind of plan that a branch's surgeries are: all plans that only prune units are of one kind."""
    operations = {each.partition(":")[0] for each in surgeries.split("+")}
    if operations & {RemoveBlock.operation, RemoveBlockData.operation}:
        return BRANCHES
    if MergeData.operation in operations:
        return LAYERS
    if FactorizeData.operation in operations:
        return BOTH if Prune.operation in operations else RANKS
    return UNITS
