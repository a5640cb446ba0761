"""What a dense chain sees of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxsurgeon.linear_algebra import Array


@dataclass(frozen=True, eq=False)
class Examples:
    """What the dense chain sees of a data set.

    Attributes:
        features: the chain's inputs, shape (rows, n_in), the prefix applied.
        labels: class of each row, shape (rows,), int64.
        classes: number of the chain's outputs, C.
    """

    features: Array
    labels: Array
    classes: int

    @property
    def rows(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @cached_property
    def targets(self) -> Array:
        """One-hot rows (rows, C) of the features' type: what a softmax's gradient subtracts."""
        targets = np.zeros((self.rows, self.classes), self.features.dtype)
        targets[np.arange(self.rows), self.labels] = 1
        return targets
