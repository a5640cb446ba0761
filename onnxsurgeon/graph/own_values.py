"""Values of a frame's own constants."""

from __future__ import annotations

from onnx import numpy_helper

from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.linear_algebra import Array


def own_values(frame: Frame, name: str) -> Array | None:
    """Values of a constant of the file, an initializer or a Constant node's; None where it is no such thing."""
    if name in frame.arrays:
        return frame.arrays[name]
    for tensor in frame.model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in frame.model.graph.node:
        if node.op_type == "Constant" and name in node.output and node.attribute[0].name == "value":
            return numpy_helper.to_array(node.attribute[0].t)
    return None
