"""Biases of convolutions whose channels come last: the file has them behind a Transpose, reading moves them before it.

A convolution's bias, or what is left of a normalisation, can be the layer's own only where nothing stands between the
two.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.linear_algebra import Array

AFFINE = ("Add", "Sub", "Mul", "Div")
OLDEST = 7  # the opset from which on these broadcast as NumPy does
FIRST = "/channels_first"  # follows the name of what such a node wrote


def biases_first(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    """f(T(Conv(x)), c) = T(f(Conv(x), T⁻¹(c))) for a constant c with one value for each channel, which T puts last.

    The tensor between the two, which nothing else reads, has other values afterwards; all other names keep theirs.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST or not any(node.op_type == "Conv" for node in model.graph.node):
        return model
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    return moved if _Moved(moved, arrays).run() else model


class _Moved:
    """The model while it is changed: one node after the other moves before the Transpose."""

    def __init__(self, model: onnx.ModelProto, arrays: Mapping[str, Array]) -> None:
        self.graph, self.arrays = model.graph, arrays
        self.nodes = list(self.graph.node)
        self.writers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in inputs_of(node):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in self.graph.output}
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.taken = set(self.writers) | set(self.constants) | arrays.keys()
        self.gone: set[str] = set()

    def run(self) -> bool:
        """Move what can be moved; return whether there was anything to move."""
        # A Transpose stays in its place in the list, and what moves before it is inserted there.
        before: dict[int, list[onnx.NodeProto]] = {}
        for turn in self.nodes:
            if turn.op_type == "Transpose":
                while (node := self._behind(turn)) is not None:
                    before.setdefault(id(turn), []).append(node)
                    self._move(turn, node)
        if not before:
            return False
        placed = {id(node) for each in before.values() for node in each}
        order: list[onnx.NodeProto] = []
        for node in self.nodes:
            order += before.get(id(node), [])
            if id(node) not in placed:
                order.append(node)
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
        del self.graph.node[:]
        self.graph.node.extend(kept)
        shapes = [value for value in self.graph.value_info if value.name not in self.gone]
        del self.graph.value_info[:]
        self.graph.value_info.extend(shapes)
        unread = self._unread()
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name in unread]:
            self.graph.initializer.remove(tensor)
        return True

    def _behind(self, turn: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node behind a Transpose that can go before it."""
        order = next((list(each.ints) for each in turn.attribute if each.name == "perm"), [])
        source = self.writers.get(turn.input[0])
        while source is not None and source.op_type in AFFINE and source.output[0].endswith(FIRST):
            source = self.writers.get(next(name for name in source.input if name in self.writers))
        if source is None or source.op_type != "Conv" or len(order) < 3 or order[-1] != 1:
            return None
        tensor = turn.output[0]
        if len(self.readers.get(turn.input[0], ())) != 1 or turn.input[0] in self.outputs:
            return None
        while True:
            readers = self.readers.get(tensor, [])
            if len(readers) != 1 or tensor in self.outputs:
                return None
            (node,) = readers
            if node.op_type not in ("Cast", "Identity") or not self._is_idle(node):
                break
            tensor = node.output[0]
        if node.op_type not in AFFINE or node.domain or len(node.input) != 2 or list(node.input).count(tensor) != 1:
            return None
        name = next(each for each in node.input if each != tensor)
        values = self._constant(name)
        if values is None or any(size != 1 for size in values.shape[:-1]) or values.ndim > len(order):
            return None
        weight = self._constant(source.input[1])
        return node if weight is not None and values.size in (1, len(weight)) else None

    def _is_idle(self, node: onnx.NodeProto) -> bool:
        """Whether an Identity, or a Cast to float32 of what a convolution in float32 wrote, changes nothing."""
        if node.op_type == "Identity":
            return True
        wanted = next((each.i for each in node.attribute if each.name == "to"), 0)
        turn = self.writers.get(node.input[0])
        while turn is not None and turn.op_type != "Conv":
            turn = self.writers.get(next((name for name in turn.input if name in self.writers), ""))
        weight = None if turn is None else self._constant(turn.input[1])
        return weight is not None and wanted == helper.np_dtype_to_tensor_dtype(weight.dtype)

    def _move(self, turn: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Let the node work on the Transpose's input, and let the Transpose write the node's output."""
        x, y = turn.input[0], node.output[0]
        rank = len(next(each.ints for each in turn.attribute if each.name == "perm"))
        position = 0 if self._constant(node.input[1]) is not None else 1
        last, name = node.input[position], node.input[1 - position]
        values = self._constant(name)
        assert values is not None
        own = self._fresh(f"{y}{FIRST}/constant")
        self.constants[own] = numpy_helper.from_array(values.reshape(-1, *([1] * (rank - 2))), own)
        self.graph.initializer.append(self.constants[own])
        made = self._fresh(f"{y}{FIRST}")
        node.input[position], node.input[1 - position], node.output[0] = x, own, made
        self.readers[x], self.readers[own], self.readers[made] = [node], [node], [turn]
        self.readers[name] = [each for each in self.readers[name] if each is not node]
        turn.input[0] = made
        self.gone.add(last)
        writer = self.writers[last]
        writer.output[0] = y
        self.writers |= {made: node, y: writer}

    def _constant(self, name: str) -> Array | None:
        if name in self.arrays:
            return self.arrays[name]
        if name in self.constants:
            return numpy_helper.to_array(self.constants[name])
        node = self.writers.get(name)
        if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
            return None
        return np.asarray(numpy_helper.to_array(node.attribute[0].t))

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _unread(self) -> set[str]:
        """Initializers that a node read before and none reads now."""
        return {name for name, nodes in self.readers.items() if not nodes and name in self.constants}
