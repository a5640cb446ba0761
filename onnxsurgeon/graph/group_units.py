"""Units of a network, followed through its trunk: which are the same, which must stay, and what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frame import Frame
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.own_values import constants_of
from onnxsurgeon.graph.told import ToldSizes
from onnxsurgeon.linear_algebra import Array


class Axis(NamedTuple):
    """A tensor's axis of units: (outer, ids, inner); ``ids`` number the units of all writers."""

    axis: int
    ids: Array
    outer: int = 1
    inner: int = 1


class Units:
    """Numbers for the units of all writers, joined where they are the same unit (union-find).

    Attributes:
        segments: the network's segments.
        frame: the frame around them.
        tensors: for each tensor of the trunk, where it holds units.
        followers: constants of the file with a value for each unit: name, axis, units.
        normalised: nodes that normalise over units.
    """

    def __init__(self, segments: Sequence[DenseChain], frame: Frame) -> None:
        self.segments, self.frame = segments, frame
        self.count = 0
        self.parent = np.zeros(0, np.int64)
        self.reasons: dict[int, str] = {}
        self.tensors: dict[str, Axis] = {}
        self.followers: list[tuple[str, int, Array]] = []
        self.normalised: list[tuple[str, Array]] = []

    def new(self, units: int) -> Array:
        """Return numbers for new units."""
        ids = np.arange(self.count, self.count + units)
        self.count += units
        self.parent = np.concatenate([self.parent, ids])
        return ids

    def find(self, ids: Array) -> Array:
        """Return the representative of each unit."""
        roots = self.parent[ids]
        while True:
            above = self.parent[roots]
            if np.array_equal(above, roots):
                return roots
            roots = above

    def tie(self, first: Array, second: Array) -> None:
        """Make units the same, pair by pair."""
        while True:
            a, b = self.find(first), self.find(second)
            if np.array_equal(a, b):
                return
            np.minimum.at(self.parent, np.maximum(a, b), np.minimum(a, b))

    def pin(self, ids: Array, reason: str) -> None:
        """Note why the number of these units must stay; the first reason counts."""
        for unit in ids.tolist():
            self.reasons.setdefault(unit, reason)

    def pin_tensor(self, name: str, reason: str) -> None:
        """Pin the units that a tensor holds."""
        if name in self.tensors:
            self.pin(self.tensors[name].ids, reason)

    def pin_all(self, read: Sequence[Axis | None], reason: str) -> None:
        """Pin the units of several tensors."""
        for each in read:
            if each is not None:
                self.pin(each.ids, reason)

    def follow(self, step: Glue, name: str, shape: Sequence[int | None], at: Axis, rank: int) -> None:
        """Note a constant beside a tensor's units as a follower if it has one value for each unit."""
        axis = at.axis - (rank - len(shape))
        if axis < 0 or shape[axis] == 1:
            return
        if at.outer * at.inner > 1 or shape[axis] != len(at.ids):
            self.pin(at.ids, f"'{name}' has values for places and not for units ({node_of(step)})")
        elif name not in self.constants:
            self.pin(at.ids, f"'{name}', which has a value for each, is computed in the file ({node_of(step)})")
        else:
            self.followers.append((name, axis - len(shape), at.ids))

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        """The node of the file that writes each tensor."""
        return {name: node for node in self.frame.model.graph.node for name in node.output}

    @cached_property
    def _given(self) -> dict[str, onnx.TensorProto]:
        return constants_of(self.frame)

    def values(self, name: str) -> Array | None:
        """The values of a constant of the file, as ``own_values`` gives them."""
        if name in self.frame.arrays:
            return self.frame.arrays[name]
        return numpy_helper.to_array(self._given[name]) if name in self._given else None

    @cached_property
    def constants(self) -> dict[str, int]:
        """The file's constants, and how many nodes read each."""
        return _constants(self.frame)

    @cached_property
    def sizes(self) -> ToldSizes:
        """The places in the file that tell the sizes for a Reshape."""
        return ToldSizes(self.frame)

    def tie_followers(self) -> None:
        """Keep a constant that several nodes read as a follower if it follows the same units in all of them.

        Otherwise those units are pinned.
        """
        given: dict[str, list[tuple[int, Array]]] = {}
        for name, axis, ids in self.followers:
            given.setdefault(name, []).append((axis, ids))
        for name, uses in given.items():
            same = {(axis, self.find(ids).tobytes()) for axis, ids in uses}
            if len(uses) < self.constants[name] or len(same) > 1:
                for _, ids in uses:
                    self.pin(ids, f"'{name}', which has a value for each, is read elsewhere too")


def _constants(frame: Frame) -> dict[str, int]:
    """Initializers and outputs of Constant nodes, and how many nodes read each; a body's nodes count as their owner."""
    graph = frame.model.graph
    read: dict[str, int] = {}
    for node in graph.node:
        for name in inputs_of(node):
            read[name] = read.get(name, 0) + 1
    given = {tensor.name for tensor in graph.initializer} | set(frame.arrays)
    given |= {node.output[0] for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"}
    return {name: read.get(name, 0) for name in given}


def node_of(step: Glue) -> str:
    """What messages call the node."""
    return f"node '{step.node}'"
