"""Runs two models on the same inputs and tells how far apart their outputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxsurgeon.buffers import release
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.nodes import chain_model
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import numpy_type, run


@dataclass(frozen=True)
class Difference:
    """The difference between the outputs of two models.

    Attributes:
        maximum: max |Δ| over all outputs.
        scale: the largest magnitude in the first model's outputs.
    """

    maximum: float
    scale: float

    @property
    def relative(self) -> float:
        """max |Δ| as a fraction of the outputs' scale."""
        return self.maximum / self.scale if self.scale else self.maximum


def chain_outputs(chain: DenseChain, features: Array) -> Array:
    """Compute the chain's outputs from ``features``; weights that are mapped from a file leave memory again."""
    flat = replace(chain, readers=())
    feeds = {chain.file_input: features, **dict(flat.parameters_in_file())}
    outputs: Array = run(chain_model(chain, _OPSET), feeds)[0]
    for _, values in chain.parameters():
        release(values)
    return outputs


def compare_chains(first: DenseChain, second: DenseChain, features: Array) -> Difference:
    """Difference of two chains' outputs on the same ``features``."""
    return difference([chain_outputs(first, features)], [chain_outputs(second, features)])


def compare_models(first: onnx.ModelProto, second: onnx.ModelProto, feeds: Mapping[str, Array]) -> Difference:
    """Difference of all numeric outputs of two models on the same inputs.

    Raises:
        ModelError: the models' outputs differ in number.
    """
    a, b = run(first, feeds), run(second, feeds)
    if len(a) != len(b):
        raise ModelError(f"the models have {len(a)} and {len(b)} outputs", "unlike-models")
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, np.ndarray) and x.dtype.kind in "fiu"]
    return difference([x for x, _ in pairs], [y for _, y in pairs])


# The oldest opset that has every activation of graph.activations.
_OPSET = 20
# The size of the last map along each axis of space, so that it has positions at the border and inside.
POSITIONS = 3


def random_features(chain: DenseChain, rows: int = 64, seed: int = 0) -> Array:
    """Draw standard normal features (rows, n_in) of the chain's type; for convolutions (rows, channels, space…)."""
    shape = (rows, chain.widths[0], *_smallest_space(chain))
    return np.random.default_rng(seed).standard_normal(shape).astype(chain.dtype)


def _smallest_space(chain: DenseChain) -> list[int]:
    """The smallest sizes of the axes of space for which every convolution makes ``POSITIONS`` along each of them."""
    sizes: list[int] = []
    for axis in range(chain.rank - 2 if chain.is_convolution else 0):
        size = POSITIONS
        for layer in reversed(chain.layers):
            geometry = layer.geometry
            assert geometry is not None  # a chain mixes no dense layers with convolutions
            reach = geometry.dilations[axis] * (geometry.kernel[axis] - 1) + 1
            padded = geometry.strides[axis] * (size - 1) + reach
            size = max(padded - geometry.pads[axis] - geometry.pads[axis + geometry.rank], 1)
        sizes.append(size)
    return sizes


def random_inputs(model: onnx.ModelProto, rows: int = 8, seed: int = 0) -> dict[str, Array]:
    """Draw random inputs for every input of ``model``: uniform in [0, 1); unknown dimensions become ``rows``."""
    generator = np.random.default_rng(seed)
    fixed = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in fixed:
            kind = value.type.tensor_type
            shape = [dim.dim_value or rows for dim in kind.shape.dim]
            feeds[value.name] = generator.random(shape).astype(numpy_type(kind.elem_type))
    return feeds


def difference(first: Sequence[Array], second: Sequence[Array]) -> Difference:
    """Return how far two lists of outputs are apart."""
    maximum = scale = 0.0
    for x, y in zip(first, second, strict=True):
        a, b = x.astype(np.float64), y.astype(np.float64)
        if a.size:
            with np.errstate(invalid="ignore"):  # a network that has diverged gives ∞ − ∞
                maximum = max(maximum, float(np.abs(a - b).max()))
            scale = max(scale, float(np.abs(a).max()))
    return Difference(maximum, scale)
