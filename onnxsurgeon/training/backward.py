"""The trunk's backward pass as nodes, from the gradients at its heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from onnxsurgeon.graph.activation_gradients import Point
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.training import convolution
from onnxsurgeon.training import glue as glue_rules
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.gradients import activation_gradients
from onnxsurgeon.training.optimizers import GemmGradient, Gradient, StoredGradient, SummedGradient
from onnxsurgeon.training.steps import steps_of
from onnxsurgeon.training.trace import LayerTrace, Trace


def backward(
    build: GraphBuilder,
    network: Network,
    trace: Trace,
    gradients: Mapping[str, str],
    update: Callable[[str, Gradient], None],
) -> dict[str, str]:
    """Append the nodes of the backward pass from the ``gradients`` at the heads (tensor → its gradient's name).

    ``update`` is called with every parameter's name and gradient, from the last layer to the first. For a parameter
    that several segments share it is called in the end, with the sum of all its gradients.

    Returns:
        The name of each layer's weight → that of ∂L/∂z, with z's layout.
    """
    deltas: dict[str, str] = {}
    shared = _Shared(network, trace, update)
    flow: dict[str, str] = dict(gradients)
    trained: set[str] = set()  # tensors that depend on a parameter; only these need a gradient
    steps = steps_of(network)
    for step in steps:
        if isinstance(step, int):
            trained.add(network.segments[step].output_name)
        elif trained & set(step.inputs):
            trained.add(step.output)
    for step in reversed(steps):
        output = network.segments[step].output_name if isinstance(step, int) else step.output
        delta = flow.pop(output, "")
        if not delta:
            continue
        if isinstance(step, int):
            segment = network.segments[step]
            wanted = segment.input_name in trained
            found = _back_through(build, segment, trace, step, delta, shared.update, deltas, wanted=wanted)
            if found and step in trace.masks:
                found = build.add("Mul", found, trace.masks[step])
            inputs = {segment.input_name: found}
        else:
            inputs = _glue_gradients(build, step, trace, delta, trained)
        for name, gradient in inputs.items():
            if gradient and name in trained:
                flow[name] = build.add("Add", flow[name], gradient) if name in flow else gradient
    shared.finish()
    return deltas


class _Shared:
    """Gradients of parameters that several segments share, kept until all are known."""

    def __init__(self, network: Network, trace: Trace, update: Callable[[str, Gradient], None]) -> None:
        self._update = update
        alone = {number for number in trace.layers if network.is_alone(number)}
        names = Counter(
            name
            for number in trace.layers.keys() - alone
            for at in trace.layers[number]
            for name in (at.parameter or at.weight, at.bias, at.slope)
            if name
        )
        self._kept: dict[str, list[Gradient]] = {name: [] for name, count in names.items() if count > 1}

    def update(self, parameter: str, gradient: Gradient) -> None:
        """Keep the gradient, or pass it on at once if only one segment has the parameter."""
        if parameter in self._kept:
            self._kept[parameter].append(gradient)
        else:
            self._update(parameter, gradient)

    def finish(self) -> None:
        """Pass the sums on."""
        for parameter, found in self._kept.items():
            if found:
                self._update(parameter, found[0] if len(found) == 1 else SummedGradient(found))


def _back_through(
    build: GraphBuilder,
    segment: DenseChain,
    trace: Trace,
    number: int,
    delta: str,
    update: Callable[[str, Gradient], None],
    deltas: dict[str, str],
    *,
    wanted: bool,
) -> str:
    """Append the backward pass through a segment; return the gradient at its input, "" unless ``wanted``."""
    traces = trace.layers[number]
    if segment.is_convolution:
        return convolution.back_through(build, segment, traces, delta, update, deltas, wanted=wanted)
    if segment.rank > 2:
        delta = build.add("Reshape", delta, build.integers(-1, segment.widths[-1]))
    for layer, at in zip(reversed(segment.layers), reversed(traces), strict=True):
        # Here delta = ∂L/∂y of this layer, masked and scaled; then ∂L/∂z.
        examples = 1 if at.columns else 0
        if at.mask:
            delta = build.add("Mul", delta, at.mask)
        if layer.activation is not None:
            gradients = activation_gradients(build, layer.activation, Point(at.z, at.y, delta, at.slope, (examples,)))
            delta = gradients.x
            if at.slope:
                update(at.slope, StoredGradient(gradients.slope))
        deltas[at.weight] = delta
        update(at.parameter or at.weight, _weight_gradient(at, delta))
        if at.bias and segment.rank > 2:  # such a segment has more rows than the batch
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


def _weight_gradient(at: LayerTrace, delta: str) -> GemmGradient:
    """∂L/∂W = δᵀ x as (units, n_in).

    For a weight that is another's transpose, it is that other's gradient, xᵀ δ (n_in, units).
    """
    if at.parameter:
        return GemmGradient(at.x, delta, transA=not at.x_columns, transB=at.columns, alpha=at.alpha)
    return GemmGradient(delta, at.x, transA=not at.columns, transB=at.x_columns, alpha=at.alpha)


def _glue_gradients(build: GraphBuilder, step: Glue, trace: Trace, delta: str, trained: set[str]) -> dict[str, str]:
    names = [trace.tensors[name] for name in step.inputs]
    wanted = [name in trained for name in step.inputs]
    found = glue_rules.gradients(build, step, names, trace.tensors[step.output], delta, wanted)
    flow: dict[str, str] = {}
    for name, gradient in zip(step.inputs, found, strict=True):
        if gradient:  # x + x and x · x read a tensor twice
            flow[name] = build.add("Add", flow[name], gradient) if name in flow else gradient
    return flow
