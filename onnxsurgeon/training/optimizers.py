"""Optimizers as nodes: one update of one parameter, given its gradient.

All definitions are PyTorch's. Besides the parameter θ, an optimizer may carry moments: arrays of the parameter's shape,
the first one linear in the gradients, the second one in their squares. Values that depend only on the step (learning
rates, bias corrections) are computed on the host and enter as scalars: for small networks the cost of a step is its
number of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.settings import OptimizerSettings

SCALE = "rate"  # ∂L/∂z, the smallest tensor of the step, is multiplied by this before it is propagated


class Gradient(Protocol):
    """The gradient ∂L/∂parameter, not yet computed."""

    def add_to(self, build: GraphBuilder, term: str, output: str = "", factor: float = 1.0) -> str:
        """Append the nodes of factor · term + gradient; return the sum's name."""

    def alone(self, build: GraphBuilder) -> str:
        """Append the nodes of the gradient itself; return its name."""


class GemmGradient:
    """∂L/∂parameter as a product of two tensors: δᵀ x for a weight, δᵀ 1 for a bias (with a row of ones (1, batch))."""

    def __init__(self, left: str, right: str, **attributes: Any) -> None:
        self.left, self.right, self.attributes = left, right, attributes

    def add_to(self, build: GraphBuilder, term: str, output: str = "", factor: float = 1.0) -> str:
        """One Gemm with C = the term: the gradient itself is never stored."""
        if build.dtype == np.float64 and float(np.float32(factor)) != factor:  # Gemm's β is float32 whatever the type
            term, factor = _times(build, term, factor), 1.0
        return build.gemm(self.left, self.right, term, beta=factor, output=output, **self.attributes)

    def alone(self, build: GraphBuilder) -> str:
        """One Gemm."""
        return build.gemm(self.left, self.right, **self.attributes)


class StoredGradient:
    """A gradient that other nodes have computed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def add_to(self, build: GraphBuilder, term: str, output: str = "", factor: float = 1.0) -> str:
        """Plain addition."""
        return build.add("Add", _times(build, term, factor), self.name, output=output)

    def alone(self, build: GraphBuilder) -> str:
        """Nothing to append."""
        return self.name


class DeferredGradient:
    """A gradient whose nodes are appended once it is asked for."""

    def __init__(self, make: Callable[[], Gradient]) -> None:
        self._make = make

    def add_to(self, build: GraphBuilder, term: str, output: str = "", factor: float = 1.0) -> str:
        """Make the gradient, and let it add itself to the term."""
        return self._make().add_to(build, term, output, factor)

    def alone(self, build: GraphBuilder) -> str:
        """Make the gradient, and append its nodes."""
        return self._make().alone(build)


class SummedGradient:
    """The gradient of a parameter that is applied several times: the sum over its applications."""

    def __init__(self, gradients: Sequence[Gradient]) -> None:
        self._first, *self._others = gradients

    def add_to(self, build: GraphBuilder, term: str, output: str = "", factor: float = 1.0) -> str:
        """Add one application after the other."""
        *before, last = self._others
        total = self._first.add_to(build, term, factor=factor)
        for each in before:
            total = each.add_to(build, total)
        return last.add_to(build, total, output)

    def alone(self, build: GraphBuilder) -> str:
        """Add one application after the other."""
        total = self._first.alone(build)
        for each in self._others:
            total = each.add_to(build, total)
        return total


def _times(build: GraphBuilder, term: str, factor: float) -> str:
    return term if factor == 1 else build.add("Mul", term, build.scalar(factor))


class Optimizer(Protocol):
    """A rule of update. Equal instances make the same graph.

    Attributes:
        moments: number of arrays that it carries for each parameter.
        scalars: names of the step's scalars in the graph; the first is ``SCALE``.
    """

    @property
    def moments(self) -> int:
        """Number of arrays that are carried for each parameter: 0, 1 or 2."""

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the step's scalars in the graph; the first is ``SCALE``."""

    def values(self, rates: Array, size: int, taken: int) -> tuple[Array, ...]:
        """The scalars of some steps.

        Args:
            rates: η of each step, shape (steps,).
            size: rows in a batch, B.
            taken: steps that the moments have seen before.

        Returns:
            For each of ``scalars`` an array (steps,), float64.
        """

    def update(self, build: GraphBuilder, parameter: str, gradient: Gradient) -> None:
        """Append the nodes of ``updated(parameter)`` and of ``updated(moment(…))`` for every moment."""


def moment(number: int, parameter: str) -> str:
    """Name in the graph of a parameter's first (0) or second (1) moment."""
    return f"moment_{number}_{parameter}"


def updated(tensor: str) -> str:
    """Name in the graph of a parameter or moment after the step."""
    return f"next_{tensor}"


@dataclass(frozen=True)
class SGD:
    """θ' = θ − η (g + λθ): with δ scaled by −η/B, one Gemm with C = θ, or with C = (1 − ηλ) θ."""

    weight_decay: float
    moments = 0

    @classmethod
    def of(cls, settings: OptimizerSettings) -> SGD:
        """As the settings say."""
        return cls(settings.weight_decay)

    @property
    def scalars(self) -> tuple[str, ...]:
        """−η/B, and 1 − ηλ where it is not 1."""
        return (SCALE, "kept") if self.weight_decay else (SCALE,)

    def values(self, rates: Array, size: int, taken: int) -> tuple[Array, ...]:
        """See ``scalars``."""
        return (-rates / size, 1 - rates * self.weight_decay)[: len(self.scalars)]

    def update(self, build: GraphBuilder, parameter: str, gradient: Gradient) -> None:
        """One node, with weight decay two."""
        kept = build.add("Mul", parameter, "kept") if self.weight_decay else parameter
        gradient.add_to(build, kept, updated(parameter))


@dataclass(frozen=True)
class Momentum:
    """v' = μv + g + λθ, θ' = θ − η v'. The buffer does not contain η: a schedule leaves it right.

    g + λθ + μv is one Gemm with β = μ, where C = v + (λ/μ) θ.
    """

    momentum: float
    weight_decay: float
    moments = 1

    @classmethod
    def of(cls, settings: OptimizerSettings) -> Momentum:
        """As the settings say."""
        return cls(settings.momentum, settings.weight_decay)

    @property
    def scalars(self) -> tuple[str, ...]:
        """1/B, and −η."""
        return (SCALE, "step")

    def values(self, rates: Array, size: int, taken: int) -> tuple[Array, ...]:
        """See ``scalars``."""
        return np.full(len(rates), 1 / size), -rates

    def velocity(self, build: GraphBuilder, parameter: str, gradient: Gradient) -> tuple[str, str]:
        """Append v'; return the names of v and v'. One node, with weight decay three."""
        v = moment(0, parameter)
        carried = v
        if self.weight_decay:
            pull = build.add("Mul", parameter, build.scalar(self.weight_decay / self.momentum))
            carried = build.add("Add", v, pull)
        return v, gradient.add_to(build, carried, updated(v), self.momentum)

    def update(self, build: GraphBuilder, parameter: str, gradient: Gradient) -> None:
        """Three nodes, with weight decay five."""
        _, v = self.velocity(build, parameter, gradient)
        build.add("Add", parameter, build.add("Mul", v, "step"), output=updated(parameter))


@dataclass(frozen=True)
class Nesterov(Momentum):
    """v' = μv + g + λθ, θ' = θ − η (g + λθ + μv') = θ − η (1 + μ) v' + ημ v, since g + λθ = v' − μv."""

    @property
    def scalars(self) -> tuple[str, ...]:
        """1/B, −η (1 + μ), and ημ."""
        return (SCALE, "step", "step_back")

    def values(self, rates: Array, size: int, taken: int) -> tuple[Array, ...]:
        """See ``scalars``."""
        return np.full(len(rates), 1 / size), -rates * (1 + self.momentum), rates * self.momentum

    def update(self, build: GraphBuilder, parameter: str, gradient: Gradient) -> None:
        """Four nodes, with weight decay six."""
        before, v = self.velocity(build, parameter, gradient)
        terms = build.add("Mul", v, "step"), build.add("Mul", before, "step_back")
        build.add("Sum", parameter, *terms, output=updated(parameter))


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, algorithm 2; PyTorch's form).

    θ' = (1 − ηλ) θ − η m̂ / (√v̂ + ε), with m̂ = m / (1 − β1ᵗ), v̂ = v / (1 − β2ᵗ), m' = β1 m + (1 − β1) g and v' = β2
    v + (1 − β2) g². The loop carries the plain sums M = m / (1 − β1) and V = v / (1 − β2), which saves the factors: θ'
    = (1 − ηλ) θ − a M / (√V + e), where the scalars a and e hold everything else.
    """

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    moments = 2

    @classmethod
    def of(cls, settings: OptimizerSettings) -> AdamW:
        """As the settings say."""
        return cls(settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay)

    @property
    def scalars(self) -> tuple[str, ...]:
        """1/B, −a, e, and 1 − ηλ where it is not 1."""
        return (SCALE, "step", "floor", "kept") if self.weight_decay else (SCALE, "step", "floor")

    def values(self, rates: Array, size: int, taken: int) -> tuple[Array, ...]:
        """See ``scalars``: e = ε c and a = η c (1 − β1) / (1 − β1ᵗ), c = √((1 − β2ᵗ) / (1 − β2))."""
        steps = range(taken + 1, taken + len(rates) + 1)
        root = np.array([math.sqrt((1 - self.beta2**t) / (1 - self.beta2)) for t in steps])
        mean = np.array([(1 - self.beta1) / (1 - self.beta1**t) for t in steps])
        all_of_them = (
            np.full(len(rates), 1 / size),
            -rates * root * mean,
            self.epsilon * root,
            1 - rates * self.weight_decay,
        )
        return all_of_them[: len(self.scalars)]

    def update(self, build: GraphBuilder, parameter: str, gradient: Gradient) -> None:
        """Eleven nodes, with weight decay twelve."""
        first, second = moment(0, parameter), moment(1, parameter)
        g = gradient.alone(build)
        m = build.add("Add", build.add("Mul", first, build.scalar(self.beta1)), g, output=updated(first))
        decayed, square = build.add("Mul", second, build.scalar(self.beta2)), build.add("Mul", g, g)
        v = build.add("Add", decayed, square, output=updated(second))
        direction = build.add("Div", m, build.add("Add", build.add("Sqrt", v), "floor"))
        kept = build.add("Mul", parameter, "kept") if self.weight_decay else parameter
        build.add("Add", kept, build.add("Mul", direction, "step"), output=updated(parameter))


MAKERS: dict[str, Callable[[OptimizerSettings], Optimizer]] = {
    "sgd": SGD.of,
    "momentum": Momentum.of,
    "nesterov": Nesterov.of,
    "adamw": AdamW.of,
}


def make_optimizer(settings: OptimizerSettings) -> Optimizer:
    """The rule of update that the settings name."""
    return MAKERS[settings.optimizer](settings)
