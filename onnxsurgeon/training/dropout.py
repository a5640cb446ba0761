"""Dropout in the training loop: masks cut from one resident pool.

Each example of a batch leaves out units of its own (Srivastava et al., "Dropout", JMLR 2014), and the units that stay
are scaled by 1/(1 − p), so that nothing changes in evaluation. ONNX's random operators have a state that no resumed run
can restore. Here a mask of n units is n consecutive rows of a pool (rows, batch) of zeros and 1/(1 − p); the seed, the
batch's position in the run and the layer decide which rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator
from onnxsurgeon.training.builder import GraphBuilder

FIRST_INPUT_MASK = 2**16  # behind the numbers of all layers' masks
LARGEST_MAP = 2**16  # values of a row that are masked: for more, the pool of masks would be large
OFFSETS = 4096  # places in the pool where a mask may begin
POOL, INPUT_POOL = "mask", "input_mask"


class Masks:
    """The masks of one training step under construction.

    Attributes:
        pool: name of the input from which they are cut.
        offsets: names of the body's inputs that say where each mask begins, each of shape (1,).
    """

    def __init__(self, build: GraphBuilder, pool: str) -> None:
        self._build, self.pool = build, pool
        self.offsets: list[str] = []

    def __call__(self, units: int) -> str:
        """Append the nodes of a mask; return its name, of shape (units, batch)."""
        offset = _offset(self.pool, len(self.offsets))
        self.offsets.append(offset)
        build = self._build
        stop = build.add("Add", offset, build.integers(units))
        return build.add("Slice", self.pool, offset, stop, build.axes(0))

    def by_row(self, units: int) -> str:
        """Append the nodes of a mask with the same values as (batch, units)."""
        return self._build.add("Reshape", self(units), self._build.integers(-1, units))


def _offset(pool: str, number: int) -> str:
    return f"{pool}_offset_{number}"


def masked_layers(network: Network) -> list[int]:
    """The units of everything that has a mask, in the order of the forward pass; see ``forward``."""
    maps, found = masked_maps(network), []
    for step in network.frame.trunk.steps:
        if isinstance(step, int):
            segment = network.segments[step]
            found += [math.prod(maps[step])] if step in maps else []
            found += [layer.units for layer in segment.layers[:-1]] if segment.rank == 2 else []
    return found


def masked_maps(network: Network) -> dict[int, tuple[int, ...]]:
    """Segments that read what convolutions have computed, by number, and the sizes of their input for one row.

    Inputs of unknown or large size are not masked, and neither are those of a convolution in groups.
    """
    computed: set[str] = set()
    found: dict[int, tuple[int, ...]] = {}
    for step in network.frame.trunk.steps:
        if not isinstance(step, int):
            if computed & set(step.inputs):
                computed.add(step.output)
            continue
        segment = network.segments[step]
        geometry = segment.layers[0].geometry
        is_open = not geometry.is_grouped if geometry is not None else segment.rank == 2
        sizes = (segment.widths[0], *(segment.space if segment.is_convolution else ()))
        known = tuple(size for size in sizes if size is not None)
        if segment.input_name in computed and is_open and len(known) == segment.rank - 1:
            found |= {step: known} if math.prod(known) <= LARGEST_MAP else {}
        if segment.is_convolution:
            computed.add(segment.output_name)
    return found


def entering(network: Network) -> list[DenseChain]:
    """The segments of two axes that read features directly, in the order of the forward pass."""
    trunk = network.frame.trunk
    segments = [network.segments[step] for step in trunk.steps if isinstance(step, int)]
    return [segment for segment in segments if segment.rank == 2 and segment.input_name in trunk.features]


def masked_inputs(network: Network) -> list[int]:
    """The number of features of every segment whose inputs are left out at random, in that order."""
    return [segment.widths[0] for segment in entering(network)]


def declarations(offsets: Mapping[str, Sequence[str]], kind: int) -> list[onnx.ValueInfoProto]:
    """Inputs of the graph: each pool that has any offsets, and where each mask begins at each step."""
    found = []
    for name, names in offsets.items():
        if names:
            found.append(helper.make_tensor_value_info(name, kind, [f"{name}_rows", "batch_size"]))
            integers = onnx.TensorProto.INT64
            found += [helper.make_tensor_value_info(f"{each}s", integers, ["steps", 1]) for each in names]
    return found


def feeds(
    network: Network, rate: float, seed: int, positions: Array, batch_size: int, input_rate: float = 0.0
) -> dict[str, Array]:
    """Values of those inputs for the batches at ``positions`` (steps,) of a run."""
    found: dict[str, Array] = {}
    for name, share, units in ((POOL, rate, masked_layers(network)), (INPUT_POOL, input_rate, masked_inputs(network))):
        if not share or not units:
            continue
        rows = OFFSETS - 1 + 2 ** (max(units) - 1).bit_length()  # the same pool while layers grow a little
        found[name] = pool(share, seed, rows, batch_size, network.dtype.str)
        first = 0 if name == POOL else FIRST_INPUT_MASK
        for number in range(len(units)):
            places = hashed(seed, first + number, positions)
            found[f"{_offset(name, number)}s"] = places.reshape(-1, 1) % OFFSETS
    return found


@lru_cache(32)
def pool(rate: float, seed: int, rows: int, batch_size: int, dtype: str) -> Array:
    """A pool of zeros, of share ``rate``, and 1/(1 − rate), shape (rows, batch_size)."""
    stays = generator(seed, "dropout").random((rows, batch_size), np.float32) >= rate
    values = np.where(stays, 1 / (1 - rate), 0.0).astype(dtype)
    values.flags.writeable = False
    return values


def hashed(seed: int, number: int, positions: Array) -> Array:
    """A non-negative number for each position: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    key = generator(seed, "dropout-offsets", number).integers(2**63, dtype=np.uint64)
    z = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
