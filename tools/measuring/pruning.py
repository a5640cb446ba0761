"""Straight pruning, which every search has to beat: units taken away by what data show, and no training."""

from __future__ import annotations

from onnxsurgeon import Examples, Network, calibrate, operate, sample_rows
from onnxsurgeon.recommend.shrinking import shrinkage


def pruned_straight(network: Network, examples: Examples, most: int, seed: int = 0) -> Network:
    """The network with at most ``most`` parameters, or as near to that as it comes.

    By the moments of 4,096 rows of the examples; they are taken anew before each layer that is pruned.
    """
    rows = sample_rows(examples, seed=seed)
    candidate = shrinkage(network, calibrate(network, examples, rows), most)
    for surgery in candidate.surgeries if candidate else ():
        network = operate(network, surgery, moments=calibrate(network, examples, rows)).network
    return network.as_stored()[0]
