"""The optimizer's scalars of each step as nodes, from the learning rates and the number of steps taken.

The engine computes them on the host in float64. Here they are computed in the type of training, since GPUs in browsers,
reduced builds, Objective-C and Swift have no float64. The forms lose no accuracy by that: 1 − βᵗ is −2 T / (1 − T) with
T = tanh(t ln β / 2), which is exact up to rounding where β is near 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnxsurgeon.deploy.pieces import kind_of
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.optimizers import SGD, AdamW, Momentum, Nesterov, Optimizer

Names = dict[str, str]


@dataclass(frozen=True)
class Given:
    """Names of the tensors from which scalars are computed, all of the type of training.

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


def scalars(build: GraphBuilder, optimizer: Optimizer, given: Mapping[str, str]) -> tuple[Names, Names]:
    """Append the nodes of the scalars of ``optimizer``; return those of each step (steps,), and those of all steps ().

    Both are by the optimizer's own names; see ``Optimizer.scalars``. ``given`` has the names of the tensors that
    ``Given`` lists, of any type.
    """
    known = Given(**{key: build.add("Cast", name, to=kind_of(build.dtype)) for key, name in given.items()})
    series, constant = _RULES[type(optimizer)](build, optimizer, known)
    wanted = set(optimizer.scalars)

    def chosen(found: Names) -> Names:
        return {name: tensor for name, tensor in found.items() if name in wanted}

    return chosen(series), chosen(constant)


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
    over = build.add("Mul", _one_less_power(build, optimizer.beta2, t), build.scalar(1 / (1 - optimizer.beta2)))
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
    if not beta:
        return build.add("Div", t, t)
    tanh = build.add("Tanh", build.add("Mul", t, build.scalar(math.log(beta) / 2)))
    return build.add("Div", build.add("Mul", tanh, build.scalar(-2.0)), build.add("Sub", build.scalar(1.0), tanh))


_RULES: dict[type, Callable[..., tuple[Names, Names]]] = {
    SGD: _sgd,
    Momentum: _momentum,
    Nesterov: _nesterov,
    AdamW: _adamw,
}
