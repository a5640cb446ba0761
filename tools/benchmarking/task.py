"""What every peer is given: plain arrays in an .npz, so that no environment needs more than numpy to read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SIZES = {"small": (784, 10, 10), "large": (784, 300, 100, 100, 10), "cifar-large": (3072, 300, 100, 100, 10)}
# Timed steps in each run: enough for the clock, few enough that all peers meet the same weather.
STEPS = {"small": 2000, "large": 500, "cifar-large": 300}
BATCH, SEED, RATE = 16, 0, 0.005
ROWS = 6_000  # a multiple of the batch: no batch is shorter than the others
WARM_UP = 20  # untimed steps at the start of each run: the first ones allocate what the rest reuse


@dataclass(frozen=True)
class Task:
    """A classifier to train with SGD on cross-entropy, Relu between the layers.

    Attributes:
        sizes: widths from the input to the classes.
        features: (rows, n_in) float32.
        labels: (rows,) int64.
        batches: row numbers (steps, batch) int64, of which the first WARM_UP steps are untimed.
        start: weight (n_in, n_out) and bias (n_out,) of each layer in turn, float32.
    """

    sizes: tuple[int, ...]
    features: Array
    labels: Array
    batches: Array
    start: tuple[Array, ...]

    @property
    def topology(self) -> str:
        """Such as 784-10-10."""
        return "-".join(map(str, self.sizes))

    @cached_property
    def targets(self) -> Array:
        """One-hot rows (rows, classes) float32."""
        return np.eye(self.sizes[-1], dtype=np.float32)[self.labels]

    def fresh(self) -> list[Array]:
        """Copies of the start parameters: some peers train in place."""
        return [values.copy() for values in self.start]

    def parts(self) -> tuple[Array, Array]:
        """The batches of the warm-up, and those that are timed."""
        return self.batches[:WARM_UP], self.batches[WARM_UP:]

    def save(self, path: Path) -> None:
        """Write it as an .npz of plain arrays."""
        arrays: dict[str, Any] = {f"start_{number}": values for number, values in enumerate(self.start)}
        arrays |= {name: np.asarray(getattr(self, name)) for name in ("sizes", "features", "labels", "batches")}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: str) -> Task:
        """What ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            start = tuple(file[f"start_{number}"] for number in range(2 * len(file["sizes"]) - 2))
            sizes = tuple(int(size) for size in file["sizes"])
            return cls(sizes, file["features"], file["labels"], file["batches"], start)


def make_task(sizes: tuple[int, ...], steps: int) -> Task:
    """Random rows and labels, Glorot uniform weights.

    The rows are short: with long ones SGD is near instability, where rounding grows.
    """
    rng = np.random.default_rng(SEED)
    features = rng.uniform(-0.1, 0.1, (ROWS, sizes[0])).astype(np.float32)
    labels = rng.integers(0, sizes[-1], ROWS)
    epochs = -(-(WARM_UP + steps) * BATCH // ROWS)
    rows = np.concatenate([rng.permutation(ROWS) for _ in range(epochs)])
    start: list[Array] = []
    for n_in, n_out in pairwise(sizes):
        bound = (6 / (n_in + n_out)) ** 0.5
        start += [rng.uniform(-bound, bound, (n_in, n_out)).astype(np.float32), np.zeros(n_out, np.float32)]
    return Task(sizes, features, labels, rows.reshape(-1, BATCH)[: WARM_UP + steps], tuple(start))


def step_flops(sizes: tuple[int, ...], batch: int = BATCH) -> int:
    """Floating-point operations of the matrix products of a step: 2 B n_in n_out for each of three a layer.

    Forward, the weight's gradient, the input's gradient; the latter is not needed for the first layer.
    """
    products = [n_in * n_out for n_in, n_out in pairwise(sizes)]
    return 2 * batch * (3 * sum(products) - products[0])


def deviation(some: list[Array], others: list[Array]) -> float:
    """The largest difference between two lists of parameters; NaN where there is one."""
    return float(np.max([np.abs(mine - theirs).max() for mine, theirs in zip(some, others, strict=True)]))
