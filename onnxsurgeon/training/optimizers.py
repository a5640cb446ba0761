"""Optimizers as nodes: one update of one parameter, given its gradient."""

from __future__ import annotations

from typing import Any, Protocol

from onnxsurgeon.training.builder import GraphBuilder


class Gradient(Protocol):
    """∂L/∂parameter, not yet computed."""

    def add_to(self, build: GraphBuilder, parameter: str, output: str) -> str:
        """Append the nodes of parameter + gradient; return the sum's name."""


class GemmGradient:
    """∂L/∂parameter as a product of two tensors: δᵀ x of a weight, δᵀ 1 of a bias (a row of ones (1, batch))."""

    def __init__(self, left: str, right: str, **attributes: Any) -> None:
        self.left, self.right, self.attributes = left, right, attributes

    def add_to(self, build: GraphBuilder, parameter: str, output: str) -> str:
        """One Gemm with C = the parameter: the gradient itself is never stored."""
        return build.gemm(self.left, self.right, parameter, output=output, **self.attributes)


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
