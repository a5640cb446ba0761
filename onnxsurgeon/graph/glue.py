"""Glue: nodes between and behind the segments that stay as they are and are trained through."""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs

from onnxsurgeon.graph import glue_readers, glue_space
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.glue_node import Glue, NotGlue, Shape, glue_of, glue_shape, tensors_of
from onnxsurgeon.graph.normal_form import HELD, NOT_TOLD, UNLIFTED, activation_of, reads

__all__ = ["READERS", "SHAPE_ONLY", "SQUASHES", "Glue", "NotGlue", "Shape", "data_inputs", "glue_shape", "read_glue"]

READERS = glue_readers.READERS | glue_space.READERS


def read_glue(node: gs.Node) -> list[Glue]:
    """Read the node as glue, with one entry for each of its outputs.

    Raises:
        NotGlue: it cannot be trained through; says why.
    """
    op = node.op
    is_activation = op in ACTIVATIONS
    if not is_activation and op not in READERS:
        raise NotGlue(NOT_TOLD if op.startswith(UNLIFTED) else "it has no gradient rule")
    for tensor in (*node.inputs, *node.outputs[:1]):
        if tensor.shape is None and tensor.name:
            raise NotGlue("the shapes around it are not known")
    if is_activation:
        return [glue_of(node, "Activation", 2 if op == "PRelu" else 1, activation=activation_of(node))]
    return READERS[op](node)


def data_inputs(node: gs.Node, read: list[Any] | None = None) -> list[Any]:
    """Tensors whose values flow through the node; a shape, an axis or a split is not among them.

    ``read`` holds the node's inputs, where the caller knows them already.
    """
    if node.op in ("Shape", "Size"):
        return []
    if node.op in _ONE_INPUT:
        return tensors_of(node)[:1]
    return reads(node) if read is None else read


# Operators whose other inputs are shapes, axes, indices and the like.
_ONE_INPUT = frozenset(
    {
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Slice",
        "Tile",
        "Split",
        "Gather",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "Pow",
        "Dropout",
        "Pad",
        "Resize",
        "Upsample",
    }
)
# Operators that only change shapes. Such a node belongs to the suffix where it is the last one before the outputs.
SHAPE_ONLY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Cast", HELD})
# Operators that turn logits into probabilities. Such a node belongs to the suffix where it is behind all layers.
SQUASHES = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
