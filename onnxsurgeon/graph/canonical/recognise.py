"""Activations that an exporter wrote in parts, recognised by the values that they compute.

Elementwise nodes between one tensor z and one tensor y = φ(z) are evaluated on a grid and compared with every known
activation. The order of the operands, the opset and the exporter then make no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS, Activation
from onnxsurgeon.graph.canonical.affine import AFFINE
from onnxsurgeon.graph.canonical.elementwise import LINEAR, OPS, evaluate, is_elementwise, is_scalar, scalar_of
from onnxsurgeon.graph.canonical.queries import BFLOAT16, constant_values, dtype_of, producer_of, same_shape, shape_of
from onnxsurgeon.graph.canonical.rewriter import Rewriter
from onnxsurgeon.linear_algebra import Array

# No exporter's form is larger: nodes, affine nodes at the end, transcendental functions.
LARGEST, MOST_LINEAR, MOST_CURVED = 16, 4, 4
CURVED, BENT = {"Exp", "Log", "Erf", "Sqrt", "Pow"}, {"Relu", "Clip", "LeakyRelu"}
PROBES = np.array([-7.3, -2.1, -0.4, 0.6, 1.7, 9.2])
GRID = np.concatenate([np.linspace(-20, 20, 1001), [-300.0, -100.0, -50.0, 50.0, 100.0, 300.0]])
TOLERANCE = {np.dtype(np.float16): 2e-3, BFLOAT16: 2e-2}
FIXED = [
    Activation("Relu"),
    Activation("Gelu"),
    Activation("Gelu", {"approximate": "tanh"}),
    Activation("Swish"),
    Activation("Mish"),
    Activation("HardSwish"),
    Activation("HardSigmoid", {"alpha": 1 / 6}),
    Activation("HardSigmoid"),
    Activation("Softplus"),
    Activation("Sigmoid"),
    Activation("Tanh"),
    Activation("Softsign"),
    Activation("Selu"),
    Activation("Elu"),
]
FIXED_AT_PROBES = np.array([phi(PROBES) for phi in FIXED])


def recognise(rewriter: Rewriter, node: gs.Node) -> bool:
    """y = f(z) by a group of elementwise nodes → y = φ(z), where f and φ agree on a grid within 1e-6."""
    if not is_elementwise(node):
        return False
    best: tuple[Any, Activation] | None = None
    for z, group in _groups(rewriter, node):
        if len(group) == 1 and node.op not in ("Max", "Min", "Where"):
            continue
        if all(member.op in LINEAR and not _multiplies(member) for member in group):
            continue
        phi = _match(z, group, TOLERANCE.get(_type(node, z), 1e-6))
        if phi is not None:
            best = z, phi
    if best is None:
        return False
    z, phi = best
    y = node.outputs[0]
    if y.shape is None:
        y.shape = z.shape
    rewriter.become(node, phi.op_type, [z], phi.attributes)
    return True


def _type(node: gs.Node, z: Any) -> Any:
    return dtype_of(z) or dtype_of(node.outputs[0])


def _multiplies(node: gs.Node) -> bool:
    """Whether the node is a product or quotient of two computed tensors."""
    return node.op in ("Mul", "Div") and not any(isinstance(tensor, gs.Constant) for tensor in node.inputs)


def _groups(rewriter: Rewriter, sink: gs.Node) -> Iterator[tuple[Any, list[gs.Node]]]:
    """Yield growing groups of nodes, in topological order, that compute the sink's output from one tensor alone."""
    group = [sink]
    members = {id(sink)}
    frontier = _variables(sink)
    if frontier is not None and any(_steps(rewriter, tensor, LARGEST) >= LARGEST for tensor in frontier.values()):
        return  # no small enough group reaches back to a place where an activation may begin
    linear, curved = sink.op in LINEAR and len(frontier or ()) == 1, int(_is_curved(sink))
    while frontier is not None and len(group) <= LARGEST:
        if not frontier:
            return
        if len(frontier) == 1:
            (z,) = frontier.values()
            if z is sink.outputs[0]:
                return
            if _may_begin(z):
                yield z, group[::-1]
        grown = _grow(rewriter, frontier, members)
        if grown is None:
            return
        tensor, source = grown
        inputs = _variables(source)
        if inputs is None:
            return
        linear = linear and source.op in LINEAR and len(inputs) == 1
        curved += _is_curved(source)
        if curved > MOST_CURVED or (linear and len(group) >= MOST_LINEAR):
            return
        del frontier[id(tensor)]
        group.append(source)
        members.add(id(source))
        frontier.update(inputs)


def _may_begin(z: Any) -> bool:
    """Whether an activation may begin at z rather than further back.

    It may if no scalar elementwise node writes z. It also may if an affine node writes z and several nodes read it:
    that is a scaled layer before its activation.
    """
    source = producer_of(z)
    if source is None or not is_elementwise(source):
        return True
    inputs = _variables(source)
    return inputs is None or (source.op in AFFINE and len(inputs) == 1 and len(z.outputs) > 1)


def _steps(rewriter: Rewriter, tensor: Any, most: int) -> int:
    """The least number of nodes between a tensor and a place where an activation may begin.

    ``most`` stands for any more. The result is kept until the graph changes, since in a long row of elementwise nodes
    each asks its predecessor.
    """
    found, is_exact = rewriter.steps.get(id(tensor), (0, False))
    if is_exact or found >= most:
        return min(found, most)
    found = 0
    if not _may_begin(tensor):
        for read in (_variables(tensor.inputs[0]) or {}).values():
            found = max(found, _steps(rewriter, read, most - 1))
            if found >= most - 1:
                break
        found += 1
    rewriter.steps[id(tensor)] = found, found < most
    return min(found, most)


def _grow(rewriter: Rewriter, frontier: dict[int, Any], members: set[int]) -> tuple[Any, gs.Node] | None:
    """A tensor of the frontier that only the group reads, and the elementwise node that writes it."""
    for tensor in frontier.values():
        source = producer_of(tensor)
        if source is None or id(source) in members or not is_elementwise(source) or rewriter.is_pinned(tensor):
            continue
        if len(tensor.outputs) <= 2 * LARGEST and all(id(reader) in members for reader in tensor.outputs):
            return tensor, source
    return None


def _variables(node: gs.Node) -> dict[int, Any] | None:
    """The node's inputs that are no constants, by id; None where a constant is not a scalar."""
    found = {}
    for tensor in node.inputs:
        if isinstance(tensor, gs.Constant):
            if not is_scalar(tensor):
                return None
        elif tensor.name:
            found[id(tensor)] = tensor
    return found


def _compute(z: Any, group: list[gs.Node], x: Array) -> Array | None:
    values = {id(z): x}
    for node in group:
        inputs = []
        for tensor in node.inputs:
            if id(tensor) in values:
                inputs.append(values[id(tensor)])
            elif isinstance(tensor, gs.Constant):
                inputs.append(np.asarray(scalar_of(tensor)))
            elif tensor.name:
                return None
        try:
            values[id(node.outputs[0])] = evaluate(node, inputs)
        except (TypeError, ValueError, IndexError):
            return None
    result = np.asarray(values[id(group[-1].outputs[0])])
    return result if result.dtype == np.float64 and result.shape == x.shape else None


def _match(z: Any, group: list[gs.Node], tolerance: float) -> Activation | None:
    with np.errstate(all="ignore"):
        few = _compute(z, group, PROBES)
        if few is None or not np.isfinite(few).all():
            return None
        near = [FIXED[i] for i in np.flatnonzero(_errors(few, FIXED_AT_PROBES) <= tolerance)]
        if not near:
            near = [phi for phi in _fitted(few, z, group) if _error(few, phi(PROBES)) <= tolerance]
        if not near:
            return None
        found = _compute(z, group, GRID)
        if found is None:
            return None
        errors = [_error(found, phi(GRID)) for phi in near]
        best = int(np.argmin(errors))
        return near[best] if errors[best] <= tolerance else None


def _errors(found: Array, expected: Array) -> Array:
    errors = np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected)), axis=-1)
    return np.asarray(np.where(np.isnan(errors), np.inf, errors))


def _error(found: Array, expected: Array) -> float:
    return float(_errors(found, expected))


def _fitted(few: Array, z: Any, group: list[gs.Node]) -> Iterator[Activation]:
    """Yield activations whose parameters follow from f at a few points."""
    ends = _compute(z, group, np.array([-300.0, -1.0, 0.0, 1e-3, 1.0, 300.0]))
    if ends is None or not np.isfinite(ends).all():
        return
    low, minus, zero, small, one, high = (float(value) for value in ends)
    if zero == 0 and one != 0:
        yield Activation("LeakyRelu", {"alpha": _tidy(-minus)})
        yield Activation("Elu", {"alpha": _tidy(minus / math.expm1(-1))})
        yield Activation("Selu", {"alpha": _tidy(-low / one), "gamma": _tidy(one)})
        if 0 < one < 1:
            yield Activation("Swish", {"alpha": _tidy(math.log(one / (1 - one)))})
    if low < high:
        yield Activation("Clip", {"min": low, "max": high if high < 299 else math.inf})
        if low > -299:
            yield Activation("Clip", {"min": low})
        if high < 299:
            yield Activation("Clip", {"max": high})
    if low == 0 and high == 1 and small > zero:
        yield Activation("HardSigmoid", {"alpha": _tidy((small - zero) / 1e-3), "beta": _tidy(zero)})


def _tidy(value: float) -> float:
    """The short decimal that a float32 constant stands for."""
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= 1e-6 * abs(value) else value


def relu(rewriter: Rewriter, node: gs.Node) -> bool:
    """Max(x, 0) = Relu(x)."""
    if len(node.inputs) != 2:
        return False
    values = [constant_values(t) if isinstance(t, gs.Constant) and len(t.shape) <= 2 else None for t in node.inputs]
    zero = next((i for i, v in enumerate(values) if v is not None and v.size == 1 and not v.any()), None)
    if zero is None or values[1 - zero] is not None:
        return False
    rewriter.become(node, "Relu", [node.inputs[1 - zero]])
    return True


def expand(rewriter: Rewriter, node: gs.Node) -> bool:
    """Expand(c, s) = c for a constant of one element, where every reader broadcasts it to that shape by itself."""
    y = node.outputs[0]
    if scalar_of(node.inputs[0]) is None or not y.outputs:
        return False
    for reader in y.outputs:
        others = [x for x in reader.inputs if x is not y and same_shape(shape_of(x), shape_of(y))]
        if reader.op not in OPS or not others:
            return False
    return rewriter.bypass(node)


def _is_curved(node: gs.Node) -> bool:
    return node.op in CURVED or (node.op in ACTIVATIONS and node.op not in BENT)
