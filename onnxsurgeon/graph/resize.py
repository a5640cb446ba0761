"""Changes the frame around a group when its units change: constants, shapes and sizes follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.frame import Frame, Trunk
from onnxsurgeon.graph.glue import Glue, Shape
from onnxsurgeon.graph.groups import Place, UnitGroup
from onnxsurgeon.graph.own_values import own_values
from onnxsurgeon.graph.told import Told, ToldSizes
from onnxsurgeon.linear_algebra import Array

# The meanings of a node's inputs behind the first, for names of constants.
_MEANS = {"Reshape": ("shape",), "Slice": ("starts", "ends"), "Split": ("split",)}


def resized(frame: Frame, group: UnitGroup, origin: Array) -> Frame:
    """Return the frame with the units ``origin`` of the group, in their order, in place of all its units.

    Raises:
        SurgeryError: a constant of the file is not as the trunk has it.
    """
    if group.is_hidden:
        return frame
    values: dict[str, Array] = {}
    for follower in group.followers:
        old = values.get(follower.tensor, own_values(frame, follower.tensor))
        if old is None or old.ndim < -follower.axis or old.shape[follower.axis] < follower.begin + group.units:
            raise SurgeryError(f"'{follower.tensor}' has no value for each of the units", "unlike-layer")
        values[follower.tensor] = _taken(old, follower.axis, follower.begin, group.units, origin)
    steps = tuple(step if isinstance(step, int) else _step(step, group, origin, values) for step in frame.trunk.steps)
    constants = {name: values.get(name, old) for name, old in frame.trunk.constants.items()}
    trunk = Trunk(frame.trunk.features, steps, frame.trunk.heads, constants)
    model, arrays = _with_values(frame, values)
    _tell_sizes(model, frame, [each for each in steps if not isinstance(each, int)], group)
    _forget_shapes(model, frame)
    return replace(frame, model=model, arrays=arrays, trunk=trunk)


def _taken(values: Array, axis: int, begin: int, units: int, origin: Array) -> Array:
    """The values along an axis, where the ``units`` from ``begin`` on are replaced by those of ``origin``."""
    there = np.arange(values.shape[axis])
    return np.take(values, np.concatenate([there[:begin], begin + origin, there[begin + units :]]), axis=axis)


def _step(step: Glue, group: UnitGroup, origin: Array, values: Mapping[str, Array]) -> Glue:
    """A step of the trunk with its new sizes."""
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
    if step.op == "GroupNormalization" and places:  # units are free where each is normalised by itself
        given["groups"] = shapes[0][1]
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


def _tell_sizes(model: onnx.ModelProto, frame: Frame, steps: Sequence[Glue], group: UnitGroup) -> None:
    """Update the constants that tell nodes of the file numbers of units and of places.

    Shapes, and where parts begin.
    """
    ops = ("Reshape", "Slice", "GroupNormalization")
    made = {step.output: step for step in steps if step.op in ops and step.inputs[0] in group.places}
    shapes = ToldSizes(frame)
    for node in model.graph.node:
        own = [made[name] for name in node.output if name in made]
        if not own:
            continue
        if node.op_type == "Reshape":
            axis = group.places[own[0].output][0].axis
            told = shapes.of(own[0].output, axis, len(own[0].shape))
            if isinstance(told, Told) and int(told.values[told.entry]) not in (-1, 0):
                size = np.array([own[0].shape[axis]], told.values.dtype)
                values = np.concatenate([told.values[: told.entry], size, told.values[told.entry + 1 :]])
                _give(model, model.graph.node[told.node], told.position, values)
        elif node.op_type == "GroupNormalization":
            _set(node, num_groups=own[0].attributes["groups"])
        elif node.op_type == "Slice" and group.places[own[0].inputs[0]][0].axis == own[0].attributes["axis"]:
            begin, end = own[0].attributes["begin"], own[0].attributes["end"]
            if any(attribute.name == "starts" for attribute in node.attribute):  # before opset 10
                _set(node, starts=[begin], ends=[end])
            else:
                _give(model, node, 1, np.array([begin]))
                _give(model, node, 2, np.array([end]))
        elif node.op_type == "Split":
            parts = {step.output: step.attributes["end"] - step.attributes["begin"] for step in own}
            sizes = [parts.get(name, 0) for name in node.output]
            if frame.opset < 13:
                _set(node, split=sizes)
            else:
                _give(model, node, 1, np.array(sizes))
                kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
                del node.attribute[:]
                node.attribute.extend(kept)


def _set(node: onnx.NodeProto, **attributes: int | list[int]) -> None:
    """Set attributes of a node, replacing those of the same names."""
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, values) for name, values in attributes.items())])


def _give(model: onnx.ModelProto, node: onnx.NodeProto, position: int, values: Array) -> None:
    """Give a node a constant of its own for one of its inputs, since others may read the old one."""
    taken = {tensor.name for tensor in model.graph.initializer} | {name for n in model.graph.node for name in n.output}
    name = node.input[position] if len(node.input) > position else ""
    readers = sum(each == name for other in model.graph.node for each in other.input)
    for tensor in model.graph.initializer:
        if tensor.name == name and readers == 1:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
    own = f"{node.output[0]}/{_MEANS[node.op_type][position - 1] if node.op_type in _MEANS else position}"
    while own in taken:
        own += "_"
    model.graph.initializer.append(numpy_helper.from_array(values, own))
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = own


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
    """Remove the shapes that the file declares behind the prefix, since some have changed."""
    made = {name for node in frame.prefix_nodes for name in node.output}
    kept = [value for value in model.graph.value_info if value.name in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
