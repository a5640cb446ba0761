"""Shapes that a graph computes: integer arithmetic of sizes, in any type, and the tensors that are reshaped by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxsurgeon.graph.canonical.queries import constant_values, dtype_of, has_input, producer_of, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter

MOST_AXES = 64
DEEPEST = 32  # nodes between a Shape and what reads the sizes
LARGEST = 2**31 - 1  # beyond it, int32 would have overflowed

Sizes = list[Any] | None


def computed_sizes(tensor: Any) -> Sizes:
    """Values of an integer tensor of rank 0 or 1 that is computed from shapes: numbers, symbolic names or None.

    Shape inference follows some of these chains in some opsets only, and none in int32.
    """
    return _Followed().sizes(tensor, DEEPEST)


class _Followed:
    """One search backward from a tensor; each node is visited once."""

    def __init__(self) -> None:
        self.known: dict[int, Sizes] = {}

    def sizes(self, tensor: Any, depth: int) -> Sizes:
        if id(tensor) not in self.known:
            found = _constant(tensor) if isinstance(tensor, gs.Constant) else self._of_node(tensor, depth)
            self.known[id(tensor)] = None if found is None or len(found) > MOST_AXES else found
        return self.known[id(tensor)]

    def _of_node(self, tensor: Any, depth: int) -> Sizes:
        node = producer_of(tensor)
        if node is None or depth == 0 or not node.inputs:
            return None
        if node.op == "Shape":
            shape = shape_of(node.inputs[0])
            return None if shape is None else shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        if node.op == "Size":
            shape = shape_of(node.inputs[0])
            return None if shape is None else [_product(shape)]
        inputs = [self.sizes(part, depth - 1) for part in node.inputs[:MOST_AXES] if part.name]
        if None in inputs:
            return None
        if node.op == "Split":
            return _split(node, inputs, next(i for i, made in enumerate(node.outputs) if made is tensor))
        return _OF[node.op](node, inputs) if node.op in _OF else None


def _constant(tensor: gs.Constant) -> Sizes:
    values = constant_values(tensor) if len(tensor.shape) <= 1 and int(np.prod(tensor.shape)) <= MOST_AXES else None
    return None if values is None or values.dtype.kind not in "iub" else [int(size) for size in values.ravel()]


def _concat(node: gs.Node, inputs: list[Any]) -> Sizes:
    return [size for part in inputs for size in part]


def _gather(node: gs.Node, inputs: list[Any]) -> Sizes:
    sizes, indices = inputs
    if not all(isinstance(i, int) and -len(sizes) <= i < len(sizes) for i in indices):
        return None
    return [sizes[i] for i in indices]


def _slice(node: gs.Node, inputs: list[Any]) -> Sizes:
    sizes = inputs[0]
    bounds = [node.attrs["starts"], node.attrs["ends"]] if "starts" in node.attrs else inputs[1:3]
    step = inputs[-1] if has_input(node, 4) else [1]
    if any(len(bound) != 1 or not isinstance(bound[0], int) for bound in (*bounds, step)) or step[0] == 0:
        return None
    (start,), (end,) = bounds  # a backward slice to the very beginning ends before it
    end = None if step[0] < 0 and end < -len(sizes) else end
    return list(sizes[start : end : step[0]])


def _split(node: gs.Node, inputs: list[Any], index: int) -> Sizes:
    """The part of the sizes that output ``index`` of a Split has."""
    sizes, count = inputs[0], len(node.outputs)
    widths = node.attrs.get("split", inputs[1] if len(inputs) > 1 else None)
    if widths is None:  # of equal width, but for the last one
        width = -(-len(sizes) // count)
        return list(sizes[index * width : (index + 1) * width])
    if not all(isinstance(width, int) and width >= 0 for width in widths) or sum(widths) != len(sizes):
        return None
    begin = sum(widths[:index])
    return list(sizes[begin : begin + widths[index]])


def _reduce_prod(node: gs.Node, inputs: list[Any]) -> Sizes:
    axes = node.attrs.get("axes", inputs[1] if len(inputs) > 1 else None)
    if axes is None and node.attrs.get("noop_with_empty_axes", 0):
        return list(inputs[0])
    return [_product(inputs[0])] if axes is None or [int(axis) for axis in axes] in ([0], [-1]) else None


def _product(sizes: list[Any]) -> Any:
    """Product of sizes: a number, or one symbolic size if all others are 1; else None."""
    numbers = math.prod(size for size in sizes if isinstance(size, int))
    others = [size for size in sizes if not isinstance(size, int)]
    if not others:
        return _bounded(numbers)
    return others[0] if len(others) == 1 and numbers == 1 else None


def _bounded(number: int) -> int | None:
    return number if abs(number) <= LARGEST else None


def _multiply(a: Any, b: Any) -> Any:
    return _product([a, b])


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return _bounded(a + b)
    return a if b == 0 else b if a == 0 else None


def _subtract(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return _bounded(a - b)
    return a if b == 0 else None


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a >= 0 and b > 0 else None
    return a if b == 1 else None


def _larger(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else a if a is not None and a == b else None


def _smaller(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else a if a is not None and a == b else None


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return int(a == b)
    return 0 if any(isinstance(size, int) and size < 0 for size in (a, b)) else None


def _where(node: gs.Node, inputs: list[Any]) -> Sizes:
    length = max(len(part) for part in inputs)
    wide = [list(part) * (length if len(part) == 1 else 1) for part in inputs]
    fits = all(len(part) == length for part in wide)
    return [None if one is None else a if one else b for one, a, b in zip(*wide, strict=True)] if fits else None


def _each(function: Callable[[Any, Any], Any]) -> Callable[[gs.Node, list[Any]], Sizes]:
    def apply(node: gs.Node, inputs: list[Any]) -> Sizes:
        if len(inputs) != 2 or (len(inputs[0]) != len(inputs[1]) and 1 not in (len(inputs[0]), len(inputs[1]))):
            return None
        a, b = inputs
        length = max(len(a), len(b)) if len(a) and len(b) else 0
        return [function(a[i % len(a)], b[i % len(b)]) for i in range(length)]

    return apply


def _cast(node: gs.Node, inputs: list[Any]) -> Sizes:
    kind = dtype_of(node.outputs[0])
    return inputs[0] if kind is None or kind in (np.dtype(np.int64), np.dtype(np.int32)) else None


_OF: dict[str, Callable[[gs.Node, list[Any]], Sizes]] = {
    **dict.fromkeys(("Identity", "Unsqueeze", "Squeeze", "Reshape"), lambda node, inputs: inputs[0]),
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "ReduceProd": _reduce_prod,
    "Mul": _each(_multiply),
    "Add": _each(_add),
    "Sub": _each(_subtract),
    "Div": _each(_divide),
    "Max": _each(_larger),
    "Min": _each(_smaller),
    "Equal": _each(_equal),
    "Where": _where,
}


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
    *("ReduceMean", "ReduceSum", "Softmax", "LogSoftmax", "LayerNormalization", "Where", "Max", "Min"),
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
