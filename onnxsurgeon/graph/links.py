"""The elements of a segment while it is being found."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import by_channel, constant_values, geometry_of


@dataclass(eq=False)
class Link:
    """A layer's node and the activation between it and the next one of its segment, if any."""

    dense: gs.Node
    activation: gs.Node | None = None

    @property
    def output(self) -> gs.Variable:
        """The output of the layer, behind its activation."""
        return (self.activation or self.dense).outputs[0]


def may_follow(first: gs.Node, second: gs.Node) -> bool:
    """Whether one layer may be a hidden layer before the other: both dense, or both convolutions of all channels."""
    geometries = geometry_of(first), geometry_of(second)
    if None in geometries:
        return geometries == (None, None)
    return not any(geometry is not None and geometry.is_grouped for geometry in geometries)


def is_by_unit(activation: gs.Node, layer: gs.Node) -> bool:
    """Whether an activation works by unit.

    True except for a PRelu behind a convolution with slopes of another layout.
    """
    geometry = geometry_of(layer)
    if geometry is None or activation.op != "PRelu" or len(activation.inputs) < 2:
        return True
    slope = constant_values(activation.inputs[1])
    found = None if slope is None else by_channel(slope, geometry.rank + 2)
    return found is not None and found.size in (1, int(layer.inputs[1].shape[1]))
