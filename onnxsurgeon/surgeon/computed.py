"""A network's multiplications and memory for a row, where limits ask for them, and the size that meets these."""

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
    """The number of parameters that a network like this one may have to be within the bounds.

    For a network beyond the bounds, this is what ``plan`` leaves of it; for a network within them, it is what the
    network has after all of its widths have grown up to them. Both are computed from widths alone, so they are always
    the same for the same network.
    """
    if not Budget(network, bounds).excess({}):
        return widened_within(network, bounds)
    candidate = plan(network)
    return network.parameter_count if candidate is None else candidate.parameters
