"""Layers that are not trained: their parameters, and the part of the network that is computed only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxsurgeon.deploy.start import trunk_shape
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.frame import Trunk
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.network import Network
from onnxsurgeon.quantities import whole

Shape = tuple[int | None, ...]


def frozen_names(network: Network, chosen: Sequence[str]) -> frozenset[str]:
    """The parameters that ``chosen`` names: parameters or nodes of the file, or hidden layers by their number.

    Raises:
        SettingsError: an entry names nothing, or nothing is left to train.
    """
    frozen: set[str] = set()
    for text in chosen:
        found: set[str] = set()
        for layer in network.layers:
            own = [name for name, _ in layer.parameters()]
            if text == layer.names.node:
                found.update(own)
            found.update(name for name in own if name == text)
        number = whole(text)
        if not found and number is not None and 1 <= number <= network.hidden_count:
            found.update(name for name, _ in network.hidden(number).parameters())
        if not found:
            known = ", ".join(f"'{layer.names.node}'" for layer in network.layers[:12])
            raise SettingsError(
                f"freeze: '{text}' is no layer of '{network.name}': give a hidden layer's number (1 to "
                f"{network.hidden_count}), a parameter's name or a node's: {known}",
                "layer-names",
            )
        frozen |= found
    if len(frozen) == len(network.parameters()):
        raise SettingsError(f"freeze: nothing of '{network.name}' is left to train", "nothing-to-train")
    return frozenset(frozen)


def trained_part(network: Network, frozen: frozenset[str]) -> Network:
    """The network behind the tensors to which no trained parameter leads; these become its features.

    Where the first layers are not frozen, it is the network as it is. It can be trained, but not be written.

    Raises:
        SettingsError: nothing that is trained leads to one of its heads.
    """
    trunk = network.frame.trunk
    known: dict[str, Shape] = dict(trunk.features)
    counts = _leading(network, frozen)
    features: dict[str, Shape] = {}
    steps: list[int | Glue] = []
    segments: list[DenseChain] = []

    def need(tensor: str) -> None:
        if tensor in known:
            features.setdefault(tensor, known[tensor])

    for step in trunk.steps:
        if isinstance(step, int):
            segment = network.segments[step]
            count = counts[step] if segment.input_name in known else 0
            if count == len(segment.layers):
                known |= {name: trunk_shape(network, name) for name in segment.ends}
                continue
            if count:
                cut = segment.layers[count - 1].names.output
                known[cut] = (*known[segment.input_name][:-1], segment.layers[count - 1].units)
                segment = replace(segment, layers=segment.layers[count:], input_name=cut, entry="")
            need(segment.input_name)
            steps.append(len(segments))
            segments.append(segment)
        elif all(name in known or name in trunk.constants for name in step.inputs):
            known[step.output] = trunk_shape(network, step.output)
        else:
            for name in step.inputs:
                need(name)
            steps.append(step)
    for head in trunk.heads:
        if head.tensor in known:
            raise SettingsError(
                f"freeze: of what leads to the head '{head.tensor}', nothing is left to train", "nothing-to-train"
            )
    if list(features) == list(trunk.features) and len(steps) == len(trunk.steps):
        return network
    part = Trunk(features, tuple(steps), trunk.heads, trunk.constants)
    return replace(network, segments=tuple(segments), frame=replace(network.frame, trunk=part))


def _leading(network: Network, frozen: frozenset[str]) -> list[int]:
    """For each segment, how many of its first layers are frozen as a whole.

    A segment whose weights others have gives either all of its layers or none.
    """
    found = []
    for number, segment in enumerate(network.segments):
        whole = [all(name in frozen for name, _ in layer.parameters()) for layer in segment.layers]
        count = next((i for i, each in enumerate(whole) if not each), len(whole))
        found.append(count if count == len(whole) or network.is_alone(number) else 0)
    return found
