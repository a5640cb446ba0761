"""scikit-learn's MLPClassifier as Optuna samples it, trained epoch by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from searching.networks import Layers, Rows
from searching.space import MOST_EPOCHS, topology

# Known to be good: what a study begins with.
FIRST: tuple[dict[str, Any], ...] = (
    {
        "hidden_layers": 2,
        "share": 1.0,
        "ratio_2": 0.5,
        "log2_batch_size": 7,
        "solver": "adam",
        "alpha": 1e-4,
        "adam_learning_rate": 1e-3,
        "epochs": 20,
    },
    {
        "hidden_layers": 2,
        "share": 1.0,
        "ratio_2": 0.5,
        "log2_batch_size": 6,
        "solver": "sgd",
        "alpha": 1e-4,
        "sgd_learning_rate": 0.01,
        "epochs": 20,
    },
)


class SklearnMLP:
    """A network with its optimizer.

    Attributes:
        sizes: widths from the input to the classes.
        epochs: to train; may be changed.
    """

    sizes: tuple[int, ...]
    epochs: int

    def __init__(self, trial: Any, train: Rows, budget: int, seed: int) -> None:
        """Sample it from ``trial``, with at most ``budget`` parameters."""
        self._train, self._classes = train, np.arange(train.classes)
        self.sizes = topology(trial, train.features.shape[1], train.classes, budget)
        solver = trial.suggest_categorical("solver", ["adam", "sgd"])
        lowest, highest = (2e-4, 1e-2) if solver == "adam" else (2e-3, 0.2)
        self.epochs = trial.suggest_int("epochs", 5, MOST_EPOCHS)
        self._model = MLPClassifier(
            self.sizes[1:-1],
            solver=solver,
            alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
            batch_size=int(2 ** trial.suggest_int("log2_batch_size", 5, 8)),
            learning_rate_init=trial.suggest_float(f"{solver}_learning_rate", lowest, highest, log=True),
            random_state=seed,
        )

    def epoch(self) -> None:
        """One pass over the training rows, shuffled.

        Raises:
            ArithmeticError: it diverged.
        """
        try:
            self._model.partial_fit(self._train.features, self._train.labels, classes=self._classes)
        except ValueError as error:
            if "non-finite" in str(error):
                raise ArithmeticError(str(error)) from error
            raise

    def layers(self) -> Layers:
        """Its dense layers as they are now, copied."""
        pairs = zip(self._model.coefs_, self._model.intercepts_, strict=True)
        return [(weight.copy(), bias.copy()) for weight, bias in pairs]


make = SklearnMLP
