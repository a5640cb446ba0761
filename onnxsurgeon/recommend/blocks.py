"""Which residual blocks could do without their branches, and what is lost with each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.calibration.regression import relative
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.residual import Block
from onnxsurgeon.graph.without_block import require_removable, without_block
from onnxsurgeon.recommend.candidates import Candidate
from onnxsurgeon.recommend.pruning import MOST_LOST
from onnxsurgeon.surgery import InsertBlock, RemoveBlock, RemoveBlockData, Surgery, operate
from onnxsurgeon.surgery.removal import own_counts

# Blocks times nodes up to which ``inspect`` reads the file anew without each of them: some seconds.
READ_AGAIN = 5_000
FEW_BLOCKS = 16  # up to so many, the fewest that have to go are counted one by one
AT_ONCE = 8  # blocks that a network gets more of at a time


@dataclass(frozen=True)
class BlockReport:
    """What is lost with the branch of a residual block.

    Attributes:
        block: its number, from 1.
        node: of its sum.
        layers: names of the branch's layers.
        parameters: that the branch alone has.
        error: predicted, with the branch's mean in its place, of the sum's standard deviation; None without moments.
        candidate: its removal, where the error is at most ``MOST_LOST``; else None.
        reason: of the candidate, or why there is none.
    """

    block: int
    node: str
    layers: tuple[str, ...]
    parameters: int
    error: float | None
    candidate: Candidate | None
    reason: str

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON; without the candidate."""
        found = asdict(self)
        del found["candidate"]
        return {**found, "layers": list(self.layers)}


def inspect_blocks(network: Network, moments: Moments | None = None) -> list[BlockReport]:
    """A report of every residual block, in the order of their sums; each for itself, the others left as they are.

    Where there are many of them in a large file, what the file says against a removal is first told when it is done.
    """
    network = network.parted()
    is_small = len(network.blocks) * len(network.frame.model.graph.node) <= READ_AGAIN
    counts = own_counts(network, network.blocks)
    return [_report(network, *each, moments, reads=is_small) for each in zip(network.blocks, counts, strict=True)]


def _report(network: Network, block: Block, saved: int, moments: Moments | None, *, reads: bool) -> BlockReport:
    segments = (network.segments[number] for number in block.segments)
    layers = tuple(layer.names.node for segment in segments for layer in segment.layers)
    error, candidate = None, None
    reason = "what it is added to goes through layers of its own, which stay" if block.is_projected else ""
    try:
        require_removable(network, block)
        if reads:
            without_block(network, block.number)
    except SurgeryError as problem:
        return BlockReport(block.number, block.node, layers, saved, None, None, str(problem))
    if moments is not None and block.total in moments.branches:
        found = moments.branches[block.total]
        error = relative(found.variance, found.total)
        if error <= MOST_LOST:
            surgery, share = RemoveBlockData(block.number), saved / network.parameter_count
            reason = f"the branch's mean does for it: predicted error {error:.3g}"
            candidate = Candidate(surgery, share, network.parameter_count - saved, reason)
    return BlockReport(block.number, block.node, layers, saved, error, candidate, reason)


def removals(
    network: Network, moments: Moments, fits: Callable[[Network], bool] | None = None
) -> Iterator[tuple[tuple[Surgery, ...], Network]]:
    """Surgeries that take out 1, 2, 4, … blocks' branches, and at last all that can go, and what each leaves.

    Those with the least error foretold go first; the mean stays where it goes into a bias. What is left is as after the
    plain removals: of the size, but with other values. Where ``fits`` is given, the fewest that leave what fits are
    among them too: where widths alone can not be small enough, the next power of two may be far too many.
    """
    network = network.parted()
    order = _removable(network, moments)
    counts = {2**power for power in range(len(order).bit_length())} | {len(order)}
    least: int | None = None
    for count in range(1, len(order) + 1):
        is_sought = fits is not None and least is None and len(order) <= FEW_BLOCKS
        if count not in counts and not is_sought:
            continue
        surgeries, left = _performed(network, moments, order[:count])
        is_least = fits is not None and least is None and fits(left)
        least = count if is_least else least
        if surgeries and (count in counts or is_least):
            yield surgeries, left


def barest(network: Network) -> Network | None:
    """The network without every branch that can go; None where none can, or looking would take long."""
    if not network.blocks or len(network.blocks) * len(network.frame.model.graph.node) > READ_AGAIN:
        return None
    network = network.parted()
    unknown = Moments({}, {}, {}, {})
    surgeries, left = _performed(network, unknown, _removable(network, unknown))
    return left if surgeries else None


def deeper_blocks(network: Network) -> Iterator[tuple[list[Surgery], Network]]:
    """With another block behind the last one that can be repeated, and behind each; nothing where none can."""
    numbers = [block.number for block in network.blocks if not block.is_projected]
    seen: list[list[Surgery]] = []
    for wanted in (numbers[-1:], numbers):
        surgeries: list[Surgery] = []
        deeper = network
        for number in reversed(wanted):  # those before keep their numbers
            try:
                deeper = operate(deeper, InsertBlock(number)).network
            except SurgeryError:
                continue
            surgeries.append(InsertBlock(number))
        if surgeries and surgeries not in seen and len(surgeries) <= AT_ONCE:
            seen.append(surgeries)
            yield surgeries, deeper


def _removable(network: Network, moments: Moments) -> list[Block]:
    """Blocks without any inside another, the least error first."""
    found = []
    for block in network.blocks:
        try:
            operate(network, RemoveBlock(block.number))
        except SurgeryError:
            continue
        known = moments.branches.get(block.total)
        error = np.inf if known is None else relative(known.variance, known.total)
        found.append((error, block.number, block))
    blocks = [block for *_, block in sorted(found, key=lambda each: each[:2])]
    return [block for block in blocks if not any(_is_inside(block, other) for other in blocks)]


def _is_inside(block: Block, other: Block) -> bool:
    return set(block.segments) < set(other.segments)


def _performed(network: Network, moments: Moments, blocks: Sequence[Block]) -> tuple[tuple[Surgery, ...], Network]:
    """The branches of these taken out, from the last to the first, so that numbers of those before stay."""
    surgeries: list[Surgery] = []
    for block in sorted(blocks, key=lambda each: -each.number):
        number = next((each.number for each in network.blocks if each.total == block.total), None)
        if number is None:
            continue
        try:
            plain = operate(network, RemoveBlock(number)).network
        except SurgeryError:  # of the last layers, one is left
            continue
        surgeries.append(_with_mean(network, moments, number, plain) if moments.branches else RemoveBlock(number))
        network = plain
    return tuple(surgeries), network


def _with_mean(network: Network, moments: Moments, number: int, plain: Network) -> Surgery:
    """The removal that leaves the mean, where that goes into a bias; a node of its own would take its time."""
    try:
        filled = operate(network, RemoveBlockData(number), moments=moments).network
    except SurgeryError:
        return RemoveBlock(number)
    is_bias = len(filled.frame.model.graph.node) == len(plain.frame.model.graph.node)
    return RemoveBlockData(number) if is_bias else RemoveBlock(number)
