"""Affine nodes y = a ⊙ x + c, per unit, folded into the layer before or behind them; in float64, rounded once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.dense import LAYERS, absorb, bias_of, by_channel, geometry_of, rescale, units_of
from onnxsurgeon.graph.canonical.queries import FLOATS, constant_values, has_input, producer_of, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array, matmul

AFFINE = ("Add", "Sub", "Mul", "Div", "Neg", "BatchNormalization")


class Affine(NamedTuple):
    """y = a ⊙ x + c, with a and c of shape () or (n,), float64; ``name`` is that of a constant from which c comes."""

    x: Any
    a: Array
    c: Array
    name: str


def affine_of(node: gs.Node, rank: int = 0) -> Affine | None:
    """Read the node as y = a ⊙ x + c over the last axis, or over axis 1 of ``rank`` axes.

    None where it is no such node.
    """
    if node.op == "BatchNormalization":
        return batch_normalization(node, rank or 2)
    one, zero = np.array(1.0), np.array(0.0)
    if node.op == "Neg":
        return Affine(node.inputs[0], -one, zero, "")
    constants = [isinstance(tensor, gs.Constant) for tensor in node.inputs]
    if len(constants) != 2 or sum(constants) != 1:
        return None
    slot = constants.index(True)
    x, term = node.inputs[1 - slot], node.inputs[slot]
    value = _per_unit(term, x, rank)
    if value is None:
        return None
    if node.op == "Add":
        return Affine(x, one, value, term.name)
    if node.op == "Sub":
        return Affine(x, one, -value, term.name) if slot == 1 else Affine(x, -one, value, term.name)
    if node.op == "Mul":
        return Affine(x, value, zero, "")
    return Affine(x, 1 / value, zero, "") if slot == 1 and value.all() else None


def _per_unit(tensor: Any, x: Any, rank: int) -> Array | None:
    """Constant values, () or (n,), that broadcasting spreads over the last axis only, or over axis 1, of ``x``."""
    values, shape, have = constant_values(tensor), tuple(tensor.shape), shape_of(x)
    if values is None or values.dtype not in FLOATS or not values.size:
        return None
    if rank:
        found = by_channel(values, rank)
        return None if found is None else found.astype(np.float64)
    if any(size != 1 for size in shape[:-1]) or len(shape) > (1 if have is None else max(len(have), 1)):
        return None
    return values.astype(np.float64).reshape(() if values.size == 1 else -1)


def batch_normalization(node: gs.Node, rank: int = 2) -> Affine | None:
    """a = scale / √(var + ε), c = B − mean ⊙ a, in inference on (batch, n, …) of ``rank`` axes; None in training."""
    if explain_normalization(node, rank):
        return None
    scale, shift, mean, variance = (
        np.asarray(constant_values(tensor)).astype(np.float64).reshape(-1) for tensor in node.inputs[1:5]
    )
    if not scale.shape == shift.shape == mean.shape == variance.shape:
        return None
    with np.errstate(all="ignore"):
        a = scale / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    return Affine(node.inputs[0], a, shift - mean * a, node.inputs[2].name)


def explain_normalization(node: gs.Node, rank: int = 2) -> str:
    """Why a BatchNormalization cannot be folded; "" where it can."""
    if node.attrs.get("training_mode", 0):
        return "it is in training mode"
    if any(y.name for y in node.outputs[1:]):
        return "its running statistics are read, so it is in training mode"
    statistics = [constant_values(tensor) for tensor in node.inputs[1:5]]
    if len(statistics) < 4 or any(values is None or values.dtype not in FLOATS for values in statistics):
        return "its statistics are not constant"
    shape = shape_of(node.inputs[0])
    wanted = "(batch, n)" if rank == 2 else f"(batch, n, …) with {rank} axes"
    return "" if shape is not None and len(shape) == rank else f"its input is not of shape {wanted}"


def fold_behind(rewriter: Rewriter, node: gs.Node) -> bool:
    """a ⊙ Dense(x, W, b) + c → Dense(x, W diag(a), a ⊙ b + c), where nothing else reads that Dense.

    The same holds for a convolution, by channel.
    """
    source = next((producer_of(x) for x in node.inputs if not isinstance(x, gs.Constant)), None)
    if source is None or source.op not in LAYERS or source is node:
        return False
    found = affine_of(node, _axes_of(source))
    if found is None or found.x is not source.outputs[0]:
        return False
    if len(found.x.outputs) != 1 or rewriter.is_pinned(found.x) or not _fits(found, units_of(source)):
        return False
    weight, bias = source.inputs[1].values, bias_of(source)
    scaled = weight if _is_one(found.a) else weight.astype(np.float64) * found.a
    total = found.a * bias.astype(np.float64) + found.c if bias is not None else None
    if bias is None and (has_input(node, 1) and found.name):
        total = np.broadcast_to(found.c, units_of(source))
    absorb(rewriter, source, node)
    rescale(rewriter, source, scaled, total, found.name)
    return True


def fold_ahead(rewriter: Rewriter, node: gs.Node) -> bool:
    """Dense(a ⊙ x + c, W, b) → Dense(x, diag(a) W, b + c W) for every reader, where x comes from a dense layer.

    The same holds for a convolution, by channel; but c does not move into a bias where zeros are read at the border.
    """
    y = node.outputs[0]
    readers = list(y.outputs)
    axes = {_axes_of(reader) for reader in readers if reader.op in LAYERS}
    found = affine_of(node, axes.pop()) if len(axes) == 1 else None
    if found is None or rewriter.is_pinned(y) or not _comes_from_dense(found.x):
        return False
    for reader in readers:
        if reader.op not in LAYERS or reader.inputs[0] is not y:
            return False
        geometry = geometry_of(reader)
        if geometry is not None and (geometry.is_grouped or (geometry.is_padded and found.c.any())):
            return False
        if not _fits(found, int(reader.inputs[1].shape[0]) // (1 if geometry is None else geometry.taps)):
            return False
    for reader in readers:
        weight, bias, geometry = reader.inputs[1].values, bias_of(reader), geometry_of(reader)
        wide = weight.astype(np.float64)
        a, c = (_by_row(values, len(wide), 1 if geometry is None else geometry.taps) for values in (found.a, found.c))
        total = None
        if found.c.any():
            total = matmul(c, wide)
            total += 0 if bias is None else bias.astype(np.float64)
        scaled = weight if _is_one(found.a) else a[:, None] * wide
        # The new constant is named after the weight: the old constant's name belongs to a tensor of another length.
        rescale(rewriter, reader, scaled, total, f"{reader.inputs[1].name}.bias")
        reader.attrs["entry"] = found.x.name if rewriter.is_original(found.x) else None
        rewriter.set_input(reader, 0, found.x)
    return True


def _fits(found: Affine, units: int) -> bool:
    sizes = {found.a.size, found.c.size} - {1}
    return sizes <= {units} and bool(np.isfinite(found.a).all() and np.isfinite(found.c).all())


def _axes_of(layer: gs.Node) -> int:
    """The number of axes of what a convolution, with channels along axis 1, reads and writes; 0 for a dense layer."""
    geometry = geometry_of(layer)
    return 0 if geometry is None else geometry.rank + 2


def _by_row(values: Array, rows: int, taps: int) -> Array:
    """Repeat values of channels for the rows of a weight, so that each row has one."""
    return np.broadcast_to(np.repeat(values, taps) if values.ndim else values, rows)


def _is_one(a: Array) -> bool:
    return bool(np.all(a == 1))


def _comes_from_dense(tensor: Any) -> bool:
    """Whether ``tensor`` is the output of a dense layer, of an activation, or of a chain of affine nodes behind one."""
    for _ in range(8):
        source = producer_of(tensor)
        if source is None:
            return False
        if source.op in LAYERS:
            return True
        if source.op in ACTIVATIONS:
            tensor = source.inputs[0]
        elif source.op in AFFINE:
            shape = shape_of(source.outputs[0])
            found = affine_of(source) or affine_of(source, 0 if shape is None else len(shape))
            if found is None:
                return False
            tensor = found.x
        else:
            return False
    return False
