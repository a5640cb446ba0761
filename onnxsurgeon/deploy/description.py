"""trainer.json: what a runner in any language needs to know about the other files.

Its schema is docs/trainer.schema.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.deploy import names
from onnxsurgeon.deploy.evaluate_graph import metric_names
from onnxsurgeon.deploy.operators import Operators
from onnxsurgeon.deploy.pieces import has_classes, kind_of, target_shape
from onnxsurgeon.deploy.plan import Plan, RowInput
from onnxsurgeon.task import BINARY, SQUARED

FORMAT, VERSION = "onnxsurgeon-trainer", 1
_OPTIMIZER_FIELDS = {
    "sgd": ("weight_decay",),
    "momentum": ("momentum", "weight_decay"),
    "nesterov": ("momentum", "weight_decay"),
    "adamw": ("beta1", "beta2", "epsilon", "weight_decay"),
}


def describe(
    plan: Plan, predict: onnx.ModelProto, files: Mapping[str, int], operators: Mapping[str, Operators]
) -> dict[str, Any]:
    """The content of trainer.json.

    Args:
        plan: the plan from which the files were made.
        predict: predict.onnx, whose outputs are described.
        files: the size of each file in bytes.
        operators: for each file that is a model, its demands on a runtime.
    """
    network, settings = plan.whole, plan.settings
    return {
        "format": FORMAT,
        "version": VERSION,
        "producer": f"onnxsurgeon {metadata.version('onnxsurgeon')}",
        "model": {"name": network.name, "topology": network.topology, "parameters": network.parameter_count},
        "files": {
            path.partition(".")[0]: {"path": path, "bytes": size, **_asked(operators.get(path))}
            for path, size in files.items()
        },
        "inputs": [{**_row(each), "batch": _batch(plan, each)} for each in plan.inputs],
        "rows": [_row(each) for each in plan.rows],
        "targets": [_target(plan, number) for number in range(len(plan.tasks))],
        "outputs": [_output(value) for value in predict.graph.output],
        "state": [*_state(plan), {"name": names.STEPS, "kind": "steps", "shape": [], "dtype": "int32"}],
        "frozen": [name for name, _ in network.parameters() if name in plan.frozen],
        "next": "next/",
        "batch": {"size": plan.batch_size, "fixed": plan.is_fixed},
        "optimizer": {
            "name": settings.optimizer,
            "learning_rate": settings.learning_rate,
            **{name: getattr(settings, name) for name in _OPTIMIZER_FIELDS[settings.optimizer]},
        },
        **_dropout(plan),
        "schedule": {"kind": settings.schedule, "warmup": settings.warmup},
        "shuffle": "lowbias32",
        "reports_losses": plan.report_loss,
    }


def _dropout(plan: Plan) -> dict[str, Any]:
    """The shares that train.onnx and step.onnx leave out, and the input that seeds them."""
    if not plan.has_masks:
        return {}
    units, inputs = (share if widths else 0 for share, widths in plan.masks)
    return {"dropout": {"units": units, "inputs": inputs, "seed": names.SEED}}


def _asked(found: Operators | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {"opset": found.opset, "ir": found.ir, "operators": list(found.names)}


def _dtype(kind: int) -> str:
    """Name of a type, as numpy has it; "string" for texts."""
    return "string" if kind == onnx.TensorProto.STRING else str(helper.tensor_dtype_to_np_dtype(kind))


def _row(each: RowInput) -> dict[str, Any]:
    found: dict[str, Any] = {"name": each.name, "dtype": _dtype(kind_of(each.dtype)), "shape": list(each.shape)}
    if each.is_scaled:
        found |= {"scale": np.asarray(each.scale).tolist(), "offset": np.asarray(each.offset).tolist()}
    return {**found, "input": each.source or None}


def _batch(plan: Plan, each: RowInput) -> int | str:
    """The number of rows that the user's model takes at a time.

    "any", a number, or "none" where it has no axis for them.
    """
    if plan.network.frame.takes_one_row:
        return "none"
    for value in plan.network.frame.model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name == each.source and dims and dims[0].dim_value > 0:
            return int(dims[0].dim_value)
    return "any"


def _target(plan: Plan, number: int) -> dict[str, Any]:
    task, head = plan.tasks[number], plan.network.heads[number]
    classes = list(plan.classes[number]) if plan.classes else [str(label) for label in head.labels]
    return {
        "name": plan.targets[number],
        "head": head.tensor,
        "loss": task.loss,
        "dtype": "int32" if has_classes(task) else str(plan.network.dtype),
        "shape": list(target_shape(plan, number)),
        "outputs": task.outputs,
        "positions": task.positions,
        "classes": classes,
        "metric": {
            "name": "r2" if task.loss == SQUARED else "agreement" if task.imitates else "accuracy",
            "output": metric_names(plan)[number],
            # The counts of a row: labels that may be right, or errors of each output.
            "per_row": task.positions * (task.outputs if task.loss == BINARY else 1),
        },
        **({"units": list(task.scale)} if task.scale else {}),
    }


def _output(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": _dtype(tensor.elem_type), "shape": sizes[1:]}


def _state(plan: Plan) -> list[dict[str, Any]]:
    dtype = str(plan.network.dtype)
    found: list[dict[str, Any]] = [
        {
            **{"name": names.parameter(e.name), "kind": "parameter", "of": e.name, "shape": list(e.shape)},
            "dtype": dtype,
            **({"stored": plan.layouts[e.name]} if e.name in plan.layouts else {}),
        }
        for e in plan.trained
    ]
    for number in range(plan.optimizer.moments):
        kind = f"moment_{number + 1}"
        found += [
            {"name": names.moment(number, e.name), "kind": kind, "of": e.name, "shape": list(e.shape), "dtype": dtype}
            for e in plan.trained
        ]
    return found
