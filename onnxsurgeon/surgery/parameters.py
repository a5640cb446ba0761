"""What surgeries do with parameters and with their moments, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.linear_algebra import Array, in_float64


def slots_for(layer: DenseLayer, weight: Array, bias: Array | None, slope: Array | None) -> DenseLayer:
    """Moments of the parameters that ``layer`` has; arguments for parameters that it lacks are ignored."""
    has_slope = layer.activation is not None and layer.activation.slope is not None
    given = (weight, bias if layer.bias is not None else None, slope if has_slope else None)
    return layer.with_parameters(values for values in given if values is not None)


def slope_of(layer: DenseLayer) -> Array | None:
    """PRelu's slopes, or their moments."""
    return None if layer.activation is None else layer.activation.slope


def fill_for_new(layer: DenseLayer, power: int) -> float:
    """The value of moments to which nothing maps, where ``layer`` holds those of the layer operated on.

    A new parameter has no velocity: its first moments are 0. Its second moments are the layer's mean. With 0 and a bias
    correction that has long worn off, adamw's first steps would be (1 − β1) / √(1 − β2) ≈ 3 times too long.
    """
    if power == 1:
        return 0.0
    arrays = [values for _, values in layer.parameters()]
    # The order in which a sum is taken, and so its rounding, follows the order of storage.
    return float(sum(in_float64(values).sum() for values in arrays) / sum(values.size for values in arrays))


def add_bias(bias: Array | None, extra: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """bias + extra, where None stands for zeros."""
    if extra is None:
        return bias
    return (extra if bias is None else bias.astype(np.float64) + extra).astype(dtype)


def filled(layer: DenseLayer, weight: Array, bias: Array | float) -> DenseLayer:
    """The layer with these values (n_in, k) and (k,) for its last k units; its arrays are overwritten."""
    count = weight.shape[1]
    layer.weight[:, layer.units - count :] = weight
    if layer.bias is not None:
        layer.bias[layer.units - count :] = bias
    return layer


def is_padded(layer: DenseLayer) -> bool:
    """Whether the layer is a convolution that reads zeros at the border, so that no constant can go into its bias."""
    return layer.geometry is not None and layer.geometry.is_padded
