"""How much the network's outputs move with each pre-activation: the metric in which an error inside it counts.

An error e of the pre-activation z of a layer moves the heads by J e. This costs eᵀ G e with G = E[Jᵀ H J], where H is
the curvature of the loss at the heads (Gauss-Newton; cf. Martens and Grosse, "Optimizing neural networks with
Kronecker-factored approximate curvature", ICML 2015, section 4). G is the mean of g gᵀ over g = Jᵀ u, with random u
whose covariance is H: this takes one backward pass, and no labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsurgeon.calibration.calibrate import WIDEST, pool
from onnxsurgeon.calibration.moments import Moments, Place
from onnxsurgeon.calibration.scan import Sum, append_sums, scan_model, totals_of
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.backward import backward
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import activations_of, forward
from onnxsurgeon.training.gradients import has_rule
from onnxsurgeon.training.losses import require_tasks
from onnxsurgeon.training.optimizers import Gradient
from onnxsurgeon.training.resident import read_features, read_targets
from onnxsurgeon.training.trace import Trace
from onnxsurgeon.training.units import in_units

# Classes are taken at this temperature, since a network that is sure of every row has no curvature left.
TEMPERATURE = 2.0


def with_sensitivities(moments: Moments, network: Network, examples: Examples, rows: Array, seed: int = 0) -> Moments:
    """``moments`` of ``network`` on ``rows`` of the examples, with ``Moments.sensitivities`` added.

    Where an activation has no gradient rule, ``moments`` are returned as they are.

    Raises:
        EngineError: ONNX Runtime is missing or fails, the examples have other targets than the network has heads, or a
            gradient is not finite.
    """
    require_tasks(network, examples.tasks)
    if not all(has_rule(activation) for _, activation in activations_of(network)):
        return moments
    work = in_units(network, examples.tasks)
    sample = _with_signs(examples, rows, seed)
    build = GraphBuilder(work.dtype)
    features, factors = read_features(build, work, sample)
    signs = read_targets(build, sample)
    trace = by_unit(build, forward(build, work, features, factors=factors))
    starts = {
        head.tensor: _curvature(build, task, trace.tensors[head.tensor], sign)
        for head, task, sign in zip(work.heads, examples.tasks, signs, strict=True)
    }
    deltas = backward(build, work, trace, starts, _ignore)
    sums = []
    for number, segment in enumerate(work.segments):
        for position, (layer, at) in enumerate(zip(segment.layers, trace.layers[number], strict=True)):
            if at.weight in deltas and layer.units <= WIDEST:
                delta = deltas[at.weight]
                if segment.is_convolution:
                    delta = _as_rows(build, delta, layer.units)
                sums.append(Sum(f"sensitivity_{number}_{position}", (layer.units, layer.units), (delta, delta)))
    append_sums(build, sums)
    shapes = [(each.name, each.shape) for each in sums]
    model = scan_model("sensitivities", build, work, sample, sums=shapes, targets=True)
    totals = totals_of(model, sums, work, sample, np.arange(sample.rows), targets=True)
    if not all(bool(np.isfinite(total).all()) for total in totals.values()):
        raise EngineError(f"'{network.name}': gradients are not finite on the calibration sample", "not-finite-inside")
    return replace(moments, sensitivities=_sensitivities(network, examples, totals, sample.rows))


def _ignore(parameter: str, gradient: Gradient) -> None:
    """Ignore the gradient, whose nodes are then never made."""


def _as_rows(build: GraphBuilder, delta: str, units: int) -> str:
    """(rows, units, space…) as (rows · positions, units)."""
    by_row = build.add("Reshape", delta, build.integers(0, units, -1))
    return build.add("Reshape", build.add("Transpose", by_row, perm=[0, 2, 1]), build.integers(-1, units))


def by_unit(build: GraphBuilder, trace: Trace) -> Trace:
    """The trace with weights (units, n_in), as ``backward`` reads them."""
    layers = {
        number: [at._replace(weight=build.add("Transpose", at.weight, perm=[1, 0])) for at in traces]
        for number, traces in trace.layers.items()
    }
    return Trace(trace.tensors, layers)


def _with_signs(examples: Examples, rows: Array, seed: int) -> Examples:
    """Those rows, with random signs as each head's targets."""
    signs, tasks = [], []
    for number, (labels, task) in enumerate(zip(examples.labels, examples.tasks, strict=True)):
        positions = labels.shape[1:] if task.loss == CROSS_ENTROPY and not task.imitates else labels.shape[1:-1]
        shape = (len(rows), *positions, task.outputs)
        signs.append(generator(seed, "sensitivity", number).choice(np.array([-1.0, 1.0]), shape))
        tasks.append(Task(SQUARED, task.outputs, positions=task.positions))
    return Examples([stored.select(rows) for stored in examples.stored], tuple(signs), tuple(tasks))


def _curvature(build: GraphBuilder, task: Task, output: str, signs: str) -> str:
    """U (rows, …, C) with the covariance of the loss's second derivative at the head, made of random signs ε.

    Cross-entropy: diag p − p pᵀ = E[u uᵀ] of u = √p ε − p Σ √p ε. Binary: √(p (1 − p)) ε. Squared error: ε, times σ'
    where a Sigmoid follows. Means over outputs and positions as in ``losses``.
    """
    if task.loss == CROSS_ENTROPY:
        p = build.add("Softmax", build.add("Mul", output, build.scalar(1 / TEMPERATURE)), axis=-1)
        spread = build.add("Mul", build.add("Sqrt", p), signs)
        total = build.add("ReduceSum", spread, build.axes(-1), keepdims=1)
        u, outputs = build.add("Sub", spread, build.add("Mul", p, total)), 1
    else:
        u, outputs = signs, task.outputs
        if task.loss == BINARY or task.squash == "Sigmoid":
            heat = TEMPERATURE if task.loss == BINARY else 1.0
            p = build.add("Sigmoid", build.add("Mul", output, build.scalar(1 / heat)))
            slope = build.add("Mul", p, build.add("Sub", build.scalar(1.0), p))
            u = build.add("Mul", u, build.add("Sqrt", slope) if task.loss == BINARY else slope)
        if task.is_weighed:
            u = build.add("Mul", u, build.array(1 / np.array(task.scale)))
    return build.add("Mul", u, build.scalar(1 / np.sqrt(outputs * task.positions)))


def _sensitivities(network: Network, examples: Examples, totals: dict[str, Array], rows: int) -> dict[Place, Array]:
    units = {
        head.tensor: np.array(task.scale)
        for head, task in zip(network.heads, examples.tasks, strict=True)
        if task.scale and not task.is_weighed
    }
    found: dict[Place, Array] = {}
    pool(network, totals, {})  # an error of weights that are applied several times is made several times
    for name, total in totals.items():
        number, position = (int(part) for part in name.split("_")[1:])
        segment = network.segments[number]
        metric = total / rows  # all positions of a row together: its errors at them add up at the heads
        scale = segment.over_ends(units, 1.0) if position == segment.hidden_count else None
        if scale is not None:
            metric = metric / np.outer(scale, scale)
        found[number, position] = metric
    return found
