"""train.onnx and step.onnx: many steps of training as a Scan, and one without control flow; the same interface."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.deploy import dropout, names
from onnxsurgeon.deploy.pieces import (
    INTEGERS,
    OuterBuilder,
    enter,
    finished,
    frozen_constants,
    kind_of,
    leave,
    parameter_declarations,
    pruned,
    read_rows,
    read_targets,
    row_declarations,
    target_declarations,
)
from onnxsurgeon.deploy.plan import Parameter, Plan
from onnxsurgeon.deploy.scalars import scalars
from onnxsurgeon.deploy.substitutes import substituted
from onnxsurgeon.training.backward import backward
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import activations_of, forward
from onnxsurgeon.training.gradients import require_rule
from onnxsurgeon.training.losses import loss_nodes
from onnxsurgeon.training.optimizers import SCALE, Gradient, moment, updated

BATCH, ONES, TOTAL = "batch", "ones", "total"


def train_graph(plan: Plan, *, single: bool = False) -> onnx.ModelProto:
    """The training loop of ``plan``; with ``single`` one step, without a Scan.

    Inputs: the rows and targets; "batches" (steps, batch) int32, row numbers; "rates" (steps,) float32, the learning
    rates; the state: parameters, moments and "steps" (), the number of steps taken before; with dropout "seed" ().
    Outputs: the state afterwards, "next/…"; with ``report_loss`` "losses" (steps,), the mean loss of each batch.

    Raises:
        EngineError: an activation has no gradient rule; names op and node.
    """
    network, optimizer = plan.network, plan.optimizer
    for node, activation in activations_of(network):
        require_rule(activation, node)
    outer, body = OuterBuilder(network.dtype), GraphBuilder(network.dtype)
    body.constants = outer.constants
    kind = kind_of(network.dtype)
    steps, size = "steps" if not single else 1, plan.batch_size if plan.is_fixed else "batch"

    shape = outer.add("Shape", names.BATCHES)
    count, rows = (outer.add("Gather", shape, outer.constant(f"axis_{i}", np.array(i, np.int64))) for i in (0, 1))
    batch = outer.add("Cast", rows, to=kind)
    ones = outer.add("Concat", outer.integers(1), outer.add("Unsqueeze", rows, outer.axes(0)), axis=0)
    outer.add("Expand", outer.scalar(1.0), ones, output=ONES)
    series, constant = scalars(
        outer, optimizer, {"rates": names.RATES, "size": rows, "taken": names.STEPS, "count": count}
    )
    frozen_constants(outer, plan)
    carried: dict[str, str] = {}  # name in the step's graph → the tensor from which it starts
    for inner, source, each, power in _carried(plan):
        carried[inner] = enter(outer, each, source, power)
    for name, tensor in constant.items():
        outer.add("Identity", tensor, output=name)

    if single:
        for inner, tensor in carried.items():
            body.add("Identity", tensor, output=inner)
        for name, tensor in series.items():
            body.add("Reshape", tensor, body.constant("no_axes", np.zeros(0, np.int64)), output=name)
        body.add("Reshape", names.BATCHES, body.integers(-1), output=BATCH)
    run = dropout.Run(names.SEED, names.STEPS, count, rows, single)
    masks = [
        dropout.Masks(outer, body, run, rate, purpose, max(widths)) if widths else None
        for purpose, (rate, widths) in enumerate(plan.masks)
    ]
    total = _step(body, plan, *masks)
    offsets = [name for each in masks if each is not None for name in each.offsets]
    if single:
        outer.nodes = substituted(outer, [*outer.nodes, *body.nodes])
        trained = {inner: updated(inner) for inner in carried}
        if plan.report_loss:
            totals = outer.add("Unsqueeze", total, outer.axes(0))
    else:
        wanted = [*(updated(inner) for inner in carried), *([total] if plan.report_loss else [])]
        shapes = {inner: each.by_unit for inner, _, each, _ in _carried(plan)}
        scanned = [
            helper.make_tensor_value_info(BATCH, INTEGERS, [size]),
            *(helper.make_tensor_value_info(name, kind, []) for name in series),
            *(helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [1]) for name in offsets),
        ]
        graph = helper.make_graph(
            pruned(body.nodes, wanted),
            "step",
            [*(helper.make_tensor_value_info(inner, kind, shapes[inner]) for inner in carried), *scanned],
            [
                *(helper.make_tensor_value_info(updated(inner), kind, shapes[inner]) for inner in carried),
                *([helper.make_tensor_value_info(total, kind, [])] if plan.report_loss else []),
            ],
        )
        trained = {inner: f"trained_{inner}" for inner in carried}
        totals = "totals"
        outer.append(
            helper.make_node(
                "Scan",
                [*carried.values(), names.BATCHES, *series.values(), *(f"{name}s" for name in offsets)],
                [*trained.values(), *([totals] if plan.report_loss else [])],
                name="training",
                num_scan_inputs=len(scanned),
                body=graph,
            )
        )
    for inner, source, each, power in _carried(plan):
        leave(outer, each, trained[inner], names.following(source), power)
    outer.add("Add", names.STEPS, outer.add("Cast", count, to=INTEGERS), output=names.following(names.STEPS))
    outputs = [_following(value) for value in state_declarations(plan)]
    if plan.report_loss:
        outer.add("Div", totals, batch, output=names.LOSSES)
        outputs.append(helper.make_tensor_value_info(names.LOSSES, kind, [steps]))
    inputs = [
        *row_declarations(plan.rows),
        *target_declarations(plan),
        helper.make_tensor_value_info(names.BATCHES, INTEGERS, [steps, size]),
        helper.make_tensor_value_info(names.RATES, onnx.TensorProto.FLOAT, [steps]),
        *([helper.make_tensor_value_info(names.SEED, INTEGERS, [])] if plan.has_masks else []),
        *state_declarations(plan),
    ]
    return finished("step" if single else "train", outer, inputs, outputs)


def state_declarations(plan: Plan) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are the state: the parameters, their moments, and the number of steps."""
    kind = kind_of(plan.network.dtype)
    found = parameter_declarations(plan)
    for number in range(plan.optimizer.moments):
        found += [helper.make_tensor_value_info(names.moment(number, e.name), kind, e.shape) for e in plan.trained]
    return [*found, helper.make_tensor_value_info(names.STEPS, INTEGERS, [])]


def _carried(plan: Plan) -> list[tuple[str, str, Parameter, int]]:
    """What a step carries on.

    Its name there and in the state, the parameter to which it belongs, and the units' power.
    """
    found = [(each.inner, names.parameter(each.name), each, 1) for each in plan.trained]
    for number in range(plan.optimizer.moments):
        found += [
            (moment(number, each.inner), names.moment(number, each.name), each, number + 1) for each in plan.trained
        ]
    return found


def _following(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    found = onnx.ValueInfoProto()
    found.CopyFrom(value)
    found.name = names.following(value.name)
    return found


def _step(
    build: GraphBuilder, plan: Plan, masks: dropout.Masks | None = None, input_masks: dropout.Masks | None = None
) -> str:
    """Append one training step; return the name of its loss, summed over the batch."""
    network = plan.network
    features, factors = read_rows(build, plan, BATCH)
    targets = read_targets(build, plan, BATCH)
    input_mask = input_masks and input_masks.by_row
    trace = forward(build, network, features, factors=factors, by_unit=True, mask=masks, input_mask=input_mask)
    totals, gradients = [], {}
    for head, task, target in zip(network.heads, plan.tasks, targets, strict=True):
        loss = loss_nodes(build, task, trace.tensors[head.tensor], target, report=plan.report_loss)
        totals.append(loss.total)
        gradients[head.tensor] = build.add("Mul", loss.gradient, SCALE)
    frozen = {each.inner for each in plan.parameters if each.frozen}
    done: set[str] = set()

    def update(parameter: str, gradient: Gradient) -> None:
        if parameter not in frozen:
            plan.optimizer.update(build, parameter, gradient)
            done.update((parameter, *(moment(number, parameter) for number in range(plan.optimizer.moments))))

    backward(build, network, trace, gradients, update)
    for inner, *_ in _carried(plan):
        if inner not in done:  # a parameter that leads to no head stays as it is
            build.add("Identity", inner, output=updated(inner))
    while plan.report_loss and len(totals) > 1:
        totals.append(build.add("Add", totals.pop(0), totals.pop(0)))
    return totals[0]
