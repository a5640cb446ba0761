"""More units in a hidden layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.choices import WIDEN_MODES
from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.groups import Reader
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import LARGE, Array
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.base import Surgery, register, require_amount, spell
from onnxsurgeon.surgery.effects import Effect, Widened
from onnxsurgeon.surgery.maps import Change, Columns, Fresh, Gather, by_row

MOST_WEIGHTS = 2**31  # 8 GB in float32


@register
@dataclass(frozen=True)
class Widen(Surgery):
    """Add ``units`` units to hidden layer ``layer``. It is always exact, for every elementwise φ.

    Modes: split: copies of existing units, round robin; every outgoing weight is shared out among the copies by random
    fractions drawn for that weight alone. Copies then get different gradients and become different units. equal: the
    same with equal shares (paper, 3.1). The copies get equal gradients for ever. fresh: new random incoming weights
    (Glorot uniform), bias 0, outgoing weights 0.
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
        """The effect that the docstring of the class describes, as data."""
        return Widened(self.units)

    def require(self, network: Network) -> None:
        """The layer must exist, the number of units be positive and the mode known."""
        group = network.group(self.layer)
        require_amount(self, self.units, None, "the number of units to add")
        if group.normalised:
            raise SurgeryError(
                f"{spell(self)}: '{group.normalised}' normalises over these units, and copies would change their mean "
                "and variance",
                "unlike-layer",
            )
        require_size(self, network, self.units)
        if self.mode not in WIDEN_MODES:
            raise SurgeryError(
                f"{spell(self)}: unknown mode '{self.mode}': expected one of {', '.join(WIDEN_MODES)}", "unknown-choice"
            )

    def is_exact(self, network: Network) -> bool:
        """Always: the copies' outgoing weights add up to the original's."""
        return True

    def parameters_after(self, network: Network) -> int:
        """Exact, without a decomposition or a product of the weights."""
        return count_of(network, {self.layer: network.group(self.layer).units + self.units})

    def rewrite(self, network: Network, rng: np.random.Generator) -> Change:
        """Each writer: W → [W, new columns], b likewise; each reader: rows shared out so that their sums stay."""
        group, (writers, readers) = network.group(self.layer), network.layers_of(self.layer)
        n = group.units
        origin = np.concatenate([np.arange(n), np.arange(self.units) % n])
        more = Counter((port.segment, port.layer) for port in group.readers for _ in range(port.outer * port.inner))
        columns = [
            Columns(origin, self._fresh(layer.inputs + self.units * more[port.segment, port.layer], n, rng))
            for port, layer in zip(group.writers, writers, strict=True)
        ]
        rows = [self._rows(port, layer, origin, n, rng) for port, layer in zip(group.readers, readers, strict=True)]
        return Change(group, tuple(columns), tuple(rows), origin)

    def _fresh(self, inputs: int, units: int, rng: np.random.Generator) -> Fresh | None:
        """Glorot's values for new units of ``inputs`` inputs, in the mode that asks for them."""
        if self.mode != "fresh":
            return None
        limit = np.sqrt(6.0 / (inputs + units + self.units))
        return Fresh(rng.uniform(-limit, limit, (inputs, self.units)))

    def _rows(self, port: Reader, layer: DenseLayer, origin: Array, n: int, rng: np.random.Generator) -> Gather:
        """The map of a reader's rows; each unit has ``taps`` of them."""
        taps = port.outer * port.inner
        places = by_row(origin, taps)
        if self.mode == "fresh":
            return Gather(np.where(np.arange(len(places)) < n * taps, places, -1))
        shared = np.flatnonzero(np.bincount(places)[places] > 1)
        return Gather(places, shared, self._shares(shared, places, layer.units, rng))

    def _shares(self, rows: Array, origin: Array, columns: int, rng: np.random.Generator) -> Array:
        """Shares (rows, columns) of each outgoing weight; the shares of all copies of a unit add up to 1."""
        units = int(origin.max()) + 1
        draws = self._draws(rows, len(origin), columns, rng)
        totals = np.zeros((min(units, len(origin) - units), columns))  # round robin: the first units have the copies
        np.add.at(totals, origin[rows], draws)
        draws /= totals[origin[rows]]
        return draws

    def _draws(self, rows: Array, units: int, columns: int, rng: np.random.Generator) -> Array:
        """A draw for each outgoing weight in ``rows``; all rows are drawn, a block at a time."""
        draws = np.ones((len(rows), columns))
        if self.mode == "split":
            step = max(1, LARGE // columns)
            for start in range(0, units, step):
                block = rng.random((min(step, units - start), columns))
                first, last = np.searchsorted(rows, (start, start + len(block)))
                draws[first:last] -= block[rows[first:last] - start]  # in (0, 1], so that a share of 0/0 cannot come up
        return draws


def require_size(surgery: Surgery, network: Network, units: int) -> None:
    """Raise SurgeryError where ``units`` more in the surgery's layer would make too many weights."""
    group, (writers, readers) = network.group(surgery.layer), network.layers_of(surgery.layer)
    each = sum(layer.inputs for layer in writers)
    each += sum(p.outer * p.inner * layer.units for p, layer in zip(group.readers, readers, strict=True))
    weights = (group.units + units) * each
    if weights > MOST_WEIGHTS:
        raise SurgeryError(
            f"{spell(surgery)}: would make {weights:,} weights; at most {MOST_WEIGHTS:,} can be made at once", "amount"
        )
