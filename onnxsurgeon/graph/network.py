"""The network: the view of a model on which surgeries work, segments of layers in a frame.

One file: a value that everything works on, each of whose questions is answered from the same segments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.frame import Frame, Head
from onnxsurgeon.graph.grouping import find_groups
from onnxsurgeon.graph.groups import Groups, LayerSize, ParameterCounts, Reader, UnitGroup, Writer, layer_sizes
from onnxsurgeon.graph.layers import DenseChain, DenseLayer, LayerNames
from onnxsurgeon.graph.residual import Block, find_blocks
from onnxsurgeon.graph.tied import applied_again, has_shared, parameter_places, parted, shared_weights, tied_segments
from onnxsurgeon.linear_algebra import Array

# These words mark notes on widths and on layers that are not worked on (graph/notes.py, graph/left_alone.py).
_STAY = (" stays: ", " stay: ", " stays as it is: ", " stay as they are: ")


T = TypeVar("T")


class Pair(NamedTuple):
    """A hidden layer and the one that reads it."""

    layer: DenseLayer
    following: DenseLayer


@dataclass(frozen=True, eq=False)
class Network:
    """A model as segments in a frame; never changed, only replaced.

    A plain perceptron has one segment. Hidden layers are counted from 1, segment by segment in the order in which they
    are computed; a segment that applies the weights of an earlier one again (``tied``) has none of its own. ``name`` is
    the file's stem, for messages and file names.
    """

    segments: tuple[DenseChain, ...]
    frame: Frame
    name: str = "model"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def chain(self) -> DenseChain:
        """The only segment of a plain perceptron.

        Raises:
            SurgeryError: there are several.
        """
        if len(self.segments) != 1:
            raise SurgeryError(
                f"'{self.name}' ({self.topology}) is no single chain: it has {len(self.segments)} segments",
                "no-such-layer",
            )
        return self.segments[0]

    @property
    def layers(self) -> tuple[DenseLayer, ...]:
        """All layers, segment by segment, the output layer of each last."""
        return tuple(layer for segment in self.segments for layer in segment.layers)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The tensors that are trained towards the targets."""
        return self.frame.trunk.heads

    @cached_property
    def direct_heads(self) -> frozenset[str]:
        """Heads that a dense layer writes and that nothing else in the trunk reads, so that the layer may be rescaled.

        A layer whose weights are applied elsewhere too may not be rescaled.
        """
        read = {name for step in self.frame.trunk.steps if not isinstance(step, int) for name in step.inputs}
        read |= {segment.input_name for segment in self.segments}
        alone = [segment for number, segment in enumerate(self.segments) if self.is_alone(number)]
        written = {name for segment in alone for name in segment.ends}
        return frozenset(head.tensor for head in self.heads if head.tensor in written - read)

    @cached_property
    def tied(self) -> dict[int, int]:
        """For each segment that applies the weights of an earlier one again, that one's number; see ``graph.tied``."""
        return tied_segments(self.segments)

    def uses(self, number: int) -> tuple[int, ...]:
        """Numbers of the segments that apply the weights of segment ``number``, which is the first of them."""
        return (number, *(each for each, first in self.tied.items() if first == number))

    def is_alone(self, number: int) -> bool:
        """Whether no other layer has a weight of segment ``number``."""
        return not any(layer.names.weight in self._shared_weights for layer in self.segments[number].layers)

    @cached_property
    def _shared_weights(self) -> set[str]:
        return shared_weights(self.segments)

    @cached_property
    def _has_shared(self) -> bool:
        return has_shared(self.segments)

    def parted(self) -> Network:
        """The network in which a matrix and its transpose are two parameters, as surgeries need it."""
        if not self._has_turned:
            return self
        return replace(self, segments=parted(self.segments, self.names()))

    @cached_property
    def _has_turned(self) -> bool:
        return any(layer.is_turned for layer in self.layers)

    @cached_property
    def parameter_places(self) -> list[list[int]]:
        """For each segment, the places of its parameters in ``parameters()``."""
        return parameter_places(self.segments)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type in which the weights are worked on: the widest of the segments'."""
        return np.result_type(*(segment.dtype for segment in self.segments))

    @cached_property
    def hidden_count(self) -> int:
        """Number of hidden layers, h."""
        return sum(self._hidden_counts)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of units from the input to the output of the only segment.

        Raises:
            SurgeryError: there are several segments.
        """
        return self.chain.widths

    @property
    def topology(self) -> str:
        """Widths joined by dashes, such as "784-10-10"; segments are joined by plus signs."""
        return "+".join(segment.topology for segment in self.segments)

    @cached_property
    def parameter_count(self) -> int:
        """Number of trainable values: weights, biases and PRelu slopes."""
        return sum(values.size for _, values in self.parameters())

    @cached_property
    def multiplications(self) -> int | None:
        """Multiplications with weights for one row (MACs); None where a size that they depend on is not known."""
        found = [each for segment in self.segments for each in segment.multiplications()]
        known = [each for each in found if each is not None]
        return sum(known) if len(known) == len(found) else None

    @property
    def is_finite(self) -> bool:
        """Whether every trainable value is finite."""
        return all(bool(np.isfinite(values).all()) for _, values in self.parameters())

    def parameters(self) -> list[tuple[str, Array]]:
        """Trainable tensors of all segments as (name, values); a tensor that several segments share appears once."""
        return self.once([pair for segment in self.segments for pair in segment.parameters()])

    def once(self, values: Sequence[T]) -> list[T]:
        """Choose from values for all parameters of all segments, in order, one for each that ``parameters()`` has."""
        if not self._has_shared:
            return list(values)
        found: dict[int, T] = {}
        for place, value in zip(chain.from_iterable(self.parameter_places), values, strict=True):
            found.setdefault(place, value)
        return list(found.values())

    def with_parameters(self, values: Iterable[Array]) -> Network:
        """The same topology with other values, in the order of ``parameters()``."""
        iterator = iter(values)
        if not self._has_shared:
            return replace(self, segments=tuple(segment.with_parameters(iterator) for segment in self.segments))
        given = list(iterator)
        pairs = zip(self.segments, self.parameter_places, strict=True)
        return replace(self, segments=tuple(each.with_parameters(given[i] for i in places) for each, places in pairs))

    @cached_property
    def units(self) -> Groups:
        """Units that come and go together, and those whose number must stay; see ``group``."""
        return find_groups(self.segments, self.frame)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Residual blocks, in the order in which their sums are computed."""
        return find_blocks(self.segments, self.frame.trunk, self.units)

    def block(self, number: int) -> Block:
        """Residual block ``number``, counted from 1.

        Raises:
            SurgeryError: there is no such block.
        """
        if 1 <= number <= len(self.blocks):
            return self.blocks[number - 1]
        have = f"it has 1 to {len(self.blocks)}" if self.blocks else "it has none"
        raise SurgeryError(f"'{self.name}' ({self.topology}) has no residual block {number}: {have}", "block-stays")

    @property
    def group_count(self) -> int:
        """Number of groups of units whose number is free: hidden layers, and widths that segments share."""
        return len(self.units.free)

    @cached_property
    def layer_sizes(self) -> list[LayerSize]:
        """Sizes of all layers, in terms of groups."""
        return layer_sizes(self.segments, self.units.free, self.tied)

    @cached_property
    def parameter_counts(self) -> ParameterCounts:
        """Parameter counts of networks with other widths."""
        return ParameterCounts(self.layer_sizes, [group.units for group in self.units.free])

    def group(self, i: int) -> UnitGroup:
        """Group ``i`` of units, counted from 1: first the hidden layers, then the groups that several segments share.

        Raises:
            SurgeryError: there is no such group.
        """
        if i <= self.hidden_count:
            self._site(i)
            return self.units.free[i - 1]
        if i > self.group_count:
            self._site(i)
        return self.units.free[i - 1]

    def layers_of(self, i: int) -> tuple[list[DenseLayer], list[DenseLayer]]:
        """The layers that write group ``i``, and those that read it; a layer that reads it twice is there twice."""
        group = self.group(i)
        writers = [self.segments[port.segment].layers[port.layer] for port in group.writers]
        return writers, [self.segments[port.segment].layers[port.layer] for port in group.readers]

    def same_as(self, number: int) -> tuple[DenseLayer | None, ...]:
        """For each layer of segment ``number``, the earlier layer that has its weight; None where there is none."""
        firsts = (self._firsts[layer.names.weight] for layer in self.segments[number].layers)
        own = zip(self.segments[number].layers, firsts, strict=True)
        return tuple(None if first is layer else first for layer, first in own)

    def own_count(self, layer: DenseLayer) -> int:
        """Number of a layer's trainable values, without those that an earlier layer has too.

        These numbers add up to all.
        """
        first = self._firsts[layer.names.weight]
        held = set() if first is layer else {name for name, _ in first.parameters()}
        return sum(values.size for name, values in layer.parameters() if name not in held)

    @cached_property
    def _firsts(self) -> dict[str, DenseLayer]:
        """The first layer that has each weight, by the weight's name."""
        return {layer.names.weight: layer for layer in reversed(self.layers)}

    def nodes_of(self, ports: Sequence[Reader | Writer]) -> list[str]:
        """Names of the nodes of the layers at a group's ports, and of all nodes with the same weights."""
        return [
            self.segments[number].layers[port.layer].names.node for port in ports for number in self.uses(port.segment)
        ]

    def hidden(self, i: int) -> DenseLayer:
        """Hidden layer ``i``, counted from 1.

        Raises:
            SurgeryError: there is no such hidden layer.
        """
        segment, position = self._site(i)
        return self.segments[segment].layers[position]

    def segment_of(self, i: int) -> int:
        """Number of the segment that holds hidden layer ``i``, counted from 0."""
        return self._site(i)[0]

    def depth(self, i: int) -> tuple[int, int]:
        """Position of hidden layer ``i`` in its segment, counted from 1, and the segment's number of hidden layers."""
        segment, position = self._site(i)
        return position + 1, self.segments[segment].hidden_count

    def pair(self, i: int) -> Pair:
        """Hidden layer ``i`` and the layer that reads it."""
        segment, position = self._site(i)
        layers = self.segments[segment].layers
        return Pair(layers[position], layers[position + 1])

    def place(self, i: int) -> tuple[int, int]:
        """Segment of the only layer that writes group ``i``, counted from 0, and the layer's index there.

        Raises:
            SurgeryError: there is no such group, several layers write it, or a layer writes other units too.
        """
        if i <= self.hidden_count:
            return self._site(i)
        group = self.group(i)
        first = group.writers[0]
        segment = self.segments[first.segment]
        if len(group.writers) > 1 or segment.layers[first.layer].units != group.units or segment.readers:
            raise SurgeryError(
                f"'{self.name}' ({self.topology}): width {i} is no single layer's: units can be added there and taken "
                "away, and nothing else",
                "no-such-layer",
            )
        return first.segment, first.layer

    def splice(self, place: tuple[int, int], count: int, layers: Sequence[DenseLayer]) -> Network:
        """The network with ``count`` layers of a segment, from a place (segment, index) on, replaced by ``layers``."""
        number, position = place
        segment = self.segments[number]
        kept = (*segment.layers[:position], *layers, *segment.layers[position + count :])
        segments = list(self.segments)
        segments[number] = replace(segment, layers=kept)
        used = self.names() if number in self.tied.values() else set()
        for other in self.uses(number)[1:]:
            own = applied_again(segment.layers, kept, segments[other].layers, used)
            segments[other] = replace(segments[other], layers=own)
            used.update(name for layer in own for name in layer.names.all())
        return replace(self, segments=tuple(segments))

    def with_layers(self, layers: Iterable[DenseLayer]) -> Network:
        """The same surroundings with other layers in the only segment."""
        return replace(self, segments=(replace(self.chain, layers=tuple(layers)),))

    def _site(self, i: int) -> tuple[int, int]:
        """Index of the segment that holds hidden layer ``i``, and the layer's index there."""
        if 1 <= i <= self.hidden_count:
            number = bisect_right(self._starts, i - 1) - 1
            return number, i - 1 - self._starts[number]
        have = "it has none" if self.hidden_count == 0 else f"it has 1 to {self.hidden_count}"
        if self.hidden_count < i <= self.group_count:
            raise SurgeryError(
                f"'{self.name}' ({self.topology}): {i} is a width that several layers share, and no hidden layer: "
                "units can be added there and taken away, and nothing else",
                "no-such-layer",
            )
        held = "".join(f"; {note}" for note in self.frame.notes if any(words in note for words in _STAY))
        raise SurgeryError(f"'{self.name}' ({self.topology}) has no hidden layer {i}: {have}{held}", "no-such-layer")

    @cached_property
    def _starts(self) -> list[int]:
        """For each segment, the number of hidden layers in the segments before it."""
        return [0, *accumulate(self._hidden_counts[:-1])]

    @property
    def _hidden_counts(self) -> list[int]:
        """For each segment, the number of its own hidden layers."""
        return [0 if number in self.tied else each.hidden_count for number, each in enumerate(self.segments)]

    def fresh_names(self, besides: Iterable[str] = ()) -> LayerNames:
        """Names for a new layer that nothing in the file bears yet and that are not among ``besides``."""
        used = self.names() | set(besides)
        number = 1
        while any(name in used for name in LayerNames.derived(f"dense_{number}").all()):
            number += 1
        return LayerNames.derived(f"dense_{number}")

    def names(self) -> set[str]:
        """Every name that a node or a tensor bears."""
        used = set(self.frame.names)
        for segment in self.segments:
            used.update((segment.input_name, segment.output_name, segment.entry, *segment.ends))
            for reader in segment.readers:
                used.update(reader.names.all())
        for layer in self.layers:
            used.update(layer.names.all())
        return used

    def as_stored(self) -> tuple[Network, float]:
        """The network with its values rounded to the file's types, and the largest rounding error of a value.

        The error is max |w − rounded w| as a fraction of the largest |w| of the tensor; 0 where nothing is rounded.
        """
        if all(segment.stored is None and segment.held is None for segment in self.segments):
            return self, 0.0
        rounded: dict[int, Array] = {}
        largest = 0.0
        for segment, places in zip(self.segments, self.parameter_places, strict=True):
            for place, (name, values) in zip(places, segment.parameters(), strict=True):
                if place in rounded:
                    continue
                kind = segment.held_dtype(name, values)
                stored = values if kind == values.dtype else values.astype(kind).astype(values.dtype)
                if kind != values.dtype and values.size:
                    scale = float(np.abs(values).max()) or 1.0
                    largest = max(largest, float(np.abs(values - stored).max()) / scale)
                rounded[place] = stored
        return self.with_parameters(rounded.values()), largest
