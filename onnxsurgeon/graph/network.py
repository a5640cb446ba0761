"""The view of a model that surgeries work on: prefix | dense chain | suffix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.errors import SurgeryError
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.nodes import chain_nodes
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
        activation: φ, or None for a linear layer (the output layer always is: what follows it is the suffix).
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
    """A sequence of dense layers from one tensor to another.

    Attributes:
        layers: the hidden layers and, last, the output layer.
        input_name: name of the tensor that enters the first layer.
        output_name: name of the tensor that the output layer writes.
    """

    layers: tuple[DenseLayer, ...]
    input_name: str
    output_name: str

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of units from the input to the output, such as (784, 10, 10)."""
        return (self.layers[0].inputs, *(layer.units for layer in self.layers))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the weights."""
        return self.layers[0].weight.dtype

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


@dataclass(frozen=True, eq=False)
class Frame:
    """What surrounds the dense chain, kept as it was read.

    Attributes:
        model: the user's model without the chain's nodes and weights. Never changed after reading.
        position: where in its list of nodes the chain belongs.
        prefix: positions in that list of the nodes that the chain's input depends on.
        suffix: op types of the nodes that read the chain's output.
    """

    model: onnx.ModelProto
    position: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[str, ...] = ()

    @property
    def opset(self) -> int:
        """Version of ONNX's own operator set."""
        return next(int(entry.version) for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    @property
    def prefix_nodes(self) -> list[onnx.NodeProto]:
        """The nodes that the chain's input depends on."""
        return [self.model.graph.node[index] for index in self.prefix]


@dataclass(frozen=True, eq=False)
class Network:
    """A model as prefix | dense chain | suffix; never changed, only replaced.

    ``name`` is the file's stem, for messages and file names.
    """

    chain: DenseChain
    frame: Frame
    name: str = "model"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[DenseLayer, ...]:
        """All dense layers, the output layer last."""
        return self.chain.layers

    @property
    def hidden_count(self) -> int:
        """Number of hidden layers, h."""
        return len(self.chain.layers) - 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of units from the input to the output."""
        return self.chain.widths

    @property
    def topology(self) -> str:
        """Widths joined by dashes, such as "784-10-10"."""
        return "-".join(str(width) for width in self.widths)

    @property
    def parameter_count(self) -> int:
        """Number of trainable values: weights, biases and PRelu slopes."""
        return self.chain.parameter_count

    @property
    def is_finite(self) -> bool:
        """Whether every trainable value is finite."""
        return all(bool(np.isfinite(values).all()) for _, values in self.chain.parameters())

    def hidden(self, i: int) -> DenseLayer:
        """Hidden layer ``i``, counted from 1 at the input.

        Raises:
            SurgeryError: there is no such hidden layer.
        """
        if not 1 <= i <= self.hidden_count:
            have = "it has none" if self.hidden_count == 0 else f"it has 1 to {self.hidden_count}"
            raise SurgeryError(f"'{self.name}' ({self.topology}) has no hidden layer {i}: {have}")
        return self.layers[i - 1]

    def with_layers(self, layers: Iterable[DenseLayer]) -> Network:
        """The same surroundings with other layers."""
        return replace(self, chain=replace(self.chain, layers=tuple(layers)))

    def with_parameters(self, values: Iterable[Array]) -> Network:
        """The same topology with other values, in the order of ``chain.parameters()``."""
        return replace(self, chain=self.chain.with_parameters(values))

    def fresh_names(self) -> LayerNames:
        """Names for a new layer that nothing in the file bears yet."""
        used = _names_in(self.frame.model.graph) | {self.chain.input_name, self.chain.output_name}
        for layer in self.layers:
            used.update(layer.names.all())
        number = 1
        while any(name in used for name in LayerNames.derived(f"dense_{number}").all()):
            number += 1
        return LayerNames.derived(f"dense_{number}")

    def to_model(self) -> onnx.ModelProto:
        """The complete ONNX model: the user's surroundings with this chain in its place."""
        model = onnx.ModelProto()
        model.CopyFrom(self.frame.model)
        nodes, initializers = chain_nodes(self.chain, self.frame.opset)
        kept = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend(kept[: self.frame.position] + nodes + kept[self.frame.position :])
        model.graph.initializer.extend(initializers)
        for key, value in self.metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model


def _names_in(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    names.update(tensor.name for tensor in graph.initializer)
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
    return names
