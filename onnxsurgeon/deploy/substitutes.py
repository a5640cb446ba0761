"""Operators that browsers' GPUs lack, written in others; otherwise each step would go to the processor and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx
from onnx import helper

from onnxsurgeon.deploy.pieces import kind_of
from onnxsurgeon.training.builder import GraphBuilder


def substituted(build: GraphBuilder, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes with Max, Sign and Sum in other operators; constants that these need are added to ``build``."""
    found: list[onnx.NodeProto] = []
    for node in nodes:
        rule = _RULES.get(node.op_type)
        found += [node] if rule is None else rule(build, node)
    return found


def _max(build: GraphBuilder, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Max(x, constant) is Clip(x, constant)."""
    if len(node.input) != 2 or node.input[1] not in build.constants or build.constants[node.input[1]].dims:
        return [node]
    return [helper.make_node("Clip", list(node.input), list(node.output), name=node.name)]


def _sign(build: GraphBuilder, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Sign(x) is (x > 0) − (x < 0)."""
    (x,), (y,), zero, kind = node.input, node.output, build.scalar(0.0), kind_of(build.dtype)
    return [
        helper.make_node("Greater", [x, zero], [f"{y}/above"], name=f"{y}/above"),
        helper.make_node("Less", [x, zero], [f"{y}/below"], name=f"{y}/below"),
        helper.make_node("Cast", [f"{y}/above"], [f"{y}/positive"], name=f"{y}/positive", to=kind),
        helper.make_node("Cast", [f"{y}/below"], [f"{y}/negative"], name=f"{y}/negative", to=kind),
        helper.make_node("Sub", [f"{y}/positive", f"{y}/negative"], [y], name=node.name),
    ]


def _sum(_: GraphBuilder, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Sum(a, b, c) is a + b + c."""
    *terms, last = node.input
    if not terms:
        return [helper.make_node("Identity", [last], list(node.output), name=node.name)]
    made, total = [], terms[0]
    for number, term in enumerate(terms[1:]):
        name = f"{node.output[0]}/sum_{number}"
        made.append(helper.make_node("Add", [total, term], [name], name=name))
        total = name
    return [*made, helper.make_node("Add", [total, last], list(node.output), name=node.name)]


_RULES: dict[str, Callable[[GraphBuilder, onnx.NodeProto], list[onnx.NodeProto]]] = {
    "Max": _max,
    "Sign": _sign,
    "Sum": _sum,
}
