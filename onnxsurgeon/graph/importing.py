"""Imports a protobuf's graph, without bodies, as one of onnx-graphsurgeon.

Its own importer asks every tensor for its type several times over; a file of 100,000 nodes has a handful of types.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, ModelProto, TensorProto, TypeProto, ValueInfoProto
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter

from onnxsurgeon.graph import makers

_KNOWN = {
    AttributeProto.INT: "i",
    AttributeProto.FLOAT: "f",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.INTS: "ints",
    AttributeProto.FLOATS: "floats",
    AttributeProto.STRINGS: "strings",
}


@contextmanager
def without_collecting() -> Iterator[None]:
    """Postpone the collection of cyclic garbage.

    All of a graph of 100,000 nodes is alive, and would be searched repeatedly.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()  # what was made is new, so a process that reads many files soon frees those it is done with


def imported(model: ModelProto) -> gs.Graph:
    """The graph of ``model``; nodes keep their order, and attributes that are graphs are left out."""
    return _Importer(model).graph()


class _Importer:
    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.tensors: dict[str, Any] = {}
        # For each type its form in onnx-graphsurgeon: the element's type, sizes, and its kind.
        self.types: dict[bytes, tuple[Any, list[Any] | None, Any]] = {}

    def graph(self) -> gs.Graph:
        given = self.model.graph
        for tensor in given.initializer:
            self.tensors.setdefault(tensor.name, self._constant(tensor))
        constants = set(self.tensors)
        for value in given.value_info:
            if value.name in self.tensors:
                self._declare_again(value)
            else:
                self._variable(value)
        inputs = [self._variable(value) for value in given.input if value.name not in constants]
        outputs = [self._variable(value) for value in given.output]
        self.tensors.pop("", None)  # no name stands for no tensor
        nodes = [self._node(node) for node in given.node]
        opset = next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), None)
        graph = gs.Graph(inputs=inputs, outputs=outputs, name=given.name, opset=opset)
        graph.nodes = nodes  # in whose bodies the constructor would look for functions
        return graph

    @staticmethod
    def _constant(tensor: TensorProto) -> gs.Constant:
        return OnnxImporter.import_tensor(tensor)

    def _declare_again(self, value: ValueInfoProto) -> None:
        """A tensor may be declared several times, with less or more of its type."""
        found = self.tensors[value.name]
        if isinstance(found, gs.Variable):
            dtype, shape, _ = self._type(value.type)
            found.dtype, found.shape = found.dtype or dtype, found.shape or (None if shape is None else list(shape))

    def _variable(self, value: ValueInfoProto) -> Any:
        name = value.name
        found = self.tensors.get(name)
        if found is None:
            dtype, shape, kind = self._type(value.type)
            self.tensors[name] = found = makers.variable(name, dtype, None if shape is None else list(shape), kind)
        return found

    def _type(self, kind: TypeProto) -> tuple[Any, list[Any] | None, Any]:
        key = kind.SerializeToString()
        found = self.types.get(key)
        if found is None:
            made = OnnxImporter.import_tensor(ValueInfoProto(name="x", type=kind))
            self.types[key] = found = made.dtype, made.shape, made.type
        return found

    def _tensor(self, name: str) -> Any:
        if not name:
            return gs.Variable.empty()
        found = self.tensors.get(name)
        if found is None:
            self.tensors[name] = found = makers.variable(name)
        return found

    def _node(self, node: onnx.NodeProto) -> gs.Node:
        given = node.attribute
        attributes = {entry.name: self._value(entry) for entry in given if entry.type in _KNOWN} if given else {}
        made = makers.node(node.op_type, node.name, attributes, node.domain or None)
        read, written = made.inputs, made.outputs
        append, tensors = list.append, self.tensors  # a SynchronizedList's own append is slower, and does both
        for name in node.input:
            tensor = tensors.get(name) or self._tensor(name)
            append(read, tensor)
            append(tensor.outputs, made)
        for name in node.output:
            tensor = tensors.get(name) or self._tensor(name)
            append(written, tensor)
            append(tensor.inputs, made)
        return made

    def _value(self, entry: AttributeProto) -> Any:
        if entry.type == AttributeProto.STRING:
            return entry.s.decode()
        if entry.type == AttributeProto.TENSOR:
            return self._constant(entry.t)
        if entry.type == AttributeProto.STRINGS:
            return [text.decode() for text in entry.strings]
        value = getattr(entry, _KNOWN[entry.type])
        return value if entry.type in (AttributeProto.INT, AttributeProto.FLOAT) else list(value)
