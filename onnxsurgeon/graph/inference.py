"""Shapes of a model's tensors, by onnx's inference and by rules for what it lacks."""

from __future__ import annotations

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from onnxsurgeon.bounds import MAX_FOLLOWED_SIZES
from onnxsurgeon.graph.bodies import are_many, as_foreign
from onnxsurgeon.graph.kept_types import OF_ONE, OF_TWO

# Operators whose outputs' shapes depend on no tensor's values.
_BY_SHAPE = (
    OF_ONE | OF_TWO | {"MatMul", "Gemm", "Conv", "Softmax", "LogSoftmax", "Flatten", "Transpose", "PRelu", "Pow"}
)
# ai.onnx.ml's operators that write floats of the shape they read; onnx infers no shapes for them.
_KEEP_SHAPES = frozenset({"Scaler", "Normalizer", "Imputer", "Binarizer"})


def inferred(model: ModelProto, known: ModelProto | None = None) -> ModelProto:
    """Return ``model`` with every shape that can be inferred.

    Where it has very many bodies, their insides are skipped. ``known`` is the model with the shapes that onnx infers
    without following values, where it has done so already; it is not changed.
    """
    if are_many(model):
        return _merged(model, inferred(as_foreign(model)))
    plain = _copy(known) if known is not None else onnx.shape_inference.infer_shapes(model)
    if all(node.op_type in _BY_SHAPE and node.domain in ("", "ai.onnx") for node in model.graph.node):
        return plain
    # Values of shape tensors are followed too; onnx would write down every number of a Range or a long vector.
    follow = not any(node.op_type == "Range" for node in model.graph.node)
    follow = follow and sum(map(_vector_length, (*plain.graph.value_info, *plain.graph.output))) <= MAX_FOLLOWED_SIZES
    model = onnx.shape_inference.infer_shapes(model, data_prop=True) if follow else plain
    told: set[str] = set()  # an output of the model without a shape is not declared by what is told of it
    while True:
        found = [value for value in _of_preprocessing(model) if value.name not in told]
        if not found:
            return model
        told.update(value.name for value in found)
        model.graph.value_info.extend(found)
        model = onnx.shape_inference.infer_shapes(model, data_prop=follow)


def _merged(model: ModelProto, foreign: ModelProto) -> ModelProto:
    """Return ``model`` with the shapes that were inferred for it without its bodies."""
    typed = _copy(model)
    for field in ("value_info", "output"):
        del getattr(typed.graph, field)[:]
        getattr(typed.graph, field).extend(getattr(foreign.graph, field))
    return typed


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _of_preprocessing(model: ModelProto) -> list[ValueInfoProto]:
    """Shapes behind ai.onnx.ml's operators that nothing has declared yet."""
    known = {value.name: value for value in (*model.graph.output, *model.graph.input, *model.graph.value_info)}
    found = []
    for node in model.graph.node:
        if node.domain != "ai.onnx.ml" or not node.input or not node.output or _has_shape(known.get(node.output[0])):
            continue
        source = known.get(node.input[0])
        if source is None or not _has_shape(source):
            continue
        value = ValueInfoProto(name=node.output[0])
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        value.type.tensor_type.shape.CopyFrom(source.type.tensor_type.shape)
        if node.op_type == "OneHotEncoder":
            categories = [len(a.ints) + len(a.strings) for a in node.attribute if a.name.startswith("cats_")]
            value.type.tensor_type.shape.dim.add().dim_value = sum(categories)
        elif node.op_type not in _KEEP_SHAPES:
            continue
        found.append(value)
    return found


def _vector_length(value: ValueInfoProto) -> int:
    """Length of a vector that may be a shape; 0 for any other tensor."""
    dims = value.type.tensor_type.shape.dim  # of any type, since onnx follows floats too
    return int(dims[0].dim_value) if len(dims) == 1 else 0


def _has_shape(value: ValueInfoProto | None) -> bool:
    return value is not None and value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")
