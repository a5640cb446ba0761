"""Find what can be trained in a canonical graph: dense segments, the glue between them, features and heads.

One file: segments, glue and heads are found in one walk, each by what the others are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeGuard

import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.bodies import READ_INSIDE
from onnxsurgeon.graph.canonical import LAYERS, PRODUCTS, constant_values, explain, geometry_of, is_dense
from onnxsurgeon.graph.ends import is_mere_shape, is_obstacle, require_width, with_columns
from onnxsurgeon.graph.fixed import fixed_matrix
from onnxsurgeon.graph.glue import SQUASHES, Glue, NotGlue, data_inputs, read_glue, shape_of
from onnxsurgeon.graph.glue_readers import frozen_dense
from onnxsurgeon.graph.left_alone import (
    Stop,
    asked_to_stay,
    ends_of_training,
    frozen_layers,
    not_layers,
    open_sizes,
    stay,
    why_frozen,
)
from onnxsurgeon.graph.links import Link, is_by_unit, may_follow
from onnxsurgeon.graph.normal_form import in_order, label, reads
from onnxsurgeon.graph.notes import depends_on_input, idle_ends, listed, pinned_widths, summed_widths
from onnxsurgeon.graph.outputs import heads_of, without_targets
from onnxsurgeon.graph.shared_weights import (
    SharedWeights,
    ends_of_sharing,
    read_by_gathers,
    sharing_weights,
    sharing_with_frozen,
    sharing_with_tables,
)

NEW_HEAD = "'onnxsurgeon head' puts new ones on it"


@dataclass(eq=False)
class Structure:
    """What was found; tensors and nodes are those of the canonical graph.

    Attributes:
        segments: in the order of computation.
        readers: of a segment whose last layer several layers read, by its number, those layers: they are one more
            layer of it, side by side.
        steps: a segment's number or glue, in the order of computation.
        heads: the trained tensors that the outputs are computed from, in the order of these.
        features: tensors that enter from the prefix.
        constants: constants that glue reads.
        widths: says why widths stay, but for those of the dense nodes whose ids it is given.
        notes: what is left alone, and why.
        ends: what is to be said of the model's inputs and outputs.
        stopped: why training stops at a head, where what reads it cannot be trained through.
        shared: the layers that share their weights.
    """

    segments: list[list[Link]]
    steps: list[int | Glue]
    heads: list[gs.Variable]
    features: list[gs.Tensor]
    constants: list[gs.Constant]
    widths: Callable[[Collection[int]], Iterator[str]]
    notes: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    readers: dict[int, list[Link]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    shared: SharedWeights = field(default_factory=lambda: SharedWeights({}, {}, frozenset()))


def find_structure(
    graph: gs.Graph, names: Collection[str], source: str, frozen: Collection[str] = (), held: Collection[str] = ()
) -> Structure:
    """The structure of the canonical ``graph`` of a file in which tensors have these ``names``.

    Layers called as one of ``frozen``, or whose output is among the tensors ``held``, stay as they are; what is before
    them is trained through them.

    Raises:
        ModelError: nothing in it can be trained; says why.
    """
    return _Search(graph, names, source, frozen, held).structure()


class _Search:
    def __init__(
        self, graph: gs.Graph, names: Collection[str], source: str, frozen: Collection[str], held: Collection[str]
    ) -> None:
        self.graph, self.names, self.source = graph, names, source
        self.frozen, self.held = frozen, held
        self.fixed: dict[int, gs.Node] = {}  # frozen layers
        self.order = in_order(graph)
        read = {id(node): reads(node) for node in self.order}
        self.places = {id(node): place for place, node in enumerate(self.order)}
        self.flow = {id(node): data_inputs(node, read[id(node)]) for node in self.order}
        # The nodes that write what flows through each.
        self.sources = {
            key: [id(producer) for tensor in tensors for producer in tensor.inputs]
            for key, tensors in self.flow.items()
        }
        self.outputs = {id(tensor) for tensor in graph.outputs}
        self.readers: dict[int, list[gs.Node]] = {}
        for node in self.order:
            if node.op == "Softmax":  # the default depends on the opset, which a node does not know
                node.attrs.setdefault("axis", -1 if int(graph.opset or 0) >= 13 else 1)
            for tensor in read[id(node)]:
                self.readers.setdefault(id(tensor), []).append(node)
        self.moved = depends_on_input(graph, self.order)
        alive = self._upstream(tensor for tensor in graph.outputs)
        living = [node for node in self.order if is_dense(node) and id(node) in alive]
        self.sharing = sharing_weights(living)
        self.tables = read_by_gathers(self.order, living, self.moved)  # layers whose weights such nodes read too
        self.partners: dict[int, gs.Node] = {}  # layers with the weights of what stays
        self.notes: list[str] = []
        self.glue: dict[int, list[Glue]] = {}
        # Nodes behind the last layers before which training stops, and why.
        self.obstacles: dict[int, tuple[gs.Node, str]] = {}
        self.stops: list[Stop] = []
        # Convolutions that write heads of unknown size, which take no targets.
        self.unsized: dict[int, gs.Node] = {}

    def structure(self) -> Structure:
        while True:
            dense = self._trainable()
            trunk = self._trunk(dense)
            heads = heads_of(self.graph, self.order, trunk, dense)
            if not self._without_unsized(heads):
                break
        trunk &= self._upstream(tensor for tensor in heads) | dense.keys()
        apart = self._segments(dense)
        shared = self._shared(apart)
        together = {id(link.dense) for links in shared.values() for link in links}
        segments = [links for links in apart if id(links[0].dense) not in together]
        readers = {
            number: shared[id(links[0].dense)] for number, links in enumerate(segments) if id(links[0].dense) in shared
        }
        inside = {id(node) for links in apart for link in links for node in (link.dense, link.activation) if node}
        steps: list[int | Glue] = []
        numbers = {id(links[0].dense): number for number, links in enumerate(segments)}
        for node in self.order:
            if id(node) in numbers:
                steps.append(numbers[id(node)])
                steps += pieces(segments[numbers[id(node)]], readers.get(numbers[id(node)], []))
            elif id(node) in trunk and id(node) not in inside:
                steps += self.glue[id(node)]
        steps = with_columns(steps, {tensor.name for tensor in heads if len(tensor.shape or (0, 0)) == 1})
        features, constants = self._entering(steps, segments, readers)
        leading = self._upstream(tensor for node in dense.values() for tensor in node.inputs)
        alone = [links for links in apart if id(links[0].dense) not in shared]
        stopped = self._stopped(heads)
        ends = [
            *summed_widths(self.graph, alone, self.readers, leading),
            *idle_ends(self.graph, self.moved),
            *ends_of_training(list({id(node): (node, why) for node, why in stopped.values()}.values())),
            *without_targets(self.graph, self.order, heads, dense, self.moved),
        ]
        widths = partial(pinned_widths, self.graph, alone, self.readers, leading, self.sharing.alike.keys())
        return Structure(
            *(segments, steps, heads, features, constants, widths, self.notes, ends, readers),
            _told(stopped),
            self.sharing,
        )

    def _without_unsized(self, heads: list[gs.Variable]) -> bool:
        """Look at the convolutions no more that write heads of unknown size; whether there are any."""
        found = [
            node for tensor in heads for node in tensor.inputs if geometry_of(node) is not None and _is_unsized(tensor)
        ]
        self.unsized |= {id(node): node for node in found}
        return bool(found)

    def _stopped(self, heads: list[gs.Variable]) -> dict[str, tuple[gs.Node, str]]:
        """For each head that something reads which cannot be trained through, the node and why."""
        found = {}
        for tensor in heads:
            behind = (self.obstacles.get(id(node)) for node in self.readers.get(id(tensor), ()))
            first = next(filter(None, behind), None)
            if first is not None:
                found[tensor.name] = first
        return found

    def _entering(
        self, steps: list[int | Glue], segments: list[list[Link]], readers: dict[int, list[Link]]
    ) -> tuple[list[gs.Tensor], list[gs.Constant]]:
        """What the steps read and do not make: features, and constants that glue reads."""
        tensors = {tensor.name: tensor for node in self.order for tensor in node.inputs}
        made: set[str] = set()
        features: dict[str, gs.Tensor] = {}
        constants: dict[str, gs.Constant] = {}
        for step in steps:
            links = segments[step] if isinstance(step, int) else []
            read = [links[0].dense.inputs[0].name] if isinstance(step, int) else step.inputs
            for name in read:
                if name not in made:
                    (constants if isinstance(tensors[name], gs.Constant) else features)[name] = tensors[name]
            made.add(written_by(links, readers.get(step, [])) if isinstance(step, int) else step.output)
        return list(features.values()), list(constants.values())

    # Which dense nodes can be trained.

    def _trainable(self) -> dict[int, gs.Node]:
        """Dense nodes whose outputs lead to the model's outputs through nothing but glue and the suffix."""
        self.notes, self.glue, self.obstacles, self.stops = [], {}, {}, []
        found = {id(node): node for node in self.order if is_dense(node)}
        if not found:
            raise ModelError(f"{self.source}: no dense layers found{self._nearly()}; {NEW_HEAD}", "no-layers")
        alive = self._upstream(tensor for tensor in self.graph.outputs)
        others = list(not_layers(self.order, found.keys(), alive, self.moved, self.graph.outputs))
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
            trained = self._downstream(found)
            before = self._upstream(t for node in found.values() for t in node.inputs)
            inside = {id(link.activation) for links in self._segments(found) for link in links}
            through = (trained & before) - inside - found.keys()
            between = [node for node in self.order if id(node) in through]
            blocked = []
            for node in between:
                try:
                    self.glue[id(node)] = self._as_glue(node)
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
                frozen = self._upstream(iter(self.flow[id(node)]), seen)
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
        stopped = [*frozen_layers(self.stops), *open_sizes(self.graph, self.stops)]
        self.notes[:0] = [*kept, *asked_to_stay(list(self.fixed.values())), *stopped, *others]
        return found

    def _without_partners(self, found: dict[int, gs.Node]) -> dict[int, gs.Node]:
        """The dense nodes but for those that share their weights with what stays: these stay too."""
        while True:
            broken = {number for key, number in self.sharing.one.items() if key not in found}
            lost = {key for key in found if key in self.tables or self.sharing.one.get(key) in broken}
            if not lost:
                return found
            self.partners |= {key: node for key, node in found.items() if key in lost}
            found = {key: node for key, node in found.items() if key not in lost}

    def _of_partners(self) -> list[str]:
        """Why the layers stay that share their weights with what does."""
        by_table = [node for key, node in self.partners.items() if key in self.tables]
        others = [node for key, node in self.partners.items() if key not in self.tables]
        notes = [sharing_with_tables(by_table, [self.tables[id(node)] for node in by_table])] if by_table else []
        if others:
            numbers = {self.sharing.one[id(node)] for node in others}
            firsts = [node for node in self.order if self.sharing.one.get(id(node)) in numbers]
            notes.append(sharing_with_frozen(others, [node for node in firsts if id(node) not in self.partners]))
        return notes

    def _is_frozen(self, node: gs.Node) -> bool:
        return label(node) in self.frozen or node.outputs[0].name in self.held

    def _as_glue(self, node: gs.Node) -> list[Glue]:
        is_still = id(node) in self.fixed or id(node) in self.partners
        return frozen_dense(node) if is_still and is_dense(node) else read_glue(node)

    def _without_fixed(self, found: dict[int, gs.Node]) -> dict[int, gs.Node]:
        """The dense nodes but for constant matrices on the model's input; these are noted."""
        kept = dict(found)
        before = self._upstream(tensor for node in found.values() for tensor in self.flow[id(node)])
        trained: set[int] = set()  # nodes that depend on a layer
        for node in self.order:
            if not trained.isdisjoint(self.sources[id(node)]):
                trained.add(id(node))
            elif id(node) in found:
                behind = self.readers.get(id(node.outputs[0]), [])
                is_linear = not any(reader.op in ACTIVATIONS for reader in behind)
                what = "" if geometry_of(node) else fixed_matrix(node, is_linear=is_linear)
                if what and id(node) in before:  # a layer is behind it
                    del kept[id(node)]
                    self.notes.append(f"'{label(node)}' stays as it is: it is no trained layer but {what}")
                else:
                    trained.add(id(node))
        return kept

    def _without_ends(self, found: dict[int, gs.Node]) -> set[int]:
        """Dense nodes of segments that begin or end in the middle of what the file has as one node."""
        lost: set[int] = set()
        names = []
        for links in self._segments(found):
            if links[0].dense.attrs["entry"] not in self.names or links[-1].output.name not in self.names:
                names.append(label(links[-1].dense))
                lost.update(id(link.dense) for link in links)
        if names:
            what = "it" if len(names) == 1 else "them"
            self.notes.append(f"{listed(names)} {stay(names)}: the file computes {what} in one with other things")
        return lost

    def _nearly(self) -> str:
        """Why the first node that looks like a dense layer is none."""
        for node in self.order:
            if node.op in (*PRODUCTS, *LAYERS):
                reason = explain(node)
                op = node.attrs.get("op", node.op)
                return f": node '{label(node)}' ({op}) is not understood, since {reason}"
        bodies = [node for node in self.order if READ_INSIDE in node.attrs]
        if bodies:
            return f" outside of the bodies of node '{label(bodies[0])}' ({bodies[0].op}), which are left alone"
        return ", neither Gemm, MatMul nor Conv with a constant weight"

    def _downstream(self, start: dict[int, gs.Node]) -> set[int]:
        """Nodes that depend on the output of a node of ``start``, those themselves included."""
        found = set(start)
        for key, sources in self.sources.items():
            if key not in found and not found.isdisjoint(sources):
                found.add(key)
        return found

    def _upstream(self, tensors: Iterator[gs.Tensor], seen: set[int] | None = None) -> set[int]:
        """Nodes that the tensors depend on; without those in ``seen``, to which they are added."""
        found: set[int] = set()
        seen = set() if seen is None else seen
        todo = [id(producer) for tensor in tensors for producer in tensor.inputs]
        while todo:
            key = todo.pop()
            if key not in seen:
                seen.add(key)
                found.add(key)
                todo += self.sources[key]
        return found

    # What is trained through.

    def _trunk(self, dense: dict[int, gs.Node]) -> set[int]:
        """Dense nodes, the glue between them, and the glue behind them up to the suffix."""
        trained = self._downstream(dense)
        before = self._upstream(t for node in dense.values() for t in node.inputs)
        trunk = set(dense) | (trained & before)
        for node in self.order:
            if id(node) in trunk or id(node) not in trained:
                continue
            sources = [source for source in self.sources[id(node)] if source in trained]
            if trunk.issuperset(sources) and not self._ends(node, trained):
                try:
                    self.glue[id(node)] = self._as_glue(node)
                except (NotGlue, ModelError) as problem:
                    if is_obstacle(node):
                        self.obstacles[id(node)] = node, str(problem)
                    continue  # the suffix begins here
                trunk.add(id(node))
        self._leave_unsized(trunk, dense.keys() | before)
        for node in reversed(self.order):
            # A reshaping at the very end is the suffix's: logits are easier to train as they come.
            if id(node) in trunk and id(node) not in dense and id(node) not in before and is_mere_shape(node):
                readers = [reader for t in node.outputs for reader in self.readers.get(id(t), ())]
                if not any(id(reader) in trunk for reader in readers) and len(self.readers[id(node.inputs[0])]) == 1:
                    trunk.discard(id(node))
        return trunk

    def _leave_unsized(self, trunk: set[int], needed: Collection[int]) -> None:
        """Take the last nodes out of the trunk that write tensors of unknown size: they could be no heads."""
        for node in reversed(self.order):
            readers = [reader for t in node.outputs for reader in self.readers.get(id(t), ())]
            if id(node) not in trunk or id(node) in needed or any(id(reader) in trunk for reader in readers):
                continue
            try:
                require_width(node)
            except NotGlue as problem:
                trunk.discard(id(node))
                if is_obstacle(node):
                    self.obstacles[id(node)] = node, str(problem)

    def _ends(self, node: gs.Node, trained: set[int]) -> bool:
        """Whether the suffix begins with ``node``: it turns logits into probabilities, and all behind it is of those.

        A gate is none, whose result meets other trained tensors, nor a Sigmoid that constants scale to another range.
        """
        if node.op not in SQUASHES:
            return False
        readers = self.readers.get(id(node.outputs[0]), [])
        if node.op == "Sigmoid" and readers and all(self._is_scaling(reader) for reader in readers):
            return False
        return not self._is_joined(node, trained)

    def _is_joined(self, node: gs.Node, trained: set[int]) -> bool:
        """Whether behind the node its result meets a trained tensor that does not depend on it.

        Nodes are looked at in order, so that all that a node reads has been classified when it comes up.
        """
        behind = {id(node)}
        todo = [self.places[id(reader)] for tensor in node.outputs for reader in self.readers.get(id(tensor), ())]
        heapq.heapify(todo)
        while todo:
            other = self.order[heapq.heappop(todo)]
            if id(other) in behind:
                continue
            sources = self.sources[id(other)]
            if behind.isdisjoint(sources):
                continue  # it reads a shape, not the values
            if any(source in trained and source not in behind for source in sources):
                return True
            behind.add(id(other))
            for tensor in other.outputs:
                for reader in self.readers.get(id(tensor), ()):
                    heapq.heappush(todo, self.places[id(reader)])
        return False

    def _is_scaling(self, node: gs.Node) -> bool:
        """Whether the node is y = a x + c for constants, and not the 1 − p beside p of a binary classifier."""
        if node.op not in ("Add", "Sub", "Mul", "Div") or not any(isinstance(x, gs.Constant) for x in node.inputs):
            return False
        return all(reader.op != "Concat" for reader in self.readers.get(id(node.outputs[0]), ()))

    # Which dense nodes follow one another with nothing between them that others read.

    def _segments(self, dense: dict[int, gs.Node]) -> list[list[Link]]:
        links, following = self._linked(dense)
        for key, link in links.items():
            # What ONNX Runtime fused has no tensor of its own between the product and its activation.
            if key not in following and link.dense.attrs.get("exit") is None:
                reader = self._only_reader(link.dense.outputs[0])
                if self._activates(reader, link.dense):
                    link.activation = reader
        targets = set(following.values())
        segments = []
        for node in self.order:
            if id(node) in links and id(node) not in targets:
                segment = [links[id(node)]]
                while id(segment[-1].dense) in following:
                    segment.append(links[following[id(segment[-1].dense)]])
                segments.append(segment)
        return segments

    def _linked(self, dense: dict[int, gs.Node]) -> tuple[dict[int, Link], dict[int, int]]:
        """The layers, and for each the one that follows it in its segment, if any."""
        links = {key: Link(node) for key, node in dense.items()}
        following: dict[int, int] = {}
        between: dict[int, gs.Node] = {}
        for key, link in links.items():
            reader = self._only_reader(link.dense.outputs[0])
            if self._activates(reader, link.dense):
                after = self._only_reader(reader.outputs[0])
                if after is not None and id(after) in links and may_follow(link.dense, after):
                    between[key], reader = reader, after
            if reader is not None and id(reader) in links and may_follow(link.dense, reader):
                following[key] = id(reader)
        shared = {key: number for key, number in self.sharing.alike.items() if key in links}
        for key in ends_of_sharing(following, shared, lambda key: self._look(dense[key])):
            del following[key]
        for key in following.keys() & between.keys():
            links[key].activation = between[key]
        return links, following

    def _look(self, layer: gs.Node) -> tuple[object, ...]:
        """What layers of one segment have in common with others of the same weights: bias and activation."""
        behind = self._only_reader(layer.outputs[0])
        constants = list(layer.inputs[2:])
        kind = ""
        if self._activates(behind, layer):
            kind = f"{behind.op} {sorted(behind.attrs.items())}"
            constants += behind.inputs[1:]
        held = [(tensor.name, constant_values(tensor)) for tensor in constants]
        return kind, *((name, None if values is None else values.tobytes()) for name, values in held)

    def _activates(self, reader: gs.Node | None, layer: gs.Node) -> TypeGuard[gs.Node]:
        """Whether what alone reads a layer is an activation that may become a part of it."""
        if reader is None or reader.op not in ACTIVATIONS or reader.inputs[0] is not layer.outputs[0]:
            return False
        return is_by_unit(reader, layer)

    def _shared(self, segments: list[list[Link]]) -> dict[int, list[Link]]:
        """For the first dense node of each segment whose last layer only several dense layers read, these layers.

        Each of them is a segment by itself. Where one goes on, its own width would no longer be free.
        """
        firsts = {id(links[0].dense): links for links in segments}
        found: dict[int, list[Link]] = {}
        for links in segments:
            last, tensor = links[-1], links[-1].output
            behind = self._only_reader(tensor)
            if last.activation is None and behind is not None and behind.op in ACTIVATIONS:
                tensor = behind.outputs[0] if behind.inputs[0] is tensor else tensor
            nodes = self.readers.get(id(tensor), [])
            if len(nodes) < 2 or len({id(node) for node in nodes}) < len(nodes) or id(tensor) in self.outputs:
                continue
            heads = [firsts[id(node)] for node in nodes if id(node) in firsts and node.inputs[0] is tensor]
            if len(heads) < len(nodes) or any(len(each) > 1 or each[0].activation for each in heads):
                continue
            layers = [links[0].dense, *(each[0].dense for each in heads)]
            if any(geometry_of(layer) or id(layer) in self.sharing.one for layer in layers):
                continue
            if len({layer.inputs[1].values.dtype for layer in layers}) > 1:
                continue
            if len({len(each[0].dense.inputs) for each in heads}) > 1:
                continue
            if tensor is not last.output:
                last.activation = behind
            found[id(links[0].dense)] = [each[0] for each in heads]
        return found

    def _only_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        readers = self.readers.get(id(tensor), [])
        return readers[0] if len(readers) == 1 and id(tensor) not in self.outputs else None


def written_by(links: list[Link], readers: list[Link]) -> str:
    """Name of the tensor that a segment writes in training: where several layers read it, theirs side by side."""
    return f"{links[-1].output.name}/readers" if readers else str(links[-1].output.name)


def pieces(links: list[Link], readers: list[Link]) -> list[Glue]:
    """The tensor of each of the layers that read a segment's last hidden layer, as a part of all of them."""
    found, begin = [], 0
    units = [int(link.dense.inputs[1].values.shape[1]) for link in readers]
    for link, width in zip(readers, units, strict=True):
        y = link.dense.outputs[0]
        shape = (None,) if y.shape is None else shape_of(y)[:-1]
        at = {"axis": len(shape), "begin": begin, "end": begin + width}
        whole = (*shape, sum(units))
        x = written_by(links, readers)
        found.append(Glue("Slice", (x,), y.name, (whole,), (*shape, width), at, label(link.dense)))
        begin += width
    return found


def _is_unsized(tensor: gs.Tensor) -> bool:
    """Whether the size of the last axis is not known."""
    shape = () if tensor.shape is None else shape_of(tensor)
    return not shape or shape[-1] is None


def _told(stopped: dict[str, tuple[gs.Node, str]]) -> dict[str, str]:
    """The same as sentences."""
    return {name: next(ends_of_training([found])).rpartition(";")[0] for name, found in stopped.items()}
