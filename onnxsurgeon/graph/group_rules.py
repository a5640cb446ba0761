"""The effect of each operator of the trunk on units: it keeps, ties, concatenates, lays out or pins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.group_units import Axis, Units, node_of
from onnxsurgeon.graph.told import Measured, Told, leaves

Rule = Callable[[Units, Glue, Sequence[Axis | None]], Axis | None]


def _same(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    """The operator works on each unit by itself; a second input is a constant with a value for each unit."""
    at = read[0]
    if at is None:
        return None
    for name, shape in list(zip(step.inputs, step.shapes, strict=True))[1:]:
        units.follow(step, name, shape, at, len(step.shapes[0]))
    return at


def _spatial(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    """The operator works on each channel by itself."""
    at = read[0]
    if at is not None and at.axis != 1:
        units.pin(at.ids, f"{step.op} works on places, which they are here ({node_of(step)})")
        return None
    return at


def _together(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    """The operator combines units one by one (Add, Mul, …), so that the units of both inputs are the same."""
    rank = len(step.shape)
    known: list[Axis] = []
    for at, name, shape in zip(read, step.inputs, step.shapes, strict=True):
        if at is not None:
            known.append(at._replace(axis=at.axis + rank - len(shape)))
        elif name not in units.frame.trunk.constants:
            axis = next(each for each in read if each is not None).axis  # the other input's units
            own = axis - (rank - len(shape))
            if own >= 0 and shape[own] != 1:
                units.pin_all(
                    read, f"{step.op} joins them with '{name}', which no trained layer writes ({node_of(step)})"
                )
    wide = [at for at in known if _size(at) > 1] or known
    for other in wide[1:]:
        if not alike(other, wide[0]):
            units.pin_all(known, f"{step.op} joins them with others along another axis ({node_of(step)})")
            return None
        units.tie(wide[0].ids, other.ids)
    for at, name, shape in zip(read, step.inputs, step.shapes, strict=True):
        if at is None and name in units.frame.trunk.constants:
            units.follow(step, name, shape, wide[0], rank)
    return wide[0]


def _chosen(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    """Takes one or the other: the units of both are the same, unless the mask tells them apart."""
    at, mask = next(each for each in read if each is not None), step.shapes[0]
    own = at.axis - (len(step.shape) - len(mask))
    if own >= 0 and mask[own] != 1:
        units.pin_all(read, f"a mask tells them apart ({node_of(step)})")
        return None
    return _together(units, step, read)


def alike(first: Axis, second: Axis) -> bool:
    """Whether two axes hold equally many units in the same layout."""
    return (first.axis, first.outer, first.inner, len(first.ids)) == (
        second.axis,
        second.outer,
        second.inner,
        len(second.ids),
    )


def _size(at: Axis) -> int:
    return at.outer * len(at.ids) * at.inner


def _concat(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    axis, known = step.attributes["axis"], [at for at in read if at is not None]
    if all(at.axis == axis for at in known):
        if any(at.outer * at.inner > 1 for at in known):
            units.pin_all(known, f"Concat puts places of theirs beside others ({node_of(step)})")
            return None
        parts = []
        for at, size in zip(read, step.attributes["sizes"], strict=True):
            ids = units.new(int(size)) if at is None else at.ids
            if at is None:
                units.pin(ids, "no trained layer writes them")
            parts.append(ids)
        return Axis(axis, np.concatenate(parts))
    if len(known) < len(read) or any(not alike(at, known[0]) or at.axis == axis for at in known):
        units.pin_all(known, f"Concat joins them with others along another axis ({node_of(step)})")
        return None
    for at in known[1:]:
        units.tie(known[0].ids, at.ids)
    return known[0]


def _piece(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at = read[0]
    if at is None or step.attributes["axis"] != at.axis:
        return at
    if at.outer * at.inner > 1:
        units.pin(at.ids, f"Slice takes places of theirs ({node_of(step)})")
        return None
    if not _is_told(units, step):
        units.pin(at.ids, f"which part of them {node_of(step)} takes is computed in the file")
    return Axis(at.axis, at.ids[step.attributes["begin"] : step.attributes["end"]])


def _is_told(units: Units, step: Glue) -> bool:
    """Whether constants tell a node of the file which part it takes, or no node of the file takes it."""
    node = units.makers.get(step.output)
    if node is None:  # a layer that reads the same tensor as others writes it
        return any(step.output in segment.ends for segment in units.segments)
    if node.op_type == "Split":
        return len(node.input) < 2 or units.values(node.input[1]) is not None
    if node.op_type != "Slice":
        return False
    if any(attribute.name == "starts" for attribute in node.attribute):  # before opset 10
        return all(len(attribute.ints) == 1 for attribute in node.attribute)
    bounds = [units.values(name) for name in node.input[1:3]]
    return all(values is not None and values.size == 1 for values in bounds)


def _reduced(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at, axes = read[0], step.attributes["axes"]
    if at is None:
        return None
    if at.axis in axes:
        units.pin(at.ids, f"{step.op} computes over all of them together ({node_of(step)})")
        return None
    return at if step.attributes["keepdims"] else at._replace(axis=at.axis - sum(axis < at.axis for axis in axes))


def _transposed(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at = read[0]
    return None if at is None else at._replace(axis=step.attributes["order"].index(at.axis))


def _reshaped(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    """A reshape after which the units and their places make up one axis: (outer, units, inner)."""
    at = read[0]
    if at is None:
        return None
    have, made = step.shapes[0], step.shape
    if None not in have[1:] and None not in made[1:]:
        sizes, wanted = [int(n or 0) for n in have[1:]], [int(n or 0) for n in made[1:]]
        stride = prod(sizes[at.axis :]) * at.inner
        span = stride * len(at.ids)
        for axis in range(len(wanted)):
            step_of = prod(wanted[axis + 1 :])
            if stride % step_of == 0 and step_of * wanted[axis] % span == 0:
                found = Axis(axis + 1, at.ids, step_of * wanted[axis] // span, stride // step_of)
                if not _follows(units, step, found, wanted[axis]):
                    units.pin(at.ids, f"the shape that {node_of(step)} makes holds their number")
                return found
    units.pin(at.ids, f"{node_of(step)} lays them out over several axes")
    return None


def _follows(units: Units, step: Glue, found: Axis, size: int) -> bool:
    """Whether the file's shape for a Reshape changes along with the number of units, or can be changed."""
    node = units.makers.get(step.output)
    if node is None or node.op_type in ("Flatten", "Squeeze", "Unsqueeze", "Gather"):
        return True
    told, *others = (
        units.sizes.of(step.output, axis, len(step.shape))
        for axis in (found.axis, *(axis for axis in range(1, len(step.shape)) if axis != found.axis))
    )
    for other in others:
        for leaf in () if other is None else leaves(other):
            at = units.tensors.get(leaf.tensor) if isinstance(leaf, Measured) else None
            if at is not None and isinstance(leaf, Measured) and at.axis == leaf.axis:
                units.pin(at.ids, f"the shape that {node_of(step)} makes goes by their number")
                return False
    if None in others:
        return False
    if isinstance(told, Measured):
        at = units.tensors.get(told.tensor)
        have = None if at is None else (at.axis, at.outer * at.inner, at.ids.tobytes())
        return have == (told.axis, found.outer * found.inner, found.ids.tobytes())
    return isinstance(told, Told) and int(told.values[told.entry]) in (-1, 0, size)


def _normalised(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at = read[0]
    if at is None or at.axis != len(step.shapes[0]) - 1:
        return at
    units.normalised.append((step.node, at.ids))
    for name in step.attributes.get("constants", ("",)):
        units.follow(step, name, (len(at.ids) * at.outer * at.inner,), at, len(step.shapes[0]))
    return at


def _per_channel(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at = read[0]
    if at is None or at.axis != 1:
        return at
    for name in step.attributes.get("constants", ("",)):
        units.follow(step, name, (len(at.ids) * at.outer * at.inner,), at._replace(axis=0), 1)
    return at


def _in_groups(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    """Channels that are each normalised by itself are free."""
    at, groups = read[0], step.attributes["groups"]
    if at is not None and (at.axis != 1 or groups != len(at.ids) or at.outer * at.inner > 1):
        units.pin(at.ids, f"they are normalised in {groups} groups ({node_of(step)})")
        return None
    return _per_channel(units, step, read)


def _padded(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at, pads = read[0], step.attributes["pads"]
    if at is not None and (pads[at.axis] or pads[at.axis + len(pads) // 2]):
        units.pin(at.ids, f"Pad adds others to them ({node_of(step)})")
        return None
    return at


def _softmax(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    at = read[0]
    if at is not None and at.axis == len(step.shapes[0]) - 1:
        units.pin(at.ids, f"Softmax computes over all of them together ({node_of(step)})")
        return None
    return at


def _product(units: Units, step: Glue, read: Sequence[Axis | None]) -> Axis | None:
    units.pin_all(read, f"they are multiplied with others that are computed ({node_of(step)})")
    return None


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Activation", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Reciprocal", "Pow", "Identity"), _same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _together),
    **dict.fromkeys(("MaxPool", "AveragePool", "Repeat", "Resample"), _spatial),
    "Where": _chosen,
    "Pad": _padded,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduced),
    "Affine": _per_channel,
    "GroupNormalization": _in_groups,
    "Concat": _concat,
    "Slice": _piece,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "LayerNormalization": _normalised,
    "Softmax": _softmax,
    "Einsum": _product,
}
