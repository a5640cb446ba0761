"""More units in a hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.choices import WIDEN_MODES
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import LARGE, Array
from onnxsurgeon.surgery.base import Replacement, Surgery, register, require_amount, slope_of, spell, unknown
from onnxsurgeon.surgery.effects import Effect, Widened

MOST_WEIGHTS = 2**31  # 8 GB in float32


@register
@dataclass(frozen=True)
class Widen(Surgery):
    """Add ``units`` units to hidden layer ``layer``. Exact always, for every elementwise φ.

    Modes:
        split: copies of existing units, round robin; every outgoing weight is shared out among the copies by
            random fractions drawn for that weight alone. Copies then get different gradients and become
            different units.
        equal: the same with equal shares (paper, 3.1). The copies get equal gradients for ever.
        fresh: new random incoming weights (Glorot uniform), bias 0, outgoing weights 0.
    """

    operation: ClassVar[str] = "widen"
    summary: ClassVar[str] = "UNITS more units"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "^"
    layer: int
    units: int
    mode: str = "split"

    @property
    def effect(self) -> Effect:
        """As its text tells it."""
        return Widened(self.units)

    def require(self, network: Network) -> None:
        """The layer must exist, the number of units be positive and the mode known."""
        network.hidden(self.layer)
        require_amount(self, self.units, None, "the number of units to add")
        require_size(self, network, self.units)
        if self.mode not in WIDEN_MODES:
            raise SurgeryError(f"{spell(self)}: unknown mode '{self.mode}': expected one of {', '.join(WIDEN_MODES)}")

    def is_exact(self, network: Network) -> bool:
        """Always: the copies' outgoing weights add up to the original's."""
        return True

    def parameters_after(self, network: Network) -> int:
        """Exact, and without a decomposition or a product of the weights."""
        layer, following = network.pair(self.layer)
        each = layer.inputs + (layer.bias is not None) + (slope_of(layer) is not None) + following.units
        return network.parameter_count + self.units * each

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """W_i → [W_i, new columns], b_i likewise; W_{i+1} → rows shared out so that their sums stay."""
        pair = network.pair(self.layer)
        n = pair.layer.units
        origin = np.concatenate([np.arange(n), np.arange(self.units) % n])
        fresh = self.mode == "fresh"
        if fresh:
            limit = np.sqrt(6.0 / (pair.layer.inputs + n + self.units))
            incoming = rng.uniform(-limit, limit, (pair.layer.inputs, self.units))
        shared = np.flatnonzero(np.bincount(origin)[origin] > 1)
        shares = self._shares(shared, origin, pair.following.units, rng)

        def copied(old: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """Incoming parameters are copied, outgoing ones shared out: of weights, and of their moments."""
            layer, following = old
            weight, bias = take_columns(layer.weight, origin), None if layer.bias is None else layer.bias[origin]
            activation = layer.activation
            if activation is not None and activation.slope is not None:
                activation = activation.with_slope(activation.slope[origin])
            outgoing = np.empty((len(origin), following.units), following.weight.dtype)
            outgoing[:n] = following.weight
            outgoing[shared] = following.weight[origin[shared]].astype(np.float64) * shares**power
            return (
                replace(layer, weight=weight, bias=bias, activation=activation),
                replace(following, weight=outgoing),
            )

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            wide, following = copied(moments, power)
            if fresh:
                wide.weight[:, n:] = unknown(moments[0], power)
                if wide.bias is not None:
                    wide.bias[n:] = unknown(moments[0], power)
                following.weight[n:] = unknown(moments[1], power)
            return wide, following

        widened, refitted = copied(pair, 1)
        if fresh:
            widened.weight[:, n:] = incoming
            if widened.bias is not None:
                widened.bias[n:] = 0
        return Replacement(2, (widened, refitted), carry)

    def _shares(self, rows: Array, origin: Array, columns: int, rng: np.random.Generator) -> Array:
        """Shares (rows, columns) of each outgoing weight; those of all copies of a unit add up to 1."""
        units = int(origin.max()) + 1
        if self.mode == "fresh":
            return (rows < units)[:, None].astype(np.float64)
        draws = self._draws(rows, len(origin), columns, rng)
        totals = np.zeros((min(units, len(origin) - units), columns))  # round robin: the first units have the copies
        np.add.at(totals, origin[rows], draws)
        draws /= totals[origin[rows]]
        return draws

    def _draws(self, rows: Array, units: int, columns: int, rng: np.random.Generator) -> Array:
        """For each outgoing weight in ``rows`` its draw; those of all rows are drawn, a block at a time."""
        draws = np.ones((len(rows), columns))
        if self.mode == "split":
            step = max(1, LARGE // columns)
            for start in range(0, units, step):
                block = rng.random((min(step, units - start), columns))
                first, last = np.searchsorted(rows, (start, start + len(block)))
                draws[first:last] -= block[rows[first:last] - start]  # in (0, 1]: a share of 0/0 cannot come up
        return draws


def require_size(surgery: Surgery, network: Network, units: int) -> None:
    """Raise SurgeryError where ``units`` more in the surgery's layer would make too many weights."""
    layer, following = network.pair(surgery.layer)
    weights = (layer.units + units) * (layer.inputs + following.units)
    if weights > MOST_WEIGHTS:
        raise SurgeryError(
            f"{spell(surgery)}: would make {weights:,} weights; at most {MOST_WEIGHTS:,} can be made at once"
        )
