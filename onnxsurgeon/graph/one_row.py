"""Recognises models without a batch axis, which take one row at a time.

Some exports of robot policies take a vector: obs (n,) → MatMul (n, m) → (m,); others take one image (c, h, w), or a set
of features (k, n) that is pooled. The file stays as it is; the graph that serves as a reading aid is lifted
(``graph.lifting``).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from onnxsurgeon.graph.flowing import READS_SHAPES
from onnxsurgeon.graph.lifting import ELEMENTWISE, can_be_lifted

_FLOATS = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
)


def takes_one_row(model: onnx.ModelProto, constants: Collection[str] = ()) -> bool:
    """Whether a vector of features enters the model: it is multiplied by a matrix, or gets a 1 in front.

    A vector that gets an axis behind it is a batch of single values. Inputs with more axes, all of known sizes, are one
    row too if they reach a product with a weight only as a vector or as a single row.

    Args:
        model: with shapes inferred, as far as they can be.
        constants: names of initializers that are kept apart from the model.
    """
    graph = model.graph
    known = {*constants, *(tensor.name for tensor in graph.initializer)}
    vectors = {
        value.name
        for value in graph.input
        if value.name not in known
        and len(value.type.tensor_type.shape.dim) == 1
        and value.type.tensor_type.elem_type in _FLOATS
    }
    return (bool(vectors) and _is_multiplied(graph, vectors)) or _becomes_one_row(graph, known)


def _is_multiplied(graph: onnx.GraphProto, vectors: set[str]) -> bool:
    """Whether one of the vectors, or a tensor made of them, is multiplied by a matrix or gets a 1 in front."""
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    shapes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if not vectors.intersection(node.input) or not node.output:
            continue
        rank = ranks.get(node.output[0])
        if node.op_type == "MatMul":
            other = next((name for name in node.input if name not in vectors), "")
            if shapes.get(other, ranks.get(other, 2)) >= 2:
                return True
        elif node.op_type in ("Unsqueeze", "Reshape", *ELEMENTWISE) and rank == 2 and _begins_with_one(graph, node):
            return True
        elif rank == 1 and node.op_type not in ("Shape", "ConstantOfShape"):
            vectors.update(node.output)
    return False


def _becomes_one_row(graph: onnx.GraphProto, constants: Collection[str]) -> bool:
    """Whether a product with a weight reads a vector, or a single row, that is made of inputs with more axes.

    That leaves no place for a batch: the first axis of an image (3, 32, 32) that becomes (3072,) or (1, 3072) is no
    batch. An input (1, …) may be a batch of one; it is none where the 1 is removed and all nodes in between can be
    lifted.
    """
    inputs = [value for value in graph.input if value.name not in constants]
    if any(dim.dim_value <= 0 for value in inputs for dim in value.type.tensor_type.shape.dim):
        return False
    sizes: dict[str, list[int]] = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inputs, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    if any(value.name not in sizes for value in inputs):
        return False
    # For each tensor that depends on inputs with several axes: whether one of these has a 1 in front, and whether all
    # nodes up to here can be lifted.
    whole = {value.name: (sizes[value.name][0] == 1, True) for value in inputs if len(sizes[value.name]) > 1}
    for node in graph.node if whole else ():
        read = [whole[name] for name in node.input if name in whole]
        if not read or node.op_type in READS_SHAPES:
            continue
        if node.op_type in ("MatMul", "Gemm") and len(read) == 1:
            x = next(name for name in node.input if name in whole)
            weight = next((name for name in node.input[:2] if name != x), "")
            (begins_with_one, is_lifted), shape = whole[x], sizes.get(x, [])
            if x in node.input[:2] and len(shapes.get(weight, sizes.get(weight, []))) == 2:
                if len(shape) == 1 and shape[0] > 1 and (is_lifted or not begins_with_one):
                    return True
                if len(shape) == 2 and shape[0] == 1 and shape[1] > 1 and not begins_with_one:
                    return True
        state = (any(one for one, _ in read), can_be_lifted(node.op_type) and all(lifted for _, lifted in read))
        whole.update(dict.fromkeys(node.output, state))
    return False


def _begins_with_one(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether the matrix that the node makes of a vector has one row and more than one column."""
    made = next(v for v in (*graph.value_info, *graph.output) if v.name == node.output[0])
    rows, columns = made.type.tensor_type.shape.dim
    return bool(rows.dim_value == 1 and columns.dim_value != 1)
