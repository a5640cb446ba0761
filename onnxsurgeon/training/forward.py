"""The trunk of a network as nodes: forward, and backward from the gradients at its heads; parameters given by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.graph.activation_gradients import Point
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training import glue as glue_rules
from onnxsurgeon.training.builder import OPSET, GraphBuilder
from onnxsurgeon.training.gradients import activation_gradients
from onnxsurgeon.training.in_place import is_large
from onnxsurgeon.training.optimizers import GemmGradient, Gradient, StoredGradient
from onnxsurgeon.training.resident import numbered

IR_VERSION = 8


class LayerTrace(NamedTuple):
    """Names of one layer's tensors: its input x, z = x W + b, y = φ(z), its parameters and its mask ("" if absent).

    ``x_columns`` and ``columns`` say whether x, and z and y, hold an example a column: (units, rows). ``alpha`` is the
    factor that x is still to be multiplied by.
    """

    x: str
    z: str
    y: str
    weight: str
    bias: str
    slope: str
    x_columns: bool
    columns: bool
    alpha: float
    mask: str


@dataclass(frozen=True)
class Trace:
    """What a forward pass has written.

    Attributes:
        tensors: the trunk's tensors, as the file names them → names in the graph under construction.
        layers: for each segment its layers.
    """

    tensors: Mapping[str, str]
    layers: Mapping[int, list[LayerTrace]]


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
) -> Trace:
    """Append the nodes of the trunk's forward pass, its features given by name.

    ``factors`` of features, by the trunk's names for them, are multiplied in by the first layer that reads them.

    With ``by_unit`` the weights are (units, n_in), and between the layers of a segment an example is a column:
    ONNX Runtime's Gemm repacks its right-hand factor at every call, which then is the small batch and not the weight.
    ``by_unit_arrays`` gives the shapes.

    With ``prelu_in_parts``, and for float64, PRelu(z) is written as Relu(z) − s·Relu(−z): engine 1 has no gradient
    of PRelu, and ONNX Runtime no PRelu of float64.

    With ``mask``, which appends a mask (units, rows) and returns its name, y is multiplied by one between the layers of
    a segment of two axes, and with ``input_mask`` (rows, n_in) features that enter such a segment are; only with
    ``by_unit``.
    """
    trunk = network.frame.trunk
    tensors = dict(zip(trunk.features, features, strict=True))
    for number, (name, values) in enumerate(trunk.constants.items()):
        tensors[name] = f"constant_{number}"
        build.constants[tensors[name]] = numpy_helper.from_array(values.astype(build.dtype), tensors[name])
    names = iter(parameter_names(network))
    by_segment = [[next(names) for _ in segment.parameters()] for segment in network.segments]
    layers: dict[int, list[LayerTrace]] = {}
    for step in trunk.steps:
        if isinstance(step, int):
            segment = network.segments[step]
            x = tensors[segment.input_name]
            if segment.rank > 2:
                x = build.add("Reshape", x, build.integers(-1, segment.widths[0]))
            elif input_mask is not None and segment.input_name in trunk.features:
                x = build.add("Mul", x, input_mask(segment.widths[0]))
            alpha = (factors or {}).get(segment.input_name, 1.0)
            traces = _layers(
                build,
                segment,
                x,
                by_segment[step],
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
    return Trace(tensors, layers)


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
    """Append the nodes of y = φ(x W + b) for every layer of a segment, the first x being α x (rows, n_in)."""
    remaining = iter(names)
    traces = []
    x_columns = False
    for layer in segment.layers:
        columns = by_unit and layer is not segment.layers[-1]
        weight = next(remaining)
        bias = next(remaining) if layer.bias is not None else ""
        has_slope = layer.activation is not None and layer.activation.slope is not None
        slope = next(remaining) if has_slope else ""
        if columns:
            z = build.gemm(weight, x, bias, transB=not x_columns, alpha=alpha)
        else:
            z = build.gemm(x, weight, bias, transA=x_columns, transB=by_unit, alpha=alpha)
        if layer.activation is None:
            y = z
        elif has_slope and (prelu_in_parts or build.dtype == np.float64):
            negative = build.add("Mul", slope, build.add("Relu", build.add("Neg", z)))
            y = build.add("Sub", build.add("Relu", z), negative)
        else:
            y = glue_rules.apply(build, layer.activation, z, slope)
        dropped = mask(layer.units) if mask is not None and columns else ""
        traces.append(LayerTrace(x, z, y, weight, bias, slope, x_columns, columns, alpha, dropped))
        x, x_columns, alpha = build.add("Mul", y, dropped) if dropped else y, columns, 1.0
    return traces


def by_unit_arrays(network: Network) -> list[Array]:
    """The parameters as ``forward`` with ``by_unit`` takes them: weights (units, n_in), others one value a unit.

    Those others are columns (n, 1) where an example is a column, else rows (1, n).
    """
    arrays: list[Array] = []
    for segment in network.segments:
        for layer in segment.layers:
            shape = (1, -1) if layer is segment.layers[-1] else (-1, 1)
            own = [values for _, values in layer.parameters()]
            arrays += [values.T if values.ndim == 2 else values.reshape(shape) for values in own]
    return arrays


def from_by_unit(network: Network, arrays: Iterable[Array]) -> Network:
    """``network`` with the parameters ``arrays``, shaped and ordered as those of ``by_unit_arrays``.

    Weights are stored row by row again, but for those of large networks, which for that would be in memory twice.
    """
    order: Literal["C", "K"] = "K" if is_large(network) else "C"
    return network.with_parameters(
        np.asarray(values.T if old.ndim == 2 else values.reshape(old.shape), old.dtype, order=order)
        for values, (_, old) in zip(arrays, network.parameters(), strict=True)
    )


def backward(
    build: GraphBuilder,
    network: Network,
    trace: Trace,
    gradients: Mapping[str, str],
    update: Callable[[str, Gradient], None],
) -> None:
    """Append the nodes of the backward pass from the ``gradients`` at the heads (tensor → its gradient's name).

    ``update`` is called with every parameter's name and its gradient, from the last layer to the first.
    """
    flow: dict[str, str] = dict(gradients)
    trained: set[str] = set()  # tensors that depend on a parameter: no gradient of any other is needed
    for step in network.frame.trunk.steps:
        if isinstance(step, int):
            trained.add(network.segments[step].output_name)
        elif trained & set(step.inputs):
            trained.add(step.output)
    for step in reversed(network.frame.trunk.steps):
        output = network.segments[step].output_name if isinstance(step, int) else step.output
        delta = flow.pop(output, "")
        if not delta:
            continue
        if isinstance(step, int):
            segment = network.segments[step]
            wanted = segment.input_name in trained
            inputs = {segment.input_name: _back_through(build, segment, trace, step, delta, update, wanted=wanted)}
        else:
            inputs = _glue_gradients(build, step, trace, delta, trained)
        for name, gradient in inputs.items():
            if gradient and name in trained:
                flow[name] = build.add("Add", flow[name], gradient) if name in flow else gradient


def _back_through(
    build: GraphBuilder,
    segment: DenseChain,
    trace: Trace,
    number: int,
    delta: str,
    update: Callable[[str, Gradient], None],
    *,
    wanted: bool,
) -> str:
    """Backward through a segment; the gradient at its input, "" unless ``wanted``."""
    traces = trace.layers[number]
    if segment.rank > 2:
        delta = build.add("Reshape", delta, build.integers(-1, segment.widths[-1]))
    for layer, at in zip(reversed(segment.layers), reversed(traces), strict=True):
        # Here delta = ∂L/∂y of this layer, masked, scaled; then ∂L/∂z.
        examples = 1 if at.columns else 0
        if at.mask:
            delta = build.add("Mul", delta, at.mask)
        if layer.activation is not None:
            gradients = activation_gradients(build, layer.activation, Point(at.z, at.y, delta, at.slope, examples))
            delta = gradients.x
            if at.slope:
                update(at.slope, StoredGradient(gradients.slope))
        # ∂L/∂W = δᵀ x as (units, n_in)
        update(at.weight, GemmGradient(delta, at.x, transA=not at.columns, transB=at.x_columns, alpha=at.alpha))
        if at.bias and segment.rank > 2:  # such a segment has more rows than the batch has
            update(at.bias, StoredGradient(build.add("ReduceSum", delta, build.axes(examples), keepdims=1)))
        elif at.bias:
            update(at.bias, GemmGradient(delta, "ones", transB=True) if at.columns else GemmGradient("ones", delta))
        if at is traces[0] and not wanted:
            return ""
        if at.x_columns:
            delta = build.gemm(at.weight, delta, transA=True, transB=not at.columns)
        else:
            delta = build.gemm(delta, at.weight, transA=at.columns)
    if segment.rank > 2:
        delta = build.add("Reshape", delta, build.add("Shape", trace.tensors[segment.input_name]))
    return delta


def _glue_gradients(build: GraphBuilder, step: Glue, trace: Trace, delta: str, trained: set[str]) -> dict[str, str]:
    names = [trace.tensors[name] for name in step.inputs]
    wanted = [name in trained for name in step.inputs]
    found = glue_rules.gradients(build, step, names, trace.tensors[step.output], delta, wanted)
    flow: dict[str, str] = {}
    for name, gradient in zip(step.inputs, found, strict=True):
        if gradient:  # x + x and x · x read a tensor twice
            flow[name] = build.add("Add", flow[name], gradient) if name in flow else gradient
    return flow


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
    """A checked model of the builder's nodes and constants."""
    graph = helper.make_graph(build.nodes, name, list(inputs), list(outputs), list(build.constants.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
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
