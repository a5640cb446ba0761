"""A second pass over a calibration sample, forward and backward, for the loss's gradients that ask for new units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsurgeon.calibration.calibrate import WIDEST, entering_factor, pool
from onnxsurgeon.calibration.moments import Moments, Place
from onnxsurgeon.calibration.scan import Sum, append_sums, scan_model, totals_of
from onnxsurgeon.calibration.sensitivity import by_unit
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.backward import backward
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import activations_of, forward
from onnxsurgeon.training.gradients import require_rule
from onnxsurgeon.training.losses import loss_nodes, require_tasks
from onnxsurgeon.training.optimizers import Gradient
from onnxsurgeon.training.resident import read_features, read_targets
from onnxsurgeon.training.trace import Trace
from onnxsurgeon.training.units import in_units


def with_gradients(moments: Moments, network: Network, examples: Examples, rows: Array) -> Moments:
    """``moments`` of ``network`` on ``rows`` of the examples, and with them ``Moments.gradients``.

    With x what enters hidden layer i and g = ∂L/∂z of the layer after it, both of one row: E[(x − μ)ᵀ g], summed in
    float64. It is the gradient of the mean loss with respect to a linear bypass of layer i, fed with x − μ; see
    ``surgery.grow``.

    Raises:
        EngineError: ONNX Runtime is missing or fails, an activation has no gradient, the examples have other targets
            than the network has heads, or a gradient is not finite.
    """
    require_tasks(network, examples.tasks)
    for node, activation in activations_of(network):
        require_rule(activation, node)
    work = in_units(network, examples.tasks)
    build = GraphBuilder(work.dtype)
    features, factors = read_features(build, work, examples)
    targets = read_targets(build, examples)
    trace = by_unit(build, forward(build, work, features, factors=factors))
    losses = {
        head.tensor: loss_nodes(build, task, trace.tensors[head.tensor], target, report=False).gradient
        for head, task, target in zip(work.heads, examples.tasks, targets, strict=True)
    }
    deltas = backward(build, work, trace, losses, _ignore)
    sums = _sums(work, trace, deltas, moments)
    if not sums:
        return replace(moments, gradients={})
    append_sums(build, sums)
    shapes = [(each.name, each.shape) for each in sums]
    model = scan_model("gradients", build, work, examples, sums=shapes, targets=True)
    totals = totals_of(model, sums, work, examples, rows, targets=True)
    if not all(bool(np.isfinite(total).all()) for total in totals.values()):
        raise EngineError(f"'{network.name}': gradients are not finite on the calibration sample", "not-finite-inside")
    return replace(moments, gradients=_gradients(network, examples, moments, totals, factors))


def _ignore(parameter: str, gradient: Gradient) -> None:
    """Ignore the gradient, whose nodes are then never made."""


def _sums(network: Network, trace: Trace, deltas: dict[str, str], moments: Moments) -> list[Sum]:
    """For each hidden dense layer, sums of xᵀ g and of g; none where x is too wide or no loss depends on the layer."""
    found: list[Sum] = []
    for number, segment in enumerate(network.segments):
        if segment.is_convolution:
            continue
        traces = trace.layers[number]
        for position in range(segment.hidden_count):
            n, after, weight = segment.widths[position], segment.widths[position + 2], traces[position + 1].weight
            if (number, position) not in moments.inputs or after > WIDEST or weight not in deltas:
                continue
            base, g = f"{number}_{position}", deltas[weight]
            found += [
                Sum(f"gradient_{base}", (n, after), (traces[position].x, g)),
                Sum(f"slope_{base}", (after,), (g,)),
            ]
    return found


def _gradients(
    network: Network, examples: Examples, moments: Moments, totals: dict[str, Array], factors: dict[str, float]
) -> dict[Place, Array]:
    units = {
        head.tensor: np.array(task.scale)
        for head, task in zip(network.heads, examples.tasks, strict=True)
        if task.scale and not task.is_weighed
    }
    found: dict[Place, Array] = {}
    pool(network, totals, factors)
    for number, segment in enumerate(network.segments):
        rows = moments.rows[number]
        for position in range(segment.hidden_count):
            name = f"gradient_{number}_{position}"
            if name not in totals:
                continue
            factor = entering_factor(network, number, factors) if position == 0 else 1.0
            mean = moments.inputs[number, position].mean
            covariance = totals[name] * (factor / rows) - np.outer(mean, totals[f"slope_{number}_{position}"] / rows)
            scale = segment.over_ends(units, 1.0) if position == segment.hidden_count - 1 else None
            if scale is not None:
                covariance /= scale  # from z in units of its targets to z
            found[number, position] = covariance
    return found
