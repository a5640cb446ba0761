"""A new layer that does nothing at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.activations import prelu
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgery.base import Replacement, Surgery, register
from onnxsurgeon.surgery.effects import Effect, Followed
from onnxsurgeon.surgery.parameters import unknown


@register
@dataclass(frozen=True)
class InsertIdentity(Surgery):
    """Insert a dense layer with W = I, b = 0 after hidden layer ``layer`` (paper, 3.1).

    Its activation is the layer's own φ where φ(φ(x)) = φ(x) (Relu, Clip); after any other layer it is a PRelu
    of slope 1, the identity at first, and trainable. Exact always.
    """

    operation: ClassVar[str] = "insert_identity"
    summary: ClassVar[str] = "another layer behind it"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "s"
    recuperation: ClassVar[int] = 10
    layer: int

    @property
    def effect(self) -> Effect:
        """As its text tells it."""
        return Followed()

    def require(self, network: Network) -> None:
        """The layer must exist, and be followed by one that the new layer can stand before."""
        network.hidden(self.layer)

    def is_exact(self, network: Network) -> bool:
        """Always."""
        return True

    def parameters_after(self, network: Network) -> int:
        """Exact, and without a decomposition or a product of the weights."""
        layer = network.hidden(self.layer)
        idempotent = layer.activation is not None and layer.activation.is_idempotent
        return network.parameter_count + layer.units * (layer.units + 1 + (not idempotent))

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """X → φ(x) → φ(φ(x) I + 0)."""
        before = network.hidden(self.layer)
        n, dtype = before.units, before.weight.dtype
        idempotent = before.activation is not None and before.activation.is_idempotent
        activation = before.activation if idempotent else prelu(np.ones(n, dtype))
        new = DenseLayer(np.eye(n, dtype=dtype), np.zeros(n, dtype), activation, network.fresh_names())

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """The layer's own stay as they are; everything in the other is new."""
            (old,) = moments
            fill = unknown(old, power)
            return old, new.with_parameters(np.full(values.shape, fill) for _, values in new.parameters())

        return Replacement(1, (before, new), carry)
