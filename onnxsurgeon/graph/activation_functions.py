"""Activation functions by numpy, in the type of their argument: what numerical comparison and checks go by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onnxsurgeon.linear_algebra import Array

Function = Callable[[Array, Mapping[str, Any]], Array]

erf = np.vectorize(math.erf, otypes=[np.float64])
TANH_GELU_SCALE, TANH_GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(−x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(−|x|)), without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    """max(0, min(1, αx + β))."""
    return np.clip(alpha * x + beta, 0, 1)


def gelu(x: Array, approximate: str) -> Array:
    """X Φ(x), with the normal distribution function Φ or its approximation by tanh."""
    if approximate == "tanh":
        inner = TANH_GELU_SCALE * (x + TANH_GELU_CUBIC * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


FUNCTIONS: dict[str, Function] = {
    "Relu": lambda x, _: np.maximum(x, 0),
    "Clip": lambda x, a: np.clip(x, a["min"], a["max"]),
    "LeakyRelu": lambda x, a: np.where(x >= 0, x, a["alpha"] * x),
    "Elu": lambda x, a: np.where(x > 0, x, a["alpha"] * np.expm1(np.minimum(x, 0))),
    "Selu": lambda x, a: a["gamma"] * np.where(x > 0, x, a["alpha"] * np.expm1(np.minimum(x, 0))),
    "Tanh": lambda x, _: np.tanh(x),
    "Sigmoid": lambda x, _: sigmoid(x),
    "HardSigmoid": lambda x, a: hard_sigmoid(x, a["alpha"], a["beta"]),
    "Softplus": lambda x, _: softplus(x),
    "Softsign": lambda x, _: x / (1 + np.abs(x)),
    "HardSwish": lambda x, _: x * hard_sigmoid(x, 1 / 6, 0.5),
    "Mish": lambda x, _: x * np.tanh(softplus(x)),
    "Gelu": lambda x, a: gelu(x, a["approximate"]),
    "Swish": lambda x, a: x * sigmoid(a["alpha"] * x),
}
