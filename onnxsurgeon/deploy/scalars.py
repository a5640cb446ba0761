"""The optimizer's scalars of each step as nodes, from the learning rates and the number of steps taken.

They are computed in float64 and then rounded, as ``Optimizer.values`` does on the host: the same numbers, for rates
that float32 holds. Rates come in float32, since ONNX Runtime's interface for Objective-C and Swift has no float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxsurgeon.deploy.pieces import OuterBuilder, kind_of
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.optimizers import SGD, AdamW, Momentum, Nesterov, Optimizer

Names = dict[str, str]


@dataclass(frozen=True)
class Given:
    """Names of what scalars are made from, all float64.

    Attributes:
        rates: η of each step, (steps,).
        size: rows in a batch, ().
        taken: steps taken before, ().
        count: steps of this run, ().
    """

    rates: str
    size: str
    taken: str
    count: str


class _Wide(OuterBuilder):
    """A builder of float64 among another's nodes."""

    def __init__(self, build: GraphBuilder) -> None:
        super().__init__(np.dtype(np.float64))
        self.nodes, self.constants = build.nodes, build.constants

    def constant(self, name: str, values: Array) -> str:
        """As of ``GraphBuilder``; under a name of its own."""
        return super().constant(f"wide_{name}", values)


def scalars(build: GraphBuilder, optimizer: Optimizer, given: Mapping[str, str]) -> tuple[Names, Names]:
    """Append the nodes of the scalars of ``optimizer``; return those of each step (steps,), and those of all steps ().

    Both by the optimizer's own names; see ``Optimizer.scalars``. ``given`` has the names of what ``Given`` lists, of
    any type.
    """
    wide = _Wide(build)
    known = Given(**{key: wide.add("Cast", name, to=kind_of(wide.dtype)) for key, name in given.items()})
    series, constant = _RULES[type(optimizer)](wide, optimizer, known)
    wanted, kind = set(optimizer.scalars), kind_of(build.dtype)

    def rounded(found: Names) -> Names:
        return {name: wide.add("Cast", tensor, to=kind) for name, tensor in found.items() if name in wanted}

    return rounded(series), rounded(constant)


def _sgd(build: GraphBuilder, optimizer: SGD, given: Given) -> tuple[Names, Names]:
    rate = build.add("Neg", build.add("Div", given.rates, given.size))
    return {"rate": rate, **_kept(build, optimizer.weight_decay, given)}, {}


def _momentum(build: GraphBuilder, optimizer: Momentum, given: Given) -> tuple[Names, Names]:
    return {"step": build.add("Neg", given.rates)}, {"rate": _share(build, given)}


def _nesterov(build: GraphBuilder, optimizer: Nesterov, given: Given) -> tuple[Names, Names]:
    step = build.add("Mul", given.rates, build.scalar(-(1 + optimizer.momentum)))
    back = build.add("Mul", given.rates, build.scalar(optimizer.momentum))
    return {"step": step, "step_back": back}, {"rate": _share(build, given)}


def _adamw(build: GraphBuilder, optimizer: AdamW, given: Given) -> tuple[Names, Names]:
    """See ``AdamW.values``: e = ε c and a = η c (1 − β1) / (1 − β1ᵗ), c = √((1 − β2ᵗ) / (1 − β2))."""
    first = build.add("Add", given.taken, build.scalar(1.0))
    t = build.add("Range", first, build.add("Add", first, given.count), build.scalar(1.0))
    over = build.add("Div", _one_less_power(build, optimizer.beta2, t), build.scalar(1 - optimizer.beta2))
    root = build.add("Sqrt", over)
    mean = build.add("Div", build.scalar(1 - optimizer.beta1), _one_less_power(build, optimizer.beta1, t))
    a = build.add("Mul", build.add("Mul", given.rates, root), mean)
    series = {"step": build.add("Neg", a), "floor": build.add("Mul", root, build.scalar(optimizer.epsilon))}
    return {**series, **_kept(build, optimizer.weight_decay, given)}, {"rate": _share(build, given)}


def _share(build: GraphBuilder, given: Given) -> str:
    """1/B."""
    return build.add("Div", build.scalar(1.0), given.size)


def _kept(build: GraphBuilder, decay: float, given: Given) -> Names:
    """1 − ηλ."""
    if not decay:
        return {}
    return {"kept": build.add("Sub", build.scalar(1.0), build.add("Mul", given.rates, build.scalar(decay)))}


def _one_less_power(build: GraphBuilder, beta: float, t: str) -> str:
    """1 − βᵗ."""
    return build.add("Sub", build.scalar(1.0), build.add("Pow", build.scalar(beta), t))


_RULES: dict[type, Callable[..., tuple[Names, Names]]] = {
    SGD: _sgd,
    Momentum: _momentum,
    Nesterov: _nesterov,
    AdamW: _adamw,
}
