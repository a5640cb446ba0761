"""Segments that apply the same weights to other tensors: towers that share their layers, a layer applied twice.

Layers share a parameter if they have it under one name. Each application is a segment of its own, with nodes and
tensors of its own; the first one stands for all. Hidden layers, groups of units and parameters are counted there, and
whatever is done to the first is done to the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from onnxsurgeon.graph.layers import DenseChain, DenseLayer, LayerNames
from onnxsurgeon.linear_algebra import Array


def tied_segments(segments: Sequence[DenseChain]) -> dict[int, int]:
    """For each segment that has the weights of an earlier one, that one's number."""
    firsts: dict[tuple[str, bool], int] = {}
    found = {}
    for number, segment in enumerate(segments):
        begin = segment.layers[0]
        first = firsts.setdefault((begin.names.weight, begin.is_turned), number)
        if first != number:
            found[number] = first
    return found


def shared_weights(segments: Sequence[DenseChain]) -> set[str]:
    """Names of weights that several layers have."""
    counts = Counter(layer.names.weight for segment in segments for layer in segment.layers)
    return {name for name, count in counts.items() if count > 1}


def has_shared(segments: Sequence[DenseChain]) -> bool:
    """Whether some parameters are several layers', so that parameters are counted by their names."""
    return bool(tied_segments(segments)) or any(layer.is_turned for each in segments for layer in each.layers)


def parted(segments: Sequence[DenseChain], used: Collection[str]) -> tuple[DenseChain, ...]:
    """The segments, with a name of its own, not among ``used``, for each weight that is another's transpose."""
    found, taken = [], set(used)
    made: dict[str, str] = {}
    for segment in segments:
        layers = []
        for layer in segment.layers:
            if layer.is_turned:
                name = made.get(layer.names.weight, f"{layer.names.node}.weight")
                while name in taken and layer.names.weight not in made:
                    name += "_"
                taken.add(name)
                made[layer.names.weight] = name  # several layers that have the same transpose get one name
                weight = np.ascontiguousarray(layer.weight)
                layer = replace(layer, weight=weight, names=replace(layer.names, weight=name), is_turned=False)
            layers.append(layer)
        found.append(replace(segment, layers=tuple(layers)))
    return sharing(found)


def parameter_places(segments: Sequence[DenseChain]) -> list[list[int]]:
    """For each segment the numbers of its parameters, counted through all.

    A parameter that appears again keeps its number.
    """
    numbers: dict[str, int] = {}
    is_tied = has_shared(segments)
    count, found = 0, []
    for segment in segments:
        own = []
        for name, _ in segment.parameters():
            number = numbers.setdefault(name, count) if is_tied else count
            count += number == count
            own.append(number)
        found.append(own)
    return found


def sharing(segments: Sequence[DenseChain]) -> tuple[DenseChain, ...]:
    """The segments, where tied segments have the first one's arrays in the place of their own equal ones."""
    tied = tied_segments(segments)
    if not tied:
        return tuple(segments)
    found = list(segments)
    for number, first in tied.items():
        pairs = zip(segments[number].layers, segments[first].layers, strict=True)
        found[number] = replace(segments[number], layers=tuple(_with_arrays(own, other) for own, other in pairs))
    return tuple(found)


def _with_arrays(layer: DenseLayer, first: DenseLayer) -> DenseLayer:
    held: dict[str, Array] = dict(first.parameters())
    return layer.with_parameters(iter([held.get(name, values) for name, values in layer.parameters()]))


def applied_again(
    before: Sequence[DenseLayer], after: Sequence[DenseLayer], layers: Sequence[DenseLayer], used: Collection[str]
) -> tuple[DenseLayer, ...]:
    """The layers of a tied segment after the first one's layers have changed.

    Args:
        before: the first segment's layers as they were.
        after: the first segment's layers as they are now.
        layers: the tied segment's layers as they were, one for each of ``before``.
        used: names that nodes and tensors bear.
    """
    own: dict[str, str] = {}
    for first, layer in zip(before, layers, strict=True):
        own.update(zip(first.names.all(), layer.names.all(), strict=True))
    taken = set(used) | {name for layer in after for name in layer.names.all()}
    found = []
    for layer in after:
        names = layer.names
        if names.node not in own:
            own.update(zip(names.all(), _fresh(names.node, taken).all(), strict=True))
        found.append(
            replace(
                layer,
                names=replace(
                    names,
                    node=own[names.node],
                    activation=own.get(names.activation, names.activation),
                    pre_activation=own.get(names.pre_activation, names.pre_activation),
                    output=own.get(names.output, names.output),
                ),
            )
        )
    return tuple(found)


def _fresh(node: str, taken: set[str]) -> LayerNames:
    """Names for another application of a layer that onnxsurgeon made."""
    number = 2
    while taken & set(LayerNames.derived(f"{node}.{number}").all()):
        number += 1
    names = LayerNames.derived(f"{node}.{number}")
    taken.update(names.all())
    return names
