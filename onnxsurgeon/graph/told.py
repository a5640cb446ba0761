"""The place in a file that tells the sizes for a Reshape: a constant's entry, or the size of a tensor it looks up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import onnx
from onnx import helper

from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.graph.own_values import own_values
from onnxsurgeon.linear_algebra import Array

DEEPEST = 16  # nodes
_ONE_BY_ONE = frozenset(("Add", "Sub", "Mul", "Div", "Cast", "Identity", "Neg", "Abs", "Where", "Min", "Max", "Pow"))
_FORMS = frozenset(("Cast", "Identity", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"))


class Told(NamedTuple):
    """A constant of the file holds the size.

    Attributes:
        node: number of the node in the file's graph that reads it.
        position: position of that input.
        values: values of the constant.
        entry: index of the size among these values.
    """

    node: int
    position: int
    values: Array
    entry: int


class Measured(NamedTuple):
    """The file looks up the size of a tensor along an axis."""

    tensor: str
    axis: int


class Computed(NamedTuple):
    """The file computes the size from others."""

    parts: tuple[Told | Measured, ...]


Size = Told | Measured | Computed


class _NotTold(Exception):  # noqa: N818 - a finding, not an error
    """The size is told in a way that is not followed."""


def leaves(size: Size) -> tuple[Told | Measured, ...]:
    """The places from which a size is computed in the end."""
    return size.parts if isinstance(size, Computed) else (size,)


class ToldSizes:
    """Tensors of shapes in a frame's model, followed from their readers back to their origin.

    The model is looked through once, so it must not change while this object is in use.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame, self.nodes = frame, list(frame.model.graph.node)
        self.operators = [node.op_type for node in self.nodes]

    @cached_property
    def writers(self) -> dict[str, int]:
        """Which node writes each tensor."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Numbers of axes of the trunk's tensors, of what glue reads and writes."""
        found: dict[str, int] = {}
        for step in self.frame.trunk.steps:
            if not isinstance(step, int):
                found.update((name, len(shape)) for name, shape in zip(step.inputs, step.shapes, strict=True))
                found[step.output] = len(step.shape)
        return found

    @cached_property
    def readers(self) -> Counter[str]:
        """How many nodes read each tensor."""
        return Counter(name for node in self.nodes for name in set(inputs_of(node)))

    def of(self, output: str, axis: int, rank: int) -> Size | None:
        """The place that tells the size along an axis of a Reshape's output with ``rank`` axes.

        None where it is not found. Shapes are followed through Cast, Concat, Slice, Gather, Squeeze, Unsqueeze and
        arithmetic.
        """
        number = self.writers.get(output)
        if number is None or self.nodes[number].op_type != "Reshape" or len(self.nodes[number].input) < 2:
            return None
        try:
            return self.entry(number, 1, axis, rank, DEEPEST)
        except _NotTold:
            return None

    def bypassed(self) -> dict[str, str]:
        """Tensors that the file reshapes by constants and the trunk does not, with the nodes that reshape them.

        The trunk sees through a Reshape that another one undoes, for instance.
        """
        steps = {step.output for step in self.frame.trunk.steps if not isinstance(step, int)}
        found: dict[str, str] = {}
        for node, operator in zip(self.nodes, self.operators, strict=True):
            if operator not in ("Reshape", "Expand") or len(node.input) < 2 or node.output[0] in steps:
                continue
            sizes = self.numbers(node.input[1])
            if (self.frame.turned and sizes[-1:] == [1]) or any(size not in (-1, 0, 1) for size in sizes):
                found.setdefault(self.origin(node.input[0]), node.name or node.output[0])
        return found

    def laid_out(self) -> Iterator[tuple[str, list[int], str]]:
        """Tensors that the file computes one by one with constants of a size of its own, where the trunk does not.

        The trunk sees ones as nothing, and other constants without the shape that ConstantOfShape or Expand lays them
        out to. Each comes with the sizes, and with the node.
        """
        steps = {step.output for step in self.frame.trunk.steps if not isinstance(step, int)}
        laid: dict[str, tuple[list[int], str]] = {}
        for node, operator in zip(self.nodes, self.operators, strict=True):
            if operator == "ConstantOfShape" or (operator == "Expand" and node.output[0] not in steps):
                sizes = (
                    self.numbers(node.input[operator == "Expand"]) if len(node.input) > (operator == "Expand") else []
                )
                if any(size not in (-1, 0, 1) for size in sizes):
                    laid[node.output[0]] = sizes, node.name or node.output[0]
            elif laid and (beside := next((laid[name] for name in node.input if name in laid), None)) is not None:
                if operator not in _ONE_BY_ONE:
                    continue
                others = [name for name in node.input if name not in laid and own_values(self.frame, name) is None]
                if others:
                    # The trunk has one of the two at least, since activations in parts are one step in it.
                    yield from ((name, *beside) for name in (*map(self.origin, others), node.output[0]))
                else:
                    laid[node.output[0]] = beside

    def turned(self) -> dict[str, str]:
        """Tensors whose axes have another order in the trunk and whose sizes the file looks up, with these nodes."""
        found: dict[str, str] = {}
        for node, operator in zip(self.nodes, self.operators, strict=True):
            if operator in ("Shape", "Size") and node.input[0] in self.frame.turned:
                name = node.input[0]
                while name not in self.ranks and name in self.writers:
                    name = self.nodes[self.writers[name]].input[0]
                found.setdefault(name, node.name or node.output[0])
        return found

    def entry(self, number: int, position: int, entry: int, length: int | None, depth: int) -> Size:
        """The origin of entry ``entry`` of a node's input ``position``, which has ``length`` entries, if known."""
        name = self.nodes[number].input[position]
        values = own_values(self.frame, name)
        if values is not None:
            if values.ndim > 1 or not 0 <= entry < values.size or (length is not None and values.size != length):
                raise _NotTold
            return Told(number, position, values.reshape(-1), entry)
        if depth == 0 or name not in self.writers:
            raise _NotTold
        number = self.writers[name]
        node = self.nodes[number]
        if node.op_type == "Shape":
            if node.input[0] in self.frame.turned:
                raise _NotTold
            return Measured(self._known(node.input[0]), self._first(node) + entry)
        if self.readers[name] > 1:
            return self._looked_up(self._through(number, entry, length, depth))
        return self._through(number, entry, length, depth)

    def _through(self, number: int, entry: int, length: int | None, depth: int) -> Size:
        node = self.nodes[number]
        if node.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"):
            return self.entry(number, 0, entry, length, depth - 1)
        if node.op_type == "Concat":
            lengths = [self._length(name, depth - 1) for name in node.input]
            missing = [i for i, each in enumerate(lengths) if each is None]
            known = sum(each for each in lengths if each is not None)
            if len(missing) == 1 and length is not None and length >= known:
                lengths[missing[0]] = length - known
            for position, each in enumerate(lengths):
                if each is None:
                    raise _NotTold
                if entry < each:
                    return self.entry(number, position, entry, each, depth - 1)
                entry -= each
            raise _NotTold
        if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
            parts = [self._operand(number, position, entry, length, depth) for position in range(len(node.input))]
            return Computed(tuple(leaf for part in parts for leaf in leaves(part)))
        if node.op_type == "Gather":
            indices = own_values(self.frame, node.input[1])
            if indices is None or entry >= indices.size or indices.reshape(-1)[entry] < 0:
                raise _NotTold
            return self._looked_up(self.entry(number, 0, int(indices.reshape(-1)[entry]), None, depth - 1))
        if node.op_type == "Slice":
            begin = self._begin(node)
            return self._looked_up(self.entry(number, 0, begin + entry, None, depth - 1))
        raise _NotTold

    def _operand(self, number: int, position: int, entry: int, length: int | None, depth: int) -> Size:
        """The origin in one of several operands, which may have one entry for all."""
        own = self._length(self.nodes[number].input[position], depth - 1)
        if own is None or own not in (1, length):
            raise _NotTold
        return self.entry(number, position, 0 if own == 1 else entry, own, depth - 1)

    @staticmethod
    def _looked_up(found: Size) -> Size:
        """The size, if it may be looked up several times.

        A constant from which entries are picked has other readers.
        """
        if isinstance(found, Told):
            raise _NotTold
        return found

    def numbers(self, name: str, depth: int = DEEPEST) -> list[int]:
        """Sizes that constants hold in a tensor of sizes; those that are computed are left out."""
        values = own_values(self.frame, name)
        if values is not None:
            return [int(size) for size in values.reshape(-1)]
        node = self.nodes[self.writers[name]] if name in self.writers and depth > 0 else None
        if node is None or node.op_type not in ("Cast", "Identity", "Concat"):
            return []
        return [size for part in node.input for size in self.numbers(part, depth - 1)]

    def origin(self, name: str) -> str:
        """The trunk's tensor from which a tensor is made by changes of form alone."""
        while name not in self.ranks and name in self.writers:
            node = self.nodes[self.writers[name]]
            if node.op_type not in _FORMS:
                break
            name = node.input[0]
        return name

    def _known(self, name: str) -> str:
        """The trunk's name of a tensor; nodes that change nothing are passed."""
        for _ in range(DEEPEST):
            node = self.nodes[self.writers[name]] if name in self.writers else None
            if name in self.ranks or node is None or node.op_type not in ("Cast", "Identity", "Dropout"):
                break
            name = node.input[0]
        return name

    def _length(self, name: str, depth: int) -> int | None:
        """How many entries a tensor of sizes has."""
        values = own_values(self.frame, name)
        if values is not None:
            return int(values.size)
        node = self.nodes[self.writers[name]] if name in self.writers and depth > 0 else None
        if node is None:
            return None
        if node.op_type in ("Cast", "Identity", "Squeeze"):
            return self._length(node.input[0], depth - 1)
        if node.op_type == "Shape":
            rank = self.ranks.get(self._known(node.input[0]))
            given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            return None if rank is None else len(range(rank)[given.get("start", 0) : given.get("end")])
        if node.op_type == "Gather":
            indices = own_values(self.frame, node.input[1])
            return None if indices is None else int(indices.size)
        if node.op_type == "Unsqueeze":
            return 1
        if node.op_type in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
            lengths = [self._length(each, depth - 1) for each in node.input]
            return None if None in lengths else max(each for each in lengths if each is not None)
        if node.op_type == "Slice":
            whole = self._length(node.input[0], depth - 1)
            end = own_values(self.frame, node.input[2]) if len(node.input) > 2 else None
            if whole is None or end is None or end.size != 1:
                return None
            return len(range(whole)[self._begin(node) : int(end.reshape(()))])
        return None

    def _begin(self, node: onnx.NodeProto) -> int:
        """The first entry that a Slice takes, forward and one by one."""
        starts = own_values(self.frame, node.input[1]) if len(node.input) > 2 else None
        steps = own_values(self.frame, node.input[4]) if len(node.input) > 4 and node.input[4] else None
        if starts is None or starts.size != 1 or int(starts.reshape(())) < 0:
            raise _NotTold
        if len(node.input) > 4 and node.input[4] and (steps is None or (steps != 1).any()):
            raise _NotTold
        return int(starts.reshape(()))

    @staticmethod
    def _first(node: onnx.NodeProto) -> int:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        begin = int(given.get("start", 0))
        if begin < 0:
            raise _NotTold
        return begin
