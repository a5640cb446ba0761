"""Fewer units in a hidden layer, by singular value decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import rank, truncated_svd
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.base import Surgery, register, require_amount, spell
from onnxsurgeon.surgery.effects import Effect, Narrowed
from onnxsurgeon.surgery.maps import Change, Outside, Rotation, Turn
from onnxsurgeon.surgery.parameters import is_padded


@register
@dataclass(frozen=True)
class Narrow(Surgery):
    """Reduce hidden layer ``layer`` to ``units`` units (paper, 3.1, removing neurons).

    With W_i = U Σ Vᵀ cut to r = ``units``: W_i' = U_r Σ_r, b_i' = b_i V_r, W_{i+1}' = V_rᵀ W_{i+1}, and b_{i+1}' =
    b_{i+1} + b_i (I − V_r V_rᵀ) W_{i+1}. The last equation is our addition: without it, the part of the bias outside
    V_r is lost. PRelu's slopes are averaged with the weights V_r², so that slopes of 1 stay 1.

    It is exact only where φ is the identity and r ≥ rank(W_i).
    """

    operation: ClassVar[str] = "narrow"
    summary: ClassVar[str] = "UNITS units stay, by its singular values"
    exact_if: ClassVar[str] = "if φ is the identity, and no less than the rank is left"
    marker: ClassVar[str] = "v"
    recuperation: ClassVar[int] = 10
    layer: int
    units: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Narrowed(self.units)

    def require(self, network: Network) -> None:
        """1 ≤ r ≤ min(n_{i-1}, n_i): the decomposition has no more than that many columns."""
        layer = network.hidden(self.layer)
        most = min(layer.weight.shape)
        if most < self.units and most < layer.units:
            raise SurgeryError(
                f"{spell(self)}: narrow goes by the rank of the weight, {layer.inputs} × {layer.units}: the number of "
                f"units that stay must be 1 to {most}; prune:{self.layer}:{min(self.units, layer.units)} with --data "
                "keeps any number",
                "amount",
            )
        require_amount(self, self.units, most, "the number of units that stay")

    def is_exact(self, network: Network) -> bool:
        """Whether φ is the identity, only zeros are cut off, and no bias moves past zeros at a border."""
        layer, following = network.pair(self.layer)
        moves = layer.bias is not None and bool(layer.bias.any()) and is_padded(following)
        return layer.is_linear and not moves and self.units >= rank(layer.weight)

    def parameters_after(self, network: Network) -> int:
        """Exact, without a decomposition or a product of the weights."""
        layer, following = network.pair(self.layer)
        gained = following.units if layer.bias is not None and following.bias is None else 0
        return count_of(network, {self.layer: self.units}) + gained

    def rewrite(self, network: Network, rng: np.random.Generator) -> Change:
        """Rotate the layer's outputs onto the leading right singular vectors."""
        layer, following = network.pair(self.layer)
        projected, vt = truncated_svd(layer.weight, self.units)
        shift = None if layer.bias is None else Outside(layer.bias, vt, following.weight)
        columns, rows = Rotation(vt, projected), Turn(vt, shift)
        return Change(network.group(self.layer), (columns,), (rows,), np.arange(self.units))
