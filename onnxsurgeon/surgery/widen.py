"""More units in a hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgery.base import Replacement, register, require_amount, spell, unknown

MODES = ("split", "equal", "fresh")
MOST_WEIGHTS = 2**31  # 8 GB in float32


@register
@dataclass(frozen=True)
class Widen:
    """Add ``units`` units to hidden layer ``layer``. Exact always, for every elementwise φ.

    Modes:
        split: copies of existing units, round robin; every outgoing weight is shared out among the copies by
            random fractions drawn for that weight alone. Copies then get different gradients and become
            different units.
        equal: the same with equal shares (paper, 3.1). The copies get equal gradients for ever.
        fresh: new random incoming weights (Glorot uniform), bias 0, outgoing weights 0.
    """

    operation: ClassVar[str] = "widen"
    layer: int
    units: int
    mode: str = "split"

    def require(self, network: Network) -> None:
        """The layer must exist, the number of units be positive and the mode known."""
        network.hidden(self.layer)
        require_amount(self, self.units, None, "the number of units to add")
        layer, following = network.pair(self.layer)
        weights = (layer.units + self.units) * (layer.inputs + following.units)
        if weights > MOST_WEIGHTS:
            raise SurgeryError(
                f"{spell(self)}: would make {weights:,} weights; at most {MOST_WEIGHTS:,} can be made at once"
            )
        if self.mode not in MODES:
            raise SurgeryError(f"{spell(self)}: unknown mode '{self.mode}': expected one of {', '.join(MODES)}")

    def is_exact(self, network: Network) -> bool:
        """Always: the copies' outgoing weights add up to the original's."""
        return True

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """W_i → [W_i, new columns], b_i likewise; W_{i+1} → rows shared out so that their sums stay."""
        pair = network.pair(self.layer)
        n, total = pair.layer.units, pair.layer.units + self.units
        origin = np.concatenate([np.arange(n), np.arange(self.units) % n])
        fresh = self.mode == "fresh"
        if fresh:
            limit = np.sqrt(6.0 / (pair.layer.inputs + total))
            incoming = rng.uniform(-limit, limit, (pair.layer.inputs, self.units))
            shares = (np.arange(total) < n)[:, None].astype(np.float64)
        else:
            draws = np.ones((total, pair.following.units))
            if self.mode == "split":
                draws -= rng.random(draws.shape)  # in (0, 1]: a share of 0/0 cannot come up
            shares = _normalised(draws, origin, n)

        def copied(old: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """Incoming parameters are copied, outgoing ones shared out: of weights, and of their moments."""
            layer, following = old
            weight, bias = take_columns(layer.weight, origin), None if layer.bias is None else layer.bias[origin]
            activation = layer.activation
            if activation is not None and activation.slope is not None:
                activation = activation.with_slope(activation.slope[origin])
            outgoing = (following.weight[origin].astype(np.float64) * shares**power).astype(layer.weight.dtype)
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


def _normalised(draws: Array, origin: Array, units: int) -> Array:
    """Each draw divided by the sum over all copies of the same unit, for each outgoing weight alone."""
    totals = np.zeros((units, draws.shape[1]))
    np.add.at(totals, origin, draws)
    shares: Array = draws / totals[origin]
    return shares
