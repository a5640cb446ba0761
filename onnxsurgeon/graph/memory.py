"""The memory that a model's tensors take at once while one row is computed, estimated from shapes alone.

It is what a runtime for small devices has to set aside beside the weights: at every node in the file's order, the
tensors that it reads and writes, and those that a later node still reads. The estimate does not include what a kernel
needs while it computes.

- One row: an input's first axis is 1 where the file leaves it open. A batch that the file fixes stays as it is.
- An input is alive from the start to its last reader, an output from its node to the end.
- A tensor overwrites the one before it where the node works value by value (an activation, an Add of equal shapes) or
  only gives another shape (Reshape, Flatten), and nothing else reads that one. Nothing else is reused.
- Weights, and whatever is computed from constants alone, take none. Neither do the insides of If, Loop and Scan, nor
  values that are no tensors, such as a ZipMap's output.
- Each tensor counts with its bytes by its type in the file. Where an operator that is not ONNX's own does not tell its
  output's size, the largest possible size counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.files import Parts
from onnxsurgeon.graph.importing import without_collecting
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.sizes import bytes_of, types_of
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.linear_algebra import Array

# Their output overwrites their input if it has the same shape and type and no other node reads the input.
_IN_PLACE = (
    frozenset(
        """Abs Add BatchNormalization Ceil Clip Cos Div Dropout Erf Exp Flatten Floor Identity Log Max Min Mul Neg Pow
        Reciprocal Reshape Round Sign Sin Sqrt Squeeze Sub Sum Unsqueeze""".split()  # noqa: SIM905
    )
    | ACTIVATIONS.keys()
)
_VIEWS = frozenset(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))


@dataclass(frozen=True)
class Liveness:
    """The time during which each tensor is in memory.

    Attributes:
        spans: the first and the last node, in the file's order, at which each buffer is in memory (buffers, 2).
        names: the tensor for which each buffer was made.
        sizes: bytes of each buffer (buffers,).
        where: the name of each node.
    """

    spans: Array
    names: tuple[str, ...]
    sizes: Array
    where: tuple[str, ...]

    def at_nodes(self, values: Array) -> Array:
        """Sums of a buffer's values (buffers, …) over those in memory at each node (nodes, …)."""
        changes = np.zeros((len(self.where) + 1, *values.shape[1:]))
        np.add.at(changes, self.spans[:, 0], values)
        np.add.at(changes, np.minimum(self.spans[:, 1] + 1, len(self.where)), -values)
        return np.asarray(changes.cumsum(axis=0)[:-1])

    @property
    def peak(self) -> int:
        """Bytes of the tensors at the node where they take the most."""
        return int(self.at_nodes(self.sizes).max(initial=0))

    @property
    def at(self) -> str:
        """The name of the node where they take the most; "" where there is none."""
        return self.where[int(np.argmax(self.at_nodes(self.sizes)))] if self.where else ""


def liveness(network: Network) -> Liveness | None:
    """Tell when each tensor of a network's file is in memory; None where an input's size is not known."""
    with without_collecting():
        return _of_parts(to_parts(network, casts=False))


def _of_parts(parts: Parts) -> Liveness | None:
    steps = [_Step.of(node) for node in parts.skeleton.graph.node]
    sizes = _bytes_by_name(parts, steps)
    return None if sizes is None else _liveness(parts.skeleton.graph, steps, sizes)


class _Step(NamedTuple):
    """A node's operator, "" for none of ONNX's own, its name, and the names of what it reads and writes."""

    op: str
    name: str
    reads: list[str]
    writes: list[str]

    @classmethod
    def of(cls, node: onnx.NodeProto) -> _Step:
        """What matters of a node."""
        is_own = node.domain in ("", "ai.onnx")
        return cls(node.op_type if is_own else "", node.name, inputs_of(node), list(node.output))


def peak_memory(network: Network) -> int | None:
    """The largest number of bytes in memory at once for one row; None where an input's size is not known."""
    found = liveness(network)
    return None if found is None else found.peak


def _bytes_by_name(parts: Parts, steps: Sequence[_Step]) -> dict[str, tuple[int, tuple[object, ...]]] | None:
    """Bytes, and type and shape, of every tensor that depends on an input; None where an input's size is not known."""
    graph = parts.skeleton.graph
    constants = {*parts.arrays, *(tensor.name for tensor in graph.initializer)}
    shapes: dict[str, tuple[int, ...]] = {}
    for value in graph.input:
        if value.name in constants or not value.type.HasField("tensor_type"):
            continue
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]
        shape = tuple(1 if not axis and size <= 0 else size for axis, size in enumerate(sizes))
        if not value.type.tensor_type.HasField("shape") or any(size <= 0 for size in shape):
            return None
        shapes[value.name] = shape
    try:
        types = types_of(parts.skeleton, shapes, parts.arrays)
    except ModelError:  # it is too large to be run, or its sizes are not known
        return None
    found: dict[str, tuple[int, tuple[object, ...]]] = {}
    wanted, read = {*shapes}, {value.name for value in graph.output}.union(*[step.reads for step in steps])
    for _, _, reads, writes in steps:
        if not wanted.isdisjoint(reads):
            wanted.update([name for name in writes if name in read])
    seen: dict[tuple[int, int], tuple[int, tuple[object, ...]]] = {}  # of types, many tensors have the same
    unknown = onnx.TypeProto()
    for name in wanted:
        kind, at_most = types.get(name, (unknown, 0))
        key = id(kind), at_most
        known = seen.get(key)
        if known is None and kind.WhichOneof("value") in (None, "tensor_type"):
            row = _of_one_row(kind)
            dims = tuple(dim.dim_value for dim in row.tensor_type.shape.dim)
            known = seen[key] = bytes_of(row, at_most), (row.tensor_type.elem_type, dims)
        if known is not None:
            found[name] = known
    return found


def _of_one_row(kind: onnx.TypeProto) -> onnx.TypeProto:
    """The type, with a first axis of 1 where that is not known, as it is for the batch behind foreign operators."""
    dims = kind.tensor_type.shape.dim
    if not dims or dims[0].HasField("dim_value"):
        return kind
    found = onnx.TypeProto()
    found.CopyFrom(kind)
    found.tensor_type.shape.dim[0].dim_value = 1
    return found


def _liveness(
    graph: onnx.GraphProto, steps: Sequence[_Step], tensors: dict[str, tuple[int, tuple[object, ...]]]
) -> Liveness:
    steps = [step for step in steps if not tensors.keys().isdisjoint(step.writes)]
    last: dict[str, int] = {}  # the last node that reads each tensor
    for number, step in enumerate(steps):
        for name in step.reads:
            last[name] = number
    last.update(dict.fromkeys((value.name for value in graph.output), len(steps)))
    buffer: dict[str, int] = {}
    names: list[str] = []
    spans: list[list[int]] = []  # the first and the last node at which each buffer is in memory

    def add(name: str, step: int) -> None:
        buffer[name] = len(names)
        names.append(name)
        spans.append([step, max(step, last.get(name, step))])

    for value in graph.input:
        if value.name in tensors:
            add(value.name, 0)
    given = set(buffer)
    for number, step in enumerate(steps):
        for position, name in enumerate(step.writes):
            if name not in tensors:
                continue
            over = None if position else _written_over(step, name, tensors, last, number)
            # An input belongs to the caller: it is not written over, but may be looked at in another shape.
            if over is None or (over in given and step.op not in _VIEWS):
                add(name, number)
                continue
            buffer[name] = buffer[over]
            spans[buffer[name]][1] = max(number, last.get(name, number))
            if over in given:
                given.add(name)
    sizes = np.array([tensors[name][0] for name in names], dtype=float)
    where = tuple([name or writes[0] for _, name, _, writes in steps])
    return Liveness(np.array(spans, dtype=int).reshape(-1, 2), tuple(names), sizes, where)


def _written_over(
    step: _Step,
    output: str,
    tensors: dict[str, tuple[int, tuple[object, ...]]],
    last: dict[str, int],
    number: int,
) -> str | None:
    """The tensor whose place the node's output takes; None where it needs a place of its own."""
    if step.op not in _IN_PLACE:
        return None
    is_view, (wanted, form) = step.op in _VIEWS, tensors[output]
    for name in step.reads[:1] if is_view or step.op == "BatchNormalization" else step.reads:
        if name not in tensors or last[name] != number:
            continue
        size, kind_and_shape = tensors[name]
        if size == wanted if is_view else kind_and_shape == form:
            return name
    return None
