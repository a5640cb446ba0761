"""Finds the layers of a canonical graph that are trained, and says why others stay as they are."""

from __future__ import annotations

from collections.abc import Collection

import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.bodies import READ_INSIDE
from onnxsurgeon.graph.canonical import LAYERS, PRODUCTS, explain, is_dense
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.chains import Chains
from onnxsurgeon.graph.fixed import fixed_matrix
from onnxsurgeon.graph.flow import Flow
from onnxsurgeon.graph.frozen_glue import frozen_dense
from onnxsurgeon.graph.glue import Glue, NotGlue, read_glue
from onnxsurgeon.graph.left_alone import Stop, asked_to_stay, frozen_layers, not_layers, open_sizes, stay, why_frozen
from onnxsurgeon.graph.notes import listed
from onnxsurgeon.graph.shared_weights import (
    read_by_gathers,
    sharing_weights,
    sharing_with_frozen,
    sharing_with_tables,
)

NEW_HEAD = "'onnxsurgeon head' puts new ones on it"


class Trainable:
    """Finds the layers that are trained.

    Attributes:
        flow: the graph.
        names: names of the file's tensors.
        source: the beginning of messages.
        frozen: names of layers that are to stay.
        held: names of tensors; layers that write them stay too.
        sharing: which layers share their weights.
        chains: how layers follow one another.
        fixed: frozen layers.
        tables: layers whose weights are tables that other nodes read too, and these nodes.
        partners: layers that stay since others with their weights do.
        unsized: convolutions that write heads of unknown size, which take no targets.
        notes: the layers that are left alone, and why.
        glue: the nodes that are trained through, by id.
        stops: the nodes that cannot be trained through.
    """

    def __init__(
        self, flow: Flow, names: Collection[str], source: str, frozen: Collection[str], held: Collection[str]
    ) -> None:
        self.flow, self.names, self.source, self.frozen, self.held = flow, names, source, frozen, held
        living = [node for node in flow.order if is_dense(node) and id(node) in flow.alive]
        self.sharing = sharing_weights(living)
        self.chains = Chains(flow, self.sharing)
        self.fixed: dict[int, gs.Node] = {}
        self.tables = read_by_gathers(flow.order, living, flow.moved)
        self.partners: dict[int, gs.Node] = {}
        self.unsized: dict[int, gs.Node] = {}
        self.notes: list[str] = []
        self.glue: dict[int, list[Glue]] = {}
        self.stops: list[Stop] = []

    def layers(self) -> dict[int, gs.Node]:
        """Dense nodes whose outputs lead to the model's outputs through nothing but glue and the suffix."""
        self.notes, self.glue, self.stops = [], {}, []
        found = {id(node): node for node in self.flow.order if is_dense(node)}
        if not found:
            raise ModelError(f"{self.source}: no dense layers found{self._nearly()}; {NEW_HEAD}", "no-layers")
        alive = self.flow.alive
        others = list(not_layers(self.flow.order, found.keys(), alive, self.flow.moved, self.flow.graph.outputs))
        self.fixed = {key: node for key, node in found.items() if self._is_frozen(node)}
        found = {key: node for key, node in found.items() if key not in self.fixed}
        if not found:
            raise ModelError(
                f"{self.source}: every dense layer is frozen: nothing is left to be trained", "nothing-to-train"
            )
        found = {key: node for key, node in found.items() if key in alive and key not in self.unsized}
        self.partners = {}
        found = self._without_fixed(found)
        reason = ""
        if self.unsized:
            names = [label(node) for node in self.unsized.values()]
            reason = f"the size of what {listed(names)} {'writes' if len(names) == 1 else 'write'} is not known"
            self.notes.append(f"{listed(names)} {stay(names)}: {reason}")
        while found := self._without_partners(found):
            trained = self.flow.downstream(found)
            before = self.flow.before(found)
            inside = {id(link.activation) for links in self.chains.of(found) for link in links}
            through = (trained & before) - inside - found.keys()
            between = [node for node in self.flow.order if id(node) in through]
            blocked = []
            for node in between:
                try:
                    self.glue[id(node)] = self.as_glue(node)
                except (NotGlue, ModelError) as problem:
                    blocked.append((node, str(problem)))
            if not blocked:
                cut_off = self._without_ends(found)
                if not cut_off:
                    break
                found = {key: dense for key, dense in found.items() if key not in cut_off}
                continue
            seen: set[int] = set()
            for node, why in blocked:
                frozen = self.flow.upstream(iter(self.flow.inputs[id(node)]), seen)
                behind = [label(dense) for key, dense in found.items() if key in frozen]
                if not behind:
                    continue  # a node before has frozen them already
                self.stops.append(Stop(node, why, behind))
                reason = why_frozen(self.stops[-1:])
                found = {key: dense for key, dense in found.items() if key not in frozen}
        kept = self._of_partners()
        if not found:
            reason = "; ".join(filter(None, [reason, *kept]))
            raise ModelError(
                f"{self.source}: no dense layer leads to an output of the model{reason and ': ' + reason}", "no-layers"
            )
        stopped = [*frozen_layers(self.stops), *open_sizes(self.flow.graph, self.stops)]
        self.notes[:0] = [*kept, *asked_to_stay(list(self.fixed.values())), *stopped, *others]
        return found

    def _without_partners(self, found: dict[int, gs.Node]) -> dict[int, gs.Node]:
        """The dense nodes without those that share their weights with a layer that stays; these stay too."""
        while True:
            broken = {number for key, number in self.sharing.one.items() if key not in found}
            lost = {key for key in found if key in self.tables or self.sharing.one.get(key) in broken}
            if not lost:
                return found
            self.partners |= {key: node for key, node in found.items() if key in lost}
            found = {key: node for key, node in found.items() if key not in lost}

    def _of_partners(self) -> list[str]:
        """Say why layers stay that share their weights with one that does."""
        by_table = [node for key, node in self.partners.items() if key in self.tables]
        others = [node for key, node in self.partners.items() if key not in self.tables]
        notes = [sharing_with_tables(by_table, [self.tables[id(node)] for node in by_table])] if by_table else []
        if others:
            numbers = {self.sharing.one[id(node)] for node in others}
            firsts = [node for node in self.flow.order if self.sharing.one.get(id(node)) in numbers]
            notes.append(sharing_with_frozen(others, [node for node in firsts if id(node) not in self.partners]))
        return notes

    def _is_frozen(self, node: gs.Node) -> bool:
        return label(node) in self.frozen or node.outputs[0].name in self.held

    def as_glue(self, node: gs.Node) -> list[Glue]:
        """Read a node that is trained through, which may be a layer that stays.

        Raises:
            NotGlue: it cannot be trained through.
            ModelError: it is not as ONNX demands.
        """
        is_still = id(node) in self.fixed or id(node) in self.partners
        return frozen_dense(node) if is_still and is_dense(node) else read_glue(node)

    def _without_fixed(self, found: dict[int, gs.Node]) -> dict[int, gs.Node]:
        """The dense nodes without constant matrices and filters on the model's input, which are noted."""
        kept = dict(found)
        before = self.flow.before(found)
        trained: set[int] = set()  # nodes that depend on a layer
        for node in self.flow.order:
            if not trained.isdisjoint(self.flow.sources[id(node)]):
                trained.add(id(node))
            elif id(node) in found:
                behind = self.flow.readers.get(id(node.outputs[0]), [])
                is_linear = not any(reader.op in ACTIVATIONS for reader in behind)
                what = fixed_matrix(node, is_linear=is_linear)
                if what and id(node) in before:  # a layer is behind it
                    del kept[id(node)]
                    self.notes.append(f"'{label(node)}' stays as it is: it is no trained layer but {what}")
                else:
                    trained.add(id(node))
        return kept

    def _without_ends(self, found: dict[int, gs.Node]) -> set[int]:
        """Dense nodes of segments that begin or end in the middle of a node of the file."""
        lost: set[int] = set()
        names = []
        for links in self.chains.of(found):
            if links[0].dense.attrs["entry"] not in self.names or links[-1].output.name not in self.names:
                names.append(label(links[-1].dense))
                lost.update(id(link.dense) for link in links)
        if names:
            what = "it" if len(names) == 1 else "them"
            self.notes.append(f"{listed(names)} {stay(names)}: the file computes {what} in one with other things")
        return lost

    def _nearly(self) -> str:
        """Say why the first node that looks like a dense layer is none."""
        for node in self.flow.order:
            if node.op in (*PRODUCTS, *LAYERS):
                reason = explain(node)
                op = node.attrs.get("op", node.op)
                return f": node '{label(node)}' ({op}) is not understood, since {reason}"
        bodies = [node for node in self.flow.order if READ_INSIDE in node.attrs]
        if bodies:
            return f" outside of the bodies of node '{label(bodies[0])}' ({bodies[0].op}), which are left alone"
        return ", neither Gemm, MatMul nor Conv with a constant weight"
