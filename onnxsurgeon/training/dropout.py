"""Dropout in the training loop: masks cut from one resident pool.

Each example of a batch leaves out units of its own (Srivastava et al., "Dropout", JMLR 2014), and those that stay are
scaled by 1/(1 − p), so that nothing changes in evaluation. ONNX's random operators have a state, which no resumed run
can take up again. Here a mask of n units is n consecutive rows of a pool (rows, batch) of zeros and 1/(1 − p), and
which ones follows from the seed, the batch's position in the run and the layer alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.schedule import generator

OFFSETS = 4096  # places in the pool that a mask may begin at
POOL = "masks"


class Masks:
    """The masks of one training step under construction.

    Attributes:
        offsets: names of the body's inputs that say where each mask begins, each of shape (1,).
    """

    def __init__(self, build: GraphBuilder) -> None:
        self._build = build
        self.offsets: list[str] = []

    def __call__(self, units: int) -> str:
        """Append the nodes of a mask; return its name, of shape (units, batch)."""
        offset = f"mask_offset_{len(self.offsets)}"
        self.offsets.append(offset)
        build = self._build
        stop = build.add("Add", offset, build.integers(units))
        return build.add("Slice", POOL, offset, stop, build.axes(0))


def masked_layers(network: Network) -> list[int]:
    """Units of every layer that has a mask, in the order of the forward pass: see ``forward``."""
    segments = [network.segments[step] for step in network.frame.trunk.steps if isinstance(step, int)]
    return [layer.units for segment in segments if segment.rank == 2 for layer in segment.layers[:-1]]


def declarations(names: list[str], kind: int) -> list[onnx.ValueInfoProto]:
    """Inputs of the graph: the pool, and where each mask begins at each step."""
    if not names:
        return []
    integers = onnx.TensorProto.INT64
    series = [helper.make_tensor_value_info(f"{name}s", integers, ["steps", 1]) for name in names]
    return [helper.make_tensor_value_info(POOL, kind, ["pool_rows", "batch_size"]), *series]


def feeds(network: Network, rate: float, seed: int, positions: Array, batch_size: int) -> dict[str, Array]:
    """Values of those inputs for the batches at ``positions`` (steps,) of a run."""
    units = masked_layers(network)
    if not rate or not units:
        return {}
    rows = OFFSETS - 1 + 2 ** (max(units) - 1).bit_length()  # the same pool while layers grow a little
    found = {POOL: pool(rate, seed, rows, batch_size, network.dtype.str)}
    for number in range(len(units)):
        found[f"mask_offset_{number}s"] = _hashed(seed, number, positions).reshape(-1, 1) % OFFSETS
    return found


@lru_cache(8)
def pool(rate: float, seed: int, rows: int, batch_size: int, dtype: str) -> Array:
    """Zeros, of a share ``rate``, and 1/(1 − rate), shape (rows, batch_size)."""
    stays = generator(seed, "dropout").random((rows, batch_size), np.float32) >= rate
    values = np.where(stays, 1 / (1 - rate), 0.0).astype(dtype)
    values.flags.writeable = False
    return values


def _hashed(seed: int, number: int, positions: Array) -> Array:
    """A number from 0 on for each position: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    key = generator(seed, "dropout-offsets", number).integers(2**63, dtype=np.uint64)
    z = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
