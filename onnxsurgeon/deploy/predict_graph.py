"""predict.onnx, the user's model with its trained weights as inputs, and features.onnx, the part computed once."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper

from onnxsurgeon.deploy import names
from onnxsurgeon.deploy.entry import Entry, rows_in_form, within_bounds
from onnxsurgeon.deploy.pieces import kind_of, pruned
from onnxsurgeon.deploy.plan import Plan
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.files import join
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.training.forward import IR_VERSION


def predict_graph(plan: Plan) -> tuple[onnx.ModelProto, list[str]]:
    """The user's model with the state's parameters as inputs, and remarks on it.

    Its inputs and outputs keep their names; rows come in the form that ``plan.inputs`` says. Outputs that are no
    tensors, such as ZipMap's, are left out or become the tensor from which they are made.
    """
    network = plan.whole
    model = join(to_parts(network, casts=False))
    graph = model.graph
    entry = Entry(network.dtype)
    remarks = [*_plain_outputs(graph)]
    if any(segment.file_dtype.name == "bfloat16" for segment in network.segments):
        remarks.append(f"{names.PREDICT}: is in bfloat16 as the model, which few builds of ONNX Runtime compute in")
    replaced: set[str] = set()
    known = {each.name: each for each in plan.trained}
    for segment in network.segments:
        for layer in segment.layers:
            readers = segment.readers if layer is segment.layers[-1] else ()
            for (name, values), role in zip(
                layer.parameters(), ("weight", *_roles(layer.bias is not None)), strict=False
            ):
                if name not in known or name in replaced:  # layers may share one
                    continue
                source = names.parameter(name)
                if layer.geometry is not None and role != "bias":
                    shape = dict(layer.parameters_in_file())[name].shape
                    source = entry.add("Reshape", source, entry.integers(*shape))
                elif values.ndim == 2:
                    source = entry.add("Transpose", source, perm=[1, 0])
                kind = kind_of(segment.file_dtype)
                ends: list[tuple[str, slice | None]] = [(getattr(r.names, role), r.columns) for r in readers]
                for target, columns in ends or [(name, None)]:
                    x = source
                    if columns is not None:
                        ends_at = entry.integers(columns.start), entry.integers(columns.stop)
                        x = entry.add("Slice", x, *ends_at, entry.axes(-1))
                    entry.add("Cast", x, to=kind, output=target)
                    replaced.add(target)
    _without(graph, replaced)
    rows_in_form(graph, entry, plan.inputs)
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*entry.nodes, *own])
    graph.initializer.extend(entry.constants.values())
    kind = kind_of(network.dtype)
    graph.input.extend(
        helper.make_tensor_value_info(names.parameter(each.name), kind, each.shape) for each in plan.trained
    )
    return within_bounds(_upgraded(model), names.PREDICT, remarks)


def _roles(has_bias: bool) -> tuple[str, ...]:
    return ("bias", "slope") if has_bias else ("slope",)


def features_graph(plan: Plan) -> tuple[onnx.ModelProto, list[str]]:
    """The part before the trained part, from the user's inputs to "rows", "rows_1", …; and remarks on it."""
    network = plan.network
    wanted = list(network.frame.trunk.features)
    model = join(to_parts(plan.whole, casts=False))
    graph = model.graph
    nodes = pruned(graph.node, wanted)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in inputs_of(node)} | set(wanted)
    for field in (graph.input, graph.initializer):
        kept = [each for each in field if each.name in read]
        del field[:]
        field.extend(kept)
    entry = Entry(network.dtype)
    rows_in_form(graph, entry, plan.inputs)
    own = list(graph.node)
    del graph.node[:], graph.output[:]
    graph.node.extend([*entry.nodes, *own])
    for feature, rows in zip(wanted, plan.rows, strict=True):
        graph.node.append(
            helper.make_node("Cast", [feature], [rows.name], name=f"onnxsurgeon/{rows.name}", to=kind_of(rows.dtype))
        )
        lead = [] if network.frame.takes_one_row else ["rows"]
        graph.output.append(helper.make_tensor_value_info(rows.name, kind_of(rows.dtype), [*lead, *rows.shape]))
    graph.initializer.extend(entry.constants.values())
    return within_bounds(_upgraded(model), names.FEATURES, [])


def _plain_outputs(graph: onnx.GraphProto) -> Iterable[str]:
    """Leave only outputs that are tensors; return sentences on what becomes of the others."""
    makers = {name: node for node in graph.node for name in node.output}
    for value in [*graph.output]:
        if value.type.HasField("tensor_type"):
            continue
        maker = makers.get(value.name)
        graph.output.remove(value)
        if maker is None or maker.op_type != "ZipMap":
            yield f"{names.PREDICT}: its output '{value.name}' is no tensor, and is left out"
            continue
        graph.node.remove(maker)
        graph.node.append(helper.make_node("Identity", [maker.input[0]], [value.name], name=maker.name or value.name))
        graph.output.append(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ["rows", "classes"]))
        yield f"{names.PREDICT}: its output '{value.name}' is the tensor that ZipMap made maps of"


def _without(graph: onnx.GraphProto, gone: set[str]) -> None:
    """Remove initializers, and their entries among inputs and types."""
    for field in (graph.initializer, graph.input, graph.value_info):
        kept = [each for each in field if each.name not in gone]
        del field[:]
        field.extend(kept)


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with only the inputs that its nodes read, and an IR version in which inputs need no initializers."""
    graph = model.graph
    read = {name for node in graph.node for name in inputs_of(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if model.ir_version < IR_VERSION:
        constants = {tensor.name for tensor in kept}
        inputs = [value for value in graph.input if value.name not in constants]
        del graph.input[:]
        graph.input.extend(inputs)
        model.ir_version = IR_VERSION
    return model
