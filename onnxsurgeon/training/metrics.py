"""What is reported of a network on a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsurgeon.linear_algebra import Array


@dataclass(frozen=True)
class Metrics:
    """Measured on one split.

    Attributes:
        accuracy: fraction of rows whose largest logit is the label's.
        loss: mean cross-entropy in nats.
        rows: number of rows.
    """

    accuracy: float
    loss: float
    rows: int


def correct_and_loss(logits: Array, labels: Array) -> tuple[int, float]:
    """Number of rows (rows, C) classified right, and the sum of their cross-entropies, in float64."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(z).sum(axis=1))
    loss = log_sum - z[np.arange(len(labels)), labels]
    return int(np.count_nonzero(logits.argmax(axis=1) == labels)), float(loss.sum())
