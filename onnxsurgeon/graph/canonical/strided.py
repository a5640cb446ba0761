"""Views of memory that an exporter writes as numbers: entries of a flat tensor, picked where they already lie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.computed_sizes import computed_sizes
from onnxsurgeon.graph.canonical.elementwise import OPS
from onnxsurgeon.graph.canonical.queries import constant_values, producer_of, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.graph.canonical.shapes import learn
from onnxsurgeon.linear_algebra import Array

VIEW = "View"  # an operator that only reshapes, and whose node in the file cannot be given another shape
DEEPEST = 32  # nodes
MOST = 2**20  # entries of a row


def view(rewriter: Rewriter, node: gs.Node) -> bool:
    """Gather(Reshape(x, (−1)), b · n + (0, …, n − 1)) = View(x), for the rows b of x of n entries each.

    PyTorch's newer exporter writes as_strided so, for instance for a mean over axes of space.
    """
    flat, shape = producer_of(node.inputs[0]), shape_of(node.outputs[0])
    if flat is None or flat.op != "Reshape" or node.attrs.get("axis", 0) not in (0, -1):
        return False
    x = flat.inputs[0]
    sizes, wanted = shape_of(x), constant_values(flat.inputs[1])
    if wanted is None or wanted.tolist() != [-1] or sizes is None or not isinstance(sizes[0], str):
        return False
    if not sizes[1:] or not all(isinstance(size, int) for size in sizes[1:]):
        return False
    entries = math.prod(sizes[1:])
    found = _places(node.inputs[1], sizes[0], DEEPEST) if 0 < entries <= MOST else None
    if found is None or found[0] != entries or found[1].shape[0] != 1:
        return False
    if not np.array_equal(found[1].reshape(-1), np.arange(entries)):
        return False
    made = [sizes[0], *found[1].shape[1:]]
    if shape is None or len(shape) != len(made):
        node.outputs[0].shape = made
    else:
        learn(node.outputs[0], made)
    rewriter.become(node, VIEW, [x])
    return True


def _places(tensor: Any, batch: str, depth: int) -> tuple[int, Array] | None:
    """Read the tensor as step · b + offset, with b = 0, 1, … along its first axis; None where it has no such form.

    A tensor that does not depend on b has step 0, and may have any shape.
    """
    values = constant_values(tensor)
    if values is not None:
        return (0, values.astype(np.int64)) if values.dtype.kind in "iu" and values.size <= MOST else None
    node = producer_of(tensor)
    if node is None or depth == 0:
        return None
    if node.op == "Range":
        begin, step = constant_values(node.inputs[0]), constant_values(node.inputs[2])
        if begin is None or step is None or begin.size != 1 or step.size != 1 or begin.any() or np.any(step != 1):
            return None
        return (1, np.zeros(1, np.int64)) if computed_sizes(node.inputs[1]) == [batch] else None
    if node.op in ("Unsqueeze", "Reshape", "Cast", "Identity"):
        found, shape = _places(node.inputs[0], batch, depth - 1), shape_of(node.outputs[0])
        if found is None or node.op in ("Cast", "Identity"):
            return found
        return _lifted(node, found, shape)
    if node.op in ("Add", "Mul") and len(node.inputs) == 2:
        parts = [_places(each, batch, depth - 1) for each in node.inputs]
        if None in parts:
            return None
        (a, first), (b, second) = [part for part in parts if part is not None]
        return _joined(node.op, a, first, b, second)
    return None


def _lifted(node: gs.Node, found: tuple[int, Array], shape: list[Any] | None) -> tuple[int, Array] | None:
    """Insert axes of one entry behind b's."""
    step, offset = found
    if node.op != "Unsqueeze" or step == 0 or offset.ndim != 1:
        return None
    axes = constant_values(node.inputs[1]) if len(node.inputs) > 1 else np.array(node.attrs.get("axes", ()))
    if axes is None or not axes.size:
        return None
    rank = 1 + axes.size
    if sorted(int(axis) % rank for axis in axes.ravel()) != list(range(1, rank)):
        return None
    return step, offset.reshape([1] * rank)


def _joined(op: str, a: int, first: Array, b: int, second: Array) -> tuple[int, Array] | None:
    """Sum or product of a · batch + first and b · batch + second."""
    rank = max(first.ndim, second.ndim)
    moved = first if a else second
    if (a or b) and (moved.ndim < rank or (a and b)):
        return None
    other = second if a else first
    if (a or b) and other.ndim == rank and rank and other.shape[0] != 1:
        return None  # it has entries along the axis of b itself
    if math.prod(np.broadcast_shapes(first.shape, second.shape)) > MOST:
        return None
    values = np.asarray(OPS[op](first, second))
    if op == "Add":
        return a + b, values
    if not (a or b):
        return 0, values
    return ((a or b) * int(other.reshape(-1)[0]), values) if other.size == 1 else None
