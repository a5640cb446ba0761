"""PyTorch multilayer perceptrons as Optuna samples them, and their training.

Batch normalisation, where it is sampled, is folded into the layer before: it costs the network no parameters.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from searching.networks import Layers, Rows
from searching.space import MOST_EPOCHS, topology

# Known to be good: what a study begins with.
FIRST: tuple[dict[str, Any], ...] = (
    {
        "hidden_layers": 2,
        "share": 1.0,
        "ratio_2": 0.5,
        "log2_batch_size": 7,
        "optimizer": "adamw",
        "adamw_learning_rate": 2e-3,
        "adamw_weight_decay": 1e-2,
        "dropout": 0.0,
        "batch_norm": True,
        "epochs": 20,
        "schedule": "cosine",
    },
    {
        "hidden_layers": 2,
        "share": 1.0,
        "ratio_2": 0.5,
        "log2_batch_size": 6,
        "optimizer": "sgd",
        "sgd_learning_rate": 0.05,
        "sgd_weight_decay": 1e-4,
        "dropout": 0.0,
        "batch_norm": False,
        "epochs": 20,
        "schedule": "cosine",
    },
)


class TorchMLP:
    """A network with its optimizer.

    Attributes:
        sizes: widths from the input to the classes.
        epochs: to train; may be changed, and a cosine then ends there.
    """

    sizes: tuple[int, ...]
    epochs: int

    def __init__(self, trial: Any, train: Rows, budget: int, seed: int) -> None:
        """Sample it from ``trial``, with at most ``budget`` parameters."""
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self._features, self._labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
        self.sizes = topology(trial, train.features.shape[1], train.classes, budget)
        self._batch = int(2 ** trial.suggest_int("log2_batch_size", 5, 8))
        self._optimizer_name = trial.suggest_categorical("optimizer", ["adamw", "sgd"])
        dropout = trial.suggest_float("dropout", 0.0, 0.3)
        self.epochs = trial.suggest_int("epochs", 5, MOST_EPOCHS)
        self._cosine = trial.suggest_categorical("schedule", ["cosine", "constant"]) == "cosine"
        normalised = trial.suggest_categorical("batch_norm", [True, False])
        self._norms = [torch.nn.BatchNorm1d(width) if normalised else None for width in self.sizes[1:-1]]
        self._dense = [torch.nn.Linear(n_in, n_out) for n_in, n_out in pairwise(self.sizes)]
        modules: list[Any] = []
        for dense, norm in zip(self._dense, self._norms, strict=False):  # the last layer stands alone
            parts = [dense, norm, torch.nn.ReLU(), torch.nn.Dropout(dropout) if dropout else None]
            modules += [part for part in parts if part is not None]
        self._network = torch.nn.Sequential(*modules, self._dense[-1])
        self._optimizer = self._sample_optimizer(trial)
        self._rate = self._optimizer.param_groups[0]["lr"]
        self._done = 0

    def _sample_optimizer(self, trial: Any) -> Any:
        parameters = self._network.parameters()
        if self._optimizer_name == "adamw":
            rate = trial.suggest_float("adamw_learning_rate", 2e-4, 1e-2, log=True)
            decay = trial.suggest_float("adamw_weight_decay", 1e-4, 0.1, log=True)
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        rate = trial.suggest_float("sgd_learning_rate", 5e-3, 0.2, log=True)
        decay = trial.suggest_float("sgd_weight_decay", 1e-6, 1e-3, log=True)
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay, fused=True)

    def epoch(self) -> None:
        """One pass over the training rows, shuffled."""
        # One row alone cannot be normalised.
        order = [rows for rows in torch.randperm(len(self._labels)).split(self._batch) if len(rows) > 1]
        self._network.train()
        for step, rows in enumerate(order):
            if self._cosine:
                part = (self._done + step / len(order)) / self.epochs
                self._optimizer.param_groups[0]["lr"] = self._rate * (1 + math.cos(math.pi * part)) / 2
            outputs = self._network(self._features.index_select(0, rows))
            loss = torch.nn.functional.cross_entropy(outputs, self._labels.index_select(0, rows))
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        self._done += 1

    def layers(self) -> Layers:
        """Its dense layers as they are now, copied."""
        folded = [fold(dense, norm) for dense, norm in zip(self._dense, [*self._norms, None], strict=True)]
        return [(weight.detach().numpy().T.copy(), bias.detach().numpy().copy()) for weight, bias in folded]


def fold(dense: Any, norm: Any | None) -> tuple[Any, Any]:
    """Weight (n_out, n_in) and bias (n_out,) of a dense layer with the normalisation after it, as it is at inference.

    γ (Wx + b − μ) / √(σ² + ε) + β = (s W) x + s (b − μ) + β with s = γ / √(σ² + ε).
    """
    if norm is None:
        return dense.weight, dense.bias
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale[:, None] * dense.weight, scale * (dense.bias - norm.running_mean) + norm.bias


make = TorchMLP
