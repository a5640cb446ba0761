"""Exporter idioms rewritten to Gemm(+activation): a table of small rules on an onnx-graphsurgeon graph.

The rewritten graph is a reading aid: the file that is written keeps the user's own nodes around the chain.
Every rule's docstring is its equation. A rule returns whether it changed anything, and never removes a graph
output's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from onnxsurgeon.linear_algebra import Array

# Its warnings go to standard output, where --json must stay clean.
G_LOGGER.severity = G_LOGGER.ERROR

Rule = Callable[[gs.Graph, gs.Node], bool]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def canonicalise(graph: gs.Graph) -> None:
    """Apply every rule until none applies."""
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            for rule in RULES.get(node.op, ()):
                if node.outputs and rule(graph, node):
                    changed = True
                    break


def constant_values(tensor: Any) -> Array | None:
    """Values of a constant tensor, or None where it is not constant."""
    return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None


def is_output(graph: gs.Graph, tensor: Any) -> bool:
    """Whether the tensor is one of the graph's outputs."""
    return any(tensor is output for output in graph.outputs)


def is_normal_gemm(node: gs.Node) -> bool:
    """Whether ``node`` is y = x W + b with constant W (n_in, n_out) and b (n_out,), or without b."""
    if node.op != "Gemm" or node.attrs.get("transA", 0) or node.attrs.get("transB", 0):
        return False
    if node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0:
        return False
    weight = constant_values(node.inputs[1])
    if weight is None or weight.dtype not in FLOATS or weight.ndim != 2 or isinstance(node.inputs[0], gs.Constant):
        return False
    if len(node.inputs) < 3:
        return True
    bias = constant_values(node.inputs[2])
    return bias is not None and bias.shape == (weight.shape[1],)


def _bypass(graph: gs.Graph, node: gs.Node) -> bool:
    """Let every reader of the node's first output read its first input."""
    x, y = node.inputs[0], node.outputs[0]
    if is_output(graph, y):
        return False
    for reader in list(y.outputs):
        for position, tensor in enumerate(reader.inputs):
            if tensor is y:
                reader.inputs[position] = x
    _remove(node)
    return True


def _remove(node: gs.Node) -> None:
    """Detach the node: its tensors must not count it among their readers any more."""
    node.outputs.clear()
    node.inputs.clear()


def constant(graph: gs.Graph, node: gs.Node) -> bool:
    """Constant() → an initializer of the same name."""
    value = node.attrs.get("value")
    if value is None:
        scalar = node.attrs.get("value_float", node.attrs.get("value_floats"))
        if scalar is None:
            scalar = node.attrs.get("value_int", node.attrs.get("value_ints"))
            if scalar is None:
                return False
            values = np.asarray(scalar, np.int64)
        else:
            values = np.asarray(scalar, np.float32)
    else:
        values = np.asarray(value.values)
    y = node.outputs[0]
    if is_output(graph, y):
        return False
    node.outputs.clear()
    y.to_constant(values)
    return True


def identity(graph: gs.Graph, node: gs.Node) -> bool:
    """Identity(x) = x."""
    return _bypass(graph, node)


def dropout(graph: gs.Graph, node: gs.Node) -> bool:
    """Dropout(x) = x outside training, where nothing reads the mask."""
    if len(node.outputs) > 1 and (node.outputs[1].outputs or is_output(graph, node.outputs[1])):
        return False
    if len(node.inputs) > 2 and node.inputs[2].name:
        training = constant_values(node.inputs[2])
        if training is None or bool(training.any()):
            return False
    return _bypass(graph, node)


def cast(graph: gs.Graph, node: gs.Node) -> bool:
    """Cast(x) = x where x has the wanted type already."""
    wanted, have = node.outputs[0].dtype, node.inputs[0].dtype
    # onnx-graphsurgeon gives the number 0 for a type that inference left open.
    if not isinstance(wanted, np.dtype | type) or not isinstance(have, np.dtype | type):
        return False
    return np.dtype(wanted) == np.dtype(have) and _bypass(graph, node)


def flatten(graph: gs.Graph, node: gs.Node) -> bool:
    """Flatten(x) = x for x (batch, n) and axis 1."""
    return _rank(node.inputs[0]) == 2 and node.attrs.get("axis", 1) in (1, -1) and _bypass(graph, node)


def reshape(graph: gs.Graph, node: gs.Node) -> bool:
    """Reshape(x, (-1 or 0, n or -1)) = x for x (batch, n), where it cannot change the shape."""
    shape = constant_values(node.inputs[1]) if len(node.inputs) > 1 else None
    x = node.inputs[0]
    if shape is None or shape.shape != (2,) or _rank(x) != 2 or not isinstance(x.shape[1], int):
        return False
    rows, columns = (int(size) for size in shape)
    keeps_columns = columns in (x.shape[1], 0) or (columns == -1 and rows == 0)
    keeps_rows = rows in (-1, 0) or rows == x.shape[0]
    return keeps_columns and keeps_rows and _bypass(graph, node)


def matmul(_: gs.Graph, node: gs.Node) -> bool:
    """MatMul(x, W) → Gemm(x, W) for x (batch, n_in) and constant W (n_in, n_out)."""
    weight = constant_values(node.inputs[1])
    if weight is None or weight.ndim != 2 or weight.dtype not in FLOATS:
        return False
    if isinstance(node.inputs[0], gs.Constant) or _rank(node.inputs[0]) != 2:
        return False
    node.op = "Gemm"
    node.attrs.clear()
    return True


def gemm(_: gs.Graph, node: gs.Node) -> bool:
    """Gemm(x, B, C; α, β, transB) → Gemm(x, αB or αBᵀ, βC) for constant B (2-D) and C, spread to (n_out,)."""
    weight = constant_values(node.inputs[1])
    if weight is None or weight.ndim != 2 or weight.dtype not in FLOATS or node.attrs.get("transA", 0):
        return False
    if is_normal_gemm(node):
        return False
    units = weight.shape[0] if node.attrs.get("transB", 0) else weight.shape[1]
    bias = None
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = _as_bias(constant_values(node.inputs[2]), units)
        if bias is None:
            return False
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    weight = weight.T if node.attrs.get("transB", 0) else weight
    node.attrs.clear()
    node.inputs[1] = _like(node.inputs[1], weight if alpha == 1.0 else (weight * alpha).astype(weight.dtype))
    if bias is not None:
        node.inputs[2] = _like(node.inputs[2], bias if beta == 1.0 else (bias * beta).astype(bias.dtype))
    elif len(node.inputs) > 2:  # onnx-graphsurgeon's lists cannot delete slices
        del node.inputs[2]
    return True


def add(graph: gs.Graph, node: gs.Node) -> bool:
    """Add(Gemm(x, W), c) → Gemm(x, W, c), and Add(Gemm(x, W, b), c) → Gemm(x, W, b + c), for constant c."""
    for product, term in (node.inputs, node.inputs[::-1]):
        if len(product.inputs) != 1 or len(product.outputs) != 1 or is_output(graph, product):
            continue
        source = product.inputs[0]
        if not is_normal_gemm(source):
            continue
        bias = _as_bias(constant_values(term), source.inputs[1].values.shape[1])
        if bias is None:
            continue
        if len(source.inputs) > 2:
            source.inputs[2] = _like(source.inputs[2], source.inputs[2].values + bias)
        else:
            source.inputs.append(_like(term, bias))
        y = node.outputs[0]
        _remove(node)
        source.outputs[0] = y
        return True
    return False


def relu(_: gs.Graph, node: gs.Node) -> bool:
    """Max(x, 0) = Clip(x; min = 0) = Relu(x)."""
    if node.op == "Max":
        if len(node.inputs) != 2:
            return False
        values = [constant_values(tensor) for tensor in node.inputs]
        zero = next((i for i, v in enumerate(values) if v is not None and v.size == 1 and not v.any()), None)
        if zero is None:
            return False
        x = node.inputs[1 - zero]
    else:
        low, high = clip_bounds(node)
        if low != 0 or high is None or high < np.finfo(np.float32).max:
            return False
        x = node.inputs[0]
    node.op = "Relu"
    node.attrs.clear()
    node.inputs = [x]
    return True


def prelu(graph: gs.Graph, node: gs.Node) -> bool:
    """Relu(x) − s Relu(−x) = PRelu(x, s)."""
    positive, scaled = (_only_producer(graph, tensor) for tensor in node.inputs)
    if positive is None or positive.op != "Relu" or scaled is None or scaled.op != "Mul":
        return False
    negative = _only_producer(graph, scaled.inputs[1])
    if negative is None or negative.op != "Relu" or constant_values(scaled.inputs[0]) is None:
        return False
    negated, x = _only_producer(graph, negative.inputs[0]), positive.inputs[0]
    if negated is None or negated.op != "Neg" or negated.inputs[0] is not x:
        return False
    slope = scaled.inputs[0]
    for part in (positive, scaled, negative, negated):
        _remove(part)
    node.op = "PRelu"
    node.inputs = [x, slope]
    return True


def _only_producer(graph: gs.Graph, tensor: Any) -> gs.Node | None:
    """The node that writes ``tensor``, where nothing else reads it but one node."""
    if len(tensor.inputs) != 1 or len(tensor.outputs) != 1 or is_output(graph, tensor):
        return None
    producer: gs.Node = tensor.inputs[0]
    return producer


def clip_bounds(node: gs.Node) -> tuple[float | None, float | None]:
    """Clip's minimum and maximum from attributes or constant inputs; None for one that is not constant."""
    bounds: list[float | None] = []
    for position, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        if len(node.inputs) > position and node.inputs[position].name:
            values = constant_values(node.inputs[position])
            bounds.append(None if values is None else float(values.reshape(())))
        else:
            bounds.append(float(node.attrs.get(name, default)))
    return bounds[0], bounds[1]


def _rank(tensor: Any) -> int | None:
    return None if tensor.shape is None else len(tensor.shape)


def _as_bias(values: Array | None, units: int) -> Array | None:
    """``values`` spread to (units,), or None where their shape is no bias's: scalar, (n,) or (1, n)."""
    if values is None or values.dtype not in FLOATS:
        return None
    if values.shape in ((units,), (1, units)):
        return values.reshape(units)
    return np.full(units, values.reshape(()), values.dtype) if values.size == 1 and values.ndim <= 2 else None


def _like(tensor: gs.Constant, values: Array) -> gs.Constant:
    """A constant of the same name with other values: the old one may have other readers."""
    return gs.Constant(tensor.name, np.ascontiguousarray(values))


RULES: dict[str, tuple[Rule, ...]] = {
    "Constant": (constant,),
    "Identity": (identity,),
    "Dropout": (dropout,),
    "Cast": (cast,),
    "Flatten": (flatten,),
    "Reshape": (reshape,),
    "MatMul": (matmul,),
    "Gemm": (gemm,),
    "Add": (add,),
    "Max": (relu,),
    "Clip": (relu,),
    "Sub": (prelu,),
}
