"""The trunk of a network as nodes, its parameters given by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training import convolution
from onnxsurgeon.training import glue as glue_rules
from onnxsurgeon.training.activations import activated
from onnxsurgeon.training.builder import BLOCKED, OPSET, GraphBuilder
from onnxsurgeon.training.dropout import masked_maps
from onnxsurgeon.training.in_place import is_large
from onnxsurgeon.training.resident import numbered
from onnxsurgeon.training.steps import steps_of
from onnxsurgeon.training.trace import LayerTrace, Trace

IR_VERSION = 8


def parameter_names(network: Network) -> list[str]:
    """Names "parameter_0", … in the order of ``network.parameters()``; user's names may clash with ours."""
    return [f"parameter_{i}" for i in range(len(network.parameters()))]


def forward(
    build: GraphBuilder,
    network: Network,
    features: Sequence[str],
    *,
    factors: Mapping[str, float] | None = None,
    by_unit: bool = False,
    prelu_in_parts: bool = False,
    mask: Callable[[int], str] | None = None,
    input_mask: Callable[[int], str] | None = None,
    map_mask: Callable[[int], str] | None = None,
) -> Trace:
    """Append the nodes of the trunk's forward pass, with its features given by name.

    ``factors`` of features, by the trunk's names, are multiplied in by the first layer that reads each feature.

    With ``by_unit`` the weights are (units, n_in), and between the layers of a segment an example is a column: ONNX
    Runtime's Gemm repacks its right-hand factor at every call, which is then the small batch and not the weight.
    ``by_unit_arrays`` gives the shapes.

    With ``prelu_in_parts``, and for float64, PRelu(z) is written as Relu(z) − s·Relu(−z): engine 1 has no gradient of
    PRelu, and ONNX Runtime no PRelu of float64.

    The three masks append a mask and return its name. ``mask`` (units, rows) multiplies y between the layers of a
    segment of two axes, and ``input_mask`` (rows, n_in) the features that enter such a segment; both only with
    ``by_unit``. ``map_mask`` (rows, values) multiplies the inputs of the segments of ``dropout.masked_maps``.
    """
    trunk = network.frame.trunk
    tensors = dict(zip(trunk.features, features, strict=True))
    for number, (name, values) in enumerate(trunk.constants.items()):
        tensors[name] = f"constant_{number}"
        build.constants[tensors[name]] = numpy_helper.from_array(values.astype(build.dtype), tensors[name])
    names = parameter_names(network)
    by_segment = [[names[place] for place in places] for places in network.parameter_places]
    layers: dict[int, list[LayerTrace]] = {}
    maps = {} if map_mask is None else masked_maps(network)
    masks: dict[int, str] = {}
    for step in steps_of(network):
        if isinstance(step, int):
            segment, own = network.segments[step], by_segment[step]
            x = tensors[segment.input_name]
            if map_mask is not None and step in maps:
                masks[step] = build.add("Reshape", map_mask(math.prod(maps[step])), build.integers(-1, *maps[step]))
                x = build.add("Mul", x, masks[step])
            if segment.is_convolution:
                found = convolution.layers(build, segment, x, own, by_unit=by_unit, prelu_in_parts=prelu_in_parts)
                layers[step], tensors[segment.output_name] = found, found[-1].y
                continue
            if segment.rank > 2:
                x = build.add("Reshape", x, build.integers(-1, segment.widths[0]))
            elif input_mask is not None and segment.input_name in trunk.features:
                x = build.add("Mul", x, input_mask(segment.widths[0]))
            alpha = (factors or {}).get(segment.input_name, 1.0)
            traces = _layers(
                build,
                segment,
                x,
                own,
                alpha,
                by_unit=by_unit,
                prelu_in_parts=prelu_in_parts,
                mask=mask if segment.rank == 2 else None,
            )
            layers[step], y = traces, traces[-1].y
            if segment.rank > 2:
                y = build.add("Reshape", y, _rows_of(build, tensors[segment.input_name], segment.widths[-1]))
            tensors[segment.output_name] = y
        else:
            tensors[step.output] = glue_rules.forward(build, step, [tensors[name] for name in step.inputs])
    return Trace(tensors, layers, masks)


def _rows_of(build: GraphBuilder, x: str, units: int) -> str:
    """The shape of x with its last axis replaced by ``units``."""
    return build.add("Concat", build.add("Shape", x, end=-1), build.integers(units), axis=0)


def _layers(
    build: GraphBuilder,
    segment: DenseChain,
    x: str,
    names: Sequence[str],
    alpha: float,
    *,
    by_unit: bool,
    prelu_in_parts: bool,
    mask: Callable[[int], str] | None,
) -> list[LayerTrace]:
    """Append the nodes of y = φ(x W + b) for every layer of a segment; the first layer reads α x (rows, n_in)."""
    remaining = iter(names)
    traces = []
    x_columns = False
    for layer in segment.layers:
        columns = by_unit and layer is not segment.layers[-1]
        parameter = weight = next(remaining)
        if layer.is_turned:
            weight = build.add("Transpose", parameter, perm=[1, 0])
        bias = next(remaining) if layer.bias is not None else ""
        has_slope = layer.activation is not None and layer.activation.slope is not None
        slope = next(remaining) if has_slope else ""
        if columns:
            z = build.gemm(weight, x, bias, transB=not x_columns, alpha=alpha)
        else:
            z = build.gemm(x, weight, bias, transA=x_columns, transB=by_unit, alpha=alpha)
        y = activated(build, layer.activation, z, slope, prelu_in_parts=prelu_in_parts)
        dropped = mask(layer.units) if mask is not None and columns else ""
        turned = parameter if layer.is_turned else ""
        traces.append(LayerTrace(x, z, y, weight, bias, slope, x_columns, columns, alpha, dropped, turned))
        x, x_columns, alpha = build.add("Mul", y, dropped) if dropped else y, columns, 1.0
    return traces


def by_unit_arrays(network: Network) -> list[Array]:
    """The parameters in the form that ``forward`` with ``by_unit`` takes.

    Weights (units, n_in), others one value a unit. These others are columns (n, 1) where an example is a column, else
    rows (1, n). For convolutions, biases are (n,) and slopes (1, n, 1…).
    """
    arrays: list[Array] = []
    for segment in network.segments:
        for layer in segment.layers:
            own = [values for _, values in layer.parameters()]
            if layer.geometry is not None:
                slope = layer.activation is not None and layer.activation.slope is not None
                arrays += [own[0].T, *own[1 : len(own) - slope]]
                arrays += [values.reshape(1, -1, *[1] * layer.geometry.rank) for values in own[len(own) - slope :]]
                continue
            shape = (1, -1) if layer is segment.layers[-1] else (-1, 1)
            arrays += [values.T if values.ndim == 2 else values.reshape(shape) for values in own]
    return network.once(arrays)


def from_by_unit(network: Network, arrays: Iterable[Array]) -> Network:
    """``network`` with the parameters ``arrays``, shaped and ordered like those of ``by_unit_arrays``.

    Weights are stored row by row again, except in large networks, where they would be in memory twice.
    """
    order: Literal["C", "K"] = "K" if is_large(network) else "C"
    return network.with_parameters(
        np.asarray(values.T if old.ndim == 2 else values.reshape(old.shape), old.dtype, order=order)
        for values, (_, old) in zip(arrays, network.parameters(), strict=True)
    )


def feature_inputs(network: Network, kind: int) -> list[onnx.ValueInfoProto]:
    """Declarations of the features as graph inputs (rows, …)."""
    features = network.frame.trunk.features
    return [
        helper.make_tensor_value_info(name, kind, ["rows", *shape])
        for name, shape in zip(numbered("features", len(features)), features.values(), strict=True)
    ]


def make_model(
    name: str,
    build: GraphBuilder,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Make a checked model of the builder's nodes and constants."""
    graph = helper.make_graph(build.nodes, name, list(inputs), list(outputs), list(build.constants.values()))
    imports = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(BLOCKED, 1)] if build.block else [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def activations_of(network: Network) -> list[tuple[str, Activation]]:
    """Every activation in the trunk with its node's name."""
    found = [(layer.names.activation, layer.activation) for layer in network.layers if layer.activation is not None]
    steps = (step for step in network.frame.trunk.steps if not isinstance(step, int))
    return found + [(step.node, step.attributes["activation"]) for step in steps if step.op == "Activation"]


def feeds_of(network: Network) -> dict[str, Array]:
    """Parameter values by their names in the training graphs."""
    return dict(zip(parameter_names(network), (values for _, values in network.parameters()), strict=True))
