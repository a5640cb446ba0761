"""The frame around a group whose units become others: constants, shapes and sizes in it follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.frame import Frame, Trunk
from onnxsurgeon.graph.glue import Glue, Shape
from onnxsurgeon.graph.groups import Place, UnitGroup, own_values
from onnxsurgeon.linear_algebra import Array


def resized(frame: Frame, group: UnitGroup, origin: Array) -> Frame:
    """The frame with the units ``origin`` of the group in their order, in place of all of them.

    Raises:
        SurgeryError: a constant of the file is not as the trunk has it.
    """
    if group.is_hidden:
        return frame
    values: dict[str, Array] = {}
    for follower in group.followers:
        old = values.get(follower.tensor, own_values(frame, follower.tensor))
        if old is None or old.ndim < -follower.axis or old.shape[follower.axis] < follower.begin + group.units:
            raise SurgeryError(f"'{follower.tensor}' has no value for each of the units")
        values[follower.tensor] = _taken(old, follower.axis, follower.begin, group.units, origin)
    steps = tuple(step if isinstance(step, int) else _step(step, group, origin, values) for step in frame.trunk.steps)
    # Of a reshaping, the file's own constant says how many places there are.
    for step in steps:
        if not isinstance(step, int) and step.op == "Reshape" and step.output in group.places:
            values |= _reshaping(frame, step, group.places[step.output][0].axis)
    constants = {name: values.get(name, old) for name, old in frame.trunk.constants.items()}
    trunk = Trunk(frame.trunk.features, steps, frame.trunk.heads, constants)
    model, arrays = _with_values(frame, values)
    _forget_shapes(model, frame)
    return replace(frame, model=model, arrays=arrays, trunk=trunk)


def _taken(values: Array, axis: int, begin: int, units: int, origin: Array) -> Array:
    """The values along an axis where ``units`` of them, from ``begin`` on, become those of ``origin``."""
    there = np.arange(values.shape[axis])
    return np.take(values, np.concatenate([there[:begin], begin + origin, there[begin + units :]]), axis=axis)


def _step(step: Glue, group: UnitGroup, origin: Array, values: Mapping[str, Array]) -> Glue:
    """A step of the trunk with the sizes that it has afterwards."""
    touched = [name for name in (*step.inputs, step.output) if name in group.places or name in values]
    if not touched:
        return step
    more = len(origin) - group.units
    shapes = tuple(
        tuple(values[name].shape) if name in values else _shape(shape, group.places.get(name, ()), more)
        for name, shape in zip(step.inputs, step.shapes, strict=True)
    )
    shape = _shape(step.shape, group.places.get(step.output, ()), more)
    given = dict(step.attributes)
    if step.op == "Concat":
        given["sizes"] = [each[given["axis"]] for each in shapes]
    places = group.places.get(step.inputs[0], ())
    if step.op == "Slice" and places and places[0].axis == given["axis"]:
        begin, end = given["begin"], given["end"]
        for place in places:
            given["begin"] += more if place.begin < begin else 0
            given["end"] += more if place.begin < end else 0
    for name in ("scale", "shift"):
        for place in sorted(places, key=lambda each: -each.begin):
            if given.get(name) is not None:
                axis = place.axis - len(step.shapes[0])
                given[name] = _taken(np.asarray(given[name]), axis, place.begin, group.units, origin)
    return replace(step, shapes=shapes, shape=shape, attributes=given)


def _shape(shape: Shape, places: tuple[Place, ...], more: int) -> Shape:
    sizes = list(shape)
    for place in places:
        size = sizes[place.axis]
        sizes[place.axis] = None if size is None else size + place.outer * place.inner * more
    return tuple(sizes)


def _reshaping(frame: Frame, step: Glue, axis: int) -> dict[str, Array]:
    """The constant that a Reshape of the file reads its shape from, where that names the number of places."""
    node = next((node for node in frame.model.graph.node if step.output in node.output), None)
    if node is None or node.op_type != "Reshape":
        return {}
    given = own_values(frame, node.input[1])
    if given is None or int(given[axis]) in (-1, 0):
        return {}
    changed = given.copy()
    changed[axis] = step.shape[axis]
    return {node.input[1]: changed}


def _with_values(frame: Frame, values: Mapping[str, Array]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model and its bulky tensors with some constants replaced."""
    arrays = {name: values.get(name, old) for name, old in frame.arrays.items()}
    model = onnx.ModelProto()
    model.CopyFrom(frame.model)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(_tensor(values[tensor.name], tensor))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in values:
            node.attribute[0].t.CopyFrom(_tensor(values[node.output[0]], node.attribute[0].t))
    for declared in model.graph.input:  # before IR 4, and in some files later, initializers are listed there too
        if declared.name in values:
            dims = declared.type.tensor_type.shape.dim
            for dim, size in zip(dims, values[declared.name].shape, strict=True):
                dim.dim_value = size
    return model, arrays


def _tensor(values: Array, old: onnx.TensorProto) -> onnx.TensorProto:
    made = numpy_helper.from_array(np.ascontiguousarray(values), old.name)
    made.doc_string = old.doc_string
    return made


def _forget_shapes(model: onnx.ModelProto, frame: Frame) -> None:
    """Without the shapes that the file declares of what is computed behind the prefix: some are others now."""
    made = {name for node in frame.prefix_nodes for name in node.output}
    kept = [value for value in model.graph.value_info if value.name in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
