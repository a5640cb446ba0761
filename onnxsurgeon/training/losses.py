"""Loss functions as nodes: the gradient with respect to a head, and the loss where it is asked for.

A gradient is that of the sum over the batch's rows; −η/B is multiplied in later. Losses with several outputs are means
over the outputs.
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
    """Names of the summed loss of the batch, shape () ("" where not asked for), and of its gradient (batch, C)."""

    total: str
    gradient: str


Loss = Callable[[GraphBuilder, Task, str, str, bool], LossNodes]


def loss_nodes(build: GraphBuilder, task: Task, output: str, targets: str, *, report: bool) -> LossNodes:
    """Append the loss of ``task`` on the head ``output`` (batch, C) against ``targets`` (batch, C)."""
    return LOSSES[task.loss](build, task, output, targets, report)


def softmax_cross_entropy(build: GraphBuilder, task: Task, logits: str, targets: str, report: bool) -> LossNodes:
    """L = −Σ t log softmax(z) over the batch, and ∂L/∂z = softmax(z) − t: one softmax serves both.

    The reported loss of a row saturates where its probability leaves the type's normal range (87 in float32).
    """
    probabilities = build.add("Softmax", logits, axis=-1)
    gradient = build.add("Sub", probabilities, targets)
    if not report:
        return LossNodes("", gradient)
    likelihood = build.add("ReduceSum", build.add("Mul", probabilities, targets), build.axes(1), keepdims=0)
    floor = build.scalar(float(np.finfo(build.dtype).tiny))
    log_likelihood = build.add("Log", build.add("Max", likelihood, floor))
    total = build.add("Neg", build.add("ReduceSum", log_likelihood, keepdims=0))
    return LossNodes(total, gradient)


def binary_cross_entropy(build: GraphBuilder, task: Task, logits: str, targets: str, report: bool) -> LossNodes:
    """L = Σ max(z, 0) − t z + log(1 + exp(−|z|)), and ∂L/∂z = σ(z) − t, both over the number of outputs."""
    gradient = _mean(build, task, build.add("Sub", build.add("Sigmoid", logits), targets))
    if not report:
        return LossNodes("", gradient)
    rest = build.add(
        "Log", build.add("Add", build.scalar(1.0), build.add("Exp", build.add("Neg", build.add("Abs", logits))))
    )
    linear = build.add("Sub", build.add("Relu", logits), build.add("Mul", targets, logits))
    return LossNodes(_mean(build, task, build.add("ReduceSum", build.add("Add", linear, rest), keepdims=0)), gradient)


def squared_error(build: GraphBuilder, task: Task, output: str, targets: str, report: bool) -> LossNodes:
    """L = Σ (p − t)², ∂L/∂z = 2 (p − t) p', both over the number of outputs; p = z, or σ(z) where that follows."""
    prediction = build.add("Sigmoid", output) if task.squash == "Sigmoid" else output
    error = build.add("Sub", prediction, targets)
    gradient = build.add("Mul", error, build.scalar(2.0 / task.outputs))
    if task.squash == "Sigmoid":
        slope = build.add("Mul", prediction, build.add("Sub", build.scalar(1.0), prediction))
        gradient = build.add("Mul", gradient, slope)
    if not report:
        return LossNodes("", gradient)
    square = build.add("ReduceSum", build.add("Mul", error, error), keepdims=0)
    return LossNodes(_mean(build, task, square), gradient)


def _mean(build: GraphBuilder, task: Task, total: str) -> str:
    return total if task.outputs == 1 else build.add("Mul", total, build.scalar(1.0 / task.outputs))


LOSSES: dict[str, Loss] = {CROSS_ENTROPY: softmax_cross_entropy, BINARY: binary_cross_entropy, SQUARED: squared_error}


def require_tasks(network: Network, tasks: tuple[Task, ...]) -> None:
    """Raise EngineError unless there is one task for each of the network's heads, of its width."""
    widths = tuple(head.width for head in network.heads)
    if tuple(task.outputs for task in tasks) != widths:
        wanted = ", ".join(str(task.outputs) for task in tasks)
        raise EngineError(f"'{network.name}': its heads are {', '.join(map(str, widths))} wide, the targets {wanted}")
