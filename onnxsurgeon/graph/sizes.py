"""How large the tensors become that a graph computes, told before anything runs it.

ONNX Runtime allocates what a graph asks for, some of it while a session is made, and knows no limit. So the graph is
first walked node by node with the shapes alone: from the inputs' own, through onnx's shape inference, with the values
of whatever shapes are computed from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.structure import describe
from onnxsurgeon.linear_algebra import Array

MOST_ELEMENTS = 2**27  # of one tensor: 512 MB in float32
SMALL = 4096  # elements of a tensor whose values are followed

# What these write can be far larger than what they read: where its size stays unknown, they are refused.
_ALLOCATING = frozenset(
    """AffineGrid BlackmanWindow CenterCropPad Col2Im ConstantOfShape DFT Expand EyeLike GridSample HammingWindow
    HannWindow ImageDecoder Loop MaxUnpool MelWeightMatrix OneHot Pad RandomNormal RandomUniform Range Resize STFT
    SequenceMap Tile Upsample""".split()  # noqa: SIM905
)
# Attributes that sizes are computed from; beyond 2^31, onnx's own arithmetic overflows.
_SIZES = frozenset(
    """pads kernel_shape strides dilations output_shape output_padding repeats scales blocksize hidden_size
    shape""".split()  # noqa: SIM905
)
_LARGEST_NUMBER = 2**31
# Arithmetic of shapes, whose values are followed.
_FOLLOWED = frozenset(
    """Abs Add And Cast Ceil Concat Constant ConstantOfShape CumSum Div Equal Expand Floor Gather GatherND Greater
    GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Pow Range ReduceMax ReduceMin ReduceProd
    ReduceSum Reshape Round ScatterND Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where""".split()  # noqa: SIM905
)


@dataclass
class _Scope:
    """What is known where a node stands: types of tensors, and values of small ones."""

    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, TensorProto] = field(default_factory=dict)

    def inner(self) -> _Scope:
        return _Scope(dict(self.types), dict(self.values))


def largest_tensor(
    model: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    arrays: Mapping[str, Array] | None = None,
    *,
    most: int = MOST_ELEMENTS,
    name: str = "model",
) -> int:
    """Number of elements of the largest tensor that ``model`` computes from inputs of these ``shapes``.

    Tensors behind operators without shape inference (of other domains) are not counted, unless their size depends on
    what is computed there.

    Args:
        model: the model; its bulky initializers may be left out and given as ``arrays``.
        shapes: the shape of every input that is fed.
        arrays: initializers apart from the model.
        most: elements that a tensor may have.
        name: what errors start with.

    Raises:
        ModelError: a tensor has more elements, or there is no telling; names the node.
    """
    scope = _Scope()
    for value in model.graph.input:
        scope.types[value.name] = value.type
        if value.name in shapes:
            kind = value.type.tensor_type.elem_type
            scope.types[value.name] = helper.make_tensor_type_proto(kind, shapes[value.name])
    for key, array in (arrays or {}).items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        scope.types[key] = helper.make_tensor_type_proto(kind, array.shape)
        if array.size <= SMALL:
            scope.values[key] = numpy_helper.from_array(np.ascontiguousarray(array), key)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return _Walk(versions, list(model.opset_import), model.ir_version, name).graph(model.graph, scope, most)


@dataclass(frozen=True)
class _Walk:
    versions: dict[str, int]
    imports: list[onnx.OperatorSetIdProto]
    ir_version: int
    name: str

    def graph(self, graph: GraphProto, scope: _Scope, most: int) -> int:
        """The largest tensor's elements."""
        for tensor in graph.initializer:
            scope.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            if math.prod(tensor.dims) <= SMALL:
                scope.values[tensor.name] = tensor
        largest = 0
        for node in graph.node:
            largest = max(largest, self._node(node, scope, most))
        return largest

    def _node(self, node: NodeProto, scope: _Scope, most: int) -> int:
        where = f"{self.name}: {describe(node)}"
        _refuse_huge_numbers(node, scope, where)
        largest = self._bodies(node, scope, most, where)
        types = self._infer(node, scope)
        for output in node.output:
            if not output:
                continue
            kind = types.get(output, TypeProto())
            size = _elements(kind)
            if size is None and node.op_type in _ALLOCATING:
                raise ModelError(f"{where}: how large its output becomes cannot be told before it runs")
            if size is not None and size > most:
                raise ModelError(f"{where}: its output is too large: shape {_shape(kind)}, of at most {most} elements")
            largest = max(largest, size or 0)
            scope.types[output] = kind
            scope.values.pop(output, None)
        _follow(node, scope, self.imports, self.ir_version)
        return largest

    def _bodies(self, node: NodeProto, scope: _Scope, most: int, where: str) -> int:
        """The largest tensor inside the graphs that a node holds."""
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        if node.op_type in ("Loop", "SequenceMap") and bodies:
            trips = scope.values.get(node.input[0]) if node.op_type == "Loop" and node.input else None
            if trips is None:
                raise ModelError(f"{where}: how often it runs cannot be told before it runs")
            most = most // max(1, int(numpy_helper.to_array(trips).max(initial=0)))
        largest = 0
        for body in bodies:
            inner = scope.inner()
            for value in body.input:
                inner.types[value.name] = value.type
                inner.values.pop(value.name, None)
            largest = max(largest, self.graph(body, inner, most))
        return largest

    def _infer(self, node: NodeProto, scope: _Scope) -> dict[str, TypeProto]:
        """Types of the node's outputs, as far as onnx can tell."""
        read = [name for name in node.input if name]
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, self.versions.get(domain, 1), domain)
            bodies = any(attribute.HasField("g") for attribute in node.attribute)
            types = scope.types if bodies else {name: scope.types[name] for name in read}
            data = {name: scope.values[name] for name in read if name in scope.values}
            return dict(shape_inference.infer_node_outputs(schema, node, types, data, None, self.imports))
        except Exception:  # no schema, or a node that the runtime will refuse
            return {}


def _refuse_huge_numbers(node: NodeProto, scope: _Scope, where: str) -> None:
    for attribute in node.attribute:
        if attribute.name in _SIZES and any(abs(number) > _LARGEST_NUMBER for number in (*attribute.ints, attribute.i)):
            raise ModelError(f"{where}: its attribute '{attribute.name}' asks for too large a tensor")
    if node.op_type not in _ALLOCATING or node.op_type == "Loop":
        return
    for name in node.input[0 if node.op_type in ("ConstantOfShape", "Range", "HannWindow") else 1 :]:
        if name in scope.values:
            try:
                numbers = numpy_helper.to_array(scope.values[name])
                huge = numbers.dtype.kind in "iuf" and bool(
                    (np.abs(numbers.astype(np.float64)) > _LARGEST_NUMBER).any()
                )
            except Exception:  # a type that numpy has not
                continue
            if huge and node.op_type != "Pad":  # a Pad's third input is the value to fill with
                raise ModelError(f"{where}: its input '{name}' asks for too large a tensor")


def _elements(kind: TypeProto) -> int | None:
    """Number of elements; None where that is not known."""
    if not kind.HasField("tensor_type") or _is_unknown(kind):
        return None
    return math.prod(int(dim.dim_value) for dim in kind.tensor_type.shape.dim)


def _is_unknown(kind: TypeProto) -> bool:
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return True
    return any(not dim.HasField("dim_value") or dim.dim_value < 0 for dim in kind.tensor_type.shape.dim)


def _shape(kind: TypeProto) -> str:
    return "(" + ", ".join(str(dim.dim_value) for dim in kind.tensor_type.shape.dim) + ")"


def _follow(node: NodeProto, scope: _Scope, imports: list[onnx.OperatorSetIdProto], ir_version: int) -> None:
    """Compute the values of a node's outputs where they are arithmetic of shapes."""
    if node.domain not in ("", "ai.onnx") or not node.output:
        return
    y = node.output[0]
    if node.op_type in ("Shape", "Size") and node.input[:1]:
        kind = scope.types.get(node.input[0], TypeProto())
        if not _is_unknown(kind):
            dims = [dim.dim_value for dim in kind.tensor_type.shape.dim]
            cut = {attribute.name: attribute.i for attribute in node.attribute}
            sizes = dims[cut.get("start", 0) : cut.get("end")]
            scope.values[y] = numpy_helper.from_array(
                np.array(sizes if node.op_type == "Shape" else math.prod(dims), np.int64), y
            )
        return
    read = [name for name in node.input if name]
    sizes_known = all(0 <= (_elements(scope.types[name]) or 0) <= SMALL for name in node.output if name)
    if node.op_type not in _FOLLOWED or any(name not in scope.values for name in read) or not sizes_known:
        return
    if any(_is_unknown(scope.types[name]) for name in node.output if name):
        return
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
