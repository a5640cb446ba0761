"""From an ONNX model to a ``Network``: finds the segments, and keeps everything else as it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.bias_last import biases_first
from onnxsurgeon.graph.bodies import branching
from onnxsurgeon.graph.branches import without_constant_branches
from onnxsurgeon.graph.by_vector import products_by_vectors, with_columns
from onnxsurgeon.graph.canonical import geometry_of
from onnxsurgeon.graph.cut import Cut, Ends, Known, cut
from onnxsurgeon.graph.dropout import without_random_dropout
from onnxsurgeon.graph.files import Parts, read_parts, split
from onnxsurgeon.graph.flowing import flowing
from onnxsurgeon.graph.frame import Frame, Head, Trunk
from onnxsurgeon.graph.frozen import KEY as FROZEN
from onnxsurgeon.graph.frozen import Frozen, frozen_in, nodes_before
from onnxsurgeon.graph.glue import glue_shape
from onnxsurgeon.graph.grouping import find_groups
from onnxsurgeon.graph.groups import Groups
from onnxsurgeon.graph.held import held_as
from onnxsurgeon.graph.importing import without_collecting
from onnxsurgeon.graph.labels import labels_behind
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.left_alone import stay
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.normal_form import operator
from onnxsurgeon.graph.notes import listed, own_copies
from onnxsurgeon.graph.read_layers import read_segments
from onnxsurgeon.graph.reading_aid import inlined, reading_aid, refuse_quantized
from onnxsurgeon.graph.segments import Structure, find_structure
from onnxsurgeon.graph.shared_weights import of_turned
from onnxsurgeon.graph.tied import tied_segments

METADATA_PREFIX = "onnxsurgeon."


_FAR = 8  # nodes behind a head that are looked at
_LAID_OUT = frozenset(("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))


def load(path: str | os.PathLike[str]) -> Network:
    """Read the model at ``path`` as a network.

    Raises:
        ModelError: the file is no usable model, or nothing in it can be trained; names file and node.
    """
    with without_collecting():
        return from_parts(read_parts(path), name=Path(path).stem, source=str(path))


def from_model(model: onnx.ModelProto, *, name: str = "model", source: str = "model") -> Network:
    """View a model in memory as segments in a frame.

    Raises:
        ModelError: nothing in it can be trained, or its contents are not usable; names the node.
    """
    return from_parts(split(model), name=name, source=source)


def from_parts(parts: Parts, *, name: str = "model", source: str = "model", frozen: Frozen | None = None) -> Network:
    """View a model whose bulky tensors are apart as segments in a frame; see ``from_model``.

    ``frozen`` says what is neither trained nor operated on; None stands for what the model's metadata says.
    """
    model, branches = without_constant_branches(inlined(parts.skeleton, source), parts.arrays.keys())
    model, dropouts = without_random_dropout(model)
    frozen = frozen_in(model, source) if frozen is None else frozen
    model = model if frozen.before else biases_first(model, parts.arrays)
    held = nodes_before(model.graph, frozen.before)
    refuse_quantized(parts, model, held, source)
    given = parts.skeleton.ByteSize() + sum(values.nbytes for values in parts.arrays.values())
    allowance = Allowance(given, source)
    aid = reading_aid(model, parts, source, allowance, frozen)
    if by_vectors := products_by_vectors(aid.graph, model, aid.ranks):
        model = with_columns(model, by_vectors, aid.graph)
        held = nodes_before(model.graph, frozen.before)
        aid = reading_aid(model, parts, source, allowance, frozen)
    known = Known.of(model.graph)
    still = {name for number in held for name in model.graph.node[number].output}
    structure = find_structure(aid.graph, known.tensors, source, frozen.layers, still, aid.turned)
    first, rest = _without_segments(model, known, structure)
    if inside := _turned_inside(rest.removed, aid.turned):
        # Layers write in the place of a Transpose or Reshape that is seen through: they end before it instead.
        aid = reading_aid(model, parts, source, allowance, frozen, kept=inside)
        structure = find_structure(aid.graph, known.tensors, source, frozen.layers, still, aid.turned)
        first, rest = _without_segments(model, known, structure)
    if any(tensor.name in aid.turned for tensor in (*structure.features, *structure.heads)) or _turned_inside(
        rest.removed, aid.turned
    ):  # tensors that enter or leave the trained part need their rows in front in the file too
        aid = reading_aid(model, parts, source, allowance, frozen, turns=False)
        structure = find_structure(aid.graph, known.tensors, source, frozen.layers, still)
        first, rest = _without_segments(model, known, structure)
    graph, idle, ranks = aid.graph, aid.idle, aid.ranks
    listed = {value.name for value in model.graph.input}
    taken = {tensor.name for tensor in rest.model.graph.initializer} | (parts.arrays.keys() - rest.gone)
    taken.update(name for written in rest.writes for name in written)
    nodes = {node.name for node in model.graph.node}
    segments, copies = read_segments(structure, nodes, taken, aid.ranks_in_file, allowance, source)
    segments, of_held = held_as(structure, segments, rest.removed, model, parts.arrays)
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
        frozenset(aid.turned),
    )
    groups = find_groups(segments, frame)
    notes = (
        *branches,
        *dropouts,
        *_of_frozen(frozen),
        *_of_idle(idle),
        *structure.notes,
        *structure.widths(_free_widths(structure, groups, segments), _reasons(structure, groups)),
        *structure.ends,
        *of_held,
        *_of_branches(rest, parts.arrays),
        *of_turned(segments),
        *own_copies(copies),
    )
    network = Network(tuple(segments), replace(frame, notes=notes), name, own)
    vars(network)["units"] = groups  # they do not depend on notes
    return network


def _turned_inside(removed: Collection[onnx.NodeProto], turned: Collection[str]) -> set[str]:
    """What nodes between layers write that lay out tensors anew whose rows are not in front in the file."""
    laid = [node for node in removed if node.op_type in _LAID_OUT]
    return {node.output[0] for node in laid if any(name in turned for name in (*node.input, *node.output))}


def _without_segments(model: onnx.ModelProto, known: Known, structure: Structure) -> tuple[list[int], Cut]:
    """The number of each segment's first end, and the model without the segments' nodes."""
    ends: list[Ends] = []
    first = []
    for number, links in enumerate(structure.segments):
        first.append(len(ends))
        writing = structure.readers.get(number, links[-1:])
        ends += [Ends(links[0].dense.attrs["entry"], link.output.name) for link in writing]
    return first, cut(model, known, ends, [tensor.name for tensor in structure.features])


def _free_widths(structure: Structure, groups: Groups, segments: list[DenseChain]) -> set[int]:
    """Ids of the dense nodes all of whose units are in groups that segments share."""
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


def _reasons(structure: Structure, groups: Groups) -> dict[int, str]:
    """Why units of a segment's last layer stay, by its dense node's id."""
    found: dict[int, str] = {}
    for pinned in groups.pinned:
        found.setdefault(id(structure.segments[pinned.segment][-1].dense), pinned.reason)
    return found


def _of_frozen(frozen: Frozen) -> list[str]:
    return [f"all that '{name}' is computed from stays as it is: the file marks it as frozen" for name in frozen.before]


def _of_idle(names: list[str]) -> list[str]:
    return [f"{listed(names)} {stay(names)}: no output depends on what is computed there"] if names else []


def _of_branches(rest: Cut, arrays: Collection[str]) -> list[str]:
    """Say that all rows of a batch together decide which branch is taken before the layers."""
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


def _trunk(structure: Structure, graph: gs.Graph, source: str) -> Trunk:
    readers: dict[int, list[gs.Node]] = {}
    inside = {step.output for step in structure.steps if not isinstance(step, int)}
    for node in graph.nodes:
        given = () if any(y.name in inside for y in node.outputs) else flowing(node)
        for each in {id(tensor) for tensor in given}:  # a node that reads a tensor twice is one reader
            readers.setdefault(each, []).append(node)
    features = {}
    for tensor in structure.features:
        features[tensor.name] = () if tensor.shape is None else glue_shape(tensor)[1:]
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
        shape = glue_shape(tensor) if tensor.shape else (None,)
        last = 1 if tensor.shape and len(shape) == 1 else shape[-1]
        width = int(units[tensor.name]) if tensor.name in units else last
        if width is None:
            raise ModelError(
                f"{source}: tensor '{tensor.name}', which is trained, has a last axis of unknown size", "open-shape"
            )
        ops = tuple(operator(node) for node in readers.get(id(tensor), ()))
        squash = next((op.removeprefix("Log") for op in ops if op in ("Softmax", "LogSoftmax", "Sigmoid")), "")
        if not squash and len(ops) == 1 and _leads_to_sigmoid(tensor, readers):
            squash = "Sigmoid"
        rank = 2 if tensor.shape is None else max(2, len(tensor.shape))
        labels, obstacle = labels_behind(tensor, readers, width), structure.stopped.get(tensor.name, "")
        heads.append(Head(tensor.name, width, squash, ops, labels, rank, obstacle))
    constants = {tensor.name: np.asarray(tensor.values) for tensor in structure.constants}
    return Trunk(features, tuple(structure.steps), tuple(heads), constants)


def _leads_to_sigmoid(tensor: gs.Tensor, readers: Mapping[int, list[gs.Node]]) -> bool:
    """Whether nodes that only lay out a tensor anew stand between it and a Sigmoid, and nothing else reads it."""
    for _ in range(_FAR):
        behind = readers.get(id(tensor), [])
        if len(behind) != 1 or behind[0].op not in _LAID_OUT:
            return len(behind) == 1 and behind[0].op == "Sigmoid"
        tensor = behind[0].outputs[0]
    return False


def _remarks(rest: Cut) -> dict[str, onnx.NodeProto]:
    """Doc strings and metadata of the removed nodes that have any."""
    return {node.name: node for node in rest.removed if node.name and (node.doc_string or len(node.metadata_props))}
