"""Several networks joined to one, whose output is the mean of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.surgery.base import Replacement, Surgery, register, spell
from onnxsurgeon.surgery.effects import Effect, Multiplied


@register
@dataclass(frozen=True)
class Join(Surgery):
    """``members`` networks side by side, as ``join`` makes them. It cannot be done to one network alone."""

    operation: ClassVar[str] = "join"
    summary: ClassVar[str] = "MEMBERS networks become one, whose output is the mean of theirs"
    exact_if: ClassVar[str] = "always"
    marker: ClassVar[str] = "h"
    is_for_one: ClassVar[bool] = False
    members: int
    layer: int = field(default=0, init=False)

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Multiplied(self.members)

    def require(self, network: Network) -> None:
        """Raise SurgeryError, since there is only one network."""
        raise SurgeryError(
            f"{spell(self)}: it takes several networks, as evolve --ensemble has them in its end", "ensemble"
        )

    def is_exact(self, network: Network) -> bool:
        """The mean of all is what the members are asked for."""
        return True

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """Raise SurgeryError, since there is only one network."""
        raise SurgeryError(f"{spell(self)}: it takes several networks", "ensemble")


def join(networks: Sequence[Network]) -> Network:
    """Join an ensemble to one plain perceptron: hidden layers side by side, the output layer their mean.

    W_1 = [W_1¹, W_1², …], hidden W_i are block-diagonal, W_out = [W_out¹; W_out²; …] / K; for logits this is the mean
    before the softmax. The zeros between blocks are weights like others, and count as parameters.

    Raises:
        SurgeryError: ``reason_against`` says why.
    """
    reason = reason_against(networks)
    if reason:
        raise SurgeryError(f"'{networks[0].name}' cannot be joined with the others: {reason}", "ensemble")
    first, *hidden, last = zip(*(network.chain.layers for network in networks), strict=True)
    blocks = [_beside(layers, _block_diagonal([layer.weight for layer in layers])) for layers in hidden]
    return networks[0].with_layers(
        [_beside(first, np.concatenate([layer.weight for layer in first], axis=1)), *blocks, _mean(last)]
    )


def reason_against(networks: Sequence[Network]) -> str:
    """Why the networks cannot be joined; "" where they can."""
    first = networks[0]
    if any(network.frame.trunk.digest != first.frame.trunk.digest for network in networks):
        return "they have other surroundings"
    if len(first.segments) != 1:
        return f"{len(first.segments)} segments"
    if first.hidden_count == 0:
        return "no hidden layer"
    if [head.tensor for head in first.heads] != [first.chain.output_name]:
        return "nodes between the output layer and what is trained towards the targets"
    if len({tuple(_kind(layer) for layer in network.layers) for network in networks}) != 1:
        return "they have other layers"
    return ""


def _kind(layer: DenseLayer) -> tuple[bool, str]:
    return layer.bias is not None, str(layer.activation) if layer.activation is not None else ""


def _beside(layers: Sequence[DenseLayer], weight: Array) -> DenseLayer:
    first = layers[0]
    bias = None if first.bias is None else np.concatenate([layer.bias for layer in layers if layer.bias is not None])
    activation = first.activation
    if activation is not None and activation.slope is not None:
        slopes = [layer.activation.slope for layer in layers if layer.activation and layer.activation.slope is not None]
        activation = activation.with_slope(np.concatenate(slopes))
    return replace(first, weight=weight, bias=bias, activation=activation)


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    rows, columns = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    found = np.zeros((rows[-1], columns[-1]), blocks[0].dtype)
    for block, row, column in zip(blocks, rows, columns, strict=False):
        found[row : row + block.shape[0], column : column + block.shape[1]] = block
    return found


def _mean(layers: Sequence[DenseLayer]) -> DenseLayer:
    weight = np.concatenate([layer.weight for layer in layers]) / layers[0].weight.dtype.type(len(layers))
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return replace(layers[0], weight=weight, bias=np.mean(biases, axis=0, dtype=weight.dtype) if biases else None)
