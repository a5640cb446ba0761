"""evaluate.onnx: sums over some rows, from which loss and metric are computed."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.deploy import names
from onnxsurgeon.deploy.pieces import (
    INTEGERS,
    OuterBuilder,
    enter,
    finished,
    frozen_constants,
    kind_of,
    parameter_declarations,
    read_rows,
    read_targets,
    row_declarations,
    target_declarations,
)
from onnxsurgeon.deploy.plan import Plan
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import forward
from onnxsurgeon.training.resident import numbered


def evaluate_graph(plan: Plan) -> onnx.ModelProto:
    """The sums of ``plan``'s losses and metrics over rows.

    Inputs: the rows and targets; "numbers" (n,) int32, which of them; the state's parameters. Outputs: "loss" (), the
    losses of all heads summed over these rows; for each head, "correct" (), how many classes or labels are predicted
    right, or "squared_error" (outputs,), summed in the targets' own units; "correct_1", ….
    """
    network = plan.network
    build = OuterBuilder(network.dtype)
    kind = kind_of(network.dtype)
    for each in plan.trained:
        build.add("Identity", enter(build, each, names.parameter(each.name)), output=each.inner)
    frozen_constants(build, plan)
    features, factors = read_rows(build, plan, names.NUMBERS)
    targets = read_targets(build, plan, names.NUMBERS)
    trace = forward(build, network, features, factors=factors, by_unit=True)
    totals, outputs = [], []
    for head, task, target, name in zip(network.heads, plan.tasks, targets, metric_names(plan), strict=True):
        z = trace.tensors[head.tensor]
        totals.append(_RULES[task.loss](build, task, z, target, name))
        shape = [task.outputs] if task.loss == SQUARED else []
        outputs.append(helper.make_tensor_value_info(name, kind, shape))
    while len(totals) > 1:
        totals.append(build.add("Add", totals.pop(0), totals.pop(0)))
    build.add("Identity", *totals, output=names.LOSS)
    inputs = [
        *row_declarations(plan.rows),
        *target_declarations(plan),
        helper.make_tensor_value_info(names.NUMBERS, INTEGERS, ["numbers"]),
        *parameter_declarations(plan),
    ]
    return finished("evaluate", build, inputs, [helper.make_tensor_value_info(names.LOSS, kind, []), *outputs])


def metric_names(plan: Plan) -> list[str]:
    """For each head the output from which its metric is computed."""
    count = len(plan.tasks)
    correct, error = numbered(names.CORRECT, count), numbered(names.SQUARED_ERROR, count)
    return [error[i] if task.loss == SQUARED else correct[i] for i, task in enumerate(plan.tasks)]


def _classes(build: GraphBuilder, task: Task, z: str, targets: str, correct: str) -> str:
    """−Σ t log softmax(z), and how often the largest output is that of the target."""
    predicted, right = (build.add("ArgMax", values, axis=-1, keepdims=0) for values in (z, targets))
    _count(build, build.add("Equal", predicted, right), correct)
    cooled = _times(build, z, 1 / task.temperature)
    each = build.add("Mul", targets, build.add("LogSoftmax", cooled, axis=-1))
    if task.class_weights:
        each = build.add("Mul", each, build.array(np.array(task.class_weights)))
    return _times(build, _sum(build, each), -(task.temperature**2) / task.positions)


def _labels(build: GraphBuilder, task: Task, z: str, targets: str, correct: str) -> str:
    """Σ max(z, 0) − t z + log(1 + exp(−|z|)) over the number of outputs, and how many labels are predicted right."""
    above = build.add("Greater", z, build.scalar(0.0)), build.add("Greater", targets, build.scalar(0.5))
    _count(build, build.add("Equal", *above), correct)
    z = _times(build, z, 1 / task.temperature)
    tail = build.add("Exp", build.add("Neg", build.add("Abs", z)))
    rest = build.add("Log", build.add("Add", build.scalar(1.0), tail))
    each = build.add("Add", build.add("Sub", build.add("Relu", z), build.add("Mul", targets, z)), rest)
    if task.class_weights:
        first, second = task.class_weights
        weights = build.add("Add", build.add("Mul", targets, build.scalar(second - first)), build.scalar(first))
        each = build.add("Mul", each, weights)
    return _times(build, _sum(build, each), task.temperature**2 / (task.outputs * task.positions))


def _values(build: GraphBuilder, task: Task, z: str, targets: str, error: str) -> str:
    """Σ (p − t)² in the units of training, over the number of outputs; and for each output in its own units."""
    p = build.add("Sigmoid", z) if task.squash == "Sigmoid" else z
    if task.is_weighed:
        p = build.add("Mul", p, build.array(1 / np.array(task.scale)))
    difference = build.add("Sub", p, targets)
    square = build.add("Mul", difference, difference)
    by_output = build.add(
        "ReduceSum", build.add("Reshape", square, build.integers(-1, task.outputs)), build.axes(0), keepdims=0
    )
    units = build.array(np.array(task.scale) ** 2) if task.scale else build.scalar(1.0)
    build.add("Mul", by_output, units, output=error)
    return _times(build, build.add("ReduceSum", by_output, keepdims=0), 1 / (task.outputs * task.positions))


def _count(build: GraphBuilder, is_right: str, output: str) -> None:
    build.add("ReduceSum", build.add("Cast", is_right, to=kind_of(build.dtype)), keepdims=0, output=output)


def _sum(build: GraphBuilder, values: str) -> str:
    return build.add("ReduceSum", values, keepdims=0)


def _times(build: GraphBuilder, values: str, factor: float) -> str:
    return values if factor == 1 else build.add("Mul", values, build.scalar(factor))


_RULES = {CROSS_ENTROPY: _classes, BINARY: _labels, SQUARED: _values}
