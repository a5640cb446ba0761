"""Glue: nodes between and behind the segments that stay as they are and are trained through."""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs

from onnxsurgeon.graph import glue_readers, glue_space
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.glue_node import Glue, NotGlue, Shape, glue_of, shape_of, tensors_of
from onnxsurgeon.graph.normal_form import HELD, NOT_TOLD, UNLIFTED, activation_of, reads

__all__ = ["READERS", "SHAPE_ONLY", "SQUASHES", "Glue", "NotGlue", "Shape", "data_inputs", "read_glue", "shape_of"]

READERS = glue_readers.READERS | glue_space.READERS


def read_glue(node: gs.Node) -> list[Glue]:
    """The node as glue: one for each output it has, where it can be trained through.

    Raises:
        NotGlue: it cannot; says why.
    """
    if node.op.startswith(UNLIFTED):
        raise NotGlue(NOT_TOLD)
    if node.op not in READERS and node.op not in ACTIVATIONS:
        raise NotGlue("it has no gradient rule")
    if any(tensor.shape is None for tensor in (*tensors_of(node), *node.outputs[:1])):
        raise NotGlue("the shapes around it are not known")
    if node.op in ACTIVATIONS:
        return [glue_of(node, "Activation", 2 if node.op == "PRelu" else 1, activation=activation_of(node))]
    return READERS[node.op](node)


def data_inputs(node: gs.Node, read: list[Any] | None = None) -> list[Any]:
    """Tensors whose values flow through the node: a shape, an axis or a split is not among them.

    ``read`` has what the node reads, where that is known already.
    """
    if node.op in ("Shape", "Size"):
        return []
    if node.op in _ONE_INPUT:
        return tensors_of(node)[:1]
    return reads(node) if read is None else read


# Whose other inputs are shapes, axes, indices and the like.
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
        "Pow",
        "Dropout",
        "Pad",
        "Resize",
        "Upsample",
    }
)
# What only changes shapes; where such a node is the last one before the outputs, it belongs to the suffix.
SHAPE_ONLY = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Cast", HELD})
# What turns logits into probabilities; where such a node is behind all dense layers, it belongs to the suffix.
SQUASHES = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
