"""Activation functions by numpy, computed in the type of their argument, for numerical comparisons and checks."""

from __future__ import annotations

import math

import numpy as np

from onnxsurgeon.linear_algebra import Array

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
    """x Φ(x), with the normal distribution function Φ or its approximation by tanh."""
    if approximate == "tanh":
        inner = TANH_GELU_SCALE * (x + TANH_GELU_CUBIC * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))
