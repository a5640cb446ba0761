"""From the links of a canonical graph to layers and segments: their values, and their names in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.canonical import constant_values, geometry_of
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.chains import written_by
from onnxsurgeon.graph.glue import glue_shape
from onnxsurgeon.graph.layers import DenseChain, DenseLayer, LayerNames, Reader
from onnxsurgeon.graph.links import Link
from onnxsurgeon.graph.normal_form import activation_of
from onnxsurgeon.graph.segments import Structure
from onnxsurgeon.graph.shared_weights import SharedWeights
from onnxsurgeon.graph.tied import sharing
from onnxsurgeon.linear_algebra import Array

WORKING_TYPES = (np.dtype(np.float32), np.dtype(np.float64))
MOST_UNDERSCORES = 8


def read_segments(
    structure: Structure,
    nodes: set[str],
    taken: set[str],
    ranks: Mapping[str, int],
    allowance: Allowance,
    source: str,
) -> tuple[list[DenseChain], list[tuple[str, str, str]]]:
    """Read the segments of a structure.

    Also return tensors that others read too, each with a layer and its copy's name.

    Args:
        structure: the links that were found.
        nodes: names of the file's nodes.
        taken: names of tensors that belong to the frame.
        ranks: numbers of axes of tensors that have others in the file.
        allowance: the bytes that may be made.
        source: the beginning of messages.

    Raises:
        ModelError: weights are empty, not finite or of several types; names the node.
    """
    segments: list[DenseChain] = []
    counted: set[int | None] = set()
    naming = _Naming(nodes, taken, structure.shared)
    for number, links in enumerate(structure.segments):
        behind = structure.readers.get(number, [])
        for link in (*links, *behind):
            # A tensor of one name may be several layers' parameter in several forms, and each form gets its own name.
            kind = structure.shared.one.get(id(link.dense))
            if kind is None or kind not in counted:
                allowance.take(np.asarray(link.dense.inputs[1].values).nbytes, f"node '{label(link.dense)}'")
            counted.add(kind)
        layers = [_layer(link, naming, source) for link in links]
        side = [_layer(link, naming, source) for link in behind]
        chain = _segment(links, layers, links[0].dense.attrs["entry"], ranks, source)
        if side:
            whole, readers = _side_by_side(side, [link.output.name for link in behind])
            chain = replace(chain, layers=(*layers, whole), output_name=written_by(links, behind), readers=readers)
        segments.append(chain)
    return list(sharing(segments)), naming.copies


def _segment(
    links: list[Link], layers: list[DenseLayer], entry: str, ranks: Mapping[str, int], source: str
) -> DenseChain:
    kinds = {np.asarray(link.dense.inputs[1].values).dtype for link in links}
    if len(kinds) > 1:
        names = ", ".join(sorted(str(kind) for kind in kinds))
        raise ModelError(
            f"{source}: node '{label(links[0].dense)}': the weights from here on are of several types: {names}",
            "unsupported-form",
        )
    kind = kinds.pop()
    x, y = links[0].dense.inputs[0], links[-1].output
    rank = next((len(tensor.shape) for tensor in (x, y) if tensor.shape is not None), 2)
    stored = None if kind in WORKING_TYPES else kind
    own = ranks.get(entry, 0)
    geometry = layers[0].geometry
    sizes = (None,) * rank if x.shape is None else glue_shape(x)
    if geometry is not None:
        rank, sizes = geometry.rank + 2, sizes if len(sizes) == geometry.rank + 2 else (None,) * (geometry.rank + 2)
    space = sizes[1:-1] if geometry is None else sizes[2:]
    before = "" if entry == x.name else entry
    return DenseChain(tuple(layers), x.name, y.name, before, rank, stored, file_rank=own, space=space)


@dataclass
class _Naming:
    """Names of layers and of their tensors, given one after the other.

    Attributes:
        nodes: names of nodes.
        taken: names of tensors.
        shared: as in ``Structure``.
        copies: tensors that others read too, the layers with copies of their own, and the copies' names.
    """

    nodes: set[str]
    taken: set[str]
    shared: SharedWeights
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    _known: dict[tuple[int, str, str, bytes], str] = field(default_factory=dict)

    def tensor(self, link: Link, part: str, given: str, values: Array | None, names: LayerNames) -> str:
        """The name of a layer's weight, bias or slope, which is called ``given`` in the file, or "".

        Layers that share their weights share other tensors that the file has once. A tensor that something else reads
        too keeps its name for that reader, and the layer gets its own copy.
        """
        derived, layer = str(getattr(names, part)), names.node
        look = b"" if values is None or part == "weight" else values.tobytes()
        sharing = self.shared.one if part == "weight" else self.shared.alike
        key = sharing.get(id(link.dense), -1), part, given, look
        if key[0] >= 0 and key in self._known:
            return self._known[key]
        wanted = _free(given or derived, self.taken)
        if given and wanted != given:
            self.copies.append((given, layer, wanted))
        self.taken.add(wanted)
        self._known[key] = wanted
        return wanted


def _layer(link: Link, naming: _Naming, source: str) -> DenseLayer:
    """Read the layer that a link stands for; names that others bear already get an underscore.

    A node without a name gets that of the tensor it writes.
    """
    node = link.dense
    weight = _values(node, 1, source)
    bias = _values(node, 2, source) if len(node.inputs) > 2 else None
    if 0 in weight.shape:
        raise ModelError(f"{source}: node '{label(node)}': weight of shape {weight.shape} is empty", "damaged-model")
    base = label(node)
    while not node.name and base in naming.nodes:
        base += "_"
    naming.nodes.add(base)
    names = LayerNames.derived(base)
    chosen = {"node": names.node, "weight": node.inputs[1].name, "pre_activation": node.outputs[0].name}
    if bias is not None:
        chosen["bias"] = node.inputs[2].name
    activation = None
    chosen["output"] = node.outputs[0].name
    if link.activation is not None:
        try:
            activation = activation_of(link.activation, weight.shape[1], weight.dtype)
        except ModelError as error:
            raise ModelError(f"{source}: {error}", error.kind) from error
        chosen["activation"] = link.activation.name or names.activation
        chosen["output"] = link.activation.outputs[0].name
        if activation.slope is not None:
            chosen["slope"] = link.activation.inputs[1].name
    slope = None if activation is None else activation.slope
    for part, values in (("weight", weight), ("bias", bias), ("slope", slope)):
        chosen[part] = naming.tensor(link, part, chosen.get(part, ""), values, names)
    derived = {part: getattr(names, part) for part in LayerNames.__dataclass_fields__}
    naming.taken.update({**derived, **chosen}.values())
    is_turned = id(node) in naming.shared.turned
    return DenseLayer(weight, bias, activation, LayerNames(**{**derived, **chosen}), geometry_of(node), is_turned)


def _free(name: str, taken: set[str]) -> str:
    """A name that is not taken: with an underscore or a few behind it, or else with a number."""
    for count in range(MOST_UNDERSCORES + 1):
        if name + "_" * count not in taken:
            return name + "_" * count
    low, high = 1, 2  # names are given in order, so that the first free number is found by halving
    while f"{name}_{high}" in taken:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if f"{name}_{middle}" in taken else (low, middle)
    return f"{name}_{low}"


def _values(node: gs.Node, position: int, source: str) -> Array:
    """A weight or bias in a working type."""
    values = constant_values(node.inputs[position])
    assert values is not None
    if values.dtype not in WORKING_TYPES:
        values = values.astype(np.float32)
    parts = np.array_split(values, max(1, values.size >> 24))  # a mask of a large matrix would be large too
    if not all(bool(np.isfinite(part).all()) for part in parts):
        raise ModelError(
            f"{source}: node '{label(node)}': its weights or biases hold NaN or infinity", "not-finite-weights"
        )
    return values


def _side_by_side(layers: Sequence[DenseLayer], outputs: Sequence[str]) -> tuple[DenseLayer, tuple[Reader, ...]]:
    """Join linear layers that read the same tensor to one, [W_1, W_2, …], and tell where each is in it."""
    readers, begin = [], 0
    for layer, output in zip(layers, outputs, strict=True):
        readers.append(Reader(layer.names, output, slice(begin, begin + layer.units)))
        begin += layer.units
    biases = [layer.bias for layer in layers if layer.bias is not None]
    bias = np.concatenate(biases) if biases else None
    names = LayerNames.derived("+".join(layer.names.node for layer in layers))
    return DenseLayer(np.concatenate([layer.weight for layer in layers], axis=1), bias, None, names), tuple(readers)
