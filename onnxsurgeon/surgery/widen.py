"""More units in a hidden layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.buffers import take_columns
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import LARGE, Array
from onnxsurgeon.surgery.base import register, require_amount, spell

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

    def rewrite(self, network: Network, rng: np.random.Generator) -> Network:
        """W_i → [W_i, new columns], b_i likewise; W_{i+1} → rows shared out so that their sums stay."""
        layer, following = network.pair(self.layer)
        n = layer.units
        origin = np.concatenate([np.arange(n), np.arange(self.units) % n])
        weight, bias = take_columns(layer.weight, origin), None if layer.bias is None else layer.bias[origin]
        if self.mode == "fresh":
            limit = np.sqrt(6.0 / (layer.inputs + n + self.units))
            weight[:, n:] = rng.uniform(-limit, limit, (layer.inputs, self.units))
            if bias is not None:
                bias[n:] = 0
        activation = layer.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(activation.slope[origin])
        widened = replace(layer, weight=weight, bias=bias, activation=activation)
        outgoing = self._outgoing(following.weight, origin, rng)
        return network.splice(self.layer, 2, (widened, replace(following, weight=outgoing)))

    def _outgoing(self, weight: Array, origin: Array, rng: np.random.Generator) -> Array:
        """The following layer's rows (n_i + k, n_{i+1}), those of each unit that has copies shared out among them."""
        n, units = len(weight), len(origin)
        outgoing = np.empty((units, weight.shape[1]), weight.dtype)
        outgoing[:n] = weight
        shared = np.flatnonzero(np.bincount(origin)[origin] > 1)
        if self.mode == "fresh":
            shares = (shared < n)[:, None].astype(np.float64)
        else:
            shares = self._draws(shared, units, weight.shape[1], rng)
            totals = np.zeros((min(n, units - n), weight.shape[1]))  # round robin: the first units have the copies
            np.add.at(totals, origin[shared], shares)
            shares /= totals[origin[shared]]
        outgoing[shared] = weight[origin[shared]].astype(np.float64) * shares
        return outgoing

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
