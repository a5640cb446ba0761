"""Proofs on random rows: whether a surgery changed what is computed, and whether units belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from onnx import helper

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.equivalence import chain_outputs, difference, random_features
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery.apply import apply
from onnxsurgeon.surgery.maps import Change, Columns, Gather, by_row
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import feature_inputs, feeds_of, forward, make_model, parameter_names
from onnxsurgeon.training.resident import numbered

ROWS = 16
UNKNOWN = (5, 9, 17, 33, 65, 129)  # tried in this order for sizes that the file leaves open

Outputs = Callable[[Network], list[Array]]


def outputs_around(network: Network, i: int | None) -> Outputs:
    """A function that computes, on random rows, the outputs in which units of group ``i`` of ``network`` take part.

    For a hidden dense layer these are its segment's outputs, else, or where no group is named, those of all heads.
    """
    if i is not None:
        group = network.group(i)
        number = group.writers[0].segment
        segment = network.segments[number]
        if group.is_hidden and segment.layers[0].geometry is None:
            features = random_features(segment)
            return lambda each: [chain_outputs(each.segments[number], features)]
    rng = np.random.default_rng(0)
    shapes = list(network.frame.trunk.features.values())
    for unknown in UNKNOWN:
        sizes = [[ROWS, *(unknown if size is None else size for size in shape)] for shape in shapes]
        rows = [rng.standard_normal(size).astype(network.dtype) for size in sizes]
        if unknown == UNKNOWN[-1] or all(None not in shape for shape in shapes) or _runs(network, rows):
            break
    named = dict(zip(network.frame.trunk.features, rows, strict=True))
    return lambda each: trunk_outputs(each, [named[name] for name in each.frame.trunk.features])


def _runs(network: Network, features: list[Array]) -> bool:
    """Whether the trunk takes features of these sizes; kernels may not fit into small ones."""
    try:
        return all(output.size for output in trunk_outputs(network, features))
    except EngineError:
        return False


def trunk_outputs(network: Network, features: list[Array]) -> list[Array]:
    """The outputs of all heads for the trunk's features (rows, …)."""
    build, kind = GraphBuilder(network.dtype), helper.np_dtype_to_tensor_dtype(network.dtype)
    names = numbered("features", len(features))
    trace = forward(build, network, names)
    inputs, outputs = feature_inputs(network, kind), []
    for name, (_, values) in zip(parameter_names(network), network.parameters(), strict=True):
        inputs.append(helper.make_tensor_value_info(name, kind, values.shape))
    for name, head in zip(numbered("outputs", len(network.heads)), network.heads, strict=True):
        build.add("Identity", trace.tensors[head.tensor], output=name)
        outputs.append(helper.make_tensor_value_info(name, kind, [*[None] * (head.rank - 1), head.width]))
    feeds = {**dict(zip(names, features, strict=True)), **feeds_of(network)}
    return run(make_model("trunk", build, inputs, outputs), feeds)


class GroupProof(NamedTuple):
    """How far outputs move when units change places, as fractions of their scale.

    Attributes:
        together: if they change in everything that writes and reads them; 0 except for rounding, where the group is
            right.
        alone: if they change in the first writer only; not 0 where something depends on which unit is which.
    """

    together: float
    alone: float


def prove_group(network: Network, i: int) -> GroupProof:
    """Permute the units of group ``i``, and run the model's trunk on random rows.

    The proof needs no oracle: outputs do not depend on the order of units, if everything that knows of them follows.
    """
    group = network.group(i)
    order = np.roll(np.arange(group.units), 1)
    rows = [Gather(by_row(order, port.outer * port.inner)) for port in group.readers]
    columns = (Columns(order),) * len(group.writers)
    outputs = outputs_around(network, i)
    before = outputs(network)
    together = apply(network, Change(group, columns, tuple(rows), order))
    first = replace(group, writers=group.writers[:1], readers=(), followers=(), each=(), places={})
    alone = apply(network, Change(first, columns[:1], (), order))
    moved = [difference(before, outputs(each)).relative for each in (together, alone)]
    return GroupProof(*moved)
