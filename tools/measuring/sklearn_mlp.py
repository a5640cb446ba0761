"""scikit-learn's MLP at its defaults: a hidden layer of 100 Relus, Adam, at most 200 epochs."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from measuring.datasets import Parts
from measuring.models import r_squared


def fit(parts: Parts, seed: int, *, standardised: bool, out: Path | None = None) -> dict[str, Any]:
    """What it comes to on the test rows, with ``seed`` as its random state; exported to ``out`` where that is wanted.

    Args:
        parts: the rows.
        seed: of the network.
        standardised: whether a StandardScaler stands before it.
        out: where the whole of it is written as ONNX.
    """
    kind = MLPClassifier if parts.is_classes else MLPRegressor
    mlp = kind(random_state=seed)
    model = make_pipeline(StandardScaler(), mlp) if standardised else mlp
    y = parts.y_train if parts.is_classes or parts.outputs > 1 else parts.y_train[:, 0]
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(parts.x_train, y)
    seconds = time.perf_counter() - begun
    predicted = model.predict(parts.x_test)
    if parts.is_classes:
        test = float(np.mean(predicted == parts.y_test))
    else:
        test = r_squared(parts.y_test, predicted.reshape(parts.y_test.shape))
    if out is not None:
        _export(model, parts, out)
    parameters = sum(each.size for each in (*mlp.coefs_, *mlp.intercepts_))
    return {"test": test, "seconds": seconds, "parameters": int(parameters), "epochs": mlp.n_iter_}


def _export(model: Any, parts: Parts, out: Path) -> None:
    """Write a model of scikit-learn as ONNX."""
    options = {"options": {id(model): {"zipmap": False}}} if parts.is_classes else {}
    converted = to_onnx(model, parts.x_train[:1], target_opset={"": 18, "ai.onnx.ml": 3}, **options)
    part = out.with_suffix(".part")
    part.write_bytes(converted.SerializeToString())
    part.replace(out)
