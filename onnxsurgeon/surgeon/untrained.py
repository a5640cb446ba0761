"""An untrained network's weights, read as they are meant: for standardised inputs, and targets around 0.

Initial weights such as Glorot's keep the size of the values that pass through them where inputs are around 0 and of
size 1. A table of years and millions is not like that, nor are prices as targets: units are dead or alike from the
start, and a bias that moves by a learning rate each step never reaches the targets. So the search begins with x̂ W + b
in place of x W + b, which is another function, but as untrained as the given one.
"""

from __future__ import annotations

import numpy as np

from onnxsurgeon.graph.network import Network
from onnxsurgeon.runs.branch import TRAINED, Branch, Measurement, write_branch
from onnxsurgeon.runs.checkpoint import State
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.training.standardised import Standardised
from onnxsurgeon.training.units import from_units

SURGERY = "standardise"


def standardised_start(surgeon: Surgeon, state: State) -> None:
    """Let the search begin with an untrained network's weights as they are meant, where that lowers the loss."""
    settings, (given,) = surgeon.settings, state.branches
    if not settings.standardise or surgeon.is_trained:
        return
    network, rounding = meant(given.network, surgeon.context.standardised(given.network)).as_stored()
    if _are_equal(network, given.network):
        return
    before, after = (surgeon.engine.evaluate(each, surgeon.train).loss for each in (given.network, network))
    if before <= after or not np.isfinite(after):
        return
    reason = f"untrained: its weights are read as for standardised inputs, the loss {before:.4g} becomes {after:.4g}"
    number = surgeon.propose(state, given, SURGERY, network.parameter_count, reason)
    metrics = surgeon.engine.evaluate(network, surgeon.validation)
    measurement = Measurement(0, 0.0, TRAINED, metrics.accuracy, metrics.loss, rounding)
    branch = Branch(number, given.number, SURGERY, network, given.lineage, given.history)
    branch = branch.measured(network, None, measurement, -metrics.loss)
    write_branch(branch, surgeon.run.branches)
    surgeon.tell_measured(branch, given.accuracy)
    surgeon.measured(branch, state)
    state.branches = [branch]


def meant(network: Network, standardised: Standardised) -> Network:
    """The network in which the weights of ``network`` apply to standardised inputs and targets around 0.

    Pixels near 0 stay as they are, since such weights suit them already.
    """
    return standardised.but_for_small_pixels().out_of(from_units(network, standardised.examples.tasks))


def _are_equal(one: Network, other: Network) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(np.array_equal(mine, others) for (_, mine), (_, others) in pairs)
