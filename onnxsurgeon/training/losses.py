"""Loss functions as nodes: the gradient with respect to a head, and the loss where it is asked for.

A gradient is that of the sum over the batch's rows; −η/B is multiplied in later. Losses with several outputs are means
over the outputs, and over the positions where a row has several rows of outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder


class LossNodes(NamedTuple):
    """Names of the summed loss of the batch, shape () ("" where not asked for), and of its gradient (batch, …, C)."""

    total: str
    gradient: str


class _Term(NamedTuple):
    """One term of a cross-entropy: its weight, the temperature, and its targets' name."""

    weight: float
    temperature: float
    targets: str


Loss = Callable[[GraphBuilder, Task, str, str, bool], LossNodes]


def loss_nodes(build: GraphBuilder, task: Task, output: str, targets: str, *, report: bool) -> LossNodes:
    """Append the loss of ``task`` on the head ``output`` (batch, …, C) against ``targets`` (batch, …, C).

    For a task that ``is_mixed``, the targets are (batch, …, 2 C), the labels' before the teacher's.
    """
    return LOSSES[task.loss](build, task, output, targets, report)


def softmax_cross_entropy(build: GraphBuilder, task: Task, logits: str, targets: str, report: bool) -> LossNodes:
    """L = −Σ t log softmax(z) over the batch, and ∂L/∂z = softmax(z) − t: one softmax serves both.

    Where classes are weighed, a row's loss and gradient are multiplied by Σ t w, its class's weight.
    The reported loss of a row saturates where its probability leaves the type's normal range (87 in float32).
    """
    if task.teacher_weight:
        return _softened(build, task, logits, targets, _soft_cross_entropy, report=report)
    probabilities = build.add("Softmax", logits, axis=-1)
    gradient = build.add("Sub", probabilities, targets)
    if task.class_weights:
        by_class = np.array(task.class_weights)
        gradient = build.add("Mul", gradient, build.add("MatMul", targets, build.array(by_class[:, None])))
    gradient = _scaled(build, gradient, 1 / task.positions)
    if not report:
        return LossNodes("", gradient)
    likelihood = build.add("ReduceSum", build.add("Mul", probabilities, targets), build.axes(-1), keepdims=0)
    floor = build.scalar(float(np.finfo(build.dtype).tiny))
    log_likelihood = build.add("Log", build.add("Max", likelihood, floor))
    if task.class_weights:
        log_likelihood = build.add("Mul", log_likelihood, build.add("MatMul", targets, build.array(by_class)))
    total = build.add("Neg", build.add("ReduceSum", log_likelihood, keepdims=0))
    return LossNodes(_scaled(build, total, 1 / task.positions), gradient)


def binary_cross_entropy(build: GraphBuilder, task: Task, logits: str, targets: str, report: bool) -> LossNodes:
    """L = Σ max(z, 0) − t z + log(1 + exp(−|z|)), and ∂L/∂z = σ(z) − t, both over the number of outputs.

    Where the two classes are weighed, those of a row are multiplied by w₀ + t (w₁ − w₀).
    """
    if task.teacher_weight:
        return _softened(build, task, logits, targets, _binary_term, report=report)
    weights = ""
    if task.class_weights:
        first, second = task.class_weights
        weights = build.add("Add", build.add("Mul", targets, build.scalar(second - first)), build.scalar(first))
    found = _binary_term(build, logits, targets, report=report, weights=weights)
    return LossNodes(found.total and _mean(build, task, found.total), _mean(build, task, found.gradient))


def squared_error(build: GraphBuilder, task: Task, output: str, targets: str, report: bool) -> LossNodes:
    """L = Σ (p − t)², ∂L/∂z = 2 (p − t) p', both over the number of outputs; p = z, or σ(z) where a Sigmoid follows.

    For a task that ``is_weighed``, p = z / s, since the targets are divided by s.
    """
    prediction = build.add("Sigmoid", output) if task.squash == "Sigmoid" else output
    if task.is_weighed:
        prediction = build.add("Mul", prediction, build.array(1 / np.array(task.scale)))
    error = build.add("Sub", prediction, targets)
    gradient = build.add("Mul", error, build.scalar(2.0 / (task.outputs * task.positions)))
    if task.squash == "Sigmoid":
        slope = build.add("Mul", prediction, build.add("Sub", build.scalar(1.0), prediction))
        gradient = build.add("Mul", gradient, slope)
    if task.is_weighed:
        gradient = build.add("Mul", gradient, build.array(1 / np.array(task.scale)))
    if not report:
        return LossNodes("", gradient)
    square = build.add("ReduceSum", build.add("Mul", error, error), keepdims=0)
    return LossNodes(_mean(build, task, square), gradient)


def _softened(
    build: GraphBuilder, task: Task, logits: str, targets: str, term: Callable[..., LossNodes], *, report: bool
) -> LossNodes:
    """L = (1 − w) L(z, labels) + w T² L(z/T, teacher), and ∂L/∂z = (1 − w) ∂L/∂z + w T ∂L/∂(z/T)."""
    share = 1 / task.positions / (1 if task.loss == CROSS_ENTROPY else task.outputs)
    totals, gradients = [], []
    for weight, temperature, towards in _terms(build, task, targets):
        found = term(build, _scaled(build, logits, 1 / temperature), towards, report=report)
        gradients.append(_scaled(build, found.gradient, weight * temperature * share))
        totals.append(found.total and _scaled(build, found.total, weight * temperature**2 * share))
    if len(totals) == 1:
        return LossNodes(totals[0], gradients[0])
    return LossNodes(totals[0] and build.add("Add", *totals), build.add("Add", *gradients))


def _terms(build: GraphBuilder, task: Task, targets: str) -> list[_Term]:
    if not task.is_mixed:
        return [_Term(1.0, task.temperature if task.is_softened else 1.0, targets)]
    width, last = task.outputs, build.integers(-1)
    labels, teachers = (
        build.add("Slice", targets, build.integers(first), build.integers(first + width), last) for first in (0, width)
    )
    return [_Term(1 - task.teacher_weight, 1.0, labels), _Term(task.teacher_weight, task.temperature, teachers)]


def _soft_cross_entropy(build: GraphBuilder, logits: str, targets: str, *, report: bool) -> LossNodes:
    """L = −Σ t log softmax(z), ∂L/∂z = softmax(z) − t, for rows t that are any distributions."""
    gradient = build.add("Sub", build.add("Softmax", logits, axis=-1), targets)
    if not report:
        return LossNodes("", gradient)
    each = build.add("Mul", targets, build.add("LogSoftmax", logits, axis=-1))
    return LossNodes(build.add("Neg", build.add("ReduceSum", each, keepdims=0)), gradient)


def _binary_term(build: GraphBuilder, logits: str, targets: str, *, report: bool, weights: str = "") -> LossNodes:
    """L = Σ max(z, 0) − t z + log(1 + exp(−|z|)), ∂L/∂z = σ(z) − t; each times ``weights`` (batch, …, C)."""
    gradient = build.add("Sub", build.add("Sigmoid", logits), targets)
    gradient = build.add("Mul", gradient, weights) if weights else gradient
    if not report:
        return LossNodes("", gradient)
    rest = build.add(
        "Log", build.add("Add", build.scalar(1.0), build.add("Exp", build.add("Neg", build.add("Abs", logits))))
    )
    linear = build.add("Sub", build.add("Relu", logits), build.add("Mul", targets, logits))
    each = build.add("Add", linear, rest)
    each = build.add("Mul", each, weights) if weights else each
    return LossNodes(build.add("ReduceSum", each, keepdims=0), gradient)


def _mean(build: GraphBuilder, task: Task, total: str) -> str:
    return _scaled(build, total, 1 / (task.outputs * task.positions))


def _scaled(build: GraphBuilder, values: str, factor: float) -> str:
    return values if factor == 1 else build.add("Mul", values, build.scalar(factor))


LOSSES: dict[str, Loss] = {CROSS_ENTROPY: softmax_cross_entropy, BINARY: binary_cross_entropy, SQUARED: squared_error}


def require_tasks(network: Network, tasks: tuple[Task, ...]) -> None:
    """Raise EngineError unless there is one task for each of the network's heads, of its width."""
    if not tasks:
        raise EngineError(f"'{network.name}': the rows have no labels, which metrics and gradients need", "no-labels")
    widths = tuple(head.width for head in network.heads)
    if tuple(task.outputs for task in tasks) != widths:
        wanted = ", ".join(str(task.outputs) for task in tasks)
        raise EngineError(
            f"'{network.name}': its heads are {', '.join(map(str, widths))} wide, the targets {wanted}", "label-columns"
        )
