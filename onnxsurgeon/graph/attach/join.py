"""A backbone without its old head, and with a new one behind it."""

from __future__ import annotations

import onnx
from onnx import helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.attach.batch import Shape, backbone
from onnxsurgeon.graph.attach.nodes import ML, Nodes
from onnxsurgeon.graph.files import Parts
from onnxsurgeon.graph.frozen import KEY, Frozen
from onnxsurgeon.graph.reader import METADATA_PREFIX
from onnxsurgeon.graph.writer import IR_WITH_FREE_INITIALIZERS

LABEL_ENCODER = 2  # the version of ai.onnx.ml from which on it takes lists of keys and values
MASK = "attention_mask"


def without_old_head(parts: Parts, tensor: str, kept: set[int]) -> Parts:
    """Return the nodes up to the tensor and what they read; the inputs stay, and there are no outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(parts.skeleton)
    graph = model.graph
    del graph.node[:], graph.output[:]
    graph.node.extend(node for number, node in enumerate(parts.skeleton.graph.node) if number in kept)
    part = backbone(parts, tensor)
    read = {each.name for each in part.skeleton.graph.initializer} | part.arrays.keys()
    read |= {each.name for each in part.skeleton.graph.input}
    made = {name for node in graph.node for name in node.output} | read
    for field, wanted in (
        (graph.initializer, read),
        (graph.sparse_initializer, made),
        (graph.value_info, made),
        (graph.input, read | {MASK}),
    ):
        stay = [entry for entry in field if getattr(entry, "name", "") in wanted]
        del field[:]
        field.extend(stay)
    entries = [entry for entry in model.metadata_props if not entry.key.startswith(METADATA_PREFIX)]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    return Parts(model, {key: v for key, v in parts.arrays.items() if key in read}, parts.external, parts.headers)


def joined(
    parts: Parts,
    made: Nodes,
    outputs: list[onnx.ValueInfoProto],
    tensor: str,
    kind: int,
    shape: Shape,
    frozen: Frozen,
    source: str,
) -> Parts:
    """Return the backbone with the head's nodes behind it."""
    model = parts.skeleton
    graph = model.graph
    if any(node.domain == ML for node in made.nodes):
        _import_ml(model, source)
    graph.node.extend(made.nodes)
    graph.initializer.extend(made.initializers)
    declared = {value.name for value in graph.input}
    stay = [value for value in graph.value_info if value.name != tensor]
    del graph.value_info[:]
    graph.value_info.extend(stay)
    if tensor not in declared:
        graph.value_info.append(helper.make_tensor_value_info(tensor, kind, list(shape)))
    graph.value_info.extend(made.shapes)
    graph.output.extend(outputs)
    if model.ir_version < IR_WITH_FREE_INITIALIZERS:
        for each in made.initializers:
            graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    if frozen:
        model.metadata_props.add(key=KEY, value=frozen.entry())
    return parts


def _import_ml(model: onnx.ModelProto, source: str) -> None:
    """Import a version of ai.onnx.ml that names classes, where the backbone imports none or an older one."""
    entry = next((entry for entry in model.opset_import if entry.domain == ML), None)
    if entry is None:
        model.opset_import.add(domain=ML, version=LABEL_ENCODER)
    elif entry.version < LABEL_ENCODER:
        if any(node.domain == ML and node.op_type == "LabelEncoder" for node in model.graph.node):
            raise ModelError(
                f"{source}: it has a LabelEncoder of ai.onnx.ml {entry.version}, which cannot be beside the one that "
                "names classes: give their number instead",
                "opset",
            )
        entry.version = LABEL_ENCODER


def version_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operators."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def all_names(parts: Parts) -> set[str]:
    """Every name in the graph, those inside bodies included."""
    found: set[str] = {*parts.arrays}

    def walk(graph: onnx.GraphProto) -> None:
        found.update(value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))
        for node in graph.node:
            found.update((node.name, *node.input, *node.output))
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    walk(inner)

    walk(parts.skeleton.graph)
    return found


def free(name: str, taken: set[str], *, apart: bool = False) -> str:
    """Return a name that is not taken; with ``apart``, no taken name begins with it and a slash either."""
    number, tried = 1, name
    while tried in taken or (apart and any(other.startswith(f"{tried}/") for other in taken)):
        number += 1
        tried = f"{name}_{number}"
    return tried
