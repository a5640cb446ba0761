"""Pieces that the graphs of a trainer share: rows, targets, the state's tensors and back, and removal of idle nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.deploy import names
from onnxsurgeon.deploy.plan import Parameter, Plan, RowInput
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import CROSS_ENTROPY, Task
from onnxsurgeon.training.builder import OPSET, GraphBuilder
from onnxsurgeon.training.forward import IR_VERSION
from onnxsurgeon.training.resident import is_read_by_dense_layers_alone

INTEGERS = onnx.TensorProto.INT32  # of row numbers, classes and steps: JavaScript and GPUs have this type


class OuterBuilder(GraphBuilder):
    """A builder of the nodes around a loop, whose names differ from those in the loop's body."""

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """As of ``GraphBuilder``."""
        return super().add(
            op_type, *inputs, output=output or f"outer_{op_type.lower()}_{len(self.nodes)}", **attributes
        )


def kind_of(dtype: np.dtype[Any]) -> int:
    """ONNX's number of a type."""
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def row_declarations(rows: Sequence[RowInput]) -> list[onnx.ValueInfoProto]:
    """The graph inputs "rows", "rows_1", …: (number of rows, …)."""
    return [helper.make_tensor_value_info(each.name, kind_of(each.dtype), ["rows", *each.shape]) for each in rows]


def target_declarations(plan: Plan) -> list[onnx.ValueInfoProto]:
    """The graph inputs "targets", "targets_1", …; see ``target_shape``."""
    return [
        helper.make_tensor_value_info(
            name, INTEGERS if has_classes(task) else kind_of(plan.network.dtype), ["rows", *target_shape(plan, number)]
        )
        for number, (name, task) in enumerate(zip(plan.targets, plan.tasks, strict=True))
    ]


def has_classes(task: Task) -> bool:
    """Whether targets are numbers of classes; otherwise they are values."""
    return task.loss == CROSS_ENTROPY and not task.imitates


def target_shape(plan: Plan, number: int) -> tuple[int | None, ...]:
    """The shape of one row's targets: () for a class, (outputs,) for values.

    Positions come before where a row has several.
    """
    head, task = plan.network.heads[number], plan.tasks[number]
    between = () if head.rank == 2 else (task.positions,) if head.rank == 3 else (None,) * (head.rank - 2)
    return between if has_classes(task) else (*between, task.outputs)


def parameter_declarations(plan: Plan) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are the state's parameters."""
    kind = kind_of(plan.network.dtype)
    return [helper.make_tensor_value_info(names.parameter(each.name), kind, each.shape) for each in plan.trained]


def read_rows(build: GraphBuilder, plan: Plan, numbers: str) -> tuple[list[str], dict[str, float]]:
    """Append the nodes that read the rows ``numbers`` for each of the trunk's features.

    Return their names, and factors. A factor is left to Gemm's alpha where only dense layers read the feature; see
    ``forward``.
    """
    found, factors = [], {}
    for (feature, shape), rows in zip(plan.network.frame.trunk.features.items(), plan.rows, strict=True):
        x = converted(build, build.add("Gather", rows.name, numbers), rows.dtype)
        if rows.is_scaled:
            plain = not np.ndim(rows.scale) and not np.any(rows.offset) and build.dtype == np.float32
            if plain and is_read_by_dense_layers_alone(plan.network, feature):
                factors[feature] = float(rows.scale)
            else:
                x = scaled(build, x, rows)
        if len(rows.shape) != len(shape):
            x = build.add("Reshape", x, build.integers(-1, *(int(size or 0) for size in shape)))
        found.append(x)
    return found, factors


def converted(build: GraphBuilder, x: str, dtype: np.dtype[Any]) -> str:
    """The values of ``x`` in the builder's type."""
    return x if dtype == build.dtype else build.add("Cast", x, to=kind_of(build.dtype))


def scaled(build: GraphBuilder, x: str, rows: RowInput) -> str:
    """x · scale + offset."""
    if np.any(np.not_equal(rows.scale, 1.0)):
        x = build.add("Mul", x, build.array(np.asarray(rows.scale)))
    return build.add("Add", x, build.array(np.asarray(rows.offset))) if np.any(rows.offset) else x


def read_targets(build: GraphBuilder, plan: Plan, numbers: str) -> list[str]:
    """Append the nodes that read the targets of the rows ``numbers`` as the losses take them, (batch, …, C).

    Classes become one-hot rows; values come in the units in which a regression is trained.
    """
    found = []
    for name, task in zip(plan.targets, plan.tasks, strict=True):
        target = build.add("Gather", name, numbers)
        if has_classes(task):
            found.append(one_hot(build, target, task.outputs))
        elif task.scale:
            found.append(build.add("Mul", target, build.array(1 / np.array(task.scale))))
        else:
            found.append(target)
    return found


def one_hot(build: GraphBuilder, classes: str, count: int) -> str:
    """Append rows of 0 and 1 for integers, without OneHot, which GPUs in browsers lack."""
    known = build.constant(f"classes_{count}", np.arange(count, dtype=np.int32))
    return build.add(
        "Cast", build.add("Equal", build.add("Unsqueeze", classes, build.axes(-1)), known), to=kind_of(build.dtype)
    )


def enter(build: GraphBuilder, each: Parameter, source: str, power: int = 1, output: str = "") -> str:
    """Append the conversion of a parameter in the state, or of a moment of it, to the step's graph; return its name.

    The parameter itself and a first moment have ``power`` 1, a second moment has 2.
    """
    x = source if each.shape == each.by_unit else build.add("Reshape", source, build.integers(*each.by_unit))
    if each.factor is not None:
        x = build.add("Mul", x, build.array(_along_units(each, each.factor**power)))
    return x


def leave(build: GraphBuilder, each: Parameter, source: str, output: str, power: int = 1) -> None:
    """Append the inverse of ``enter``, with its output under that name."""
    if each.factor is not None:
        reshaped = each.shape != each.by_unit
        inverse = build.array(_along_units(each, each.factor**-power))
        source = build.add("Mul", source, inverse, output="" if reshaped else output)
        if not reshaped:
            return
    if each.shape == each.by_unit:
        build.add("Identity", source, output=output)
    else:
        build.add("Reshape", source, build.integers(*each.shape), output=output)


def _along_units(each: Parameter, factor: Array) -> Array:
    """A value for each unit, in a shape that multiplies the parameter as the step's graph has it."""
    return factor[:, None] if len(each.shape) == 2 else factor.reshape(each.by_unit)


def frozen_constants(build: GraphBuilder, plan: Plan) -> None:
    """Add the parameters that are not trained as constants, under their names in the step's graph."""
    for each in plan.parameters:
        if each.frozen:
            values = each.values.reshape(each.by_unit)
            if each.factor is not None:
                values = values * _along_units(each, each.factor)
            build.constant(each.inner, np.ascontiguousarray(values, build.dtype))


def pruned(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes on which ``outputs`` depend, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(inputs_of(node))
    return kept[::-1]


def finished(
    name: str,
    build: GraphBuilder,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Make a checked model of those of the builder's nodes and constants that the outputs need."""
    nodes = pruned(build.nodes, [value.name for value in outputs])
    read = {each for node in nodes for each in inputs_of(node)}
    constants = [tensor for key, tensor in build.constants.items() if key in read]
    graph = helper.make_graph(nodes, name, list(inputs), list(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "onnxsurgeon"
    onnx.checker.check_model(model, full_check=True)
    return model


def as_tensor(values: Array, name: str) -> onnx.TensorProto:
    """A constant of that name."""
    return numpy_helper.from_array(np.ascontiguousarray(values), name)
