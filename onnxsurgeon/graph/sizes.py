"""Sizes of the tensors that a graph computes, known before anything runs it.

ONNX Runtime allocates whatever a graph asks for, partly while a session is made, and knows no limit. So the graph is
first walked node by node with the shapes alone: from the inputs' own, through onnx's shape inference, with the values
from which shapes are computed (``scope``).

One file: the walk is one, since bodies are walked as graphs are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference

from onnxsurgeon.bounds import (
    ADVICE,
    MAX_BODY_RUNS,
    MAX_LIVE_BYTES,
    MAX_TENSOR_ELEMENTS,
    MAX_WORK,
    MAX_WORK_SHARE,
    are_lifted,
)
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.huge_numbers import ALLOCATING, refuse_huge_numbers
from onnxsurgeon.graph.kept_types import kept_type
from onnxsurgeon.graph.repeated import Repeated, read_loop
from onnxsurgeon.graph.scope import SMALL, Scope, elements, follow, in_words, is_unknown
from onnxsurgeon.graph.structure import describe
from onnxsurgeon.graph.unknown_sizes import dims_of, foreign_types, most_elements
from onnxsurgeon.graph.work import RUN, temporary, work
from onnxsurgeon.linear_algebra import Array

MOST_FOLLOWED = 64  # runs of a body that are followed one by one
MOST_JOINED = 16  # runs of StringConcat, each of which may double the length of texts
_WIDTHS = {
    kind: np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize for kind in helper.get_all_tensor_dtypes() if kind
}


def largest_tensor(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, Array] | None = None,
    *,
    most: int = MAX_TENSOR_ELEMENTS,
    name: str = "model",
) -> int:
    """Number of elements of the largest tensor that ``model`` computes from inputs of these ``shapes``.

    All tensors together, the nodes that run inside bodies, and the work are bounded too. Nothing is looked at where
    bounds are lifted.

    Args:
        model: the model; its bulky initializers may be left out and given as ``arrays``.
        shapes: the shape of every input that is fed.
        arrays: initializers apart from the model.
        most: elements that a tensor may have.
        name: what errors start with.

    Raises:
        ModelError: a tensor has more elements, all together take too many bytes, a body runs too often, a
            node takes too long, or there is no telling; names the node.
    """
    if are_lifted():
        return 0
    return _walked(model, shapes, arrays or {}, most, name)[0].largest


def types_of(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array] | None = None
) -> dict[str, tuple[TypeProto, int]]:
    """Types of the tensors that ``model`` computes from inputs of these ``shapes``, and bounds on their elements.

    The arguments are those of ``largest_tensor``. A type holds only what is known of it.

    Raises:
        ModelError: as for ``largest_tensor``.
    """
    scope = _walked(model, shapes, arrays or {}, MAX_TENSOR_ELEMENTS, "model")[1]
    return {name: (kind, scope.count(name)) for name, kind in scope.types.items()}


def bytes_of(kind: TypeProto, at_most: int) -> int:
    """Bytes of a tensor of that type, with ``at_most`` elements where its size is not known."""
    size = elements(kind)
    return (at_most if size is None else size) * _WIDTHS.get(kind.tensor_type.elem_type, 8)


def _walked(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array], most: int, name: str
) -> tuple[_Walk, Scope]:
    """A walk through the model, and what is known after it."""
    scope, given = Scope(), model.ByteSize()
    for value in model.graph.input:
        kind = value.type
        if value.name in shapes:
            kind = helper.make_tensor_type_proto(kind.tensor_type.elem_type, shapes[value.name])
            given += bytes_of(kind, 0)
        scope.set(value.name, kind)
    for key, array in arrays.items():
        given += array.nbytes
        small = numpy_helper.from_array(np.ascontiguousarray(array), key) if array.size <= SMALL else None
        kind = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        scope.set(key, kind, small)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    walk = _Walk(versions, list(model.opset_import), model.ir_version, name, most, MAX_WORK + MAX_WORK_SHARE * given)
    walk.graph(model.graph, scope)
    return walk, scope


def rows_that_fit(
    model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]], rows: int, *, name: str = "model"
) -> int:
    """The number of rows that ``largest_tensor`` accepts at a time: ``rows``, or half of them, and so on.

    Args:
        model: the model.
        inputs: the shape of one row of every input.
        rows: how many there are.
        name: what errors start with.

    Raises:
        ModelError: not even one may be run.
    """
    rows = max(1, rows)
    while True:
        try:
            largest_tensor(model, {key: (rows, *shape) for key, shape in inputs.items()}, name=name)
        except ModelError:
            if rows == 1:
                raise
            rows //= 2
        else:
            return rows


@dataclass
class _Walk:
    """A walk through a graph, node by node, and what it has counted.

    Attributes:
        most_work: plain operations that all nodes together may take; see ``graph.work``.
        times: how often the body runs in which the walk is.
        largest: elements of the largest tensor.
        total: bytes of all tensors that are computed.
        runs: nodes that run inside bodies.
        joined: runs of StringConcat.
        work: plain operations that are done.
        sizes: of a type, by its id, how many elements a tensor of it has, if that is known.
    """

    versions: dict[str, int]
    imports: list[onnx.OperatorSetIdProto]
    ir_version: int
    name: str
    most: int
    most_work: int
    times: int = 1
    depth: int = 0
    largest: int = 0
    total: int = 0
    runs: int = 0
    joined: int = 0
    work: int = 0
    sizes: dict[int, tuple[TypeProto, int | None]] = field(default_factory=dict)

    def graph(self, graph: GraphProto, scope: Scope) -> None:
        """Walk through all nodes, and make their outputs known in ``scope``."""
        for tensor in graph.initializer:
            small = tensor if math.prod(tensor.dims) <= SMALL else None
            scope.set(tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims), small)
        for node in graph.node:
            self._node(node, scope)

    def _node(self, node: NodeProto, scope: Scope) -> None:
        if self.depth:
            self.runs += self.times
            if self.runs > MAX_BODY_RUNS:
                raise ModelError(
                    f"{self._where(node)}: the bodies of Loop and Scan run more than {MAX_BODY_RUNS:,} nodes; {ADVICE}",
                    "too-large",
                )
        kept = kept_type(node, scope.types.get)
        if kept is None or (size := self._size(kept)) is None:
            self._told(node, scope)
            follow(node, scope, self.imports, self.ir_version)
            return
        self._count(kept, size, node)
        self._work(node, [(kept, size)] * len(node.input), size)
        scope.keep(node.output[0], kept, size)
        if node.input[0] in scope.values:
            follow(node, scope, self.imports, self.ir_version)

    def _size(self, kind: TypeProto) -> int | None:
        """``elements`` of a type, which is kept: rows of many nodes pass on the same."""
        found = self.sizes.get(id(kind))
        if found is None:
            self.sizes[id(kind)] = found = kind, elements(kind)
        return found[1]

    def _where(self, node: NodeProto) -> str:
        return f"{self.name}: {describe(node)}"

    def _told(self, node: NodeProto, scope: Scope) -> None:
        """Make the node's outputs known."""
        where = self._where(node)
        self.joined += self.times if node.op_type == "StringConcat" else 0
        if self.joined > MOST_JOINED:
            raise ModelError(f"{where}: how long its texts become cannot be told before it runs; {ADVICE}", "too-large")
        refuse_huge_numbers(node, scope, where)
        types, counts = self._bodies(node, scope, where) if self._has_body(node) else ({}, [])
        read = [(scope.types.get(name, TypeProto()), scope.count(name)) for name in node.input if name]
        foreign, inferred = foreign_types(node, read), self._infer(node, scope)
        told = {name: kind for name, kind in inferred.items() if name not in foreign or dims_of(kind) is not None}
        types = {**foreign, **told, **types}
        at_most = max([most_elements(node, read), *counts])
        for output in node.output:
            if not output:
                continue
            kind = types.get(output, TypeProto())
            size = elements(kind)
            if size is None and node.op_type in ALLOCATING:
                raise ModelError(
                    f"{where}: how large its output becomes cannot be told before it runs; {ADVICE}", "too-large"
                )
            self._count(kind, at_most if size is None else size, node)
            scope.set(output, kind, None, at_most)
        if not self._has_body(node):
            self._work(node, read, sum(scope.count(output) for output in node.output if output))

    def _work(self, node: NodeProto, read: Sequence[tuple[TypeProto, int]], written: int) -> None:
        """Count what a node takes that runs ``times`` times."""
        self._take(temporary(node, read, written), node)
        self.work += self.times * (work(node, read, written) + (RUN if self.depth else 0))
        if self.work > self.most_work:
            raise ModelError(f"{self._where(node)}: with it, the model takes too long to run; {ADVICE}", "too-large")

    def _count(self, kind: TypeProto, size: int, node: NodeProto) -> None:
        """Count a tensor that the node writes ``times`` times."""
        if size > self.most:
            shape = f"shape {in_words(kind)}, of" if elements(kind) is not None else "up to"
            shape = (
                f"{shape} at most {self.most}"
                if "shape" in shape
                else f"{shape} {size} elements, of at most {self.most}"
            )
            raise ModelError(f"{self._where(node)}: its output is too large: {shape} elements; {ADVICE}", "too-large")
        self.largest = max(self.largest, size)
        self._take(self.times * size * _WIDTHS.get(kind.tensor_type.elem_type, 8), node)

    def _take(self, size: int, node: NodeProto) -> None:
        """Count bytes that are in memory."""
        self.total += size
        if self.total > MAX_LIVE_BYTES:
            raise ModelError(
                f"{self._where(node)}: with it, the tensors that are computed take more than {MAX_LIVE_BYTES:,} bytes, "
                f"so they are too large; {ADVICE}",
                "too-large",
            )

    def _bodies(self, node: NodeProto, scope: Scope, where: str) -> tuple[dict[str, TypeProto], list[int]]:
        """Walk through the graphs that a node holds; return its outputs' types, or their numbers of elements."""
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        self.depth += 1
        found: dict[str, TypeProto] = {}
        counts: list[int] = []
        if node.op_type in ("Loop", "Scan", "SequenceMap"):
            loop = read_loop(node, scope.value, scope.types.get, self.versions.get("", 1))
            if loop is None:
                raise ModelError(f"{where}: how often it runs cannot be told before it runs; {ADVICE}", "too-large")
            found = self._loop(loop, scope, where)
        else:
            for body in bodies:
                inner = scope.inner()
                for value in body.input:
                    inner.set(value.name, value.type)
                self.graph(body, inner)
                counts += [inner.count(value.name) for value in body.output]
        self.depth -= 1
        return found, counts

    def _loop(self, loop: Repeated, scope: Scope, where: str) -> dict[str, TypeProto]:
        """Walk through a body once if the carried tensors keep their shapes, or else run by run if its runs are few."""
        outer, carried, counts = self.times, loop.carried, [scope.count(name) for name in loop.carried_from]
        values = [scope.value(name) for name in loop.carried_from]
        before = self.largest, self.total, self.runs, self.joined, self.work
        inner = scope
        try:
            inner = self._once(loop, scope, carried, [None] * len(values), counts, None, outer * loop.trips)
            same = [inner.types.get(name, TypeProto()) for name in loop.carried_to] == carried
            same = same and all(inner.count(name) <= n for name, n in zip(loop.carried_to, counts, strict=True))
        except ModelError:
            if loop.trips > MOST_FOLLOWED:
                raise
            same = False
        if loop.trips and not same:
            self.largest, self.total, self.runs, self.joined, self.work = before
            if loop.trips > MOST_FOLLOWED or not loop.runs_all:
                raise ModelError(
                    f"{where}: what it carries changes its size, and it runs {loop.trips:,} times; {ADVICE}",
                    "too-large",
                )
            for trip in range(loop.trips):
                inner = self._once(loop, scope, carried, values, counts, trip, outer)
                carried = [inner.types.get(name, TypeProto()) for name in loop.carried_to]
                values = [inner.value(name) for name in loop.carried_to]
                counts = [inner.count(name) for name in loop.carried_to]
        self.times = outer
        found = dict(zip(loop.outputs, carried, strict=False))
        scanned = loop.scanned_to if loop.runs_all else []
        for output, written in zip(loop.outputs[len(carried) :], scanned, strict=False):
            kind = inner.types.get(written, TypeProto())
            if not is_unknown(kind):
                sizes = [dim.dim_value for dim in kind.tensor_type.shape.dim]
                found[output] = helper.make_tensor_type_proto(kind.tensor_type.elem_type, [loop.trips, *sizes])
        return found

    def _once(
        self,
        loop: Repeated,
        scope: Scope,
        carried: Sequence[TypeProto],
        values: Sequence[TensorProto | None],
        counts: Sequence[int],
        trip: int | None,
        times: int,
    ) -> Scope:
        """The body's scope after one run, which counts ``times`` times; ``trip`` is its number, None for any."""
        inner, self.times = scope.inner(), times
        for name, kind in loop.given.items():
            inner.set(name, kind)
        if trip is not None and loop.counter:
            number = numpy_helper.from_array(np.array(trip, np.int64), loop.counter)
            inner.set(loop.counter, loop.given[loop.counter], number)
        for name, kind, value, count in zip(loop.carried_in, carried, values, counts, strict=True):
            inner.set(name, kind, value, count)
        self.graph(loop.body, inner)
        return inner

    def _infer(self, node: NodeProto, scope: Scope) -> dict[str, TypeProto]:
        """Types of the node's outputs, as far as onnx can tell."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, self.versions.get(domain, 1), domain)
            read = [name for name in node.input if name]
            seen = [name for name in inputs_of(node) if name in scope.types] if self._has_body(node) else read
            types = {name: scope.types[name] for name in seen}
            data = {name: value for name in read if (value := scope.value(name)) is not None}
            return dict(shape_inference.infer_node_outputs(schema, node, types, data, None, self.imports))
        except Exception:  # no schema, or a node that the runtime will refuse
            return {}

    @staticmethod
    def _has_body(node: NodeProto) -> bool:
        return any(attribute.HasField("g") for attribute in node.attribute)
