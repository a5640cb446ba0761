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
            gc.enable()


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
            self._declared(value)
        inputs = [self._variable(value) for value in given.input if value.name not in constants]
        outputs = [self._variable(value) for value in given.output]
        nodes = [self._node(node) for node in given.node]
        opset = next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), None)
        return gs.Graph(nodes=nodes, inputs=inputs, outputs=outputs, name=given.name, opset=opset)

    @staticmethod
    def _constant(tensor: TensorProto) -> gs.Constant:
        return OnnxImporter.import_tensor(tensor)

    def _declared(self, value: ValueInfoProto) -> None:
        """A tensor may be declared several times, with less or more of its type."""
        if value.name not in self.tensors:
            self._variable(value)
            return
        found = self.tensors[value.name]
        if isinstance(found, gs.Variable):
            dtype, shape, _ = self._type(value.type)
            found.dtype, found.shape = found.dtype or dtype, found.shape or (None if shape is None else list(shape))

    def _variable(self, value: ValueInfoProto) -> Any:
        found = self.tensors.get(value.name)
        if found is not None:
            return found
        dtype, shape, kind = self._type(value.type)
        self.tensors[value.name] = made = gs.Variable(value.name, dtype, None if shape is None else list(shape), kind)
        return made

    def _type(self, kind: TypeProto) -> tuple[Any, list[Any] | None, Any]:
        key = kind.SerializeToString()
        if key not in self.types:
            made = OnnxImporter.import_tensor(ValueInfoProto(name="x", type=kind))
            self.types[key] = made.dtype, made.shape, made.type
        return self.types[key]

    def _tensor(self, name: str) -> Any:
        if not name:
            return gs.Variable.empty()
        found = self.tensors.get(name)
        if found is None:
            self.tensors[name] = found = gs.Variable(name)
        return found

    def _node(self, node: onnx.NodeProto) -> gs.Node:
        attributes = {entry.name: self._value(entry) for entry in node.attribute if entry.type in _KNOWN}
        read, written = [self._tensor(name) for name in node.input], [self._tensor(name) for name in node.output]
        return gs.Node(node.op_type, node.name, attributes, read, written, node.domain or None)

    def _value(self, entry: AttributeProto) -> Any:
        if entry.type == AttributeProto.STRING:
            return entry.s.decode()
        if entry.type == AttributeProto.TENSOR:
            return self._constant(entry.t)
        if entry.type == AttributeProto.STRINGS:
            return [text.decode() for text in entry.strings]
        value = getattr(entry, _KNOWN[entry.type])
        return value if entry.type in (AttributeProto.INT, AttributeProto.FLOAT) else list(value)
