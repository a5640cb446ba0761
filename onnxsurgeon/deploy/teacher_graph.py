"""teacher.onnx: from rows to another model's outputs for them as targets; run once over the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.data.heads import imitated_loss
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.deploy import names
from onnxsurgeon.deploy.entry import Entry, rows_in_form, within_bounds
from onnxsurgeon.deploy.pieces import as_tensor, kind_of, pruned
from onnxsurgeon.deploy.plan import RowInput
from onnxsurgeon.deploy.start import positions_of
from onnxsurgeon.errors import ModelError, SettingsError
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.network import Network
from onnxsurgeon.runtime import evaluator, first_line
from onnxsurgeon.task import CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.resident import numbered

_SQUASHES = ("Softmax", "LogSoftmax", "Sigmoid")
_TRANSPARENT = frozenset(("Identity", "Cast", "DequantizeLinear", "QuantizeLinear", "Reshape", "Flatten", "Squeeze"))
_TRIED = 3  # rows on which it is tried
_ENTERED = "onnxsurgeon/entered"


def imitating_tasks(
    network: Network,
    teacher: TeacherModel,
    loss: str = "auto",
    labels: int | None = None,
    temperature: float = 1.0,
) -> tuple[Task, ...]:
    """The tasks of the heads where ``teacher``'s outputs are the targets; ``temperature`` softens classes."""
    found = []
    for head, output in zip(network.heads, _outputs(network, teacher), strict=True):
        chosen = imitated_loss(head, _squash(teacher.model, output)[0]) if loss == "auto" else loss
        if (chosen == CROSS_ENTROPY and head.width < 2) or (chosen != CROSS_ENTROPY and head.squash == "Softmax"):
            raise SettingsError(f"loss: the head '{head.tensor}' of '{network.name}' has no {chosen}", "unlike-targets")
        positions = positions_of(network, head, head.width, labels)
        softened = 1.0 if chosen == SQUARED else temperature
        task = Task(chosen, head.width, head.squash, imitates=True, temperature=softened, teacher_weight=1.0)
        found.append(replace(task, positions=positions))
    return tuple(found)


def teacher_graph(
    network: Network, teacher: TeacherModel, tasks: Sequence[Task], inputs: Sequence[RowInput]
) -> tuple[onnx.ModelProto, list[str]]:
    """The teacher from the student's inputs to "targets", "targets_1", …; and remarks on it.

    For classes the targets are distributions, for labels probabilities, both softened by the tasks' temperature; else
    they are values.

    Raises:
        ModelError: it takes other inputs than the student, or its outputs do not fit the heads.
    """
    model = onnx.ModelProto()
    model.CopyFrom(teacher.model)
    graph = model.graph
    outputs = _outputs(network, teacher)
    _same_inputs(graph, inputs, teacher.path)
    entry = Entry(np.dtype(np.float32))
    rows_in_form(graph, entry, inputs)
    exits = Entry(network.dtype, "onnxsurgeon/target")
    targets = numbered(names.TARGETS, len(tasks))
    for head, task, output, target in zip(network.heads, tasks, outputs, targets, strict=True):
        shape = exits.integers(-1, *((task.positions,) if head.rank == 3 else ()), task.outputs)
        squash, before = _squash(teacher.model, output)
        if task.temperature != 1:
            squash, output = "", before or output
        x = exits.add("Cast", output, to=kind_of(network.dtype))
        if squash == "LogSoftmax":
            x = exits.add("Exp", x)
        elif not squash and task.loss != SQUARED:
            x = exits.add("Reshape", x, shape)
            if task.temperature != 1:
                x = exits.add("Mul", x, exits.scalar(1 / task.temperature))
            x = exits.add("Softmax", x, axis=-1) if task.loss == CROSS_ENTROPY else exits.add("Sigmoid", x)
        exits.add("Reshape", x, shape, output=target)
    nodes = [*entry.nodes, *graph.node, *exits.nodes]
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(pruned(nodes, targets))
    graph.initializer.extend([*entry.constants.values(), *exits.constants.values()])
    read = {name for node in graph.node for name in inputs_of(node)}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for task, target in zip(tasks, targets, strict=True):
        graph.output.append(
            helper.make_tensor_value_info(
                target, kind_of(network.dtype), ["rows", *[None] * (task.positions > 1), task.outputs]
            )
        )
    _try(model, inputs, network.heads, tasks, targets, teacher.path)
    return within_bounds(model, names.TEACHER, [])


def _outputs(network: Network, teacher: TeacherModel) -> list[str]:
    """For each head the teacher's output of the same name as the student's that follows it, or in the same place."""
    have = [value.name for value in teacher.model.graph.output if value.type.HasField("tensor_type")]
    own = [value.name for value in network.frame.model.graph.output]
    found = []
    for number, head in enumerate(network.heads):
        reached = {head.tensor}
        for node in network.frame.model.graph.node:
            if reached & set(inputs_of(node)):
                reached |= set(node.output)
        called = [name for name in own if name in reached and name in have]
        places = [place for place, name in enumerate(own) if name in reached and place < len(have)]
        options = [*called, *(have[place] for place in places), *have[number : number + 1]]
        floats = [name for name in options if _is_float(teacher.model, name)]
        if not floats:
            raise ModelError(
                f"{teacher.path}: none of its outputs is for the head '{head.tensor}' of '{network.name}'",
                "unlike-teacher",
            )
        found.append(floats[0])
    return found


def _is_float(model: onnx.ModelProto, name: str) -> bool:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    return any(value.name == name and value.type.tensor_type.elem_type in floats for value in model.graph.output)


def _squash(model: onnx.ModelProto, output: str) -> tuple[str, str]:
    """The squash that ends an output, "Softmax", "LogSoftmax" or "Sigmoid", and its input; "" for both without one."""
    made = {name: node for node in model.graph.node for name in node.output if name}
    node = made.get(output)
    while node is not None and node.op_type in _TRANSPARENT:
        node = made.get(node.input[0])
    is_squash = node is not None and node.op_type in _SQUASHES
    return (str(node.op_type), str(node.input[0])) if node is not None and is_squash else ("", "")


def _same_inputs(graph: onnx.GraphProto, inputs: Sequence[RowInput], path: Path) -> None:
    """Give a single input of the teacher the student's name, and its shape where that has the same size.

    Where there are several inputs, they have the names already.
    """
    constants = {tensor.name for tensor in graph.initializer}
    own = [value for value in graph.input if value.name not in constants]
    if len(own) == len(inputs) == 1:
        ((value,), (rows,)) = own, inputs
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        known = None not in rows.shape and 0 not in sizes and len(sizes) != len(rows.shape)
        reshaped = known and math.prod(sizes) == math.prod(int(size or 0) for size in rows.shape)
        if reshaped or value.name != rows.source:
            for node in graph.node:
                for position, name in enumerate(node.input):
                    if name == value.name:
                        node.input[position] = _ENTERED
            shape = as_tensor(np.array([-1, *sizes], np.int64), f"{_ENTERED}/shape")
            given = [rows.source, shape.name] if reshaped else [rows.source]
            graph.initializer.append(shape)
            graph.node.insert(
                0, helper.make_node("Reshape" if reshaped else "Identity", given, [_ENTERED], name=_ENTERED)
            )
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(rows.source, kind, ["rows", *rows.shape]))
    both = [each.source for each in inputs], [value.name for value in own]
    wanted, have = (", ".join(f"'{name}'" for name in found) for found in both)
    if set(both[0]) != set(both[1]):
        raise ModelError(f"{path}: it has the inputs {have}, the student {wanted}", "unlike-teacher")


def _try(
    model: onnx.ModelProto,
    inputs: Sequence[RowInput],
    heads: Sequence[Head],
    tasks: Sequence[Task],
    targets: Sequence[str],
    path: Path,
) -> None:
    """Raise ModelError where a few rows do not give as many targets of the heads' widths."""
    if any(each.dtype.kind not in "fiu" or None in each.shape for each in inputs):
        return
    rng = np.random.default_rng(0)
    feeds = {each.source: rng.uniform(0, 1, (_TRIED, *map(int, each.shape))).astype(each.dtype) for each in inputs}  # type: ignore[arg-type]
    try:
        found = evaluator(model)(list(targets), feeds)
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        raise ModelError(f"{path}: cannot teach: {first_line(error)}", "runtime-failed") from error
    for head, task, values in zip(heads, tasks, found, strict=True):
        if len(values) != _TRIED or values.size != _TRIED * task.outputs * task.positions:
            raise ModelError(
                f"{path}: for {_TRIED} rows it puts out {math.prod(values.shape)} values for the head '{head.tensor}', "
                f"not {_TRIED * task.outputs * task.positions}",
                "unlike-teacher",
            )
