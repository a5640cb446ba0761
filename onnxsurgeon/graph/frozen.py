"""The frozen layers of a file, neither trained nor operated on, as its metadata says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.declared import inputs_of

KEY = "onnxsurgeon.frozen"


@dataclass(frozen=True)
class Frozen:
    """What stays as it is, by names of the file.

    Attributes:
        layers: nodes of layers, as notes and ``inspect`` call them.
        before: tensors; everything from which they are computed is frozen.
    """

    layers: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.layers or self.before)

    def entry(self) -> str:
        """The value of the metadata's entry ``KEY``."""
        return json.dumps({"layers": self.layers, "before": self.before}, ensure_ascii=False)


def frozen_in(model: onnx.ModelProto, source: str) -> Frozen:
    """Read from the model's metadata what is frozen; nothing is frozen where the metadata does not say so.

    Raises:
        ModelError: the entry is damaged.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), "")
    if not text:
        return Frozen()
    try:
        record = json.loads(text)
        found = {key: record.get(key, []) for key in ("layers", "before")}
    except (ValueError, RecursionError, AttributeError) as error:
        raise ModelError(f"{source}: its metadata '{KEY}' is damaged", "damaged-model") from error
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in found.values()):
        raise ModelError(f"{source}: its metadata '{KEY}' is damaged", "damaged-model")
    return Frozen(tuple(found["layers"]), tuple(found["before"]))


def nodes_before(graph: onnx.GraphProto, tensors: Sequence[str]) -> set[int]:
    """Positions of the nodes from which these tensors are computed."""
    if not tensors:
        return set()
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    found: set[int] = set()
    todo = list(tensors)
    while todo:
        number = makers.get(todo.pop())
        if number is not None and number not in found:
            found.add(number)
            todo.extend(inputs_of(graph.node[number]))
    return found


def behind(model: onnx.ModelProto, tensors: Sequence[str], source: str) -> onnx.ModelProto:
    """Return the part of ``model`` that computes its outputs from these tensors, which become its inputs.

    The nodes before these tensors then need not be understood. A tensor that no node writes is ignored.

    Args:
        model: with shapes inferred; initializers may be inputs.
        tensors: names of the new inputs.
        source: the beginning of messages.

    Raises:
        ModelError: the type of one of the tensors is not known.
    """
    if not tensors:
        return model
    graph = model.graph
    written = {name for node in graph.node for name in node.output if name}
    stops = [name for name in tensors if name in written]
    if not stops:
        return model
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needed, names = set(), set()
    todo = [value.name for value in graph.output]
    while todo:
        name = todo.pop()
        if name in names:
            continue
        names.add(name)
        number = None if name in stops else makers.get(name)
        if number is not None and number not in needed:
            needed.add(number)
            todo.extend(inputs_of(graph.node[number]))
    types = {value.name: value for value in (*graph.value_info, *graph.output)}
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    del rest.graph.node[:], rest.graph.input[:], rest.graph.initializer[:], rest.graph.value_info[:]
    rest.graph.node.extend(node for number, node in enumerate(graph.node) if number in needed)
    rest.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in names)
    rest.graph.input.extend(value for value in graph.input if value.name in names)
    for name in stops:
        if name in names:
            if name not in types or not types[name].type.HasField("tensor_type"):
                raise ModelError(
                    f"{source}: the type of tensor '{name}', up to which it is frozen, is not known", "unsupported-form"
                )
            rest.graph.input.append(types[name])
    rest.graph.value_info.extend(value for value in graph.value_info if value.name in names and value.name not in stops)
    return rest
