"""A new layer that does nothing at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.activations import prelu
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.surgery.base import Replacement, Surgery, register
from onnxsurgeon.surgery.effects import Effect, Followed
from onnxsurgeon.surgery.parameters import fill_for_new


@register
@dataclass(frozen=True)
class InsertIdentity(Surgery):
    """Insert a dense layer with W = I, b = 0 after hidden layer ``layer`` (paper, 3.1).

    After a convolution it is one of 3 taps along each axis along which that has several, 1 at the centre of each
    channel's own and 0 elsewhere, which keeps the sizes.

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
        """What the docstring of the class says, as data."""
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
        geometry = _geometry(layer)
        taps = 1 if geometry is None else geometry.taps
        return network.parameter_count + layer.units * (taps * layer.units + 1 + (not idempotent))

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """x → φ(x) → φ(φ(x) I + 0)."""
        before = network.hidden(self.layer)
        n, dtype = before.units, before.weight.dtype
        idempotent = before.activation is not None and before.activation.is_idempotent
        activation = before.activation if idempotent else prelu(np.ones(n, dtype))
        geometry = _geometry(before)
        taps = 1 if geometry is None else geometry.taps
        weight = np.zeros((n, taps, n), dtype)
        weight[np.arange(n), taps // 2, np.arange(n)] = 1
        names = network.fresh_names()
        new = DenseLayer(weight.reshape(n * taps, n), np.zeros(n, dtype), activation, names, geometry)

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """The layer's own stay as they are; everything in the other is new."""
            (old,) = moments
            fill = fill_for_new(old, power)
            return old, new.with_parameters(np.full(values.shape, fill) for _, values in new.parameters())

        return Replacement(1, (before, new), carry)


def _geometry(before: DenseLayer) -> Geometry | None:
    """That of the layer behind ``before``."""
    if before.geometry is None:
        return None
    return Geometry.centred([3 if size > 1 else 1 for size in before.geometry.kernel])
