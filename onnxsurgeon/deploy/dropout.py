"""Dropout in a trainer's files: masks that follow from seed, step, layer, unit and row, by plain operators.

ONNX's random operators have a state of their own, and differ from runtime to runtime. Here a mask's value is a hash of
its place: a network of Feistel's form (Luby, Rackoff, "How to construct pseudorandom permutations from pseudorandom
functions", SIAM J. Comput. 17, 1988) on two halves of 15 bits, where each round is the middle of a square. Everything
is int32 without overflow, in additions, products and quotients alone: opset 17 has no operations on bits, and neither
have GPUs in browsers.

As in ``training.dropout``, the mask of a layer of n units is n consecutive rows of a pool (rows, batch), and the step
decides where it begins. train.onnx makes the pool once a run; step.onnx makes the rows that a step needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxsurgeon.deploy.pieces import INTEGERS, kind_of
from onnxsurgeon.training import dropout
from onnxsurgeon.training.builder import GraphBuilder

OFFSETS = 1024  # places in the pool where a mask may begin
ROUNDS = 8
HALF = 2**15  # values of a half
# Keys are from LEAST to LEAST + KEYS: large enough for the first round to tell neighbours apart, small enough that
# (HALF - 1 + key)^2 is below 2^31.
LEAST, KEYS = 2048, 11519
MIDDLE = 2**8  # a square is divided by this
UNITS, INPUTS, BEGINNINGS = range(3)  # the purposes of a hash


class Hash:
    """Numbers below 2^30 from two int32 tensors, both at least 0, and a seed.

    Args:
        build: takes the nodes.
        seed: name of an int32 () tensor, at least 0.
        purpose: UNITS, INPUTS or BEGINNINGS; each has keys of its own.
    """

    def __init__(self, build: GraphBuilder, seed: str, purpose: int) -> None:
        self._build, self._half = build, build.constant("half", np.array(HALF, np.int32))
        high = build.add("Div", seed, self._half)
        low = _below(build, seed, self._half)
        rounds = np.arange(ROUNDS) + ROUNDS * purpose
        # Below 2^15 · 2^14 + 2^16 · 2^14 + 2^24 < 2^31.
        first, second, third = ((step * rounds + begin) % top for step, begin, top in _MULTIPLIERS)
        sum_ = build.add("Mul", low, build.constant(f"keys_low_{purpose}", first.astype(np.int32)))
        more = build.add("Mul", high, build.constant(f"keys_high_{purpose}", second.astype(np.int32)))
        sum_ = build.add("Add", build.add("Add", sum_, more), build.constant(f"keys_{purpose}", third.astype(np.int32)))
        keys = _below(build, sum_, build.constant("keys", np.array(KEYS, np.int32)))
        keys = build.add("Add", keys, build.constant("least_key", np.array(LEAST, np.int32)))
        self._keys = [
            build.add("Gather", keys, build.constant(f"round_{i}", np.array(i, np.int64))) for i in range(ROUNDS)
        ]

    def __call__(self, left: str, right: str) -> str:
        """Append the nodes; return the name of the numbers, whose shape is that to which the two broadcast."""
        build = self._build
        middle = build.constant("middle", np.array(MIDDLE, np.int32))
        left, right = _below(build, left, self._half), _below(build, right, self._half)
        for key in self._keys:
            x = build.add("Add", right, key)
            x = build.add("Div", build.add("Mul", x, x), middle)
            left, right = right, _below(build, build.add("Add", left, x), self._half)
        return build.add("Add", build.add("Mul", right, self._half), left)


# Of the keys' constants: (step, begin, bound) of arithmetic progressions.
_MULTIPLIERS = ((5167, 9973, 2**14), (7411, 3571, 2**14), (104729, 15485863, 2**24))


@dataclass(frozen=True)
class Run:
    """Names of the tensors from which a run's masks follow.

    The seed and the steps before, int32 (), two sizes, int64 ().

    Attributes:
        seed: the seed of all masks.
        taken: steps taken before.
        count: steps of this run.
        size: rows in a batch.
        single: whether there is one step, and no loop.
    """

    seed: str
    taken: str
    count: str
    size: str
    single: bool


class Masks:
    """The masks of a training step under construction, of units or of inputs, as ``forward`` asks for them.

    Args:
        outer: the builder of the nodes around the step.
        inner: the builder of the step.
        run: the tensors from which they follow.
        rate: share that is left out.
        purpose: UNITS or INPUTS.
        most: the largest number of units of a mask.
    """

    def __init__(
        self, outer: GraphBuilder, inner: GraphBuilder, run: Run, rate: float, purpose: int, most: int
    ) -> None:
        self._outer, self._inner, self._rate, self._purpose, self._single = outer, inner, rate, purpose, run.single
        self._hash, self._beginnings = Hash(outer, run.seed, purpose), Hash(outer, run.seed, BEGINNINGS)
        self._columns = _counted(outer, run.size)
        self._steps = outer.add("Add", run.taken, _counted(outer, run.count))
        self._high = outer.add("Div", self._steps, outer.constant("half", np.array(HALF, np.int32)))
        self._scanned = dropout.Masks(inner, dropout.POOL if purpose == UNITS else dropout.INPUT_POOL)
        self._made = 0
        if not run.single:
            self._values(_rows(outer, OFFSETS - 1 + most), output=self._scanned.pool)

    @property
    def offsets(self) -> list[str]:
        """Names of the step's inputs that say where each mask begins; the series have an "s" behind them."""
        return self._scanned.offsets

    def __call__(self, units: int) -> str:
        """Append the nodes of a mask; return its name, of shape (units, batch)."""
        outer, number = self._outer, 2 * self._made + (self._purpose == INPUTS)
        high = outer.add("Add", self._high, outer.constant(f"mask_{number}", np.array(number, np.int32)))
        begin = _below(
            outer, self._beginnings(high, self._steps), outer.constant("offsets", np.array(OFFSETS, np.int32))
        )
        self._made += 1
        if self._single:
            return self._values(outer.add("Add", _rows(outer, units), begin))
        made = self._scanned(units)
        column = outer.add("Cast", begin, to=onnx.TensorProto.INT64)
        outer.add("Unsqueeze", column, outer.axes(1), output=f"{self.offsets[-1]}s")
        return made

    def by_row(self, units: int) -> str:
        """Append the nodes of a mask with the same values as (batch, units)."""
        build = self._outer if self._single else self._inner
        return build.add("Reshape", self(units), build.integers(-1, units))

    def _values(self, rows: str, output: str = "") -> str:
        """Zeros, for the share that is left out, and 1/(1 − share), (rows, batch)."""
        outer = self._outer
        most = outer.constant(f"left_out_{self._rate}", np.array(round(self._rate * HALF**2) - 1, np.int32))
        stays = outer.add("Cast", outer.add("Greater", self._hash(rows, self._columns), most), to=kind_of(outer.dtype))
        return outer.add("Mul", stays, outer.scalar(1 / (1 - self._rate)), output=output)


def _rows(build: GraphBuilder, count: int) -> str:
    """0, 1, …, (count, 1)."""
    return build.constant(f"rows_{count}", np.arange(count, dtype=np.int32)[:, None])


def _counted(build: GraphBuilder, size: str) -> str:
    """0, 1, …, (size,)."""
    zero, one = (build.constant(f"number_{i}", np.array(i, np.int32)) for i in (0, 1))
    return build.add("Range", zero, build.add("Cast", size, to=INTEGERS), one)


def _below(build: GraphBuilder, x: str, bound: str) -> str:
    """x modulo the bound, without Mod, which GPUs in browsers lack."""
    return build.add("Sub", x, build.add("Mul", build.add("Div", x, bound), bound))
