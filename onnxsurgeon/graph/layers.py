"""Dense layers and convolutions, and the segments that they form, on which surgeries work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.linear_algebra import Array


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
        """Names of a layer that onnxsurgeon made, all of which start with ``base``."""
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
    """One layer, y = φ(x W + b).

    Attributes:
        weight: W, shape (n_in, n_out); for a convolution (channels · taps, units), see ``Geometry``.
        bias: b, shape (n_out,), or None.
        activation: φ, or None for a linear layer. The output layer of a segment is always linear, since what follows it
            belongs to the frame.
        geometry: how a convolution is applied in space; None for a dense layer.
        is_turned: whether W is the transpose of the tensor of that name, which is another layer's weight. This holds
            only while both are as in the file (``Network.parted``).
    """

    weight: Array
    bias: Array | None
    activation: Activation | None
    names: LayerNames
    geometry: Geometry | None = None
    is_turned: bool = False

    @property
    def inputs(self) -> int:
        """Number of inputs of each unit, n_in; for a convolution, channels times taps."""
        return int(self.weight.shape[0])

    @property
    def units(self) -> int:
        """Number of units, n_out."""
        return int(self.weight.shape[1])

    @property
    def channels(self) -> int:
        """Number of units that the layer reads: the inputs of a dense layer, the channels of a convolution."""
        return self.inputs if self.geometry is None else self.inputs // self.geometry.taps * self.geometry.groups

    @property
    def is_linear(self) -> bool:
        """Whether φ is the identity."""
        return self.activation is None or self.activation.is_identity

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Trainable tensors as (name in the file, values): W, then b, then PRelu's slopes."""
        yield self.names.weight, self.weight.T if self.is_turned else self.weight
        if self.bias is not None:
            yield self.names.bias, self.bias
        if self.activation is not None and self.activation.slope is not None:
            yield self.names.slope, self.activation.slope

    def parameters_in_file(self) -> Iterator[tuple[str, Array]]:
        """The same tensors in the file's layout.

        A convolution's weight (units, channels, kernel…), slopes (units, 1, …).
        """
        if self.geometry is None:
            yield from self.parameters()
            return
        for name, values in self.parameters():
            if name == self.names.weight:
                yield name, values.T.reshape(self.units, -1, *self.geometry.kernel)
            else:
                yield name, values if name == self.names.bias else values.reshape(-1, *[1] * self.geometry.rank)

    def with_parameters(self, values: Iterator[Array]) -> DenseLayer:
        """The same layer with other values, taken from ``values`` in the order of ``parameters()``."""
        given = next(values)
        weight = given.T if self.is_turned else given
        bias = None if self.bias is None else next(values)
        activation = self.activation
        if activation is not None and activation.slope is not None:
            activation = activation.with_slope(next(values))
        return replace(self, weight=weight, bias=bias, activation=activation)


@dataclass(frozen=True)
class Reader:
    """One of several layers of the file that read the same hidden layer; together they are a segment's last layer.

    Attributes:
        names: names of its node and tensors.
        output_name: name of the tensor that it writes.
        columns: its units among those of the segment's last layer.
    """

    names: LayerNames
    output_name: str
    columns: slice


@dataclass(frozen=True, eq=False)
class DenseChain:
    """A segment: a sequence of layers from one tensor to another; all widths between the two are free.

    The layers are all dense, or all convolutions. A grouped convolution is a segment by itself.

    Attributes:
        layers: the hidden layers and, last, the output layer.
        input_name: name of the tensor that enters the first layer.
        output_name: name of the tensor that the output layer writes.
        entry: name of the tensor that the first layer reads in the file; where no-op nodes stand before it, this is the
            last one's output.
        rank: rank of the tensors, 2 for (batch, n); with more, dense layers work on the last axis, convolutions on
            (batch, n, space…).
        stored: type of the weights in the file, where they are worked on in another (float16 and bfloat16 in float32).
        readers: the layers of the file that read the last hidden layer, where they are several; the last of ``layers``
            has them side by side, W = [W_1, W_2, …]. Empty where the last layer is one layer of the file.
        file_rank: rank in the file of the tensor that enters, where that has no batch axis; 0 stands for ``rank``.
        space: sizes of the axes besides the batch and the units of the tensor that enters; None where not known.
        held: the smaller type in which the file holds the weights, where a Cast makes of them what it computes with.
        wide: names of the weights that it does not hold so all the same.
    """

    layers: tuple[DenseLayer, ...]
    input_name: str
    output_name: str
    entry: str = ""
    rank: int = 2
    stored: np.dtype[Any] | None = None
    readers: tuple[Reader, ...] = ()
    file_rank: int = 0
    space: tuple[int | None, ...] = ()
    held: np.dtype[Any] | None = None
    wide: frozenset[str] = frozenset()

    @property
    def is_convolution(self) -> bool:
        """Whether its layers are convolutions."""
        return self.layers[0].geometry is not None

    @property
    def unit_axis(self) -> int:
        """The axis of the tensors along which the units lie: 1 for convolutions, else the last."""
        return 1 if self.is_convolution else -1

    def spaces(self) -> list[tuple[int | None, ...]]:
        """For each layer, the sizes of its output's axes besides the batch and the units; None where not known."""
        space, found = self.space, []
        for layer in self.layers:
            if layer.geometry is not None:
                space = tuple(layer.geometry.sizes_behind(space))
            found.append(space)
        return found

    def multiplications(self) -> list[int | None]:
        """Multiplications with weights that each layer does for one row (MACs); None where sizes are not known."""
        found: list[int | None] = []
        for layer, space in zip(self.layers, self.spaces(), strict=True):
            sizes = [size for size in space if size is not None]
            is_known = len(sizes) == self.rank - 2
            found.append(layer.weight.size * math.prod(sizes) if is_known else None)
        return found

    @property
    def file_input(self) -> str:
        """Name of the tensor that the first layer reads in the file."""
        return self.entry or self.input_name

    @property
    def ends(self) -> dict[str, slice]:
        """Names of the tensors that the last layer writes in the file, each with its units there."""
        if not self.readers:
            return {self.output_name: slice(0, self.layers[-1].units)}
        return {reader.output_name: reader.columns for reader in self.readers}

    def over_ends(self, values: Mapping[str, Array], rest: float) -> Array | None:
        """One value for each of the last layer's units: ``values`` by tensor, or ``rest``; None where none is given."""
        if not any(name in values for name in self.ends):
            return None
        found = np.full(self.layers[-1].units, rest)
        for name, columns in self.ends.items():
            if name in values:
                found[columns] = values[name]
        return found

    @property
    def layers_in_file(self) -> list[tuple[DenseLayer, str]]:
        """Every layer as it is in the file (several at the end with ``readers``), and the tensor that it writes."""
        *hidden, last = self.layers
        written = [(layer, layer.names.output) for layer in hidden]
        if not self.readers:
            return [*written, (last, self.output_name)]
        for reader in self.readers:
            weight = np.ascontiguousarray(last.weight[:, reader.columns])
            bias = None if last.bias is None else last.bias[reader.columns]
            written.append((DenseLayer(weight, bias, None, reader.names, last.geometry), reader.output_name))
        return written

    def parameters_in_file(self) -> list[tuple[str, Array]]:
        """Trainable tensors of all layers in the file's layout."""
        return [pair for layer, _ in self.layers_in_file for pair in layer.parameters_in_file()]

    @property
    def hidden_count(self) -> int:
        """Number of hidden layers."""
        return len(self.layers) - 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of units from the input to the output, such as (784, 10, 10).

        For convolutions, numbers of channels.
        """
        return (self.layers[0].channels, *(layer.units for layer in self.layers))

    @property
    def topology(self) -> str:
        """Widths joined by dashes, those of convolutions with a c before them, such as "c1-c8-c16"."""
        mark = "c" if self.is_convolution else ""
        return "-".join(f"{mark}{width}" for width in self.widths)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type in which the weights are worked on."""
        return self.layers[0].weight.dtype

    @property
    def file_dtype(self) -> np.dtype[Any]:
        """Type in which the file computes with the weights."""
        return self.stored or self.dtype

    def held_dtype(self, name: str, values: Array) -> np.dtype[Any]:
        """Type in which the file holds a parameter: a weight's is ``held``, where there is one; biases are small."""
        is_held = self.held is not None and values.ndim > 1 and name not in self.wide
        return self.held if is_held and self.held is not None else self.file_dtype

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
