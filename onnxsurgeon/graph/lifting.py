"""Graphs of one row, read as if each of their tensors had an axis of rows.

A tensor (…) becomes (rows, …), or (1, …) becomes (rows, …) where the file itself has put a 1 in front, by Unsqueeze,
Reshape or broadcasting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.queries import constant_values, has_input
from onnxsurgeon.graph.normal_form import UNLIFTED, in_order
from onnxsurgeon.linear_algebra import Array

ROWS = "rows"

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


def can_be_lifted(op: str) -> bool:
    """Whether the rules below say what the operator does with many rows."""
    return op in _RULES


def lift(graph: gs.Graph) -> dict[str, int]:
    """Give every tensor that depends on an input an axis of rows; return the file's number of axes of each, by name.

    A node for which no rule tells this gets another operator's name, so that nothing takes it for the original.
    """
    return _Lift(graph).run()


class _Lift:
    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.shapes: dict[int, list[Any] | None] = {}  # the file's shapes of all tensors that are lifted
        self.replaced: set[int] = set()  # tensors whose first axis, 1, became the rows
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
        """Change the node so that it works on many rows.

        Return whether a first axis of 1 became the rows in its outputs.

        Raises:
            _NotLifted: no rule says how.
        """
        rule = _RULES.get(node.op)
        if rule is None or any(self.shapes[id(tensor)] is None for tensor in read) or shapes[0] is None:
            raise _NotLifted
        return rule(self, node, read, shapes[0])

    def _is_replaced(self, read: list[Any]) -> bool:
        """The form that all tensors have in common: whether their first axis, 1, became the rows."""
        forms = {id(tensor) in self.replaced for tensor in read}
        if len(forms) > 1:
            raise _NotLifted
        return forms.pop()

    def _rank(self, tensor: Any) -> int:
        return len(self.shapes[id(tensor)] or ())

    def _axis(self, tensor: Any, axis: int) -> int:
        """The place of an axis of the file's tensor in the lifted one."""
        axis = int(axis) % self._rank(tensor)
        if id(tensor) not in self.replaced:
            return axis + 1
        if axis == 0:
            raise _NotLifted
        return axis

    # Rules: how a node changes.

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
        weight = b if a is read[0] else a
        if weight.shape is None or len(weight.shape) != 2:
            raise _NotLifted
        if b is read[0]:
            if self._rank(b) != 1 or not isinstance(a, gs.Constant):
                raise _NotLifted
            weight = np.asarray(a.values)
            turned = gs.Constant(a.name, np.ascontiguousarray(weight.T))  # W x = xᵀ Wᵀ for a vector x
            _read(node, [b, turned])
        return self._is_replaced(read)

    def einsum(self, node: gs.Node, read: list[Any], shape: list[Any]) -> bool:
        """Each row gets an index of its own in front."""
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
    """No rule says what the node does with many rows."""


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
