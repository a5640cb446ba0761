"""Segments: layers that follow one another with nothing between them that anything else reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.activations import ACTIVATIONS
from onnxsurgeon.graph.canonical import constant_values, geometry_of
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.flow import Flow
from onnxsurgeon.graph.glue import Glue, glue_shape
from onnxsurgeon.graph.links import Link, is_by_unit, may_follow
from onnxsurgeon.graph.shared_weights import SharedWeights, ends_of_sharing


class Chains:
    """Finds segments among layers of a graph, some of which share their weights."""

    def __init__(self, flow: Flow, sharing: SharedWeights) -> None:
        self.flow, self.sharing = flow, sharing

    def of(self, dense: Mapping[int, gs.Node]) -> list[list[Link]]:
        """The dense nodes as segments, in the order of computation."""
        links, following = self._linked(dense)
        for key, link in links.items():
            # A layer that ONNX Runtime fused with its activation has no tensor of its own between the two.
            if key not in following and link.dense.attrs.get("exit") is None:
                reader = self.flow.only_reader(link.dense.outputs[0])
                if self._activates(reader, link.dense):
                    link.activation = reader
        targets = set(following.values())
        segments = []
        for node in self.flow.order:
            if id(node) in links and id(node) not in targets:
                segment = [links[id(node)]]
                while id(segment[-1].dense) in following:
                    segment.append(links[following[id(segment[-1].dense)]])
                segments.append(segment)
        return segments

    def _linked(self, dense: Mapping[int, gs.Node]) -> tuple[dict[int, Link], dict[int, int]]:
        """The layers, and for each the one that follows it in its segment, if there is one."""
        links = {key: Link(node) for key, node in dense.items()}
        following: dict[int, int] = {}
        between: dict[int, gs.Node] = {}
        for key, link in links.items():
            reader = self.flow.only_reader(link.dense.outputs[0])
            if self._activates(reader, link.dense):
                after = self.flow.only_reader(reader.outputs[0])
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
        """What makes a layer equal to others of the same weights in their segments: its bias and activation."""
        behind = self.flow.only_reader(layer.outputs[0])
        constants = list(layer.inputs[2:])
        kind = ""
        if self._activates(behind, layer):
            kind = f"{behind.op} {sorted(behind.attrs.items())}"
            constants += behind.inputs[1:]
        held = [(tensor.name, constant_values(tensor)) for tensor in constants]
        return kind, *((name, None if values is None else values.tobytes()) for name, values in held)

    def _activates(self, reader: gs.Node | None, layer: gs.Node) -> TypeGuard[gs.Node]:
        """Whether the only reader of a layer is an activation that may become a part of it."""
        if reader is None or reader.op not in ACTIVATIONS or reader.inputs[0] is not layer.outputs[0]:
            return False
        return is_by_unit(reader, layer)

    def side_by_side(self, segments: list[list[Link]]) -> dict[int, list[Link]]:
        """The readers of each segment's last layer where these are several dense layers, by the segment's first node.

        Nothing else reads that layer. Each reader is a segment by itself. If one were joined to the segment, its own
        width would no longer be free.
        """
        firsts = {id(links[0].dense): links for links in segments}
        found: dict[int, list[Link]] = {}
        # From the last to the first: a layer that has readers of its own side by side is joined to these, and none of
        # those beside it.
        for links in reversed(segments):
            last, tensor = links[-1], links[-1].output
            behind = self.flow.only_reader(tensor)
            if last.activation is None and behind is not None and behind.op in ACTIVATIONS:
                tensor = behind.outputs[0] if behind.inputs[0] is tensor else tensor
            nodes = self.flow.readers.get(id(tensor), [])
            if len(nodes) < 2 or len({id(node) for node in nodes}) < len(nodes) or id(tensor) in self.flow.outputs:
                continue
            heads = [firsts[id(node)] for node in nodes if id(node) in firsts and node.inputs[0] is tensor]
            if len(heads) < len(nodes) or any(len(each) > 1 or each[0].activation for each in heads):
                continue
            if any(id(each[0].dense) in found for each in heads):
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


def written_by(links: list[Link], readers: list[Link]) -> str:
    """The name of the tensor that a segment writes in training; where several layers read it, theirs side by side."""
    return f"{links[-1].output.name}/readers" if readers else str(links[-1].output.name)


def pieces(links: list[Link], readers: list[Link]) -> list[Glue]:
    """Slices of a segment's last hidden layer, one for each layer that reads it."""
    found, begin = [], 0
    units = [int(link.dense.inputs[1].values.shape[1]) for link in readers]
    for link, width in zip(readers, units, strict=True):
        y = link.dense.outputs[0]
        shape = (None,) if y.shape is None else glue_shape(y)[:-1]
        at = {"axis": len(shape), "begin": begin, "end": begin + width}
        whole = (*shape, sum(units))
        x = written_by(links, readers)
        found.append(Glue("Slice", (x,), y.name, (whole,), (*shape, width), at, label(link.dense)))
        begin += width
    return found
