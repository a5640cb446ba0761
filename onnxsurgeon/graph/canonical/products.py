"""Every product with a constant matrix → Dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical.convolution import explain_convolution
from onnxsurgeon.graph.canonical.dense import (
    LAYERS,
    absorb,
    as_bias,
    by_channel,
    geometry_of,
    make_dense,
    rescale,
    units_of,
    weight_of,
)
from onnxsurgeon.graph.canonical.elementwise import LINEAR
from onnxsurgeon.graph.canonical.queries import (
    FLOATS,
    constant_values,
    has_input,
    is_trained_vector,
    like,
    producer_of,
    shape_of,
)
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array


def matmul(rewriter: Rewriter, node: gs.Node) -> bool:
    """MatMul(x, W) = Dense(x, W) for x (…, n_in); MatMul(W, x) = Dense(xᵀ, Wᵀ)ᵀ for x (n_in, batch)."""
    a, b = node.inputs[0], node.inputs[1]
    rank = _rank(b if isinstance(a, gs.Constant) else a)
    if rank is not None and rank < 2:
        return False
    weight = weight_of(b)
    if weight is not None and not isinstance(a, gs.Constant):
        make_dense(rewriter, node, a, b, None, rewriter.entry(node, 0))
        return True
    weight = weight_of(a)
    if weight is None or isinstance(b, gs.Constant) or rank != 2:
        return False
    _turned(rewriter, node, _transposed(rewriter, node, b), like(a, weight.T), None, None)
    return True


def gemm(rewriter: Rewriter, node: gs.Node) -> bool:
    """Gemm(A, B, C; α, β) = Dense(op(A), α op(B), βC); with the weight in A, Dense(op(B)ᵀ, α op(A)ᵀ, βCᵀ)ᵀ."""
    flips = bool(node.attrs.get("transA", 0)), bool(node.attrs.get("transB", 0))
    a, b = node.inputs[0], node.inputs[1]
    slot = 0 if isinstance(a, gs.Constant) else 1
    weight = weight_of(node.inputs[slot])
    if weight is None or isinstance(node.inputs[1 - slot], gs.Constant):
        return False
    # In slot A the whole product is transposed, so an operand that is not marked as transposed is flipped.
    weight = weight.T if flips[slot] == (slot == 1) else weight
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    bias, constant = None, None
    if has_input(node, 2) and beta != 0:
        values = constant_values(node.inputs[2])
        if values is not None and slot == 0 and values.ndim == 2:
            values = values.T
        elif values is not None and slot == 0 and values.ndim == 1 and values.size > 1:
            return False  # it has one value for each column, which is one for each row of the batch
        bias = as_bias(values, weight.shape[1])
        if bias is None:
            return False
        constant = like(node.inputs[2], _scaled(rewriter, node, bias, beta))
    matrix = like(node.inputs[slot], _scaled(rewriter, node, weight, alpha))
    if slot == 1:
        x = _transposed(rewriter, node, a) if flips[0] else a
        entry = rewriter.entry(node, 0) if not flips[0] else None
        make_dense(rewriter, node, x, matrix, constant, entry)
    else:
        x = b if flips[1] else _transposed(rewriter, node, b)
        _turned(rewriter, node, x, matrix, constant, rewriter.entry(node, 1) if flips[1] else None)
    return True


def _scaled(rewriter: Rewriter, node: gs.Node, values: Array, factor: float) -> Array:
    if factor != 1:
        rewriter.allow(node, values.nbytes)
    return values if factor == 1 else (values.astype(np.float64) * factor).astype(values.dtype)


def _rank(tensor: Any) -> int | None:
    shape = shape_of(tensor)
    return None if shape is None else len(shape)


def _transposed(rewriter: Rewriter, node: gs.Node, x: Any) -> Any:
    """Return a new tensor xᵀ, or the input of the Transpose that wrote x."""
    shape = shape_of(x) or [None, None]
    flipped = rewriter.variable(x, shape[::-1])
    rewriter.insert(node, "Transpose", [x], flipped, {"perm": [1, 0]})
    return flipped


def _turned(
    rewriter: Rewriter, node: gs.Node, x: Any, w: gs.Constant, b: gs.Constant | None, entry: str | None
) -> None:
    """Make the node's output Dense(x, W, b)ᵀ."""
    y = node.outputs[0]
    shape = shape_of(y)
    product = rewriter.variable(y, None if shape is None else shape[::-1])
    rewriter.set_output(node, product)
    make_dense(rewriter, node, x, w, b, entry)
    rewriter.insert(node, "Transpose", [product], y, {"perm": [1, 0]})


def push_transpose(rewriter: Rewriter, node: gs.Node) -> bool:
    """f(xᵀ) = f(x)ᵀ for elementwise f, also with constants: f(xᵀ, c) = f(x, cᵀ)ᵀ."""
    y = node.outputs[0]
    if list(node.attrs.get("perm", ())) != [1, 0] or rewriter.is_original(node.inputs[0]):
        return False
    if len(y.outputs) != 1 or rewriter.is_pinned(y):
        return False
    reader = y.outputs[0]
    if reader.op not in {*ACTIVATIONS, *ELEMENTWISE} or len(reader.outputs) != 1:
        return False
    inputs = []
    for tensor in reader.inputs:
        values = None if tensor is y else constant_values(tensor)
        if tensor is y:
            inputs.append(node.inputs[0])
        elif values is None:
            return False
        elif reader.op == "PRelu" or values.ndim == 2:
            inputs.append(like(tensor, np.atleast_2d(values).T if values.size > 1 else values))
        elif values.size == 1 and values.ndim <= 1:
            inputs.append(tensor)
        else:
            inputs.append(like(tensor, values[:, None]))
    result = reader.outputs[0]
    shape = shape_of(result)
    flipped = rewriter.variable(result, None if shape is None else shape[::-1])
    rewriter.set_output(reader, flipped)
    rewriter.set_inputs(reader, inputs)  # nothing reads the old Transpose then
    rewriter.insert(reader, "Transpose", [flipped], result, {"perm": [1, 0]})
    return True


ELEMENTWISE = {*LINEAR, "Max", "Min", "Erf", "Exp", "Log", "Abs", "Sqrt", "Pow"}


def add_bias(rewriter: Rewriter, node: gs.Node) -> bool:
    """Dense(x, W) + c → Dense(x, W, c); Dense(x, W, b) ± c → Dense(x, W, b ± c), with one value of c for each unit.

    The same holds for a convolution, whose units lie along axis 1.
    """
    for position in (0, 1):
        product, term = node.inputs[position], node.inputs[1 - position]
        source = producer_of(product)
        if source is None or source.op not in LAYERS or len(product.outputs) != 1 or rewriter.is_pinned(product):
            continue
        if node.op == "Sub" and position == 1:
            continue
        values = constant_values(term)
        units = units_of(source)
        # A scalar may be part of an activation, such as the 3 of HardSwish; activations are recognised first.
        if values is None or values.size != units or source is node:
            continue
        geometry = geometry_of(source)
        if geometry is None:
            bias = as_bias(values, units, _rank(product) or _rank(source.inputs[0]))
        else:
            spread = by_channel(values, geometry.rank + 2) if values.dtype in FLOATS else None
            bias = None if spread is None else np.broadcast_to(spread, units)
        if bias is None:
            continue
        total = -bias if node.op == "Sub" else bias
        if len(source.inputs) > 2:
            total = source.inputs[2].values.astype(np.float64) + total.astype(np.float64)
        absorb(rewriter, source, node)
        rescale(rewriter, source, source.inputs[1].values, total, term.name)
        return True
    return False


def einsum(rewriter: Rewriter, node: gs.Node) -> bool:
    """Einsum(x, W; …i,io→…o) = Dense(x, W), and …i,oi→…o = Dense(x, Wᵀ), with the operands in either order."""
    equation = str(node.attrs.get("equation", "")).replace(" ", "").replace("...", "")
    if len(node.inputs) != 2 or "->" not in equation or equation.count(",") != 1:
        return False
    terms, result = equation.split("->")
    slot = 0 if isinstance(node.inputs[0], gs.Constant) else 1
    operand, matrix = terms.split(",")[1 - slot], terms.split(",")[slot]
    weight, x = weight_of(node.inputs[slot]), node.inputs[1 - slot]
    if weight is None or isinstance(x, gs.Constant) or len(set(matrix)) != 2 or len(matrix) != 2:
        return False
    inner = operand[-1:]
    if not inner or inner not in matrix or len(set(operand)) != len(operand):
        return False
    outer = matrix.replace(inner, "")
    if outer in operand or result != operand[:-1] + outer:
        return False
    constant = node.inputs[slot] if matrix == inner + outer else like(node.inputs[slot], weight.T)
    make_dense(rewriter, node, x, constant, None, rewriter.entry(node, 1 - slot))
    return True


def fused_matmul(rewriter: Rewriter, node: gs.Node) -> bool:
    """FusedMatMul(x, W; α, transB) = Dense(x, αW or αWᵀ)."""
    if node.attrs.get("transBatchA", 0) or node.attrs.get("transBatchB", 0):
        return False
    rank = _rank(node.inputs[0])
    if node.attrs.get("transA", 0) and rank != 2 and not isinstance(node.inputs[0], gs.Constant):
        return False
    if isinstance(node.inputs[0], gs.Constant) and _rank(node.inputs[1]) != 2:
        return False
    weight = weight_of(node.inputs[1])
    if rank is not None and rank > 2 and weight is not None:
        weight = weight.T if node.attrs.get("transB", 0) else weight
        scaled = like(node.inputs[1], _scaled(rewriter, node, weight, float(node.attrs.get("alpha", 1.0))))
        make_dense(rewriter, node, node.inputs[0], scaled, None, rewriter.entry(node, 0))
        return True
    return rank == 2 and gemm(rewriter, node)


def fused_gemm(rewriter: Rewriter, node: gs.Node) -> bool:
    """FusedGemm(…; activation) = activation(Gemm(…))."""
    name = str(node.attrs.get("activation", ""))
    parameters = {
        key: float(node.attrs[f"activation_{key}"])
        for key in ("alpha", "beta", "gamma")
        if f"activation_{key}" in node.attrs
    }
    known = FUSED.get(name)
    if known is None:
        return False
    y = node.outputs[0]
    product = rewriter.variable(y, shape_of(y))
    rewriter.set_output(node, product)
    attributes = {key: value for key, value in node.attrs.items() if not key.startswith("activation")}
    rewriter.become(node, "Gemm", list(node.inputs), attributes)
    rewriter.insert(node, name, [product], y, {key: parameters[key] for key in known if key in parameters})
    return True


FUSED = {
    "Relu": (),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "Selu": ("alpha", "gamma"),
    "Tanh": (),
    "Sigmoid": (),
    "HardSigmoid": ("alpha", "beta"),
    "Softplus": (),
    "Softsign": (),
}


EVEN = "its weight is a vector of evenly spaced values, or of two alone, as of a sum or an expected value"


def explain(node: gs.Node) -> str:
    """Why a node that looks like a dense layer is none."""
    if node.op == "Conv":
        return explain_convolution(node)
    if node.op == "ConvTranspose":
        return "transposed convolutions are not worked on"
    if node.op in LAYERS:
        source = producer_of(node.inputs[0])
        if source is not None and source.op == "Transpose":
            return "it transposes its input"
        return "what it writes is transposed, and not turned back"
    if len(node.inputs) < 2:
        return "it has too few inputs"
    slot = 0 if isinstance(node.inputs[0], gs.Constant) else 1
    weight = node.inputs[slot]
    if not isinstance(weight, gs.Constant):
        return "it transposes its input" if node.attrs.get("transA", 0) else "its weight is not constant"
    values = constant_values(weight)
    if values is None or values.dtype not in FLOATS:
        return f"its weight is {weight.dtype}; float16, bfloat16, float32 and float64 are supported"
    if isinstance(node.inputs[1 - slot], gs.Constant):
        return "its input is constant"
    if values.ndim != 2 or node.op in ("MatMul", "com.microsoft::FusedMatMul"):
        is_even = values.ndim == 1 and not is_trained_vector(values)
        return EVEN if is_even else "its input or its weight is not two-dimensional"
    if node.op == "Einsum":
        return f"its equation '{node.attrs.get('equation', '')}' is not x W over the last axis"
    if node.op == "com.microsoft::FusedGemm" and str(node.attrs.get("activation", "")) not in FUSED:
        return f"its activation '{node.attrs.get('activation', '')}' is not known"
    return "its bias is not one constant value for each unit"
