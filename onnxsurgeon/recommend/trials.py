"""What surgeries cost at the outputs, tried: what is foretold of a layer, corrected by what a few amounts really cost.

Foretold is the error of the next pre-activation, in the metric of the network's outputs (``calibration.sensitivity``),
errors at different positions being taken for independent. Behind convolutions they are not: what a channel would have
told is missing everywhere in an image, a mean over all positions adds that up, and in a residual network each block
goes on from what the blocks before it got wrong. How far that is off differs from layer to layer. So each group is
pruned alone to a few widths, each layer factorized alone to a few ranks, and the change of the outputs of some rows is
set beside what was foretold.

Of a residual network c1-c16+c16-c16-c16+c16-c32+c32-c32-c32+32-10 on Fashion-MNIST, whose last block is averaged over
all positions, that was 14 to 30 times what was foretold of the width inside that block, 2 to 7 times of the others.
Pruned step by step to a quarter of its parameters, without training, it was right on 0.833 of 2,000 rows held out;
by what is foretold alone 0.790 (cross-entropy 0.499 and 0.620; the whole network 0.917).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.sensitivity import TEMPERATURE
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import DataError, SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgery import FactorizeData, Prune, Surgery, operate
from onnxsurgeon.surgery.factorize_data import factorization_costs
from onnxsurgeon.surgery.prune import pruning_costs
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, Task

SHARES = (0.75, 0.5, 0.25)  # of the units, or ranks, that are kept in a trial
ROWS = 512  # whose outputs are looked at
Outputs = Callable[[Network, Examples], Sequence[Array]]


def with_trials(moments: Moments, network: Network, examples: Examples, rows: Array, outputs: Outputs) -> Moments:
    """``moments`` of ``network``, and with them ``Moments.corrections`` by trials on ``ROWS`` of the rows.

    Args:
        moments: with sensitivities.
        network: whose they are.
        examples: their heads' tasks say what an error of the outputs costs.
        rows: row numbers of the sample.
        outputs: what the heads of a network put out for examples, (rows, …, width) each.

    Raises:
        EngineError: the network cannot be evaluated.
    """
    chosen = rows[np.linspace(0, len(rows), min(ROWS, len(rows)), endpoint=False).astype(int)]
    labels = tuple(each[chosen] for each in examples.labels)
    sample = Examples([stored.select(chosen) for stored in examples.stored], labels, examples.tasks)
    given = [np.asarray(each, np.float64) for each in outputs(network, sample)]

    def cost(surgery: Surgery) -> float | None:
        try:
            made = outputs(operate(network, surgery, moments=moments).network, sample)
        except (SurgeryError, DataError):
            return None
        return sum(map(_cost, examples.tasks, given, made))

    corrections: dict[tuple[str, int], Array] = {}
    for kind, count, foretold in (
        (Prune, network.group_count, pruning_costs),
        (FactorizeData, network.group_count, factorization_costs),
    ):
        for i in range(1, count + 1):
            try:
                costs = foretold(network, i, moments)
            except SurgeryError:  # too wide for moments, or no single layer's width
                continue
            tried = {amount: cost(kind(i, amount)) for amount in _amounts(costs)}
            found = _factors(costs, tried)
            if found is not None:
                corrections[kind.operation, i] = found
    return replace(moments, corrections=corrections)


def corrected(moments: Moments, operation: str, i: int, costs: Array) -> Array:
    """What ``operation`` on layer ``i`` is foretold to cost, (amounts,), corrected where there were trials.

    Less that is kept never costs less.
    """
    factors = moments.corrections.get((operation, i))
    if factors is None or len(factors) != len(costs):
        return costs
    return np.maximum.accumulate((costs * factors)[::-1])[::-1]


def _amounts(costs: Array) -> list[int]:
    """Which amounts are tried: what costs nothing, and all that there is, need not be."""
    amounts = {max(1, round(share * len(costs))) for share in SHARES} - {len(costs)}
    return sorted(amount for amount in amounts if costs[amount - 1] > 0)


def _factors(costs: Array, tried: Mapping[int, float | None]) -> Array | None:
    """By what each of the costs foretold is multiplied, (amounts,): as tried, between trials by their logarithms."""
    known = {amount: cost / float(costs[amount - 1]) for amount, cost in tried.items() if cost}
    if not known:
        return None
    return np.exp(np.interp(np.arange(1, len(costs) + 1), list(known), np.log(list(known.values()))))


def _cost(task: Task, before: Array, after: Array) -> float:
    """Mean over rows and positions of eᵀ H e for errors e of the outputs, H as in ``calibration.sensitivity``."""
    error = np.asarray(after, np.float64) - before
    if task.loss == CROSS_ENTROPY:
        p = np.exp((before - before.max(axis=-1, keepdims=True)) / TEMPERATURE)
        p /= p.sum(axis=-1, keepdims=True)
        return float(((p * error**2).sum(axis=-1) - (p * error).sum(axis=-1) ** 2).mean())
    if task.loss == BINARY:
        p = 1 / (1 + np.exp(-before / TEMPERATURE))
        return float((p * (1 - p) * error**2).mean())
    if task.squash == "Sigmoid":
        p = 1 / (1 + np.exp(-before))
        error = error * p * (1 - p)
    return float(((error / np.array(task.scale)) ** 2 if task.scale else error**2).mean())
