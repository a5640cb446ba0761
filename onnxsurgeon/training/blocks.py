"""Convolutions over blocks of channels, ONNX Runtime's fastest form, which it chooses itself for constant weights only.

Tensors lie as (rows, channels / block, space…, block), weights as (units / block, channels / block, kernel…, block,
block). The number of channels of a block depends on the processor, and nothing reports it: the size that computes the
right numbers is found by trying. With the copies into blocks and back around each of them, such convolutions take 0.6
to 0.85 times as long as others (docs/performance.md).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.runtime import run
from onnxsurgeon.training.builder import BLOCKED, OPSET, GraphBuilder

CANDIDATES = (16, 8)
LEAST_POSITIONS = 16  # with fewer, other forms are as fast


def fits(build: GraphBuilder, geometry: Geometry, channels: int, units: int, positions: int) -> bool:
    """Whether such a convolution is computed over blocks."""
    return (
        build.block > 0
        and geometry.rank == 2
        and geometry.groups == 1
        and geometry.taps > 1
        and channels % build.block == 0
        and units % build.block == 0
        and positions >= LEAST_POSITIONS
    )


def forward(
    build: GraphBuilder, geometry: Geometry, x: str, kernel: str, bias: str, shape: tuple[int, int], phi: str
) -> str:
    """Append φ(x convolved with a kernel (units, channels, kernel…)).

    Φ is "Relu" or "", ``shape`` is (units, channels).
    """
    (units, channels), block, taps = shape, build.block, geometry.taps
    # Transposed in two steps, the second of which moves whole blocks: one of six axes takes several times as long.
    rows = build.add("Reshape", kernel, build.integers(units // block, block, channels * taps))
    turned = build.add("Transpose", rows, perm=[0, 2, 1])
    parts = build.add("Reshape", turned, build.integers(units // block, channels // block, block, taps, block))
    turned = build.add("Transpose", parts, perm=[0, 1, 3, 2, 4])
    weight = build.add("Reshape", turned, build.integers(units, channels, *geometry.kernel))
    given = {"activation": phi} if phi else {}
    return _convolved(
        build,
        x,
        weight,
        bias,
        units,
        kernel_shape=list(geometry.kernel),
        pads=list(geometry.pads),
        strides=list(geometry.strides),
        dilations=list(geometry.dilations),
        **given,
    )


def backward(
    build: GraphBuilder, geometry: Geometry, delta: str, kernel: str, shape: tuple[int, int], pads: list[int]
) -> str:
    """Append δ convolved with Wᵀ, its taps in reverse order, for a W as in ``forward``."""
    (units, channels), block, taps = shape, build.block, geometry.taps
    rows = build.add("Reshape", kernel, build.integers(units, channels, taps))
    turned = build.add("Transpose", rows, perm=[0, 2, 1])
    backwards = reversed_taps(build, turned, 1, taps)
    parts = build.add("Reshape", backwards, build.integers(units // block, block, taps, channels // block, block))
    turned = build.add("Transpose", parts, perm=[3, 0, 2, 1, 4])
    weight = build.add("Reshape", turned, build.integers(channels, units, *geometry.kernel))
    return _convolved(
        build,
        delta,
        weight,
        "",
        channels,
        kernel_shape=list(geometry.kernel),
        pads=pads,
        dilations=list(geometry.dilations),
    )


def reversed_taps(build: GraphBuilder, kernel: str, axis: int, taps: int) -> str:
    """A kernel with the taps along an axis in reverse order."""
    last, ahead_of_first = build.integers(-1), build.integers(-taps - 1)
    return build.add("Slice", kernel, last, ahead_of_first, build.integers(axis), build.integers(-1))


def _convolved(build: GraphBuilder, x: str, weight: str, bias: str, units: int, **given: Any) -> str:
    blocks = build.add("ReorderInput", x, domain=BLOCKED)
    y = build.add("Conv", blocks, weight, *([bias] if bias else []), domain=BLOCKED, **given)
    return build.add("ReorderOutput", y, domain=BLOCKED, channels=units)


@functools.lru_cache(maxsize=1)
def channels_of_a_block() -> int:
    """The number of channels of a block on this processor, found by trying; 0 where there are no such convolutions."""
    return next((block for block in CANDIDATES if _is_right(block)), 0)


def _is_right(block: int) -> bool:
    rng = np.random.default_rng(0)
    shape = (2 * block, 4 * block)
    x = rng.integers(-4, 5, (2, shape[1], 5, 4)).astype(np.float32)
    w = rng.integers(-4, 5, (*shape, 3, 3)).astype(np.float32)
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1)
    build = GraphBuilder(np.dtype(np.float32), block)
    found = forward(build, geometry, "x", "w", "", shape, "")
    plain = build.add("Conv", "x", "w", pads=[1] * 4)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        build.nodes,
        "blocks",
        [helper.make_tensor_value_info(name, kind, values.shape) for name, values in (("x", x), ("w", w))],
        [helper.make_tensor_value_info(name, kind, None) for name in (found, plain)],
        list(build.constants.values()),
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(BLOCKED, 1)]
    try:
        ours, theirs = run(helper.make_model(graph, opset_imports=imports, ir_version=8), {"x": x, "w": w})
    except EngineError:  # there are no such operators, or the size is another
        return False
    return bool(np.array_equal(ours, theirs))  # integers, so nothing is rounded
