"""Loss functions as nodes: the gradient with respect to the logits, and the loss where it is asked for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.training.builder import GraphBuilder

# What may read the logits of a classifier without changing which loss fits.
_CLASSIFIER_SUFFIXES = frozenset({"Softmax", "LogSoftmax", "ArgMax", "Identity", "TopK"})


class LossNodes(NamedTuple):
    """Names of the summed loss of the batch, shape () ("" where not asked for), and of its gradient (batch, C)."""

    total: str
    gradient: str


def softmax_cross_entropy(build: GraphBuilder, logits: str, targets: str, *, report: bool) -> LossNodes:
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


def require_cross_entropy(network: Network) -> None:
    """Raise EngineError unless the network's suffix fits logits with integer labels."""
    other = [op for op in network.frame.suffix if op not in _CLASSIFIER_SUFFIXES]
    if other:
        raise EngineError(
            f"'{network.name}': its last dense layer feeds {' and '.join(other)}, for which no loss is known; "
            "Softmax or plain logits with integer labels are supported yet"
        )
    if network.widths[-1] < 2:
        raise EngineError(f"'{network.name}': a single output cannot be trained with cross-entropy")
