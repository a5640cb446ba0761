"""Optimizers as nodes: one update of one parameter, given its gradient."""

from __future__ import annotations

from typing import Protocol

from onnxsurgeon.training.builder import GraphBuilder


class Gradient(Protocol):
    """∂L/∂parameter, not yet computed."""

    def add_to(self, build: GraphBuilder, parameter: str, output: str) -> str:
        """Append the nodes of parameter + gradient; return the sum's name."""


class ProductGradient:
    """∂L/∂W = Xᵀ δ for X (batch, n_in) and δ (batch, n_out)."""

    def __init__(self, x: str, delta: str) -> None:
        self.x, self.delta = x, delta

    def add_to(self, build: GraphBuilder, parameter: str, output: str) -> str:
        """One Gemm with C = W: the gradient itself is never stored."""
        return build.add("Gemm", self.x, self.delta, parameter, output=output, transA=1)


class RowGradient:
    """∂L/∂b = 1 δ for a row of ones (1, batch): the sum over the batch as a Gemm."""

    def __init__(self, ones: str, delta: str) -> None:
        self.ones, self.delta = ones, delta

    def add_to(self, build: GraphBuilder, parameter: str, output: str) -> str:
        """One Gemm with C = b, where b has the shape (1, n_out)."""
        return build.add("Gemm", self.ones, self.delta, parameter, output=output)


class StoredGradient:
    """A gradient that other nodes have computed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def add_to(self, build: GraphBuilder, parameter: str, output: str) -> str:
        """Plain addition."""
        return build.add("Add", parameter, self.name, output=output)


def sgd_scale(build: GraphBuilder, gradient: str, rate: str) -> str:
    """Multiply ∂L/∂z by ``rate`` = −η/B before it is propagated: the smallest tensor of the step."""
    return build.add("Mul", gradient, rate)


def sgd(build: GraphBuilder, parameter: str, gradient: Gradient, output: str) -> str:
    """θ' = θ + g, where g is scaled by −η/B already: plain stochastic gradient descent."""
    return gradient.add_to(build, parameter, output)
