"""A new layer that does nothing at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.graph.activations import Activation, prelu
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

    After a convolution it is a convolution with 3 taps along each axis along which the other has several; the tap at
    the centre of each channel's own is 1, all others are 0, and the sizes stay.

    Its activation is the layer's own φ where φ(φ(x)) = φ(x) (Relu, Clip); after any other layer it is a PRelu of slope
    1, the identity at first, and trainable. It is always exact.

    A width that several segments share counts as such a layer too where a single convolution writes it, such as before
    a pool: behind φ(W x + b) with φ a node of the file, there is φ(I φ(W x + b)).
    """

    operation: ClassVar[str] = "insert_identity"
    summary: ClassVar[str] = "another layer behind it"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "s"
    recuperation: ClassVar[int] = 10
    layer: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Followed()

    def require(self, network: Network) -> None:
        """The layer must exist.

        It must be a convolution, or be followed by a layer before which the new one can stand.
        """
        if not _ends_convolutions(network, self.layer):
            network.hidden(self.layer)

    def is_exact(self, network: Network) -> bool:
        """Always."""
        return True

    def parameters_after(self, network: Network) -> int:
        """Exact, without a decomposition or a product of the weights."""
        network = network.parted()
        number, position = network.place(self.layer)
        layer = network.segments[number].layers[position]
        activation = _activation(network, self.layer)
        idempotent = activation is not None and activation.is_idempotent
        geometry = _geometry(layer)
        taps = 1 if geometry is None else geometry.taps
        return network.parameter_count + layer.units * (taps * layer.units + 1 + (not idempotent))

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """The layers x → φ(x) → φ(φ(x) I + 0)."""
        number, position = network.place(self.layer)
        before = network.segments[number].layers[position]
        n, dtype = before.units, before.weight.dtype
        behind = _activation(network, self.layer)
        idempotent = behind is not None and behind.is_idempotent
        activation = behind if idempotent else prelu(np.ones(n, dtype))
        geometry = _geometry(before)
        taps = 1 if geometry is None else geometry.taps
        weight = np.zeros((n, taps, n), dtype)
        weight[np.arange(n), taps // 2, np.arange(n)] = 1
        names = network.fresh_names()
        new = DenseLayer(weight.reshape(n * taps, n), np.zeros(n, dtype), activation, names, geometry)
        if self.layer > network.hidden_count:  # the file's φ is behind the new layer: the one before gets its own
            hidden = replace(names, **{each: getattr(before.names, each) for each in ("node", "weight", "bias")})
            before = replace(before, activation=activation, names=hidden)
            new = replace(new, activation=None, names=network.fresh_names(names.all()))

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer, DenseLayer]:
            """The layer's own moments stay as they are; all of the other's are new."""
            (old,) = moments
            fill = fill_for_new(old, power)
            kept = [values for _, values in old.parameters()]
            slopes = [np.full(values.shape, fill) for _, values in before.parameters()][len(kept) :]
            own = before.with_parameters(iter([*kept, *slopes]))
            return own, new.with_parameters(np.full(values.shape, fill) for _, values in new.parameters())

        return Replacement(1, (before, new), carry)


def _geometry(before: DenseLayer) -> Geometry | None:
    """The geometry of the layer behind ``before``."""
    if before.geometry is None:
        return None
    return Geometry.centred([3 if size > 1 else 1 for size in before.geometry.kernel])


def _ends_convolutions(network: Network, i: int) -> bool:
    """Whether group ``i`` is written by a convolution that is the last of its segment.

    Raises:
        SurgeryError: there is no such group, or no single layer writes it.
    """
    if i <= network.hidden_count:
        return False
    number, position = network.place(i)
    return network.segments[number].layers[position].geometry is not None


def _activation(network: Network, i: int) -> Activation | None:
    """φ of the layer that writes group ``i``.

    Its own, or a node that alone reads the output of a segment's last layer.
    """
    number, position = network.place(i)
    segment = network.segments[number]
    if i <= network.hidden_count:
        return segment.layers[position].activation
    trunk = network.frame.trunk
    readers = [step for step in trunk.steps if not isinstance(step, int) and segment.output_name in step.inputs]
    if len(readers) != 1 or any(each.input_name == segment.output_name for each in network.segments):
        return None
    found = readers[0].attributes.get("activation") if readers[0].op == "Activation" else None
    return found if isinstance(found, Activation) else None
