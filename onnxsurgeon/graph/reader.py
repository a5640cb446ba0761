"""From an ONNX model to a ``Network``: find the dense segments, and keep everything else as it is.

One file: the road from a file to a network, which is taken in one direction and whole.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.batch_first import batch_first
from onnxsurgeon.graph.bias_last import biases_first
from onnxsurgeon.graph.bodies import branching, mark_bodies, without_bodies
from onnxsurgeon.graph.branches import without_constant_branches
from onnxsurgeon.graph.canonical import PRODUCTS, canonicalise, constant_values, geometry_of
from onnxsurgeon.graph.cut import Cut, Ends, cut
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.dropout import without_random_dropout
from onnxsurgeon.graph.files import Parts, read_parts, split
from onnxsurgeon.graph.frame import Frame, Head, Trunk
from onnxsurgeon.graph.frozen import KEY as FROZEN
from onnxsurgeon.graph.frozen import Frozen, behind, frozen_in, nodes_before
from onnxsurgeon.graph.glue import shape_of
from onnxsurgeon.graph.grouping import find_groups
from onnxsurgeon.graph.groups import Groups
from onnxsurgeon.graph.held import held_otherwise
from onnxsurgeon.graph.importing import imported, without_collecting
from onnxsurgeon.graph.inference import inferred
from onnxsurgeon.graph.labels import labels_behind
from onnxsurgeon.graph.layers import DenseChain, DenseLayer, LayerNames, side_by_side
from onnxsurgeon.graph.left_alone import stay
from onnxsurgeon.graph.lifting import lift
from onnxsurgeon.graph.links import Link
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.normal_form import activation_of, label, operator
from onnxsurgeon.graph.notes import listed, own_copies
from onnxsurgeon.graph.one_row import takes_one_row
from onnxsurgeon.graph.outputs import flowing
from onnxsurgeon.graph.segments import Structure, find_structure, written_by
from onnxsurgeon.graph.shared_weights import SharedWeights, of_turned
from onnxsurgeon.graph.structure import describe
from onnxsurgeon.graph.tied import sharing, tied_segments
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line

METADATA_PREFIX = "onnxsurgeon."
WORKING_TYPES = (np.dtype(np.float32), np.dtype(np.float64))
MOST_UNDERSCORES = 8
# What rounds activations to integers, or computes with them.
QUANTIZERS = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul", "QGemm", "QLinearConv", "ConvInteger"}
    | {"QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearAdd", "QLinearMul", "QLinearSigmoid"}
)
# What multiplies with weights that are packed, several in a byte, in blocks of its own.
PACKED = frozenset({"MatMulNBits", "MatMulBnb4", "MatMulFpQ4"})


def load(path: str | os.PathLike[str]) -> Network:
    """Read the model at ``path`` as a network.

    Raises:
        ModelError: the file is no usable model, or nothing in it can be trained; names file and node.
    """
    with without_collecting():
        return from_parts(read_parts(path), name=Path(path).stem, source=str(path))


def from_model(model: onnx.ModelProto, *, name: str = "model", source: str = "model") -> Network:
    """View a model in memory as dense segments in a frame.

    Raises:
        ModelError: nothing in it can be trained, or what it holds is not usable; names the node.
    """
    return from_parts(split(model), name=name, source=source)


def from_parts(parts: Parts, *, name: str = "model", source: str = "model", frozen: Frozen | None = None) -> Network:
    """View a model whose bulky tensors are apart as dense segments in a frame; see ``from_model``.

    ``frozen`` says what is not trained, nor operated on; None: what the model's metadata says.
    """
    model, branches = without_constant_branches(_inlined(parts.skeleton, source), parts.arrays.keys())
    model, dropouts = without_random_dropout(model)
    frozen = frozen_in(model, source) if frozen is None else frozen
    model = model if frozen.before else biases_first(model, parts.arrays)
    held = nodes_before(model.graph, frozen.before)
    _refuse_quantized(parts, model, held, source)
    given = parts.skeleton.ByteSize() + sum(values.nbytes for values in parts.arrays.values())
    allowance = Allowance(given, source)
    imported = _import(model, parts.arrays, source, allowance, frozen)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    still = {name for number in held for name in model.graph.node[number].output}
    structure = find_structure(imported.graph, names, source, frozen.layers, still)
    if any(tensor.name in imported.turned for tensor in (*structure.features, *structure.heads)):
        # What enters or leaves the trained part has its rows in front in the file too.
        imported = _import(model, parts.arrays, source, allowance, frozen, turns=False)
        structure = find_structure(imported.graph, names, source, frozen.layers, still)
    graph, idle, ranks = imported.graph, imported.idle, imported.ranks
    listed = {value.name for value in model.graph.input}
    ends: list[Ends] = []
    first = []
    for number, links in enumerate(structure.segments):
        first.append(len(ends))
        writing = structure.readers.get(number, links[-1:])
        ends += [Ends(links[0].dense.attrs["entry"], link.output.name) for link in writing]
    rest = cut(model, ends, [tensor.name for tensor in structure.features])
    taken = {tensor.name for tensor in rest.model.graph.initializer} | (parts.arrays.keys() - rest.gone)
    taken.update(name for node in rest.model.graph.node for name in node.output)
    segments: list[DenseChain] = []
    counted: set[int | None] = set()
    naming = _Naming({node.name for node in model.graph.node}, taken, structure.shared)
    for number, links in enumerate(structure.segments):
        behind = structure.readers.get(number, [])
        for link in (*links, *behind):
            # What is called by one name may be several layers' in several forms, and each gets its own.
            kind = structure.shared.one.get(id(link.dense))
            if kind is None or kind not in counted:
                allowance.take(np.asarray(link.dense.inputs[1].values).nbytes, f"node '{label(link.dense)}'")
            counted.add(kind)
        layers = [_layer(link, naming, source) for link in links]
        side = [_layer(link, naming, source) for link in behind]
        chain = _segment(links, layers, links[0].dense.attrs["entry"], imported.ranks_in_file, source)
        if side:
            whole, readers = side_by_side(side, [link.output.name for link in behind])
            chain = replace(chain, layers=(*layers, whole), output_name=written_by(links, behind), readers=readers)
        segments.append(chain)
    segments = list(sharing(segments))
    parameters = {name for segment in segments for name, _ in segment.parameters_in_file()}
    own = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(METADATA_PREFIX)}
    own.pop(FROZEN, None)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith(METADATA_PREFIX)]
    del rest.model.metadata_props[:]
    rest.model.metadata_props.extend(kept)
    frame = Frame(
        rest.model,
        tuple(rest.positions[index] for index in first),
        _trunk(structure, graph, source),
        rest.prefix,
        {name: values for name, values in parts.arrays.items() if name not in rest.gone},
        parts.external,
        parts.headers,
        (),
        _remarks(rest),
        frozenset(listed & parameters),
        ranks is not None,
        frozen,
        frozenset(imported.turned),
    )
    groups = find_groups(segments, frame)
    notes = (
        *branches,
        *dropouts,
        *_of_frozen(frozen),
        *_of_idle(idle),
        *structure.notes,
        *structure.widths(_free_widths(structure, groups, segments)),
        *structure.ends,
        *held_otherwise(structure, rest.removed, model, parts.arrays),
        *_of_branches(rest, parts.arrays),
        *of_turned(segments),
        *own_copies(naming.copies),
    )
    network = Network(tuple(segments), replace(frame, notes=notes), name, own)
    vars(network)["units"] = groups  # which do not depend on notes
    return network


def _free_widths(structure: Structure, groups: Groups, segments: list[DenseChain]) -> set[int]:
    """Ids of the dense nodes whose units are all of groups that segments share."""
    free: dict[int, int] = {}
    tied = tied_segments(segments)
    for group in groups.free:
        for writer in () if group.is_hidden else group.writers:
            if writer.segment not in structure.readers:
                dense = structure.segments[writer.segment][writer.layer].dense
            else:
                side = zip(structure.readers[writer.segment], segments[writer.segment].readers, strict=True)
                dense = next(
                    link.dense for link, each in side if each.columns.start <= writer.begin < each.columns.stop
                )
            free[id(dense)] = free.get(id(dense), 0) + group.units
        for number, _ in group.each:
            dense = structure.segments[number][0].dense
            free[id(dense)] = free.get(id(dense), 0) + group.units
    for number, first in tied.items():
        free[id(structure.segments[number][-1].dense)] = free.get(id(structure.segments[first][-1].dense), 0)
    links = [link for links in (*structure.segments, *structure.readers.values()) for link in links]
    return {id(link.dense) for link in links if free.get(id(link.dense)) == link.dense.inputs[1].shape[1]}


def _of_frozen(frozen: Frozen) -> list[str]:
    return [f"all that '{name}' is computed from stays as it is: the file marks it as frozen" for name in frozen.before]


def _of_idle(names: list[str]) -> list[str]:
    return [f"{listed(names)} {stay(names)}: no output depends on what is computed there"] if names else []


def _of_branches(rest: Cut, arrays: Collection[str]) -> list[str]:
    """That a batch's rows decide together which branch is taken in front of the layers."""
    graph = rest.model.graph
    constants = {tensor.name for tensor in graph.initializer} | set(arrays)
    inputs = {value.name for value in graph.input} - constants
    names = branching((graph.node[position] for position in rest.prefix), inputs)
    if not names:
        return []
    who = "node" if len(names) == 1 else "nodes"
    does = "takes" if len(names) == 1 else "take"
    return [
        f"{who} {listed(names)} (If) {does} one branch for all rows of a batch: features of a row may change with the "
        "rows that are run with it"
    ]


def _inlined(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The model with its local functions written out."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # it promises no type
        raise ModelError(
            f"{source}: its local functions cannot be inlined: {first_line(error)}", "damaged-model"
        ) from error


def _refuse_quantized(parts: Parts, model: onnx.ModelProto, held: Collection[int], source: str) -> None:
    """Quantized activations are refused; weights that are constants behind DequantizeLinear are not.

    Nor is what the nodes with the numbers ``held`` do, which are frozen.
    """
    if not any(node.op_type in QUANTIZERS or node.op_type in PACKED for node in model.graph.node):
        return
    constants = {tensor.name for tensor in model.graph.initializer} | parts.arrays.keys()
    advice = "evolve the float model it was made from, and quantize the result again"
    for number, node in enumerate(model.graph.node):
        if number in held:
            continue
        if all(name in constants for name in inputs_of(node)):
            constants.update(node.output)
        elif node.op_type in QUANTIZERS:
            raise ModelError(
                f"{source}: {describe(node)}: the model is quantized, its activations too, and these may live in the "
                f"quantizer's saturation; {advice}",
                "quantized-model",
            )
        elif node.op_type in PACKED:
            raise ModelError(
                f"{source}: {describe(node)}: the model is quantized: its weights are packed in a form of that "
                f"operator's own, which is not unpacked; {advice}",
                "quantized-model",
            )


def _refuse_training_mode(graph: gs.Graph, source: str) -> None:
    """What depends on the other rows of a batch, or on chance, cannot be computed once for each row."""
    for node in graph.nodes:
        random = node.op == "Dropout" and len(node.inputs) > 2 and np.any(constant_values(node.inputs[2]))
        if random or (node.op == "BatchNormalization" and _updates_statistics(node)):
            raise ModelError(
                f"{source}: node '{label(node)}' ({node.op}) is in training mode; export the model for inference",
                "training-mode",
            )


def _updates_statistics(node: gs.Node) -> bool:
    return bool(node.attrs.get("training_mode", 0)) or any(tensor.outputs for tensor in node.outputs[1:])


@dataclass(frozen=True)
class _Imported:
    """The canonical graph: shapes inferred, bulky tensors back in place without a copy, idioms normalised.

    Attributes:
        graph: that graph.
        idle: names of products whose values nothing depends on.
        ranks: of a model that takes one row at a time, how many axes its tensors have in the file; None of others.
        turned: the same of the tensors whose rows are not their first axis in the file.
    """

    graph: gs.Graph
    idle: list[str]
    ranks: dict[str, int] | None
    turned: dict[str, int]

    @property
    def ranks_in_file(self) -> Mapping[str, int]:
        """Numbers of axes of tensors that have others in the file."""
        return {**(self.ranks or {}), **self.turned}


def _import(
    model: onnx.ModelProto,
    arrays: dict[str, Array],
    source: str,
    allowance: Allowance,
    frozen: Frozen,
    *,
    turns: bool = True,
) -> _Imported:
    """Import a model; with ``turns``, what has its rows elsewhere is read as if they were the first axis."""
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    listed = {value.name for value in typed.graph.input}
    for name, values in arrays.items():
        if name not in listed:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            typed.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    try:
        typed = behind(inferred(typed), frozen.before, source)
        is_one_row = takes_one_row(typed, arrays.keys())
        constant = {tensor.name for tensor in typed.graph.initializer} | arrays.keys()
        bodies = without_bodies(typed, constant, PRODUCTS)
        graph = imported(typed)
        mark_bodies(graph, bodies)
        tensors = {tensor.name: tensor for tensor in graph.inputs}
        for name, values in arrays.items():
            if name in tensors:  # not where only what is frozen reads it
                tensors[name].to_constant(values)
        graph.inputs = [tensor for tensor in graph.inputs if not isinstance(tensor, gs.Constant)]
    except ModelError:
        raise
    except Exception as error:  # neither onnx nor onnx-graphsurgeon promises a type
        raise ModelError(f"{source}: its graph cannot be read: {first_line(error)}", "damaged-model") from error
    _refuse_wrong_biases(graph, source)
    ranks = lift(graph) if is_one_row else None
    turned = batch_first(graph, allowance) if turns and ranks is None else {}
    idle = canonicalise(graph, allowance)
    _refuse_training_mode(graph, source)
    return _Imported(graph, idle, ranks, turned)


def _refuse_wrong_biases(graph: gs.Graph, source: str) -> None:
    """onnx.checker lets a bias of the wrong length pass."""
    for node in graph.nodes:
        if node.op != "Gemm" or len(node.inputs) < 3 or not node.outputs:
            continue
        weight, bias = constant_values(node.inputs[1]), constant_values(node.inputs[2])
        if weight is not None and bias is not None and weight.ndim == 2:
            units = weight.shape[0] if node.attrs.get("transB", 0) else weight.shape[1]
            if bias.ndim and bias.shape[-1] not in (1, units):
                raise ModelError(
                    f"{source}: node '{label(node)}': bias of shape {bias.shape} for {units} units", "damaged-model"
                )


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
    sizes = (None,) * rank if x.shape is None else shape_of(x)
    if geometry is not None:
        rank, sizes = geometry.rank + 2, sizes if len(sizes) == geometry.rank + 2 else (None,) * (geometry.rank + 2)
    space = sizes[1:-1] if geometry is None else sizes[2:]
    before = "" if entry == x.name else entry
    return DenseChain(tuple(layers), x.name, y.name, before, rank, stored, file_rank=own, space=space)


@dataclass
class _Naming:
    """Names of layers and of their tensors, as they are given one after the other.

    Attributes:
        nodes: names of nodes.
        taken: names of tensors.
        shared: as of ``Structure``.
        copies: tensors that others read too, the layers with copies of their own, and what these are called.
    """

    nodes: set[str]
    taken: set[str]
    shared: SharedWeights
    copies: list[tuple[str, str, str]] = field(default_factory=list)
    _known: dict[tuple[int, str, str, bytes], str] = field(default_factory=dict)

    def tensor(self, link: Link, part: str, given: str, values: Array | None, names: LayerNames) -> str:
        """What a layer's weight, bias or slope is called, ``given`` in the file, or "".

        Layers that share their weights share what else the file has once. What something else reads too keeps its name
        for that; the layer gets its own copy.
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
    """The dense layer that a link stands for; names that others bear already get an underscore.

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
    """A name that nothing bears: with an underscore or a few behind it, or else with a number."""
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
    parts = np.array_split(values, max(1, values.size >> 24))  # a mask of a large matrix is large too
    if not all(bool(np.isfinite(part).all()) for part in parts):
        raise ModelError(
            f"{source}: node '{label(node)}': its weights or biases hold NaN or infinity", "not-finite-weights"
        )
    return values


def _trunk(structure: Structure, graph: gs.Graph, source: str) -> Trunk:
    readers: dict[int, list[gs.Node]] = {}
    inside = {step.output for step in structure.steps if not isinstance(step, int)}
    for node in graph.nodes:
        given = () if any(y.name in inside for y in node.outputs) else flowing(node)
        for each in {id(tensor) for tensor in given}:  # a node that reads a tensor twice is one reader
            readers.setdefault(each, []).append(node)
    features = {}
    for tensor in structure.features:
        features[tensor.name] = () if tensor.shape is None else shape_of(tensor)[1:]
    for links in structure.segments:
        x = links[0].dense.inputs[0]
        if x.name in features:
            known = features[x.name]
            geometry, inputs = geometry_of(links[0].dense), int(links[0].dense.inputs[1].values.shape[0])
            if geometry is None:
                features[x.name] = (*known[:-1], inputs)
            else:
                space = known[1:] if len(known) == geometry.rank + 1 else (None,) * geometry.rank
                features[x.name] = (inputs // geometry.taps * geometry.groups, *space)
    last_links = [links[-1] for links in structure.segments] + [
        each for some in structure.readers.values() for each in some
    ]
    units = {
        link.output.name: link.dense.inputs[1].values.shape[1] for link in last_links if geometry_of(link.dense) is None
    }
    heads = []
    for tensor in structure.heads:
        shape = shape_of(tensor) if tensor.shape else (None,)
        last = 1 if tensor.shape and len(shape) == 1 else shape[-1]
        width = int(units[tensor.name]) if tensor.name in units else last
        if width is None:
            raise ModelError(
                f"{source}: tensor '{tensor.name}', which is trained, has a last axis of unknown size", "open-shape"
            )
        ops = tuple(operator(node) for node in readers.get(id(tensor), ()))
        squash = next((op.removeprefix("Log") for op in ops if op in ("Softmax", "LogSoftmax", "Sigmoid")), "")
        rank = 2 if tensor.shape is None else max(2, len(tensor.shape))
        labels, obstacle = labels_behind(tensor, readers, width), structure.stopped.get(tensor.name, "")
        heads.append(Head(tensor.name, width, squash, ops, labels, rank, obstacle))
    constants = {tensor.name: np.asarray(tensor.values) for tensor in structure.constants}
    return Trunk(features, tuple(structure.steps), tuple(heads), constants)


def _remarks(rest: Cut) -> dict[str, onnx.NodeProto]:
    """Doc strings and metadata of the removed nodes that have any."""
    return {node.name: node for node in rest.removed if node.name and (node.doc_string or len(node.metadata_props))}
