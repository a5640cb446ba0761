"""The view of a model that surgeries work on: dense segments, and the frame that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.frame import Frame, Head
from onnxsurgeon.linear_algebra import Array

if TYPE_CHECKING:
    import onnx

    from onnxsurgeon.graph.files import Parts


@dataclass(frozen=True)
class LayerNames:
    """Names of a dense layer's nodes and tensors in the file."""

    node: str
    weight: str
    bias: str
    activation: str
    slope: str
    pre_activation: str
    output: str

    @classmethod
    def derived(cls, base: str) -> LayerNames:
        """Names of a layer that onnxsurgeon made: all start with ``base``."""
        return cls(
            node=base,
            weight=f"{base}.weight",
            bias=f"{base}.bias",
            activation=f"{base}/activation",
            slope=f"{base}.slope",
            pre_activation=f"{base}/pre_activation",
            output=f"{base}/output",
        )

    def all(self) -> tuple[str, ...]:
        """Every name, of nodes and of tensors."""
        return (
            self.node,
            self.weight,
            self.bias,
            self.activation,
            self.slope,
            self.pre_activation,
            self.output,
        )


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """One dense layer, y = φ(x W + b).

    Attributes:
        weight: W, shape (n_in, n_out).
        bias: b, shape (n_out,), or None.
        activation: φ, or None for a linear layer (a segment's output layer always is: what follows it is the frame's).
    """

    weight: Array
    bias: Array | None
    activation: Activation | None
    names: LayerNames

    @property
    def inputs(self) -> int:
        """Number of inputs, n_in."""
        return int(self.weight.shape[0])

    @property
    def units(self) -> int:
        """Number of units, n_out."""
        return int(self.weight.shape[1])

    @property
    def is_linear(self) -> bool:
        """Whether φ is the identity."""
        return self.activation is None or self.activation.is_identity

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Trainable tensors as (name in the file, values): W, then b, then PRelu's slopes."""
        yield self.names.weight, self.weight
        if self.bias is not None:
            yield self.names.bias, self.bias
        if self.activation is not None and self.activation.slope is not None:
            yield self.names.slope, self.activation.slope

    def with_parameters(self, values: Iterator[Array]) -> DenseLayer:
        """The same layer with other values, taken from ``values`` in the order of ``parameters()``."""
        weight = next(values)
        bias = None if self.bias is None else next(values)
        activation = self.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(next(values))
        return replace(self, weight=weight, bias=bias, activation=activation)


@dataclass(frozen=True, eq=False)
class DenseChain:
    """A segment: a sequence of dense layers from one tensor to another; all widths between the two are free.

    Attributes:
        layers: the hidden layers and, last, the output layer.
        input_name: name of the tensor that enters the first layer.
        output_name: name of the tensor that the output layer writes.
        entry: name of the tensor that the first layer reads in the file; where no-op nodes stand before it, this is
            the last one's output.
        rank: rank of the tensors, 2 for (batch, n); with more, the layers work on the last axis.
        stored: type of the weights in the file, where they are worked on in another (float16 and bfloat16 in float32).
    """

    layers: tuple[DenseLayer, ...]
    input_name: str
    output_name: str
    entry: str = ""
    rank: int = 2
    stored: np.dtype[Any] | None = None

    @property
    def file_input(self) -> str:
        """Name of the tensor that the first layer reads in the file."""
        return self.entry or self.input_name

    @property
    def hidden_count(self) -> int:
        """Number of hidden layers."""
        return len(self.layers) - 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of units from the input to the output, such as (784, 10, 10)."""
        return (self.layers[0].inputs, *(layer.units for layer in self.layers))

    @property
    def topology(self) -> str:
        """Widths joined by dashes."""
        return "-".join(str(width) for width in self.widths)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the weights as they are worked on."""
        return self.layers[0].weight.dtype

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """Type of the weights in the file."""
        return self.stored or self.dtype

    @property
    def parameter_count(self) -> int:
        """Number of trainable values: weights, biases and PRelu slopes."""
        return sum(values.size for layer in self.layers for _, values in layer.parameters())

    def parameters(self) -> list[tuple[str, Array]]:
        """Trainable tensors of all layers as (name, values)."""
        return [pair for layer in self.layers for pair in layer.parameters()]

    def with_parameters(self, values: Iterable[Array]) -> DenseChain:
        """The same layers with other values, in the order of ``parameters()``."""
        iterator = iter(values)
        return replace(self, layers=tuple(layer.with_parameters(iterator) for layer in self.layers))


class Pair(NamedTuple):
    """A hidden layer and the one that reads it."""

    layer: DenseLayer
    following: DenseLayer


@dataclass(frozen=True, eq=False)
class Network:
    """A model as dense segments in a frame; never changed, only replaced.

    A plain perceptron has one segment. Hidden layers are counted from 1, segment by segment in the order in which they
    are computed. ``name`` is the file's stem, for messages and file names.
    """

    segments: tuple[DenseChain, ...]
    frame: Frame
    name: str = "model"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def chain(self) -> DenseChain:
        """The only segment of a plain perceptron.

        Raises:
            SurgeryError: there are several.
        """
        if len(self.segments) != 1:
            raise SurgeryError(
                f"'{self.name}' ({self.topology}) is no single chain: it has {len(self.segments)} segments"
            )
        return self.segments[0]

    @property
    def layers(self) -> tuple[DenseLayer, ...]:
        """All dense layers, segment by segment, the output layer of each last."""
        return tuple(layer for segment in self.segments for layer in segment.layers)

    @property
    def heads(self) -> tuple[Head, ...]:
        """What is trained towards the targets."""
        return self.frame.trunk.heads

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the weights as they are worked on: the widest of the segments'."""
        return np.result_type(*(segment.dtype for segment in self.segments))

    @property
    def hidden_count(self) -> int:
        """Number of hidden layers, h."""
        return sum(segment.hidden_count for segment in self.segments)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of units from the input to the output of the only segment.

        Raises:
            SurgeryError: there are several segments.
        """
        return self.chain.widths

    @property
    def topology(self) -> str:
        """Widths joined by dashes, such as "784-10-10"; segments are joined by plus signs."""
        return "+".join(segment.topology for segment in self.segments)

    @property
    def parameter_count(self) -> int:
        """Number of trainable values: weights, biases and PRelu slopes."""
        return sum(segment.parameter_count for segment in self.segments)

    @property
    def is_finite(self) -> bool:
        """Whether every trainable value is finite."""
        return all(bool(np.isfinite(values).all()) for _, values in self.parameters())

    def parameters(self) -> list[tuple[str, Array]]:
        """Trainable tensors of all segments as (name, values)."""
        return [pair for segment in self.segments for pair in segment.parameters()]

    def with_parameters(self, values: Iterable[Array]) -> Network:
        """The same topology with other values, in the order of ``parameters()``."""
        iterator = iter(values)
        return replace(self, segments=tuple(segment.with_parameters(iterator) for segment in self.segments))

    def hidden(self, i: int) -> DenseLayer:
        """Hidden layer ``i``, counted from 1.

        Raises:
            SurgeryError: there is no such hidden layer.
        """
        segment, position = self._site(i)
        return self.segments[segment].layers[position]

    def segment_of(self, i: int) -> int:
        """Number of the segment that holds hidden layer ``i``, counted from 0."""
        return self._site(i)[0]

    def depth(self, i: int) -> tuple[int, int]:
        """Position of hidden layer ``i`` in its segment, counted from 1, and the segment's number of hidden layers."""
        segment, position = self._site(i)
        return position + 1, self.segments[segment].hidden_count

    def pair(self, i: int) -> Pair:
        """Hidden layer ``i`` and the layer that reads it."""
        segment, position = self._site(i)
        layers = self.segments[segment].layers
        return Pair(layers[position], layers[position + 1])

    def splice(self, i: int, count: int, layers: Sequence[DenseLayer]) -> Network:
        """The network with ``count`` layers of a segment, from hidden layer ``i`` on, replaced by ``layers``."""
        number, position = self._site(i)
        segment = self.segments[number]
        kept = (*segment.layers[:position], *layers, *segment.layers[position + count :])
        changed = replace(segment, layers=kept)
        return replace(self, segments=(*self.segments[:number], changed, *self.segments[number + 1 :]))

    def with_layers(self, layers: Iterable[DenseLayer]) -> Network:
        """The same surroundings with other layers in the only segment."""
        return replace(self, segments=(replace(self.chain, layers=tuple(layers)),))

    def _site(self, i: int) -> tuple[int, int]:
        """Index of the segment that holds hidden layer ``i``, and the layer's index there."""
        left = i - 1
        for number, segment in enumerate(self.segments):
            if 0 <= left < segment.hidden_count:
                return number, left
            left -= segment.hidden_count
        have = "it has none" if self.hidden_count == 0 else f"it has 1 to {self.hidden_count}"
        raise SurgeryError(f"'{self.name}' ({self.topology}) has no hidden layer {i}: {have}")

    def fresh_names(self) -> LayerNames:
        """Names for a new layer that nothing in the file bears yet."""
        used = set(self.frame.names)
        for segment in self.segments:
            used.update((segment.input_name, segment.output_name, segment.entry))
        for layer in self.layers:
            used.update(layer.names.all())
        number = 1
        while any(name in used for name in LayerNames.derived(f"dense_{number}").all()):
            number += 1
        return LayerNames.derived(f"dense_{number}")

    def as_stored(self) -> tuple[Network, float]:
        """The network with its values rounded to the file's types, and the largest rounding error of a value.

        The error is max |w − rounded w| as a fraction of the largest |w| of the tensor; 0 where nothing is rounded.
        """
        if all(segment.stored is None for segment in self.segments):
            return self, 0.0
        rounded, largest = [], 0.0
        for segment in self.segments:
            for _, values in segment.parameters():
                stored = values.astype(segment.file_dtype).astype(values.dtype)
                if segment.stored is not None and values.size:
                    scale = float(np.abs(values).max()) or 1.0
                    largest = max(largest, float(np.abs(values - stored).max()) / scale)
                rounded.append(values if segment.stored is None else stored)
        return self.with_parameters(rounded), largest

    def to_parts(self) -> Parts:
        """The complete model, bulky tensors apart: the user's surroundings with these segments in their places."""
        from onnxsurgeon.graph.assemble import assemble

        return assemble(self)

    def to_model(self) -> onnx.ModelProto:
        """The complete model in memory.

        Raises:
            ModelError: it would exceed the 2 GB that protobuf can hold.
        """
        from onnxsurgeon.graph.files import join

        return join(self.to_parts())
