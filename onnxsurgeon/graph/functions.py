"""Checks that local functions end, since onnx's own code follows their calls without a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, ModelProto, NodeProto

from onnxsurgeon.bounds import ADVICE, MAX_CALL_DEPTH, MAX_INLINED_NODES, bound
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.declared import subgraphs

Key = tuple[str, str, str]


def check_functions(model: ModelProto, name: str) -> None:
    """Check that no local function calls itself, and that all calls written out give a graph of sensible size.

    Raises:
        ModelError: the text starts with ``name``.
    """
    bodies: dict[Key, FunctionProto] = {}
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        if key in bodies:
            raise ModelError(
                f"{name}: two local functions are called '{function.name}' in domain '{function.domain}'",
                "damaged-model",
            )
        bodies[key] = function
    if bodies:
        expansion = _Expansion(bodies, name)
        for key in bodies:
            expansion.of(key, ())
        expansion.sum_up(model.graph.node, ())


class _Expansion:
    """For each function, the number of nodes and the depth of calls with all its calls written out."""

    def __init__(self, bodies: dict[Key, FunctionProto], name: str) -> None:
        self._bodies = bodies
        self._name = name
        self._known: dict[Key, tuple[int, int]] = {}

    def of(self, key: Key, callers: tuple[Key, ...]) -> tuple[int, int]:
        if key in callers:
            raise ModelError(f"{self._name}: local function '{key[1]}' calls itself", "damaged-model")
        if len(callers) > bound(MAX_CALL_DEPTH):
            self._too_deep()
        if key not in self._known:
            self._known[key] = self.sum_up(self._bodies[key].node, (*callers, key))
        return self._known[key]

    def sum_up(self, nodes: Iterable[NodeProto], callers: tuple[Key, ...]) -> tuple[int, int]:
        total = deepest = 0
        for node in _all_nodes(nodes):
            total += 1
            key = (node.domain, node.op_type, node.overload)
            if key in self._bodies:
                size, depth = self.of(key, callers)
                total, deepest = total + size, max(deepest, depth + 1)
            if total > bound(MAX_INLINED_NODES):
                raise ModelError(
                    f"{self._name}: with its local functions written out, it has over {MAX_INLINED_NODES} nodes; "
                    f"{ADVICE}",
                    "too-large",
                )
        if deepest > bound(MAX_CALL_DEPTH):
            self._too_deep()
        return total, deepest

    def _too_deep(self) -> None:
        raise ModelError(
            f"{self._name}: local functions call one another more than {MAX_CALL_DEPTH} deep; {ADVICE}", "too-large"
        )


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                for graph in subgraphs(attribute):
                    yield from _all_nodes(graph.node)
