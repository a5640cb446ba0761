"""Nodes whose output has the type and the shape of their input, so that nothing has to be inferred for them.

A file may have 100,000 of them in a row.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto, TypeProto

OF_ONE = frozenset(
    """Abs Acos Asin Atan Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg
    Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Tan Tanh ThresholdedRelu""".split()  # noqa: SIM905
)
OF_TWO = frozenset(("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum"))


def kept_type(node: NodeProto, type_of: Callable[[str], TypeProto | None]) -> TypeProto | None:
    """The type that an elementwise node without attributes reads and writes; None for any other node."""
    if node.attribute or len(node.output) != 1 or node.domain not in ("", "ai.onnx"):
        return None
    if len(node.input) == 1:
        return type_of(node.input[0]) if node.op_type in OF_ONE else None
    if len(node.input) != 2 or node.op_type not in OF_TWO:
        return None
    first, second = type_of(node.input[0]), type_of(node.input[1])
    return first if first is not None and (first is second or first == second) else None
