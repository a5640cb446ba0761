"""One view of Loop and Scan: a body that runs a number of times, and carries tensors from one run to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper


@dataclass(frozen=True)
class Repeated:
    """A Loop or a Scan.

    Attributes:
        body: the graph.
        trips: the largest number of its runs.
        carried: types of the carried tensors at the beginning; ``carried_from`` are their names outside.
        carried_in: their names among the body's inputs; ``carried_to`` those among its outputs.
        given: types of the body's other inputs, by name.
        counter: the input that holds the run's number; "" for none.
        scanned_to: the body's outputs that are collected.
        outputs: names of the node's outputs: the carried tensors, then the collected ones.
        runs_all: whether it surely runs ``trips`` times, and does not stop before.
    """

    body: GraphProto
    trips: int
    carried: list[TypeProto]
    carried_from: list[str]
    carried_in: list[str]
    carried_to: list[str]
    given: dict[str, TypeProto]
    counter: str
    scanned_to: list[str]
    outputs: list[str]
    runs_all: bool = True


def read_loop(
    node: NodeProto,
    value_of: Callable[[str], TensorProto | None],
    type_of: Callable[[str], TypeProto | None],
    opset: int,
) -> Repeated | None:
    """Read the node as such; None where it is not known how often it runs."""
    body = next((attribute.g for attribute in node.attribute if attribute.name == "body"), None)
    if body is None or (node.op_type == "Scan" and opset < 9):  # Scan had a batch axis then
        return None
    inputs, outputs = [value.name for value in body.input], [value.name for value in body.output]
    if node.op_type == "Loop":
        trips = value_of(node.input[0]) if node.input and node.input[0] else None
        if trips is None or trips.data_type != TensorProto.INT64:
            return None
        count = max(0, int(numpy_helper.to_array(trips).max(initial=0)))
        names = list(node.input[2:])
        given = {value.name: value.type for value in body.input[:2]}
        carried_in, carried_to, scanned = inputs[2:], outputs[1 : 1 + len(names)], outputs[1 + len(names) :]
        counter = inputs[0] if inputs else ""
        runs_all = _never_stops(node, body, value_of)
    elif node.op_type == "Scan":
        attributes = {attribute.name: attribute for attribute in node.attribute}
        scans = attributes["num_scan_inputs"].i if "num_scan_inputs" in attributes else 0
        if not 0 < scans <= len(node.input):
            return None
        states = len(node.input) - scans
        axes = list(attributes["scan_input_axes"].ints) if "scan_input_axes" in attributes else [0] * scans
        slices = [_slice(type_of(name), axis) for name, axis in zip(node.input[states:], axes, strict=False)]
        known = [found for found in slices if found is not None]
        if len(known) < scans:
            return None
        count = max(size for size, _ in known)
        names = list(node.input[:states])
        given = {name: kind for name, (_, kind) in zip(inputs[states:], known, strict=False)}
        carried_in, carried_to, scanned, counter = inputs[:states], outputs[:states], outputs[states:], ""
        runs_all = True
    else:
        return None
    if len(carried_in) != len(names) or len(carried_to) != len(names):
        return None  # malformed
    carried = [type_of(name) or TypeProto() for name in names]
    written = [str(name) for name in node.output]
    return Repeated(body, count, carried, names, carried_in, carried_to, given, counter, scanned, written, runs_all)


def _never_stops(node: NodeProto, body: GraphProto, value_of: Callable[[str], TensorProto | None]) -> bool:
    """Whether a Loop's condition is true when it begins, and the body passes it on as it is."""
    if len(node.input) > 1 and node.input[1]:
        given = value_of(node.input[1])
        if given is None or not numpy_helper.to_array(given).all():
            return False
    if len(body.input) < 2 or not body.output:
        return False
    condition, kept = body.output[0].name, body.input[1].name
    passed = any(n.op_type == "Identity" and list(n.input) == [kept] and condition in n.output for n in body.node)
    return condition == kept or passed


def _slice(kind: TypeProto | None, axis: int) -> tuple[int, TypeProto] | None:
    """Size of the axis, and the type of a slice across it."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.tensor_type.shape.dim]
    if not -len(sizes) <= axis < len(sizes) or -1 in sizes:
        return None
    size = sizes.pop(axis)
    return size, helper.make_tensor_type_proto(kind.tensor_type.elem_type, sizes)
