"""Training on standardised inputs, without a change to the model: the first layers' weights are those of x̂ = (x − c)/s.

What enters the network is x as before; x W + b = x̂ Ŵ + b̂ with Ŵ = s W and b̂ = b + c W. Gradient descent on Ŵ instead
of W sees inputs around 0 of like size (LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.3), weight
decay weighs them alike, and an input that is left out (dropout) has its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxsurgeon.calibration.calibrate import sample_rows
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.graph.layers import DenseChain, DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.dropout import entering
from onnxsurgeon.training.resident import is_read_by_dense_layers_alone

ROWS = 8192
# No standardised value is beyond the inverse: a pixel that is hardly ever lit is not blown up to be like the others.
SMALLEST_SCALE = 0.5  # of an input's largest deviation from its mean


@dataclass(frozen=True, eq=False)
class Standardised:
    """Examples with standardised inputs, and the way of a network's weights there and back.

    Attributes:
        examples: what the network is trained on.
        inputs: tensor → centre c and scale s of its values, each of shape (n_in,), float64; only of those that dense
            layers of two axes with a bias read, and nothing else does.
        tensors: names of all of the examples' inputs, in their order.
        is_complete: whether that is all inputs that dense layers of two axes read directly.
    """

    examples: Examples
    inputs: dict[str, tuple[Array, Array]]
    tensors: tuple[str, ...]
    is_complete: bool

    @classmethod
    def of(cls, network: Network, examples: Examples, seed: int = 0) -> Standardised:
        """Centres and scales by a sample of the rows: σ, or half of the largest deviation where that is more."""
        tensors = tuple(network.frame.trunk.features)
        rows = sample_rows(examples, ROWS, seed, "standardise")
        inputs = {}
        for tensor, features in zip(tensors, examples.stored, strict=True):
            firsts = [segment.layers[0] for segment in network.segments if segment.input_name == tensor]
            have_biases = all(layer.bias is not None for layer in firsts)
            if have_biases and is_read_by_dense_layers_alone(network, tensor):
                inputs[tensor] = _statistics(features.take(rows))
        direct = {segment.input_name for segment in entering(network)}
        return cls(examples, inputs, tensors, direct <= set(inputs)).on(examples)

    def on(self, examples: Examples) -> Standardised:
        """The same centres and scales for other rows of the same inputs."""
        names = zip(self.tensors, examples.stored, strict=True)
        stored = [_standardised(rows, *self.inputs[name]) if name in self.inputs else rows for name, rows in names]
        return replace(self, examples=examples.with_stored(stored))

    def into(self, network: Network) -> Network:
        """The network on standardised inputs that computes what ``network`` does on those as they are."""
        return self._with_first_layers(network, _into)

    def out_of(self, network: Network) -> Network:
        """The inverse of ``into``, up to rounding."""
        return self._with_first_layers(network, _out_of)

    def _with_first_layers(self, network: Network, change: Callable[[DenseLayer, Array, Array], DenseLayer]) -> Network:
        def changed(segment: DenseChain) -> DenseChain:
            if segment.input_name not in self.inputs:
                return segment
            first, *others = segment.layers
            return replace(segment, layers=(change(first, *self.inputs[segment.input_name]), *others))

        return replace(network, segments=tuple(map(changed, network.segments)))


def _statistics(values: Array) -> tuple[Array, Array]:
    wide = values.astype(np.float64)
    centre = wide.mean(axis=0)
    scale = np.maximum(wide.std(axis=0), SMALLEST_SCALE * np.abs(wide - centre).max(axis=0))
    scale[scale == 0] = 1
    return centre, scale


def _standardised(rows: Rows, centre: Array, scale: Array) -> Rows:
    return replace(rows, scale=rows.scale / scale, offset=(rows.offset - centre) / scale)


def _into(layer: DenseLayer, centre: Array, scale: Array) -> DenseLayer:
    weight = layer.weight.astype(np.float64)
    return _changed(layer, weight * scale[:, None], centre @ weight)


def _out_of(layer: DenseLayer, centre: Array, scale: Array) -> DenseLayer:
    weight = layer.weight / scale[:, None]
    return _changed(layer, weight, -(centre @ weight))


def _changed(layer: DenseLayer, weight: Array, shift: Array) -> DenseLayer:
    """The layer with another weight and its bias shifted; both are computed in float64."""
    assert layer.bias is not None
    dtype = layer.weight.dtype
    return replace(layer, weight=weight.astype(dtype), bias=(layer.bias + shift).astype(dtype))
