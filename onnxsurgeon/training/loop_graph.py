"""The training loop itself as an ONNX graph.

A Scan over an array of row numbers (steps, batch) carries the parameters as its state; its body gathers the batch from
the resident data set, and runs forward, backward and update. One run of it trains many steps.
"""

from __future__ import annotations

import onnx
from onnx import helper

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.graph.network import Network
from onnxsurgeon.training import augmentation, dropout
from onnxsurgeon.training.backward import backward
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import (
    activations_of,
    by_unit_arrays,
    forward,
    make_model,
    parameter_names,
)
from onnxsurgeon.training.gradients import require_rule
from onnxsurgeon.training.losses import loss_nodes
from onnxsurgeon.training.optimizers import SCALE, SGD, Gradient, Optimizer, moment, updated
from onnxsurgeon.training.resident import declarations, index_names, read_features, read_targets


def training_loop(
    network: Network,
    examples: Examples,
    *,
    report_loss: bool = False,
    optimizer: Optimizer | None = None,
    drops: bool = False,
    input_drops: bool = False,
    augments: bool = False,
    block: int = 0,
) -> onnx.ModelProto:
    """The training loop of ``network`` on rows stored like those of ``examples``, with an optimizer (plain SGD).

    With ``block``, convolutions are computed over blocks of that many channels where they can be; see ``blocks``.

    Inputs: the parameters as in ``by_unit_arrays``, and the optimizer's moments of them, as "initial_…"; "indices"
    (steps, batch), row numbers, and "stored_indices" where the rows are a selection; "rates" (steps,), −η/B for SGD,
    and the optimizer's other scalars; "features" (rows, …), "features_1", …; "targets" (rows, C), or classes (rows,),
    "targets_1", …; "ones" (1, batch); with ``drops`` and ``input_drops``, those of ``dropout.declarations``; and with
    ``augments`` those of ``augmentation.declarations``. Outputs: the parameters and moments after the last step, as
    "trained_…"; with ``report_loss``, "losses" (steps,), summed over each batch.

    Raises:
        EngineError: an activation has no gradient rule; names operator and node.
    """
    for node, activation in activations_of(network):
        require_rule(activation, node)
    optimizer = optimizer or SGD(0.0)
    build = GraphBuilder(network.dtype, block)
    names = carried_names(network, optimizer)
    masks = dropout.Masks(build, dropout.POOL) if drops else None
    input_masks = dropout.Masks(build, dropout.INPUT_POOL) if input_drops else None
    losses = _body(build, network, examples, optimizer, masks, input_masks, report_loss=report_loss, augments=augments)
    offsets = {each.pool: each.offsets for each in (masks, input_masks) if each is not None}
    every_offset = [name for each in offsets.values() for name in each]

    kind = helper.np_dtype_to_tensor_dtype(network.dtype)
    own = [values.shape for values in by_unit_arrays(network)]
    shapes = dict(zip(names, own * (1 + optimizer.moments), strict=True))

    def declare(suffix: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(f"{suffix}{name}", kind, shape) for name, shape in shapes.items()]

    def declare_indices(base: str, *shape: str) -> list[onnx.ValueInfoProto]:
        integers = onnx.TensorProto.INT64
        return [helper.make_tensor_value_info(name, integers, shape) for name in index_names(examples, base)]

    loss = [helper.make_tensor_value_info(losses, kind, [])] if report_loss else []
    scalars = [helper.make_tensor_value_info(name, kind, []) for name in optimizer.scalars]
    begins = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [1]) for name in every_offset]
    moves = augmentation.declarations() if augments else []
    scanned = [*declare_indices("batch", "batch_size"), *scalars, *begins, *moves]
    body = helper.make_graph(build.nodes, "step", [*declare(""), *scanned], [*declare("next_"), *loss])

    outer = GraphBuilder(network.dtype, block)
    outer.constants = build.constants
    outer.append(
        helper.make_node(
            "Scan",
            [
                *(f"initial_{name}" for name in names),
                *index_names(examples, "indices"),
                *series_names(optimizer),
                *(f"{name}s" for name in every_offset),
                *(f"{move.name}s" for move in moves),
            ],
            [*(f"trained_{name}" for name in names), *(["losses"] if report_loss else [])],
            num_scan_inputs=len(scanned),
            body=body,
        )
    )
    inputs = [
        *declare("initial_"),
        *declare_indices("indices", "steps", "batch_size"),
        *(helper.make_tensor_value_info(name, kind, ["steps"]) for name in series_names(optimizer)),
        *dropout.declarations(offsets, kind),
        *(augmentation.declarations(scanned=True) if augments else []),
        *declarations(examples, targets=True),
        helper.make_tensor_value_info("ones", kind, [1, "batch_size"]),
    ]
    outputs = declare("trained_")
    if report_loss:
        outputs.append(helper.make_tensor_value_info("losses", kind, ["steps"]))
    return make_model("training_loop", outer, inputs, outputs)


def carried_names(network: Network, optimizer: Optimizer) -> list[str]:
    """Names of what the loop carries from step to step: the parameters, then each moment of all of them."""
    names = parameter_names(network)
    return names + [moment(number, name) for number in range(optimizer.moments) for name in names]


def series_names(optimizer: Optimizer) -> list[str]:
    """Names of the inputs that hold the optimizer's scalars of every step."""
    return [f"{name}s" for name in optimizer.scalars]


def _body(
    build: GraphBuilder,
    network: Network,
    examples: Examples,
    optimizer: Optimizer,
    masks: dropout.Masks | None,
    input_masks: dropout.Masks | None,
    *,
    report_loss: bool,
    augments: bool,
) -> str:
    """Append one training step; return the name of its loss."""
    features, factors = read_features(build, network, examples)
    features = augmentation.augmented(build, network, features) if augments else features
    targets = read_targets(build, examples)
    input_mask = input_masks and input_masks.by_row
    map_mask = masks and masks.by_row
    trace = forward(
        build,
        network,
        features,
        factors=factors,
        by_unit=True,
        mask=masks,
        input_mask=input_mask,
        map_mask=map_mask,
    )
    totals, gradients = [], {}
    for head, task, target in zip(network.heads, examples.tasks, targets, strict=True):
        loss = loss_nodes(build, task, trace.tensors[head.tensor], target, report=report_loss)
        totals.append(loss.total)
        gradients[head.tensor] = build.add("Mul", loss.gradient, SCALE)
    done: set[str] = set()

    def update(parameter: str, gradient: Gradient) -> None:
        optimizer.update(build, parameter, gradient)
        done.update((parameter, *(moment(number, parameter) for number in range(optimizer.moments))))

    backward(build, network, trace, gradients, update)
    for name in carried_names(network, optimizer):
        if name not in done:  # a parameter that leads to no head stays as it is
            build.add("Identity", name, output=updated(name))
    while report_loss and len(totals) > 1:
        totals.append(build.add("Add", totals.pop(0), totals.pop(0)))
    return totals[0]
