"""Whose values a node's outputs depend on: no tensor's of which it asks the shape alone, or that it multiplies by 0."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.glue import data_inputs

# Whose output depends on the shape of what they read, and not on its values.
READS_SHAPES = frozenset({"Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike"})
_DEEPEST = 8  # nodes that are looked behind for zeros
_MOST = 2**16  # elements that are looked through
_KEEPS_ZEROS = frozenset({"Expand", "Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Neg", "Tile"})


def flowing(node: gs.Node) -> list[gs.Tensor]:
    """Tensors whose values change what the node writes.

    Nothing does that is multiplied by zeros, as exporters write a deviation that is a constant: sigma = 0 · mu + c.
    """
    return [] if is_still(node) else data_inputs(node)


def is_still(node: gs.Node) -> bool:
    """Whether no tensor's values change what the node writes."""
    if node.op == "Mul":
        return any(map(is_zero, node.inputs))
    return node.op in READS_SHAPES or node.op == "ConstantOfShape"


def is_zero(tensor: gs.Tensor) -> bool:
    """Whether a tensor holds nothing but zeros: a constant, made for its shape, or multiplied by zeros."""
    for _ in range(_DEEPEST):
        if isinstance(tensor, gs.Constant):
            return _holds_zeros(tensor)
        node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        if node is not None and node.op == "ConstantOfShape":
            given = node.attrs.get("value")
            return given is None or _holds_zeros(given)
        if node is None or not node.inputs:
            return False
        if node.op == "Mul":
            return any(isinstance(factor, gs.Constant) and _holds_zeros(factor) for factor in node.inputs)
        if node.op not in _KEEPS_ZEROS:
            return False
        tensor = node.inputs[0]
    return False


def _holds_zeros(constant: gs.Constant) -> bool:
    return int(np.prod(constant.shape)) <= _MOST and not np.any(constant.values)
