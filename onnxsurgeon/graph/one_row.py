"""Models without a batch axis take one row at a time, and are read as if each of their tensors had an axis of rows.

Exports of robot policies are known to take a vector: obs (n,) → MatMul (n, m) → (m,); others take one image (c, h, w),
or a set of features (k, n) that is pooled. The file stays as it is; what is lifted is the graph that serves as a
reading aid. A tensor (…) becomes (rows, …), or (1, …) becomes (rows, …) where the file itself has put a 1 in front, by
Unsqueeze, Reshape or broadcasting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.queries import constant_values, has_input
from onnxsurgeon.graph.normal_form import UNLIFTED, in_order
from onnxsurgeon.graph.notes import READS_SHAPES
from onnxsurgeon.linear_algebra import Array

ROWS = "rows"

_FLOATS = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
)
ELEMENTWISE = (
    frozenset(
        """Add Sub Mul Div Pow Min Max Where PRelu Neg Abs Sqrt Exp Log Erf Reciprocal Identity Dropout Cast Clip Sign
    Floor Ceil Round Sin Cos Not And Or Xor Equal Greater Less GreaterOrEqual LessOrEqual Mod IsNaN IsInf""".split()  # noqa: SIM905
    )
    | ACTIVATIONS.keys()
)
LAST_AXIS = frozenset(("Softmax", "LogSoftmax", "LayerNormalization"))
REDUCE = frozenset(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"))
_RESHAPE = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))


def takes_one_row(model: onnx.ModelProto, constants: Collection[str] = ()) -> bool:
    """Whether a vector of features enters the model: one that is multiplied with a matrix, or gets a 1 in front.

    A vector that gets an axis behind is a batch of single values. Of inputs with more axes, all of known sizes, so does
    one of which nothing but a vector, or one row, comes to a product with a weight.

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
    """Whether one of the vectors, or of what is made of them, is multiplied with a matrix or gets a 1 in front."""
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

    That leaves no place for a batch: the first axis of an image (3, 32, 32) that becomes (3072,) or (1, 3072) is none.
    An input (1, …) may be a batch of one; it is none where the 1 is gone and only nodes stand between that can be
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
    # Of each tensor that depends on inputs with more axes than one: whether one of them has a 1 in front, and whether
    # all nodes up to here can be lifted.
    whole = {value.name: (sizes[value.name][0] == 1, True) for value in inputs if len(sizes[value.name]) > 1}
    for node in graph.node if whole else ():
        read = [whole[name] for name in node.input if name in whole]
        if not read or node.op_type in READS_SHAPES:
            continue
        if node.op_type in ("MatMul", "Gemm") and len(read) == 1:
            x = next(name for name in node.input if name in whole)
            weight = next((name for name in node.input[:2] if name != x), "")
            (begins_with_one, can_be_lifted), shape = whole[x], sizes.get(x, [])
            if x in node.input[:2] and len(shapes.get(weight, sizes.get(weight, []))) == 2:
                if len(shape) == 1 and shape[0] > 1 and (can_be_lifted or not begins_with_one):
                    return True
                if len(shape) == 2 and shape[0] == 1 and shape[1] > 1 and not begins_with_one:
                    return True
        state = (any(one for one, _ in read), node.op_type in _RULES and all(lifted for _, lifted in read))
        whole.update(dict.fromkeys(node.output, state))
    return False


def _begins_with_one(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether the matrix that the node makes of a vector has one row, which is not its only column."""
    made = next(v for v in (*graph.value_info, *graph.output) if v.name == node.output[0])
    rows, columns = made.type.tensor_type.shape.dim
    return bool(rows.dim_value == 1 and columns.dim_value != 1)


def lift(graph: gs.Graph) -> dict[str, int]:
    """Give every tensor that depends on an input an axis of rows; the number of axes of each in the file, by name.

    A node for which that cannot be said gets another operator's name, so that nothing takes it for what it was.
    """
    return _Lift(graph).run()


class _Lift:
    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.shapes: dict[int, list[Any] | None] = {}  # as the file has them, of all tensors that are lifted
        self.replaced: set[int] = set()  # those whose first axis, 1, became the rows
        self.kept: list[Any] = []

    def run(self) -> dict[str, int]:
        for tensor in self.graph.inputs:
            self._add(tensor, replaced=_has_one_in_front(tensor.shape))
        for node in in_order(self.graph):
            read = [tensor for tensor in node.inputs if id(tensor) in self.shapes]
            if not read:
                continue
            shapes = [None if tensor.shape is None else list(tensor.shape) for tensor in node.outputs]
            try:
                replaced = self._node(node, read, shapes)
            except (_NotLifted, IndexError, KeyError, TypeError, ValueError):
                node.op, replaced = f"{UNLIFTED}{node.op}", False
            for tensor in node.outputs:
                self._add(tensor, replaced=replaced)
        found = {}
        for tensor in self.kept:
            shape = self.shapes[id(tensor)]
            if shape is not None:
                found[tensor.name] = len(shape)
                tensor.shape = [ROWS, *(shape[1:] if id(tensor) in self.replaced else shape)]
        return found

    def _add(self, tensor: Any, *, replaced: bool) -> None:
        self.shapes[id(tensor)] = None if tensor.shape is None else list(tensor.shape)
        self.kept.append(tensor)
        if replaced:
            self.replaced.add(id(tensor))

    def _node(self, node: gs.Node, read: list[Any], shapes: list[list[Any] | None]) -> bool:
        """Change the node to what it does of many rows; whether a first axis of 1 became the rows in its outputs.

        Raises:
            _NotLifted: that cannot be told.
        """
        rule = _RULES.get(node.op)
        if rule is None or any(self.shapes[id(tensor)] is None for tensor in read) or shapes[0] is None:
            raise _NotLifted
        return rule(self, node, read, shapes[0])

    def _is_replaced(self, read: list[Any]) -> bool:
        """The form of tensors that are all alike."""
        forms = {id(tensor) in self.replaced for tensor in read}
        if len(forms) > 1:
            raise _NotLifted
        return forms.pop()

    def _rank(self, tensor: Any) -> int:
        return len(self.shapes[id(tensor)] or ())

    def _axis(self, tensor: Any, axis: int) -> int:
        """Where an axis of the file's tensor lies now."""
        axis = int(axis) % self._rank(tensor)
        if id(tensor) not in self.replaced:
            return axis + 1
        if axis == 0:
            raise _NotLifted
        return axis

    # Rules: what a node becomes.

    def elementwise(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        rank = len(shape)
        forms = [id(tensor) in self.replaced for tensor in read]
        ranks = [self._rank(tensor) + (not replaced) for tensor, replaced in zip(read, forms, strict=True)]
        constants = [np.shape(t.values) for t in node.inputs if isinstance(t, gs.Constant)]
        for replaced in (True, False):
            if replaced and not _has_one_in_front(shape):
                continue
            lifted = rank + (not replaced)
            fits = all(len(c) < lifted or (len(c) == lifted and c[0] == 1) for c in constants)
            if fits and (all(each == lifted for each in ranks) or lifted == 1):
                return replaced
        raise _NotLifted

    def matmul(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        a, b = node.inputs[0], node.inputs[1]
        if len(read) == 2:
            if id(a) in self.replaced or id(b) in self.replaced:
                raise _NotLifted
            node.attrs["vectors"] = (self._rank(a) == 1, self._rank(b) == 1)
            return False
        weight = constant_values(b if a is read[0] else a)
        if weight is None or weight.ndim != 2:
            raise _NotLifted
        if b is read[0]:
            if self._rank(b) != 1:
                raise _NotLifted
            turned = gs.Constant(a.name, np.ascontiguousarray(weight.T))  # W x = xᵀ Wᵀ for a vector x
            _read(node, [b, turned])
        return self._is_replaced(read)

    def einsum(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        """Each row has an index of its own in front."""
        equation = str(node.attrs.get("equation", "")).replace(" ", "")
        if self._is_replaced(read) or "..." in equation or "->" not in equation or "R" in equation:
            raise _NotLifted
        given, _, result = equation.partition("->")
        terms = [
            f"R{term}" if id(tensor) in self.shapes else term
            for term, tensor in zip(given.split(","), node.inputs, strict=True)
        ]
        node.attrs["equation"] = f"{','.join(terms)}->R{result}"
        return False

    def gemm(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        bias = constant_values(node.inputs[2]) if has_input(node, 2) else None
        if read != [node.inputs[0]] or node.attrs.get("transA", 0) or (bias is None) != (not has_input(node, 2)):
            raise _NotLifted
        if bias is not None and bias.ndim == 2 and bias.shape[0] != 1:
            raise _NotLifted
        return self._is_replaced(read)

    def last_axis(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        default = 1 if node.op != "LayerNormalization" and int(self.graph.opset or 0) < 13 else -1
        axis, rank = int(node.attrs.get("axis", default)), len(shape)
        if len(read) != 1 or (axis % rank if axis < rank else rank - 1) != rank - 1:
            raise _NotLifted
        node.attrs["axis"] = -1
        return self._is_replaced(read)

    def concat(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        if len(read) != len(node.inputs):
            raise _NotLifted
        node.attrs["axis"] = self._axis(read[0], node.attrs["axis"])
        return self._is_replaced(read)

    def one_axis(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        if read != [node.inputs[0]]:
            raise _NotLifted
        node.attrs["axis"] = self._axis(read[0], node.attrs.get("axis", 0))
        return self._is_replaced(read)

    def slice(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        if read != [node.inputs[0]]:
            raise _NotLifted
        if "starts" in node.attrs:
            axes = node.attrs.get("axes") or list(range(len(node.attrs["starts"])))
            node.attrs["axes"] = [self._axis(read[0], axis) for axis in axes]
        else:
            starts = _values(node, 1)
            given = constant_values(node.inputs[3]) if has_input(node, 3) else None
            axes = range(np.size(starts)) if given is None else given.ravel().tolist()
            moved = np.array([self._axis(read[0], axis) for axis in axes], np.int64)
            constant = gs.Constant(f"{node.outputs[0].name}/axes", moved)
            _read(node, [*list(node.inputs)[:3], constant, *list(node.inputs)[4:]])
        return self._is_replaced(read)

    def reduce(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        if read != [node.inputs[0]]:
            raise _NotLifted
        axes = node.attrs.get("axes")
        if axes is None and has_input(node, 1):
            axes = _values(node, 1).ravel().tolist()
        axes = list(range(self._rank(read[0]))) if axes is None else axes
        node.attrs["axes"] = [self._axis(read[0], axis) for axis in axes]
        _read(node, [node.inputs[0]])
        return self._is_replaced(read)

    def reshape(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        if read != [node.inputs[0]]:
            raise _NotLifted
        replaced = _has_one_in_front(shape)
        have = self.shapes[id(read[0])] or []
        before, after = have[1:] if id(read[0]) in self.replaced else have, shape[1:] if replaced else shape
        if before == after:
            node.op, target = "Identity", []
        elif all(isinstance(size, int) and size > 0 for size in after):
            target = [gs.Constant(f"{node.outputs[0].name}/shape", np.array([-1, *after], np.int64))]
            node.op = "Reshape"
        else:
            raise _NotLifted
        node.attrs.clear()
        _read(node, [node.inputs[0], *target])
        return replaced

    def transpose(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        rank = self._rank(read[0])
        order = [int(axis) for axis in node.attrs.get("perm", range(rank)[::-1])]
        replaced = self._is_replaced(read)
        if replaced and order[0] != 0:
            raise _NotLifted
        node.attrs["perm"] = order if replaced else [0, *(axis + 1 for axis in order)]
        return replaced

    def batch_normalization(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        if read != [node.inputs[0]] or not self._is_replaced(read):
            raise _NotLifted  # its channels are on axis 1
        return True


class _NotLifted(Exception):  # noqa: N818 - a finding, not an error
    """What the node does of many rows is not told."""


def _read(node: gs.Node, tensors: list[Any]) -> None:
    """Let the node read exactly these tensors; onnx-graphsurgeon's own lists compare whole nodes."""
    for tensor in node.inputs:
        for position, reader in enumerate(tensor.outputs):
            if reader is node:
                list.__delitem__(tensor.outputs, position)
                break
    list.clear(node.inputs)
    for tensor in tensors:
        list.append(node.inputs, tensor)
        list.append(tensor.outputs, node)


def _has_one_in_front(shape: Any) -> bool:
    return shape is not None and len(shape) > 1 and shape[0] == 1


def _values(node: gs.Node, position: int) -> Array:
    values = constant_values(node.inputs[position])
    if values is None:
        raise _NotLifted
    return values


_Rule = Callable[[_Lift, gs.Node, list[Any], list[Any]], bool]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(ELEMENTWISE, _Lift.elementwise),
    **dict.fromkeys(LAST_AXIS, _Lift.last_axis),
    **dict.fromkeys(REDUCE, _Lift.reduce),
    **dict.fromkeys(_RESHAPE, _Lift.reshape),
    **dict.fromkeys(("Split", "Gather"), _Lift.one_axis),
    "MatMul": _Lift.matmul,
    "Einsum": _Lift.einsum,
    "Gemm": _Lift.gemm,
    "Concat": _Lift.concat,
    "Slice": _Lift.slice,
    "Transpose": _Lift.transpose,
    "BatchNormalization": _Lift.batch_normalization,
}
