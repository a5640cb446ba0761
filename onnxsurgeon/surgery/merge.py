"""Merges two consecutive layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, matmul
from onnxsurgeon.surgery.base import Replacement, Surgery, register, spell
from onnxsurgeon.surgery.effects import Absorbed, Effect
from onnxsurgeon.surgery.parameters import add_bias, slope_of, slots_for


@register
@dataclass(frozen=True)
class Merge(Surgery):
    """Remove hidden layer ``layer``: W' = W_i W_{i+1}, b' = b_i W_{i+1} + b_{i+1} (paper, eq. 11-12).

    It is exact only where φ_i is the identity. The result keeps the following layer's names and activation.

    Of two convolutions one must have a single tap. Where layer i does, W_{i+1}'s rows are summed by channel, and the
    result has the other's taps. A bias b_i that moves past zeros at the border makes the result approximate.
    """

    operation: ClassVar[str] = "merge"
    summary: ClassVar[str] = "it becomes a part of the next layer"
    exact_if: ClassVar[str] = "if φ is the identity"
    marker: ClassVar[str] = "D"
    recuperation: ClassVar[int] = 10
    layer: int

    @property
    def effect(self) -> Effect:
        """The effect that the docstring of the class describes, as data."""
        return Absorbed()

    def require(self, network: Network) -> None:
        """The layer must exist; of two convolutions one must have a single tap."""
        geometries = [each.geometry for each in network.pair(self.layer)]
        if not any(geometry is None or geometry.is_pointwise for geometry in geometries):
            raise SurgeryError(
                f"{spell(self)}: of two convolutions that become one, one must have a single tap, and neither steps "
                "nor padding",
                "unlike-layer",
            )

    def is_exact(self, network: Network) -> bool:
        """Whether no nonlinearity is lost, and no bias moves past padding."""
        layer, following = network.pair(self.layer)
        is_moved = layer.bias is not None and bool(layer.bias.any())
        is_padded = following.geometry is not None and following.geometry.is_padded
        return layer.is_linear and not (is_moved and is_padded)

    def parameters_after(self, network: Network) -> int:
        """Exact, without a decomposition or a product of the weights."""
        network = network.parted()
        layer, following = network.pair(self.layer)
        gone = sum(values.size for _, values in layer.parameters()) + following.weight.size
        gained = following.units if layer.bias is not None and following.bias is None else 0
        rows = layer.channels * following.inputs // layer.units if _is_first_pointwise(layer) else layer.inputs
        return network.parameter_count - gone + rows * following.units + gained

    def rewrite(self, network: Network, rng: np.random.Generator) -> Replacement:
        """φ_{i+1}(φ_i(x W_i + b_i) W_{i+1} + b_{i+1}) → φ_{i+1}(x W' + b')."""
        layer, following = network.pair(self.layer)
        dtype = layer.weight.dtype
        moved = None if layer.bias is None else matmul(layer.bias, _by_unit(following.weight, layer.units))
        merged = replace(
            following,
            weight=_product(layer.weight, following.weight, dtype),
            bias=add_bias(following.bias, moved, dtype),
            geometry=following.geometry if _is_first_pointwise(layer) else layer.geometry,
        )

        def carry(moments: Sequence[DenseLayer], power: int) -> tuple[DenseLayer]:
            """The product rule: d(W_i W_{i+1}) = dW_i W_{i+1} + W_i dW_{i+1}; the biases likewise."""
            first, second = moments
            outgoing = following.weight.astype(np.float64) ** power
            weight = _product(first.weight, outgoing)
            weight += _product(layer.weight.astype(np.float64) ** power, second.weight)
            bias = np.zeros(following.units) if second.bias is None else second.bias.astype(np.float64)
            if layer.bias is not None and first.bias is not None:
                bias = bias + matmul(first.bias, _by_unit(outgoing, layer.units))
                bias += matmul(layer.bias.astype(np.float64) ** power, _by_unit(second.weight, layer.units))
            return (slots_for(merged, weight, bias, slope_of(second)),)

        return Replacement(2, (merged,), carry)


def _is_first_pointwise(layer: DenseLayer) -> bool:
    """Whether the result has the taps of the following layer."""
    return layer.geometry is not None and layer.geometry.is_pointwise


def _product(first: Array, second: Array, dtype: npt.DTypeLike = np.float64) -> Array:
    """W_i W_{i+1}, where W_{i+1} has one row, or several taps, for each of W_i's units."""
    taps = len(second) // first.shape[1]
    columns = second.shape[1]
    return matmul(first, second.reshape(first.shape[1], taps * columns), dtype=dtype).reshape(-1, columns)


def _by_unit(weight: Array, units: int) -> Array:
    """The weight's rows, with the rows of each unit's taps added up."""
    taps = len(weight) // units
    return weight if taps == 1 else weight.reshape(units, taps, -1).sum(axis=1, dtype=np.float64)
