"""Labels in the shape of an output whose values are those of the trained head in their order, in another shape."""

from __future__ import annotations

import math

from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array

# Operators that keep the order of values. A Reshape at the end of a model is no part of what is trained.
_KEEP_ORDER = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"))


def as_head(network: Network, labels: Array) -> Array:
    """Labels (rows, …) as those of the only head, (rows, width) or (rows, positions, width), where an output is that.

    A head of 4 numbers that a Reshape makes an output (rows, 2, 2) of takes labels (rows, 2, 2) too. Other labels are
    returned as they are.
    """
    head = network.heads[0]
    shape = labels.shape[1:]
    is_own = len(shape) == head.rank - 1 and shape[-1] == head.width
    is_class = len(shape) == head.rank - 2 and labels.dtype.kind != "f"
    if len(network.heads) > 1 or head.rank not in (2, 3) or is_class or is_own:
        return labels
    size = math.prod(shape)
    if not size or (size != head.width if head.rank == 2 else size % head.width):
        return labels
    if not any(_fits(shape, made) for made in _shapes_behind(network, head.tensor)):
        return labels
    return labels.reshape(len(labels), *(() if head.rank == 2 else (-1,)), head.width)


def _fits(shape: tuple[int, ...], made: tuple[int | None, ...]) -> bool:
    return len(shape) == len(made) and all(b in (None, a) for a, b in zip(shape, made, strict=True))


def _shapes_behind(network: Network, tensor: str) -> list[tuple[int | None, ...]]:
    """The shapes of a row of the outputs that hold the tensor's values in their order; None for unknown sizes."""
    frame = network.frame
    if tensor in frame.turned:
        return []
    same = {tensor}
    for node in frame.model.graph.node:
        if node.op_type in _KEEP_ORDER and not node.domain and node.input[0] in same:
            same.add(node.output[0])
    found = []
    for value in frame.model.graph.output:
        dims = value.type.tensor_type.shape.dim
        if value.name in same - {tensor}:
            sizes = tuple(d.dim_value if d.dim_value > 0 else None for d in dims)
            found.append(sizes if frame.takes_one_row else sizes[1:])
    return found
