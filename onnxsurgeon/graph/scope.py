"""Knowledge about tensors before anything runs: their types, and values from which other shapes are computed."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import MutableMapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

SMALL = 4096  # the most elements of a tensor whose values are followed
# Arithmetic of shapes, whose values are followed.
FOLLOWED = frozenset(
    """Abs Add And Cast Ceil Concat Constant ConstantOfShape CumSum Div Equal Expand Floor Gather GatherND Greater
    GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Pow Range ReduceMax ReduceMin ReduceProd
    ReduceSum Reshape Round ScatterND Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where""".split()  # noqa: SIM905
)


@dataclass
class Scope:
    """What is known at a node: types of tensors, values of small ones, sizes, and bounds on unknown sizes."""

    types: MutableMapping[str, TypeProto] = field(default_factory=dict)
    values: MutableMapping[str, TensorProto] = field(default_factory=dict)
    counts: MutableMapping[str, int] = field(default_factory=dict)

    def inner(self) -> Scope:
        """The scope of a body, which sees this one and changes nothing in it."""
        return Scope(*(ChainMap({}, known) for known in (self.types, self.values, self.counts)))

    def set(self, name: str, kind: TypeProto, value: TensorProto | None = None, count: int | None = None) -> None:
        """Make a tensor known under a name that an outer scope may have too."""
        size = elements(kind)
        self.types[name] = kind
        self.counts[name] = (count or 0) if size is None else size
        if value is not None:
            self.values[name] = value
        elif name in self.values:
            self.values[name] = TensorProto()  # hides the outer one

    def keep(self, name: str, kind: TypeProto, size: int) -> None:
        """The same for a tensor of which it is known how many elements it has, and no value."""
        self.types[name], self.counts[name] = kind, size
        if name in self.values:
            self.values[name] = TensorProto()

    def value(self, name: str) -> TensorProto | None:
        """The tensor's value, where it is known."""
        found = self.values.get(name)
        return found if found is not None and found.data_type else None

    def count(self, name: str) -> int:
        """An upper bound on the tensor's number of elements."""
        return self.counts.get(name, 0)


def elements(kind: TypeProto) -> int | None:
    """Number of elements; None where that is not known."""
    if not kind.HasField("tensor_type"):
        return None
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    count = 1
    for dim in tensor.shape.dim:
        if not dim.HasField("dim_value") or dim.dim_value < 0:
            return None
        count *= dim.dim_value
    return count


def is_unknown(kind: TypeProto) -> bool:
    """Whether some size of the tensor is not known."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return True
    return any(not dim.HasField("dim_value") or dim.dim_value < 0 for dim in kind.tensor_type.shape.dim)


def in_words(kind: TypeProto) -> str:
    """Spell a shape for messages."""
    return "(" + ", ".join(str(dim.dim_value) for dim in kind.tensor_type.shape.dim) + ")"


def follow(node: NodeProto, scope: Scope, imports: list[onnx.OperatorSetIdProto], ir_version: int) -> None:
    """Compute the values of a node's outputs where they are arithmetic of shapes."""
    if node.domain not in ("", "ai.onnx") or not node.output:
        return
    y = node.output[0]
    if node.op_type in ("Shape", "Size") and node.input[:1]:
        kind = scope.types.get(node.input[0], TypeProto())
        if not is_unknown(kind):
            dims = [dim.dim_value for dim in kind.tensor_type.shape.dim]
            cut = {attribute.name: attribute.i for attribute in node.attribute}
            sizes = dims[cut.get("start", 0) : cut.get("end")]
            scope.values[y] = numpy_helper.from_array(
                np.array(sizes if node.op_type == "Shape" else math.prod(dims), np.int64), y
            )
        return
    read = [name for name in node.input if name]
    if node.op_type not in FOLLOWED or any(scope.value(name) is None for name in read):
        return
    sizes = [elements(scope.types[name]) for name in node.output if name]
    if any(size is None or size > SMALL for size in sizes):
        return
    from onnx.reference import ReferenceEvaluator

    try:
        single = helper.make_graph(
            [node],
            "node",
            [onnx.ValueInfoProto(name=name, type=scope.types[name]) for name in dict.fromkeys(read)],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        model = helper.make_model(single, opset_imports=imports, ir_version=ir_version)
        feeds = {name: numpy_helper.to_array(scope.values[name]) for name in read}
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
        made = {
            name: numpy_helper.from_array(np.asarray(values), name)
            for name, values in zip((name for name in node.output if name), results, strict=True)
        }
    except Exception:  # whatever is wrong with the node, the runtime will say
        return
    scope.values.update(made)
