"""Whether a surgery changed what is computed: both networks run on the same random rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from onnxsurgeon.graph.equivalence import chain_outputs, random_features
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import run
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import feature_inputs, feeds_of, forward, make_model, parameter_names
from onnxsurgeon.training.resident import numbered

ROWS = 16
UNKNOWN = 5  # what a size that the file does not tell is taken to be

Outputs = Callable[[Network], list[Array]]


def outputs_around(network: Network, i: int) -> Outputs:
    """What computes the outputs, on random rows, that units of group ``i`` of ``network`` have a part in.

    Of a hidden dense layer those of its segment; else those of all heads.
    """
    group = network.group(i)
    number = group.writers[0].segment
    segment = network.segments[number]
    if group.is_hidden and segment.layers[0].geometry is None:
        features = random_features(segment)
        return lambda each: [chain_outputs(each.segments[number], features)]
    rng = np.random.default_rng(0)
    shapes = [[ROWS, *(UNKNOWN if size is None else size for size in s)] for s in network.frame.trunk.features.values()]
    rows = [rng.standard_normal(shape).astype(network.dtype) for shape in shapes]
    return lambda each: trunk_outputs(each, rows)


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
        outputs.append(helper.make_tensor_value_info(name, kind, None))
    feeds = {**dict(zip(names, features, strict=True)), **feeds_of(network)}
    return run(make_model("trunk", build, inputs, outputs), feeds)
