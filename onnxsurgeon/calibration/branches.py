"""What the branches of residual blocks put out, and the sums that it is added to: means and variances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from onnxsurgeon.calibration.moments import BranchMoment
from onnxsurgeon.calibration.scan import Sum
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.trace import Trace


def sums(build: GraphBuilder, network: Network, trace: Trace) -> Iterator[Sum]:
    """Of each block whose units' axis is known, what means and variances are made of."""
    for block in network.blocks:
        if block.axis is None or block.reason:
            continue
        units = units_of(network, block)
        for what, name in (("branch", block.branch), ("total", block.total)):
            rows = rows_of(build, network, trace, block, name)
            wide = build.add("Cast", rows, to=onnx.TensorProto.DOUBLE)
            base = f"{what}_of{block.number}"
            if what == "branch":
                yield Sum(f"{base}_rows", (1,), (rows,), is_count=True)
            yield Sum(f"{base}_sum", (units,), (rows,))
            yield Sum(f"{base}_square", (units,), (build.add("Mul", wide, wide),))


def moments(network: Network, totals: Mapping[str, Array]) -> dict[str, BranchMoment]:
    """Those of all branches that there are sums of."""
    found = {}
    for block in network.blocks:
        if f"branch_of{block.number}_rows" not in totals:
            continue
        count = float(totals[f"branch_of{block.number}_rows"][0])
        (mean, variance), (_, total) = (
            _mean_and_variance(totals, f"{what}_of{block.number}", count) for what in ("branch", "total")
        )
        found[block.total] = BranchMoment(mean, variance, total)
    return found


def rows_of(build: GraphBuilder, network: Network, trace: Trace, block: Block, name: str) -> str:
    """Append a tensor of a block's sum as (rows · positions, units)."""
    assert block.axis is not None
    shape = _shape(network, block)
    x, rank = trace.tensors[name], len(shape)
    axis = block.axis % rank
    if axis != rank - 1:
        x = build.add("Transpose", x, perm=[*(each for each in range(rank) if each != axis), axis])
    return build.add("Reshape", x, build.integers(-1, units_of(network, block))) if rank > 2 else x


def units_of(network: Network, block: Block) -> int:
    """How many units the block's sum has."""
    assert block.axis is not None
    units = _shape(network, block)[block.axis]
    assert units is not None  # a number of units is one of channels, or of a layer's columns
    return units


def _shape(network: Network, block: Block) -> tuple[int | None, ...]:
    steps = network.frame.trunk.steps
    return next(step.shape for step in steps if not isinstance(step, int) and step.output == block.total)


def _mean_and_variance(totals: Mapping[str, Array], base: str, count: float) -> tuple[Array, float]:
    mean = totals[f"{base}_sum"] / count
    return mean, float((totals[f"{base}_square"] / count - mean**2).clip(min=0).sum())
