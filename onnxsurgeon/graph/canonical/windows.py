"""Means over windows of unequal sizes, which an exporter writes as picking and adding up: a product along each axis.

PyTorch's newer exporter writes AdaptiveAvgPool so where the sizes do not divide one another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.queries import constant_values, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array

WINDOWS = "Windows"  # an operator that multiplies each axis of space by one of its "matrices", (after, before)
MOST_NODES = 4096  # adding up one entry of each window after the other takes three nodes an entry
MOST_VALUES = 2**24  # that are computed at once to find the matrices
EXACT = 1e-9  # how far a product of two matrices may be from what the nodes compute, as a share of the largest value
PROBES = 4

# A tensor while the matrices are sought: its values, and its axes of probes and of channels.
Probed = tuple[Array, int, int]


def windows(rewriter: Rewriter, node: gs.Node) -> bool:
    """Means over windows of x (rows, channels, height, width) = A · x · Bᵀ.

    The node is the GatherND that lays out the windows of Transpose(x), with the axes of space ahead. Behind it stand
    nodes that are linear in x: entries past a window's end are masked, entries are picked and added up, sums are
    divided. Whether they are such a product is tried on values: on unit vectors along each axis, which give A and B,
    and on random ones. Nodes that move or mix rows or channels are refused by their axes, whatever the values.
    """
    turned = node.inputs[0].inputs[0] if len(node.inputs[0].inputs) == 1 else None
    if turned is None or turned.op != "Transpose" or node.attrs.get("batch_dims", 0):
        return False
    x, places = turned.inputs[0], constant_values(node.inputs[1])
    shape = shape_of(x)
    if places is None or shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[2:]):
        return False
    height, width = shape[2:]
    if places.ndim < 2 or places.shape[-1] != 2 or tuple(turned.attrs.get("perm", ())) != (2, 3, 0, 1):
        return False
    if places.size * 2 * (height + width + PROBES + 1) > MOST_VALUES:
        return False
    inside = _linear_behind(node)
    last = _one_way_out(rewriter, inside)
    if last is None:
        return False
    found = _matrices(inside, last, height, width)
    if found is None:
        return False
    y = last.outputs[0]
    if y.shape is None:
        y.shape = [*shape[:2], len(found[0]), len(found[1])]
    rewriter.become(last, WINDOWS, [x], {"matrices": found})
    return True


def _linear_behind(first: gs.Node) -> list[gs.Node]:
    """The nodes behind this one that are linear in its output and read nothing else, in the order of computation."""
    inside, made, todo = [first], {id(first.outputs[0])}, [first]
    known = {id(first)}
    while todo and len(inside) < MOST_NODES:
        for reader in todo.pop(0).outputs[0].outputs:
            read = [tensor for tensor in reader.inputs if not isinstance(tensor, gs.Constant)]
            if id(reader) in known or reader.op not in _STEPS or not all(id(tensor) in made for tensor in read):
                continue  # where it reads what comes later, it is met again
            if reader.op == "Transpose" and reader.inputs[0] is not first.outputs[0]:
                continue
            known.add(id(reader))
            inside.append(reader)
            made.add(id(reader.outputs[0]))
            todo.append(reader)
    return inside


def _one_way_out(rewriter: Rewriter, inside: list[gs.Node]) -> gs.Node | None:
    """The one node whose output others read; None where there are several such, or none."""
    known = {id(node) for node in inside}
    out = [
        node
        for node in inside
        if rewriter.is_pinned(node.outputs[0])
        or not node.outputs[0].outputs
        or any(id(reader) not in known for reader in node.outputs[0].outputs)
    ]
    return out[0] if len(out) == 1 and out[0] is not inside[0] else None


def _matrices(inside: list[gs.Node], last: gs.Node, height: int, width: int) -> list[Array] | None:
    """A (after, height) and B (after, width) where the nodes compute A · x · Bᵀ of every channel; None where not."""
    ones = np.ones((1, height, width))
    rows = np.broadcast_to(np.eye(height)[:, :, None], (height, height, width))
    columns = np.broadcast_to(np.eye(width)[:, None, :], (width, height, width))
    tried = np.random.default_rng(0).standard_normal((PROBES, height, width))
    probes = np.concatenate([ones, rows, columns, tried])
    made = _computed(inside, last, np.stack([probes, probes[::-1]], axis=1))
    if made is None or made.ndim != 4 or made.shape[:2] != (len(probes), 2):
        return None
    whole = made[0, 0]
    total = float(whole.flat[0]) if whole.size else 0.0
    if not total:
        return None
    a = made[1 : 1 + height, 0, :, 0].T / total
    b = made[1 + height : 1 + height + width, 0, 0, :].T
    expected = a @ probes @ b.T
    largest = np.abs(made).max()
    both = np.stack([expected, expected[::-1]], axis=1)
    return [a, b] if np.isfinite(largest) and np.abs(made - both).max() <= EXACT * largest else None


def _computed(inside: list[gs.Node], last: gs.Node, probes: Array) -> Array | None:
    """What the nodes make of x = ``probes``; None where a node moves or mixes probes or channels."""
    values: dict[int, Probed] = {id(inside[0].inputs[0]): (probes.transpose(2, 3, 0, 1), 2, 3)}
    for node in inside:
        made = _STEPS[node.op](node, values)
        if made is None or made[0].size > MOST_VALUES:
            return None
        values[id(node.outputs[0])] = made
    found, probe, channel = values[id(last.outputs[0])]
    return found if (probe, channel) == (0, 1) else None


def _places(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    x, probe, channel = values[id(node.inputs[0])]
    places = np.asarray(constant_values(node.inputs[1]))
    picked = places.shape[-1]
    if min(probe, channel) < picked:
        return None
    moved = places.ndim - 1 - picked
    return x[tuple(np.moveaxis(places, -1, 0))], probe + moved, channel + moved


def _transposed(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    x, probe, channel = values[id(node.inputs[0])]
    order = [int(axis) for axis in node.attrs.get("perm", range(x.ndim)[::-1])]
    return x.transpose(order), order.index(probe), order.index(channel)


def _picked(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    found, places = values.get(id(node.inputs[0])), constant_values(node.inputs[1])
    if found is None or places is None:
        return None
    x, probe, channel = found
    axis = int(node.attrs.get("axis", 0)) % x.ndim
    if axis in (probe, channel):
        return None
    moved = places.ndim - 1
    return np.take(x, places, axis=axis), probe + moved * (axis < probe), channel + moved * (axis < channel)


def _mean(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    x, probe, channel = values[id(node.inputs[0])]
    given = node.attrs.get("axes") if len(node.inputs) < 2 else constant_values(node.inputs[1])
    if given is None:
        return None
    axes = sorted({int(axis) % x.ndim for axis in np.asarray(given).ravel()})
    if probe in axes or channel in axes:
        return None
    if node.attrs.get("keepdims", 1):
        return x.mean(axis=tuple(axes), keepdims=True), probe, channel
    before = [sum(axis < each for axis in axes) for each in (probe, channel)]
    return x.mean(axis=tuple(axes)), probe - before[0], channel - before[1]


def _together(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    """The sum of two computed tensors of one shape."""
    parts = [values.get(id(tensor)) for tensor in node.inputs]
    if None in parts or len(parts) != 2:
        return None
    (a, *axes), (b, *others) = [part for part in parts if part is not None]
    return None if a.shape != b.shape or axes != others else (a + b, axes[0], axes[1])


def _by_constant(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    """A computed tensor divided by a constant."""
    found, divisor = values.get(id(node.inputs[0])), constant_values(node.inputs[1])
    if found is None or divisor is None or not _is_alike(divisor, found):
        return None
    with np.errstate(all="ignore"):
        return found[0] / divisor.astype(np.float64), found[1], found[2]


def _masked(node: gs.Node, values: dict[int, Probed]) -> Probed | None:
    """Where(constant, 0, x) and Where(constant, x, 0)."""
    mask = constant_values(node.inputs[0])
    for position in (1, 2):
        found, zero = values.get(id(node.inputs[position])), constant_values(node.inputs[3 - position])
        if mask is None or found is None or zero is None or zero.size != 1 or zero.any():
            continue
        if not _is_alike(mask, found):
            return None
        x, probe, channel = found
        return (np.where(mask, x, 0.0) if position == 1 else np.where(mask, 0.0, x)), probe, channel
    return None


def _is_alike(constant: Array, found: Probed) -> bool:
    """Whether broadcasting lays the constant over the tensor, the same for every probe and channel."""
    x, probe, channel = found
    sizes = (1,) * (x.ndim - constant.ndim) + constant.shape
    if len(sizes) != x.ndim or sizes[probe] != 1 or sizes[channel] != 1:
        return False
    return all(size in (1, wanted) for size, wanted in zip(sizes, x.shape, strict=True))


_STEPS: dict[str, Callable[[gs.Node, dict[int, Probed]], Probed | None]] = {
    "GatherND": _places,
    "Transpose": _transposed,
    "Gather": _picked,
    "ReduceMean": _mean,
    "Add": _together,
    "Div": _by_constant,
    "Where": _masked,
}
