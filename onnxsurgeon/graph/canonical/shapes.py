"""Shapes that become known in rewriting: of tensors whose shape the graph computes, and what is inferred from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxsurgeon.graph.canonical.computed_sizes import MOST_AXES, computed_sizes
from onnxsurgeon.graph.canonical.queries import constant_values, dtype_of, has_input, producer_of, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter


def target_shape(node: gs.Node) -> list[Any] | None:
    """The shape that the node's attributes and constants ask for; None for sizes that are not known."""
    shape = shape_of(node.inputs[0])
    if node.op == "Reshape":
        wanted = computed_sizes(node.inputs[1]) if has_input(node, 1) else None
        if wanted is None:
            return None
        sizes: list[Any] = []
        for position, size in enumerate(wanted):
            if size == 0 and not node.attrs.get("allowzero", 0):
                sizes.append(shape[position] if shape is not None and position < len(shape) else None)
            else:
                sizes.append(None if isinstance(size, int) and size <= 0 else size)
        return sizes
    if node.op == "Flatten" and shape is not None and len(shape) == 2:
        return shape if node.attrs.get("axis", 1) in (1, -1) else None
    return None


def reshaped(rewriter: Rewriter, node: gs.Node) -> bool:
    """Reshape(x, s) has the shape s, also where shape inference does not follow the nodes that compute s."""
    y, wanted = node.outputs[0], target_shape(node)
    return wanted is not None and learn(y, wanted)


def permuted(rewriter: Rewriter, node: gs.Node) -> bool:
    """Transpose(x) has x's sizes in another order, also where those have only now become known."""
    shape, order = shape_of(node.inputs[0]), node.attrs.get("perm")
    if shape is None or (order is not None and sorted(order) != list(range(len(shape)))):
        return False
    return learn(node.outputs[0], shape[::-1] if order is None else [shape[axis] for axis in order])


def looked_up(rewriter: Rewriter, node: gs.Node) -> bool:
    """Gather(Shape(x), i) → a constant, where the sizes that are looked up are known."""
    source, indices, y = producer_of(node.inputs[0]), constant_values(node.inputs[1]), node.outputs[0]
    if source is None or source.op != "Shape" or indices is None or indices.ndim > 1 or rewriter.is_pinned(y):
        return False
    sizes = computed_sizes(y)
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        return False
    rewriter.redirect(y, gs.Constant(y.name, np.array(sizes, np.int64).reshape(indices.shape)))
    rewriter.remove(node)
    return True


def filled(rewriter: Rewriter, node: gs.Node) -> bool:
    """ConstantOfShape(s) has the shape s."""
    wanted = computed_sizes(node.inputs[0])
    return wanted is not None and learn(node.outputs[0], wanted)


def expanded(rewriter: Rewriter, node: gs.Node) -> bool:
    """Expand(x, s) has the shape s, and where that is 1, or has fewer axes, x's own."""
    wanted, have = computed_sizes(node.inputs[1]), shape_of(node.inputs[0])
    if wanted is None or have is None:
        return False
    rank = max(len(wanted), len(have))
    pairs = zip([1] * (rank - len(wanted)) + wanted, [1] * (rank - len(have)) + have, strict=True)
    return learn(node.outputs[0], [own if size == 1 else size for size, own in pairs])


def inferred(rewriter: Rewriter, node: gs.Node) -> bool:
    """Run onnx's inference for one node whose inputs have only now become known."""
    read = [tensor for tensor in node.inputs if tensor.name]
    known = shape_of(node.outputs[0])
    is_known = known is not None and all(isinstance(size, int) for size in known[1:])
    if is_known or any(shape_of(x) is None or dtype_of(x) is None for x in read):
        return False
    if any(isinstance(value, gs.Graph | gs.Tensor) for value in node.attrs.values()):
        return False
    types, data = {}, {}
    for x in read:
        kind = helper.np_dtype_to_tensor_dtype(dtype_of(x))
        types[x.name] = helper.make_tensor_type_proto(kind, [size or None for size in shape_of(x) or ()])
        if isinstance(x, gs.Constant) and int(np.prod(x.shape)) <= MOST_AXES:
            data[x.name] = numpy_helper.from_array(np.asarray(x.values), x.name)
    proto = helper.make_node(node.op, [x.name for x in node.inputs], [y.name for y in node.outputs], **node.attrs)
    try:
        schema = onnx.defs.get_schema(node.op, rewriter.opset, "")
        found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data)
    except Exception:  # no schema, or a node that the runtime will refuse
        return False
    learnt = False
    for y in node.outputs:
        if y.name in found and found[y.name].tensor_type.HasField("shape"):
            dims = found[y.name].tensor_type.shape.dim
            y.dtype = y.dtype or np.dtype(helper.tensor_dtype_to_np_dtype(found[y.name].tensor_type.elem_type))
            learnt |= learn(y, [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims])
    return learnt


# Operators of glue and of the nodes before it; elementwise operators of one operand have a rule of their own.
INFERRED = (
    *("Transpose", "Concat", "Slice", "Split", "Gather", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile"),
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Softmax", "LogSoftmax", "LayerNormalization"),
    *("Where", "Max", "Min"),
    *("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Pad", "Resize", "ConvTranspose"),
    *("InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth"),
    *("Sqrt", "Exp", "Log", "Erf", "Reciprocal", "Pow", "Abs", "Add", "Sub", "Mul", "Div", "MatMul"),
)


def learn(y: Any, wanted: list[Any]) -> bool:
    """Note sizes of ``y`` that shape inference has not found; return whether there were any."""
    if isinstance(y, gs.Constant):
        return False
    known = shape_of(y)
    if known is not None and len(known) != len(wanted):
        return False
    merged = [
        new if (isinstance(new, int) and not isinstance(old, int)) or old is None else old
        for old, new in zip([None] * len(wanted) if known is None else known, wanted, strict=True)
    ]
    if merged == known:
        return False
    y.shape = merged
    return True
