"""Values of a frame's own constants."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.linear_algebra import Array


def own_values(frame: Frame, name: str) -> Array | None:
    """Values of a constant of the file, which is an initializer or a Constant node's output.

    None for any other tensor.
    """
    if name in frame.arrays:
        return frame.arrays[name]
    tensor = constants_of(frame).get(name)
    return None if tensor is None else numpy_helper.to_array(tensor)


def constants_of(frame: Frame) -> dict[str, onnx.TensorProto]:
    """Constants that the graph itself holds, by name."""
    graph = frame.model.graph
    found = {tensor.name: tensor for tensor in graph.initializer}
    made = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    return found | {node.output[0]: node.attribute[0].t for node in made}
