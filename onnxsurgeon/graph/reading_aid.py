"""A model's canonical graph, which is an aid to reading and thrown away afterwards; and models that are not read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.allowance import Allowance
from onnxsurgeon.graph.attention import write_out_attention
from onnxsurgeon.graph.batch_first import batch_first
from onnxsurgeon.graph.bodies import mark_bodies, without_bodies
from onnxsurgeon.graph.canonical import PRODUCTS, canonicalise, constant_values
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.files import Parts
from onnxsurgeon.graph.frozen import Frozen, behind
from onnxsurgeon.graph.importing import imported
from onnxsurgeon.graph.inference import inferred
from onnxsurgeon.graph.lifting import lift
from onnxsurgeon.graph.normalisation import write_out_normalisations
from onnxsurgeon.graph.one_row import takes_one_row
from onnxsurgeon.graph.structure import describe
from onnxsurgeon.runtime import first_line

# Operators that round activations to integers, or compute with them.
QUANTIZERS = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul", "QGemm", "QLinearConv", "ConvInteger"}
    | {"QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearAdd", "QLinearMul", "QLinearSigmoid"}
)
# Operators that multiply by weights that are packed in blocks, several in a byte.
PACKED = frozenset({"MatMulNBits", "MatMulBnb4", "MatMulFpQ4"})


@dataclass(frozen=True)
class ReadingAid:
    """The canonical graph: shapes inferred, bulky tensors back in place without a copy, idioms normalised.

    Attributes:
        graph: the graph.
        idle: names of products on whose values nothing depends.
        ranks: for a model that takes one row at a time, the numbers of axes of its tensors in the file; None for
            others.
        turned: the same for tensors whose first axis in the file is not the rows.
    """

    graph: gs.Graph
    idle: list[str]
    ranks: dict[str, int] | None
    turned: dict[str, int]

    @property
    def ranks_in_file(self) -> Mapping[str, int]:
        """Numbers of axes of tensors that have others in the file."""
        return {**(self.ranks or {}), **self.turned}


def reading_aid(
    model: onnx.ModelProto,
    parts: Parts,
    source: str,
    allowance: Allowance,
    frozen: Frozen,
    *,
    turns: bool = True,
    kept: Collection[str] = (),
) -> ReadingAid:
    """Import a model; with ``turns``, tensors with their rows elsewhere are read as if the rows were the first axis.

    The model is that of ``parts``, or made of it. No layer goes through what then writes one of the tensors ``kept``,
    which does nothing any more.

    Raises:
        ModelError: it cannot be read, or is in training mode.
    """
    arrays, known = parts.arrays, parts.typed if model is parts.skeleton else None
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    listed = {value.name for value in typed.graph.input}
    for name, values in arrays.items():
        if name not in listed:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            typed.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    try:
        typed = behind(inferred(typed, known), frozen.before, source)
        is_one_row = takes_one_row(typed, arrays.keys())
        constant = {tensor.name for tensor in typed.graph.initializer} | arrays.keys()
        bodies = without_bodies(typed, constant, PRODUCTS)
        graph = imported(typed)
        mark_bodies(graph, bodies)
        tensors = {tensor.name: tensor for tensor in graph.inputs}
        for name, values in arrays.items():
            if name in tensors:  # it is missing where only a frozen node reads it
                tensors[name].to_constant(values)
        graph.inputs = [tensor for tensor in graph.inputs if not isinstance(tensor, gs.Constant)]
    except ModelError:
        raise
    except Exception as error:  # neither onnx nor onnx-graphsurgeon promises a type
        raise ModelError(f"{source}: its graph cannot be read: {first_line(error)}", "damaged-model") from error
    _refuse_wrong_biases(graph, source)
    ranks = lift(graph) if is_one_row else None
    if ranks is None:
        write_out_attention(graph)
        write_out_normalisations(graph)
    turned = batch_first(graph, allowance, kept) if turns and ranks is None else {}
    idle = canonicalise(graph, allowance)
    _refuse_training_mode(graph, source)
    return ReadingAid(graph, idle, ranks, turned)


def inlined(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """Return the model with its local functions written out.

    Raises:
        ModelError: they cannot be written out.
    """
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # it promises no type
        raise ModelError(
            f"{source}: its local functions cannot be inlined: {first_line(error)}", "damaged-model"
        ) from error


def refuse_quantized(parts: Parts, model: onnx.ModelProto, held: Collection[int], source: str) -> None:
    """Refuse quantized activations, but not weights that are constants behind DequantizeLinear.

    The frozen nodes, with the numbers ``held``, may do anything.

    Raises:
        ModelError: there are some; names the node.
    """
    if not any(node.op_type in QUANTIZERS or node.op_type in PACKED for node in model.graph.node):
        return
    constants = {tensor.name for tensor in model.graph.initializer} | parts.arrays.keys()
    advice = (
        "evolve the float model it was made from, and quantize the result again; or let a float model with the same "
        "inputs imitate this one (--teacher)"
    )
    for number, node in enumerate(model.graph.node):
        if number in held:
            continue
        if all(name in constants for name in inputs_of(node)):
            constants.update(node.output)
        elif node.op_type in QUANTIZERS:
            raise ModelError(
                f"{source}: {describe(node)}: the model is quantized, its activations too, and these may live in the "
                f"quantizer's saturation; {advice}",
                "quantized-model",
            )
        elif node.op_type in PACKED:
            raise ModelError(
                f"{source}: {describe(node)}: the model is quantized: its weights are packed in a form of that "
                f"operator's own, which is not unpacked; {advice}",
                "quantized-model",
            )


def _refuse_training_mode(graph: gs.Graph, source: str) -> None:
    """Refuse nodes in training mode: what depends on other rows, or on chance, cannot be computed once for each row."""
    for node in graph.nodes:
        random = node.op == "Dropout" and len(node.inputs) > 2 and np.any(constant_values(node.inputs[2]))
        if random or (node.op == "BatchNormalization" and _updates_statistics(node)):
            raise ModelError(
                f"{source}: node '{label(node)}' ({node.op}) is in training mode; export the model for inference",
                "training-mode",
            )


def _updates_statistics(node: gs.Node) -> bool:
    return bool(node.attrs.get("training_mode", 0)) or any(tensor.outputs for tensor in node.outputs[1:])


def _refuse_wrong_biases(graph: gs.Graph, source: str) -> None:
    """Refuse biases of the wrong length, which onnx.checker accepts."""
    for node in graph.nodes:
        if node.op != "Gemm" or len(node.inputs) < 3 or not node.outputs:
            continue
        weight, bias = constant_values(node.inputs[1]), constant_values(node.inputs[2])
        if weight is not None and bias is not None and weight.ndim == 2:
            units = weight.shape[0] if node.attrs.get("transB", 0) else weight.shape[1]
            if bias.ndim and bias.shape[-1] not in (1, units):
                raise ModelError(
                    f"{source}: node '{label(node)}': bias of shape {bias.shape} for {units} units", "damaged-model"
                )
