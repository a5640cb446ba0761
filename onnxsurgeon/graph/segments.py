"""The structure of a canonical graph: segments of layers, the glue between and behind them, features and heads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.canonical import geometry_of
from onnxsurgeon.graph.chains import pieces, written_by
from onnxsurgeon.graph.ends import is_mere_shape, is_obstacle, require_width, with_columns
from onnxsurgeon.graph.flow import Flow
from onnxsurgeon.graph.glue import SQUASHES, Glue, NotGlue, glue_shape
from onnxsurgeon.graph.left_alone import (
    ends_of_training,
)
from onnxsurgeon.graph.links import Link
from onnxsurgeon.graph.notes import idle_ends, pinned_widths, summed_widths
from onnxsurgeon.graph.outputs import heads_of, without_targets
from onnxsurgeon.graph.shared_weights import SharedWeights, sharing_weights
from onnxsurgeon.graph.trainable import Trainable


@dataclass(eq=False)
class Structure:
    """The segments, glue, features and heads that were found; tensors and nodes are those of the canonical graph.

    Attributes:
        segments: in the order of computation.
        readers: for a segment whose last layer several layers read, by its number, these layers; side by side, they are
            one more layer of it.
        steps: a segment's number or glue, in the order of computation.
        heads: the trained tensors from which the outputs are computed, in the outputs' order.
        features: tensors that enter from the prefix.
        constants: constants that glue reads.
        widths: says why widths stay, except for those of the dense nodes whose ids it is given; and it is told
            what was found to hold the units of others.
        notes: the layers that are left alone, and why.
        ends: notes on the model's inputs and outputs.
        stopped: why training stops at a head, where a node that reads it cannot be trained through.
        shared: the layers that share their weights.
    """

    segments: list[list[Link]]
    steps: list[int | Glue]
    heads: list[gs.Variable]
    features: list[gs.Tensor]
    constants: list[gs.Constant]
    widths: Callable[[Collection[int], Mapping[int, str]], Iterator[str]]
    notes: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    readers: dict[int, list[Link]] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    shared: SharedWeights = field(default_factory=lambda: SharedWeights({}, {}, frozenset()))


def find_structure(
    graph: gs.Graph,
    names: Collection[str],
    source: str,
    frozen: Collection[str] = (),
    held: Collection[str] = (),
    turned: Collection[str] = (),
) -> Structure:
    """Find the structure of the canonical ``graph`` of a file in which tensors have these ``names``.

    Layers with a name in ``frozen``, or whose output is among the tensors ``held``, stay as they are; layers before
    them are trained through them. The rows of the tensors ``turned`` are elsewhere in the file: the trunk begins before
    them where it can.

    Raises:
        ModelError: nothing in it can be trained; says why.
    """
    return _Search(Trainable(Flow(graph), names, source, frozen, held), turned).structure()


class _Search:
    def __init__(self, layers: Trainable, turned: Collection[str]) -> None:
        self.layers, self.flow, self.turned = layers, layers.flow, turned
        # Nodes behind the last layers at which training stops, and why.
        self.obstacles: dict[int, tuple[gs.Node, str]] = {}

    def structure(self) -> Structure:
        while True:
            dense, self.obstacles = self.layers.layers(), {}
            trunk = self._trunk(dense)
            heads = heads_of(self.flow, trunk, dense)
            if not self._without_unsized(heads):
                break
        trunk &= self.flow.upstream(tensor for tensor in heads) | dense.keys()
        self._begin_unturned(trunk)
        apart = self.layers.chains.of(dense)
        shared = self.layers.chains.side_by_side(apart)
        together = {id(link.dense) for links in shared.values() for link in links}
        segments = [links for links in apart if id(links[0].dense) not in together]
        readers = {
            number: shared[id(links[0].dense)] for number, links in enumerate(segments) if id(links[0].dense) in shared
        }
        inside = {id(node) for links in apart for link in links for node in (link.dense, link.activation) if node}
        steps: list[int | Glue] = []
        numbers = {id(links[0].dense): number for number, links in enumerate(segments)}
        for node in self.flow.order:
            if id(node) in numbers:
                steps.append(numbers[id(node)])
                steps += pieces(segments[numbers[id(node)]], readers.get(numbers[id(node)], []))
            elif id(node) in trunk and id(node) not in inside:
                steps += self.layers.glue[id(node)]
        steps = with_columns(steps, {tensor.name for tensor in heads if len(tensor.shape or (0, 0)) == 1})
        features, constants = self._entering(steps, segments, readers)
        leading = self.flow.before(dense)
        alone = [links for links in apart if id(links[0].dense) not in shared]
        stopped = self._stopped(heads)
        ends = [
            *summed_widths(self.flow.graph, alone, self.flow.readers, leading),
            *idle_ends(self.flow),
            *ends_of_training(list({id(node): (node, why) for node, why in stopped.values()}.values())),
            *without_targets(self.flow, heads, dense),
        ]
        widths = partial(
            pinned_widths, self.flow.graph, alone, self.flow.readers, leading, self.layers.sharing.alike.keys()
        )
        return Structure(
            *(segments, steps, heads, features, constants, widths, self.layers.notes, ends, readers),
            _told(stopped),
            # Of a matrix and its transpose, the first in this order has it as it is; files are written in this order
            # too.
            sharing_weights([link.dense for links in segments for link in links]),
        )

    def _without_unsized(self, heads: list[gs.Variable]) -> bool:
        """Set aside the convolutions that write heads of unknown size; return whether there are any."""
        found = [
            node for tensor in heads for node in tensor.inputs if geometry_of(node) is not None and _is_unsized(tensor)
        ]
        self.layers.unsized |= {id(node): node for node in found}
        return bool(found)

    def _stopped(self, heads: list[gs.Variable]) -> dict[str, tuple[gs.Node, str]]:
        """For each head that is read by a node that cannot be trained through, that node and the reason."""
        found = {}
        for tensor in heads:
            behind = (self.obstacles.get(id(node)) for node in self.flow.readers.get(id(tensor), ()))
            first = next(filter(None, behind), None)
            if first is not None:
                found[tensor.name] = first
        return found

    def _entering(
        self, steps: list[int | Glue], segments: list[list[Link]], readers: dict[int, list[Link]]
    ) -> tuple[list[gs.Tensor], list[gs.Constant]]:
        """Tensors that the steps read and do not write: features, and constants for glue."""
        tensors = {tensor.name: tensor for node in self.flow.order for tensor in node.inputs}
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

    def _trunk(self, dense: dict[int, gs.Node]) -> set[int]:
        """Dense nodes, the glue between them, and the glue behind them up to the suffix."""
        trained = self.flow.downstream(dense)
        before = self.flow.before(dense)
        trunk = set(dense) | (trained & before)
        for node in self.flow.order:
            if id(node) in trunk or id(node) not in trained:
                continue
            sources = [source for source in self.flow.sources[id(node)] if source in trained]
            if trunk.issuperset(sources) and not self._ends(node, trained):
                try:
                    self.layers.glue[id(node)] = self.layers.as_glue(node)
                except (NotGlue, ModelError) as problem:
                    if is_obstacle(node):
                        self.obstacles[id(node)] = node, str(problem)
                    continue  # the suffix begins here
                trunk.add(id(node))
        self._leave_unsized(trunk, dense.keys() | before)
        for node in reversed(self.flow.order):
            # A reshaping at the very end belongs to the suffix: logits are easier to train before it.
            if id(node) in trunk and id(node) not in dense and id(node) not in before and is_mere_shape(node):
                readers = [reader for t in node.outputs for reader in self.flow.readers.get(id(t), ())]
                if (
                    not any(id(reader) in trunk for reader in readers)
                    and len(self.flow.readers[id(node.inputs[0])]) == 1
                ):
                    trunk.discard(id(node))
        return trunk

    def _begin_unturned(self, trunk: set[int]) -> None:
        """Take into the trunk what writes the turned tensors that it reads: a mask that is laid out for each head."""
        for node in reversed(self.flow.order):
            if id(node) in trunk or not any(tensor.name in self.turned for tensor in node.outputs):
                continue
            readers = [reader for tensor in node.outputs for reader in self.flow.readers.get(id(tensor), ())]
            if any(id(reader) in trunk for reader in readers):
                try:
                    self.layers.glue[id(node)] = self.layers.as_glue(node)
                except (NotGlue, ModelError):
                    continue
                trunk.add(id(node))

    def _leave_unsized(self, trunk: set[int], needed: Collection[int]) -> None:
        """Take the last nodes that write tensors of unknown size out of the trunk, since these could be no heads."""
        for node in reversed(self.flow.order):
            if id(node) in needed or id(node) not in trunk:
                continue
            readers = [reader for t in node.outputs for reader in self.flow.readers.get(id(t), ())]
            if any(id(reader) in trunk for reader in readers):
                continue
            try:
                require_width(node)
            except NotGlue as problem:
                trunk.discard(id(node))
                if is_obstacle(node):
                    self.obstacles[id(node)] = node, str(problem)

    def _ends(self, node: gs.Node, trained: set[int]) -> bool:
        """Whether the suffix begins with ``node``.

        It turns logits into probabilities, and all nodes behind it work on these. A gate, whose result is combined with
        other trained tensors, does not begin it; nor does a Sigmoid whose result constants scale to another range.
        """
        if node.op not in SQUASHES:
            return False
        readers = self.flow.readers.get(id(node.outputs[0]), [])
        if node.op == "Sigmoid" and readers and all(self._is_scaling(reader) for reader in readers):
            return False
        return not self.flow.is_joined(node, trained)

    def _is_scaling(self, node: gs.Node) -> bool:
        """Whether the node is y = a x + c for constants, and not the 1 − p beside p of a binary classifier."""
        if node.op not in ("Add", "Sub", "Mul", "Div") or not any(isinstance(x, gs.Constant) for x in node.inputs):
            return False
        return all(reader.op != "Concat" for reader in self.flow.readers.get(id(node.outputs[0]), ()))


def _is_unsized(tensor: gs.Tensor) -> bool:
    """Whether the size of the last axis is not known."""
    shape = () if tensor.shape is None else glue_shape(tensor)
    return not shape or shape[-1] is None


def _told(stopped: dict[str, tuple[gs.Node, str]]) -> dict[str, str]:
    """The same as sentences."""
    return {name: next(ends_of_training([found])).rpartition(";")[0] for name, found in stopped.items()}
