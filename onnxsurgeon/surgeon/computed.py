"""What a network computes for a row, multiplications and memory: where limits ask for it, what size meets them."""

from __future__ import annotations

from collections.abc import Callable

from onnxsurgeon.graph.memory import peak_memory
from onnxsurgeon.graph.network import Network
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.resources import Bounds, Budget
from onnxsurgeon.recommend.shrinking import widened_within
from onnxsurgeon.surgeon.settings import SurgeonSettings


def asked_of(network: Network, settings: SurgeonSettings) -> dict[str, int | None]:
    """The network's multiplications and memory for a row, by name; None where no limit asks for it."""
    return {
        "multiplications": None if settings.max_macs is None else network.multiplications,
        "memory": None if settings.max_memory is None else peak_memory(network),
    }


def parameters_within_bounds(network: Network, bounds: Bounds, plan: Callable[[Network], Candidate | None]) -> int:
    """How many parameters a network like this one may have so that it is within the bounds.

    As many as ``plan`` leaves of one that is beyond them, and as many as one that is not has when all of its widths
    have grown to them. Both are told from widths alone, and the same of the same network.
    """
    if not Budget(network, bounds).excess({}):
        return widened_within(network, bounds)
    candidate = plan(network)
    return network.parameter_count if candidate is None else candidate.parameters
