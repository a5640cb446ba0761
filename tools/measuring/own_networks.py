"""Fifteen networks of different kinds, each trained in seconds on the rows that are written beside it.

They are trained on all training rows, those included that a search later decides by: so are most networks that are made
smaller. Seeds are fixed, PyTorch has one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from measuring import datasets
from measuring.datasets import Parts, Table, split
from measuring.models import Array
from measuring.sklearn_mlp import fit as fit_defaults
from measuring.torch_classifier import fit, functional, perceptron
from measuring.torch_training import export
from onnxsurgeon import TrainingSettings, create, load_dataset, make_engine, save
from onnxsurgeon.training.fit import fit as fit_here

SEED = 0


class Normalised(nn.Module):
    """What makes inputs standard, by the training rows, and a network behind it."""

    def __init__(self, inner: Any, x: Array) -> None:
        super().__init__()
        deviation = x.std(axis=0)
        self.inner = inner
        self.register_buffer("mean", torch.from_numpy(x.mean(axis=0)))
        self.register_buffer("unit", torch.from_numpy((1 / np.where(deviation > 0, deviation, 1)).astype(np.float32)))

    def forward(self, x: Any) -> Any:
        """Rows (batch, n) to what the network makes of them."""
        return self.inner((x - self.mean) * self.unit)


class Steps(nn.Module):
    """Layers on every step of (batch, steps, n), the mean over the steps, and a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.each = perceptron((8, 48, 32, 32))
        self.last = perceptron((32, 24, 10))

    def forward(self, x: Any) -> Any:
        """Logits (batch, 10)."""
        return self.last(functional.relu(self.each(x)).mean(dim=1))


class TwoHeads(nn.Module):
    """Actions and a value from one trunk."""

    def __init__(self, sizes: Sequence[int], actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(perceptron(sizes, nn.ELU), nn.ELU())
        self.mu = nn.Linear(sizes[-1], actions)
        self.value = nn.Sequential(nn.Linear(sizes[-1], 16), nn.ELU(), nn.Linear(16, 1))

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Actions (batch, k) and the value (batch, 1)."""
        hidden = self.trunk(x)
        return self.mu(hidden), self.value(hidden)


class Joined(nn.Module):
    """The outputs of a network with several, side by side, as they are trained."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        """All columns."""
        return torch.cat(self.inner(x), dim=1)


def trained(
    network: Callable[[], Any],
    parts: Parts,
    loss: Callable[[Any, Any], Any],
    epochs: int,
    rate: float = 0.002,
    batch: int = 64,
) -> Any:
    """A network that is made and trained on the parts' training rows; see ``fit``."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    y = torch.from_numpy(parts.y_train if parts.y_train.dtype.kind == "i" else parts.y_train.astype(np.float32))
    inputs = [torch.from_numpy(parts.x_train)]
    return fit(network(), inputs, y, loss, epochs=epochs, seed=SEED, rate=rate, batch=batch)


def write(network: Any, parts: Parts, model: Path, data: Path, outputs: Sequence[str] = ("output",)) -> None:
    """The data first: where the model is, both are."""
    parts.write(data)
    export(network.eval(), torch.from_numpy(parts.x_train[:2]), model, "input", outputs)


def classes(
    table: Callable[[], Table],
    sizes: Sequence[int],
    activation: Callable[[], Any],
    epochs: int,
    *,
    most: int = 10_000,
    normalised: bool = True,
) -> Callable[[Path, Path], None]:
    """What makes a perceptron that ends in logits."""

    def make(model: Path, data: Path) -> None:
        parts = _first(split(table(), SEED), most)

        def new() -> Any:
            inner = perceptron(sizes, activation)
            return Normalised(inner, parts.x_train) if normalised else inner

        write(trained(new, parts, functional.cross_entropy, epochs), parts, model, data, ("logits",))

    return make


def _first(parts: Parts, most: int) -> Parts:
    return Parts(parts.x_train[:most], parts.y_train[:most], parts.x_test[:most], parts.y_test[:most])


def regression(
    table: Callable[[], Table], sizes: Sequence[int], activation: Callable[[], Any], epochs: int
) -> Callable[[Path, Path], None]:
    """What makes a perceptron of one output."""

    def make(model: Path, data: Path) -> None:
        parts = split(table(), SEED)
        made = trained(
            lambda: Normalised(perceptron(sizes, activation), parts.x_train), parts, functional.mse_loss, epochs
        )
        write(made, parts, model, data)

    return make


def by_sklearn(table: Callable[[], Table]) -> Callable[[Path, Path], None]:
    """What makes scikit-learn's MLP with its defaults behind a StandardScaler."""

    def make(model: Path, data: Path) -> None:
        parts = split(table(), SEED)
        parts.write(data)
        fit_defaults(parts, SEED, standardised=True, out=model)

    return make


def digits_fit(model: Path, data: Path) -> None:
    """64-64-32-10, trained by onnxsurgeon."""
    split(datasets.digits(), SEED).write(data)
    settings = TrainingSettings(learning_rate=0.002, optimizer="adamw", schedule="cosine", weight_decay=0.01)
    network = create((64, 64, 32, 10), seed=SEED)
    made, _ = fit_here(
        network, load_dataset(str(data)), make_engine("loop"), epochs=30, settings=settings, batch_size=32, seed=SEED
    )
    save(made.network, model)


def digits_labels(model: Path, data: Path) -> None:
    """Whether a digit is even, above 4, prime: probabilities."""
    parts = split(datasets.digits(), SEED)
    labels = [
        np.stack([y % 2 == 0, y > 4, np.isin(y, (2, 3, 5, 7))], axis=1).astype(np.int64)
        for y in (parts.y_train, parts.y_test)
    ]
    parts = Parts(parts.x_train, labels[0], parts.x_test, labels[1])

    def loss(made: Any, targets: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(made, targets.float())

    network = trained(lambda: perceptron((64, 64, 32, 3), nn.SiLU), parts, loss, 40)
    write(nn.Sequential(network, nn.Sigmoid()), parts, model, data, ("probabilities",))


def digits_steps(model: Path, data: Path) -> None:
    """The eight rows of a digit as steps."""
    parts = split(datasets.digits(), SEED)
    parts = Parts(parts.x_train.reshape(-1, 8, 8), parts.y_train, parts.x_test.reshape(-1, 8, 8), parts.y_test)
    write(trained(Steps, parts, functional.cross_entropy, 60, 0.005), parts, model, data, ("logits",))


def insurance(model: Path, data: Path) -> None:
    """One probability."""
    parts = _first(split(datasets.insurance(), SEED), 8_000)

    def loss(made: Any, targets: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(made[:, 0], targets.float())

    network = trained(lambda: Normalised(perceptron((25, 64, 32, 1)), parts.x_train), parts, loss, 10)
    write(nn.Sequential(network, nn.Sigmoid()), parts, model, data, ("probability",))


def measured(rows: int, columns: int, targets: int) -> Table:
    """What a robot might measure, 12 factors behind all columns and noise, and smooth functions of it."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((rows, 12)) @ rng.standard_normal((12, columns)) / np.sqrt(12)
    x += 0.3 * rng.standard_normal(x.shape)
    inner = rng.standard_normal((columns, 40)) / np.sqrt(columns)
    y = np.tanh(np.tanh(1.5 * x @ inner) @ rng.standard_normal((40, targets)) / np.sqrt(10))
    x = x * rng.uniform(0.1, 20, columns) + rng.uniform(-5, 5, columns)
    return Table(x.astype(np.float32), y, 8_000)


def policy(model: Path, data: Path) -> None:
    """Actions between −1 and 1, in their own units."""
    table = measured(10_000, 32, 8)
    parts = Parts(table.x[:8_000], table.y[:8_000], table.x[8_000:], table.y[8_000:])

    def new() -> Any:
        return Normalised(nn.Sequential(perceptron((32, 128, 64, 8), nn.SiLU), nn.Tanh()), parts.x_train)

    write(trained(new, parts, functional.mse_loss, 40), parts, model, data, ("actions",))


def actor_critic(model: Path, data: Path) -> None:
    """Six actions and a value."""
    parts = split(measured(10_000, 24, 7), SEED)
    network = trained(
        lambda: Joined(Normalised(TwoHeads((24, 96, 64), 6), parts.x_train)), parts, functional.mse_loss, 40
    )
    write(network.inner, parts, model, data, ("mu", "value"))


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "fashion": classes(datasets.fashion, (784, 64, 32, 10), nn.ReLU, 8, most=5_000, normalised=False),
    "digits-fit": digits_fit,
    "digits-labels": digits_labels,
    "digits-prelu": classes(datasets.digits, (64, 48, 32, 10), lambda: nn.PReLU(), 40, normalised=False),
    "digits-steps": digits_steps,
    "breast-cancer": by_sklearn(datasets.breast_cancer),
    "pima": classes(datasets.pima, (7, 24, 12, 2), nn.Tanh, 40),
    "diabetes": by_sklearn(datasets.diabetes),
    "computers": regression(datasets.computers, (12, 48, 24, 1), nn.ELU, 30),
    "insurance": insurance,
    "diamonds-cut": classes(datasets.diamonds_cut, (22, 64, 32, 5), nn.SiLU, 20),
    "diamonds-price": regression(datasets.diamonds_price, (26, 64, 32, 1), nn.GELU, 10),
    "flights-late": classes(datasets.flights_late, (130, 64, 32, 2), nn.ReLU, 3, most=15_000),
    "policy": policy,
    "actor-critic": actor_critic,
}
