"""The reader of Resize and Upsample: interpolation along each axis of space as a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.canonical.queries import has_input
from onnxsurgeon.graph.glue_node import (
    Glue,
    NotGlue,
    constant_of,
    glue_of,
    glue_shape,
    space_of,
)
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import run

LONGEST = 4096  # the longest axis that is resampled by a matrix


def resize(node: gs.Node) -> list[Glue]:
    """Resize interpolates along each axis of space by a matrix, which is found by resizing unit vectors."""
    sizes, behind = space_of(node.inputs[0]), space_of(node.outputs[0])
    if glue_shape(node.inputs[0])[1] != glue_shape(node.outputs[0])[1]:
        raise NotGlue("it resizes channels")
    if node.attrs.get("coordinate_transformation_mode", "") == "tf_crop_and_resize" or node.attrs.get("antialias", 0):
        raise NotGlue("it crops, or smooths, what it resizes")
    if max(*sizes, *behind) > LONGEST:
        raise NotGlue(f"an axis that it resizes is longer than {LONGEST:,}")
    how = _interpolation(node)
    position = 1 if node.op == "Upsample" or len(node.inputs) == 2 else 2
    if "scales" in node.attrs:
        scales = [float(scale) for scale in node.attrs["scales"]][-len(sizes) :]
    elif has_input(node, position) and constant_of(node, position).size:
        scales = [float(scale) for scale in constant_of(node, position).reshape(-1)][-len(sizes) :]
    else:
        scales = [0.0] * len(sizes)  # the file gives sizes, not scales
    matrices = [
        _interpolated(size, after, scale, how) for size, after, scale in zip(sizes, behind, scales, strict=True)
    ]
    factors = tuple(after // size for size, after in zip(sizes, behind, strict=True))
    if all(
        after == size * factor and np.array_equal(matrix, np.repeat(np.eye(size), factor, axis=0))
        for matrix, size, after, factor in zip(matrices, sizes, behind, factors, strict=True)
    ):
        return [glue_of(node, "Repeat", 1, factors=factors)]
    return [glue_of(node, "Resample", 1, matrices=matrices, digest=[matrix.tobytes() for matrix in matrices])]


def _interpolation(node: gs.Node) -> dict[str, Any]:
    mode = node.attrs.get("mode", "nearest")
    if node.op == "Upsample" or len(node.inputs) == 2:  # in opsets before 11
        return {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    names = ("coordinate_transformation_mode", "nearest_mode", "cubic_coeff_a", "exclude_outside")
    return {"mode": mode, **{name: node.attrs[name] for name in names if name in node.attrs}}


def _interpolated(size: int, behind: int, scale: float, how: dict[str, Any]) -> Array:
    """The matrix (behind, size) by which an axis is resized."""
    if size == behind and scale in (0.0, 1.0):
        return np.eye(size)
    names = ["x", "", "scales"] if scale else ["x", "", "", "sizes"]
    if scale:
        given = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, scale, 1])
    else:
        given = helper.make_tensor("sizes", TensorProto.INT64, [4], [size, 1, behind, 1])
    node = helper.make_node("Resize", names, ["y"], **how)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("x", "y")]
    graph = helper.make_graph([node], "axis", ends[:1], ends[1:], [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    try:
        onnx.checker.check_model(model)
        (found,) = run(model, {"x": np.eye(size, dtype=np.float32)[:, None, :, None]}, ["y"])
    except (EngineError, onnx.checker.ValidationError) as error:
        raise NotGlue("it resizes in a way that cannot be worked out") from error
    matrix = found.reshape(size, -1).T.astype(np.float64)
    if matrix.shape != (behind, size):
        raise NotGlue("it resizes in a way that cannot be worked out")
    return np.ascontiguousarray(matrix)
