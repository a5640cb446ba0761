"""The frame around the segments: the user's own nodes, and how training passes through them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxsurgeon.graph.frozen import Frozen
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.linear_algebra import Array

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Head:
    """A tensor that is trained towards targets: logits, or a regression's prediction.

    Attributes:
        tensor: its name.
        width: size of its last axis.
        squash: the function that the suffix applies to it, "Softmax" or "Sigmoid"; "" for neither.
        readers: op types of the nodes that read it.
        labels: the class labels to which the suffix maps it, where it does.
        rank: its number of axes.
        obstacle: why training stops there and not at an output, where a node that reads it cannot be trained through.
    """

    tensor: str
    width: int
    squash: str = ""
    readers: tuple[str, ...] = ()
    labels: tuple[int, ...] | tuple[str, ...] = ()
    rank: int = 2
    obstacle: str = ""


@dataclass(frozen=True, eq=False)
class Trunk:
    """The part of the model that is trained: segments, and the glue between and behind them.

    Attributes:
        features: name → shape without the batch axis of every tensor that enters from the prefix; None where unknown.
        steps: in the order of computation, the number of a segment or a glue node.
        constants: values that glue nodes read, by name.
        heads: the tensors that are trained towards targets.
    """

    features: Mapping[str, Shape]
    steps: tuple[int | Glue, ...]
    heads: tuple[Head, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything in it: equal trunks make equal training graphs."""
        digest = hashlib.sha256(repr((list(self.features.items()), self.heads)).encode())
        for step in self.steps:
            digest.update(repr(step if isinstance(step, int) else step.signature).encode())
        for name, values in self.constants.items():
            digest.update(
                repr((name, values.shape, values.dtype.str)).encode() + np.ascontiguousarray(values).tobytes()
            )
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Frame:
    """The user's model without the segments' nodes and weights. It is never changed after reading.

    Attributes:
        model: that model, without its bulky tensors.
        positions: for each segment, its place in the list of nodes.
        trunk: the part that is trained, with the segments as steps.
        prefix: positions in the list of nodes of those on which the trunk's features depend.
        arrays: the bulky tensors, by name.
        external: whether the file keeps tensors as external data.
        headers: the file's initializers without their values, in its order; see ``Parts``.
        notes: sentences about what is not operated on or was untied, and why.
        remarks: doc strings and metadata of the segments' nodes, by node name.
        overridable: initializers of the segments that the file lists among its inputs too.
        takes_one_row: whether the model has no batch axis and is run row by row. In the trunk all tensors have one.
        frozen: the layers and tensors that are neither trained nor operated on, as the file's metadata says.
        turned: names of tensors whose first axis in the file is not the rows; in the trunk it is.
    """

    model: onnx.ModelProto
    positions: tuple[int, ...]
    trunk: Trunk
    prefix: tuple[int, ...] = ()
    arrays: Mapping[str, Array] = field(default_factory=dict)
    external: bool = False
    headers: Mapping[str, onnx.TensorProto] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remarks: Mapping[str, onnx.NodeProto] = field(default_factory=dict)
    overridable: frozenset[str] = frozenset()
    takes_one_row: bool = False
    frozen: Frozen = field(default_factory=Frozen)
    turned: frozenset[str] = frozenset()

    @property
    def opset(self) -> int:
        """Version of ONNX's own operator set."""
        return next(int(entry.version) for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    @property
    def prefix_nodes(self) -> list[onnx.NodeProto]:
        """The nodes on which the trunk's features depend."""
        return [self.model.graph.node[index] for index in self.prefix]

    @property
    def suffix(self) -> tuple[str, ...]:
        """Op types of the nodes that read the heads."""
        return tuple(op for head in self.trunk.heads for op in head.readers)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name in the graph, of nodes and of tensors."""
        graph = self.model.graph
        names = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
        names.update(tensor.name for tensor in graph.initializer)
        for node in graph.node:
            names.update((node.name, *node.input, *node.output))
        return frozenset({*names, *self.arrays, *self.trunk.constants})
