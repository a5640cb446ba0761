"""Checks whether a model can be worked on: our own checks first, then onnx's on a graph without bulky tensors."""

from __future__ import annotations

import math

import onnx
from onnx import GraphProto, ModelProto, TypeProto

from onnxsurgeon.bounds import ADVICE, MAX_DECLARED_ELEMENTS, bound
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.bodies import are_many, as_foreign
from onnxsurgeon.graph.declared import forget_negative_sizes, subgraphs, tensor_types
from onnxsurgeon.graph.functions import check_functions
from onnxsurgeon.graph.parts import BULKY, Parts, kind_of, without_initializers
from onnxsurgeon.graph.structure import check_order, check_tensors, describe
from onnxsurgeon.graph.tensors import ARRAY_TYPES, bytes_of, value_info
from onnxsurgeon.runtime import first_line

OLDEST_OPSET = 7


def check_model(model: ModelProto, name: str) -> None:
    """Run our own checks and onnx.checker on ``model``, shape inference included.

    Raises:
        ModelError: a check finds fault, or shapes do not fit; the text starts with ``name``.
    """
    check_opsets(model, name)
    check_tensors(model, name)
    declared = without_initializers(model)
    inputs = {value.name: value for value in declared.graph.input}
    seen: set[str] = set()
    for tensor in model.graph.initializer:
        _require_new(tensor.name, seen, name)
        seen.add(tensor.name)
        if tensor.data_type in ARRAY_TYPES and bytes_of(tensor, name) >= BULKY:
            _declare(declared.graph, inputs, tensor.name, tensor.data_type, tuple(tensor.dims), name)
        else:
            declared.graph.initializer.add().CopyFrom(tensor)
    _check_declared(declared, name)


def check_parts(parts: Parts, name: str) -> None:
    """Check a model taken apart as ``check_model`` does; its arrays are declared as typed inputs, never serialized.

    Raises:
        ModelError: a check finds fault, or shapes do not fit; the text starts with ``name``.
    """
    check_opsets(parts.skeleton, name)
    check_tensors(parts.skeleton, name)
    check_graph(parts, name)


def check_graph(parts: Parts, name: str) -> ModelProto | None:
    """Check a model without checking single tensors and texts, for parts whose tensors have just been checked.

    Returns:
        What ``Parts.typed`` is; None where the shapes are not inferred from all that is declared.

    Raises:
        ModelError: a check finds fault, or shapes do not fit; the text starts with ``name``.
    """
    declared = ModelProto()
    declared.CopyFrom(parts.skeleton)
    inputs = {value.name: value for value in declared.graph.input}
    inline = {tensor.name for tensor in declared.graph.initializer}
    for tensor_name, array in parts.arrays.items():
        _require_new(tensor_name, inline, name)
        kind = kind_of(array, f"{name}: initializer '{tensor_name}'")
        _declare(declared.graph, inputs, tensor_name, kind, array.shape, name)
    return _check_declared(declared, name)


def _require_new(initializer: str, seen: set[str], name: str) -> None:
    if not initializer:
        raise ModelError(f"{name}: an initializer has no name", "damaged-model")
    if initializer in seen:
        raise ModelError(f"{name}: two initializers are called '{initializer}'", "damaged-model")


def _declare(
    graph: GraphProto, inputs: dict[str, onnx.ValueInfoProto], name: str, kind: int, shape: tuple[int, ...], file: str
) -> None:
    """Declare an initializer as a typed graph input, where it is none already."""
    if name not in inputs:
        graph.input.append(value_info(name, kind, shape))
        return
    declared = inputs[name].type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
    fits = len(dims) == len(shape) and all(a is None or a == b for a, b in zip(dims, shape, strict=True))
    if declared.elem_type != kind or (declared.HasField("shape") and not fits):
        raise ModelError(
            f"{file}: initializer '{name}' has another type or shape than the input of that name", "damaged-model"
        )


def check_opsets(model: ModelProto, name: str) -> None:
    """Check that there is a graph, and that its operators' versions are known.

    Raises:
        ModelError: the text starts with ``name``.
    """
    newest = onnx.defs.onnx_opset_version()
    if not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"{name}: not an ONNX model (it holds no graph or no opset)", "not-a-model")
    for owner in (model, *model.functions):
        seen = set()
        for entry in owner.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if domain in seen:
                raise ModelError(f"{name}: two opsets of domain {domain!r} are imported", "opset")
            seen.add(domain)
            if domain == "" and not OLDEST_OPSET <= entry.version <= newest:
                # Below 7, Gemm and Add broadcast by attributes of their own; the checker lets opsets of the future
                # pass.
                raise ModelError(
                    f"{name}: opset {entry.version} is not supported ({OLDEST_OPSET} to {newest} are)", "opset"
                )
        if owner is model and "" not in seen:
            raise ModelError(f"{name}: no version of ONNX's own operator set is imported", "opset")


def _check_declared(model: ModelProto, name: str) -> ModelProto | None:
    """Check structure, then run onnx's checker and shape inference, then check sizes.

    Return the model with inferred shapes, unless what it declares is not the same any more.
    """
    forget_negative_sizes(model.graph)
    check_functions(model, name)
    check_order(model, name)
    _check_operators(model.graph, next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), name)
    _check_sizes(model.graph, name)
    is_same = _check_interface(model.graph, name)
    try:
        content = model.SerializeToString()
        onnx.checker.check_model(content)
        inferred, is_whole = _inferred(content, model)
    except Exception as error:  # ValidationError, InferenceError, and whatever else onnx's C++ raises
        raise ModelError(f"{name}: invalid model: {first_line(error)}", "damaged-model") from error
    _check_sizes(inferred.graph, name)
    return inferred if is_same and is_whole else None


def _check_operators(graph: GraphProto, opset: int, name: str) -> None:
    """Refuse operators that ONNX itself does not have; onnx.checker would not say which node it is."""
    known: set[str] = set()
    for node in graph.node:
        if node.op_type not in known and node.domain in ("", "ai.onnx"):
            try:
                onnx.defs.get_schema(node.op_type, opset)
            except onnx.defs.SchemaError as error:
                own = node.op_type in ("LayerNormalization", "SimplifiedLayerNormalization")
                more = (
                    ": ONNX Runtime writes it when it optimises a model; take the model as it was before" if own else ""
                )
                raise ModelError(
                    f"{name}: {describe(node)}: opset {opset} has no such operator{more}", "opset"
                ) from error
            known.add(node.op_type)
        for attribute in node.attribute:
            for subgraph in subgraphs(attribute) if attribute.HasField("g") or attribute.graphs else ():
                _check_operators(subgraph, opset, name)


def _inferred(content: bytes, model: ModelProto) -> tuple[ModelProto, bool]:
    """Return the model, which is ``content``, with inferred shapes, and whether nothing was left out for it.

    Exporters sometimes declare wrong shapes for outputs, and runtimes ignore them. Where only these declarations are at
    fault, they are left out. So are bodies where there are very many.
    """
    if is_foreign := are_many(model):
        content = as_foreign(model).SerializeToString()
    # Without data_prop, since it would write down all numbers of a Range of 2^40.
    try:
        return _infer(content), not is_foreign
    except onnx.shape_inference.InferenceError:
        bare = ModelProto.FromString(content)
        del bare.graph.value_info[:]
        for value in bare.graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
        return _infer(bare.SerializeToString()), False


def _infer(content: bytes) -> ModelProto:
    return onnx.shape_inference.infer_shapes(content, check_type=True, strict_mode=True)


def _check_interface(graph: GraphProto, name: str) -> bool:
    """Refuse inputs that nothing could be fed to; accept outputs without a shape, which onnx.checker refuses.

    Return whether there are none of these.
    """
    for value in graph.input:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            continue
        if not kind.HasField("shape"):
            raise ModelError(
                f"{name}: input '{value.name}' has no shape; declare one, with a size or a name for "
                "each axis: (batch, features)",
                "open-shape",
            )
        if any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in kind.shape.dim):
            raise ModelError(f"{name}: input '{value.name}' has a dimension of size zero: {_dims(kind)}", "open-shape")
    outputs = GraphProto(output=graph.output).output
    unknown = [v.type.HasField("tensor_type") and not v.type.tensor_type.HasField("shape") for v in outputs]
    del graph.output[:]
    for value, has_none in zip(outputs, unknown, strict=True):
        (graph.value_info if has_none else graph.output).append(value)
    return not any(unknown)


def _check_sizes(graph: GraphProto, name: str) -> None:
    """Refuse negative dimensions, and tensors that nothing could hold."""
    seen: set[bytes] = set()  # types that were checked: many tensors have the same
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.SerializeToString()
        if kind in seen:
            continue
        seen.add(kind)
        for tensor in tensor_types(value.type):
            dims = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
            if any(dim < 0 for dim in dims):
                raise ModelError(
                    f"{name}: tensor '{value.name}' has a negative dimension: {_dims(tensor)}", "damaged-model"
                )
            if math.prod(dims) > bound(MAX_DECLARED_ELEMENTS):
                raise ModelError(
                    f"{name}: tensor '{value.name}' is too large: shape {_dims(tensor)}; {ADVICE}", "too-large"
                )
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                for subgraph in subgraphs(attribute):
                    _check_sizes(subgraph, name)


def _dims(tensor: TypeProto.Tensor) -> str:
    sizes = (str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return "(" + ", ".join(sizes) + ")"
