"""Additions around a user's own nodes: rows as they are stored, and versions that old builds read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, version_converter

from onnxsurgeon.deploy.pieces import kind_of
from onnxsurgeon.deploy.plan import RowInput
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.builder import OPSET, GraphBuilder

LATEST_IR = 9  # of models whose opset is not newer than ``OPSET``


class Entry(GraphBuilder):
    """Nodes that are put beside a user's; a prefix of ours stands before their names."""

    def __init__(self, dtype: np.dtype[Any], prefix: str = "onnxsurgeon") -> None:
        super().__init__(dtype)
        self.prefix = prefix

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """As of ``GraphBuilder``."""
        name = f"{self.prefix}/{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def constant(self, name: str, values: Array) -> str:
        """As of ``GraphBuilder``."""
        return super().constant(f"{self.prefix}/{name}", values)


def rows_in_form(graph: onnx.GraphProto, entry: Entry, inputs: Sequence[RowInput]) -> None:
    """Let the inputs take rows as they are stored, and put conversion and scaling before the nodes that read them."""
    declared = {value.name: value for value in graph.input}
    for rows in inputs:
        value = declared.get(rows.source)
        kind = value.type.tensor_type.elem_type if value is not None else 0
        if value is None or (kind == kind_of(rows.dtype) and not rows.is_scaled):
            continue
        used = f"onnxsurgeon/{rows.source}"
        for node in graph.node:
            for position, name in enumerate(node.input):
                if name == rows.source:
                    node.input[position] = used
        x = entry.add("Cast", rows.source, to=kind_of(entry.dtype))
        if np.any(np.not_equal(rows.scale, 1.0)):
            x = entry.add("Mul", x, entry.array(np.asarray(rows.scale)))
        if np.any(rows.offset):
            x = entry.add("Add", x, entry.array(np.asarray(rows.offset)))
        entry.add("Cast", x, to=kind, output=used)
        value.type.tensor_type.elem_type = kind_of(rows.dtype)


def within_bounds(model: onnx.ModelProto, name: str, remarks: list[str]) -> tuple[onnx.ModelProto, list[str]]:
    """The model in opset 17 and IR 9, if it is newer and can be converted; else the model as it is, with a remark."""
    opset = next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > OPSET:
        try:
            # Weights are no constants here, since the converter's own checks want none.
            converted = version_converter.convert_version(model, OPSET)
            onnx.checker.check_model(converted, full_check=True)
        except Exception as error:  # the converter's errors share no base
            reason = str(error).strip().splitlines()[0][:160]
            return model, [
                *remarks,
                f"{name}: stays in the model's opset {opset}, since it cannot be put into {OPSET}: {reason}",
            ]
        model = converted
    model.ir_version = min(model.ir_version, LATEST_IR)
    return model, remarks
