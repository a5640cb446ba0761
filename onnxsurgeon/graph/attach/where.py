"""The choice of the tensor that a new head reads, where none is named: what the old head read, or the output."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

import onnx

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frozen import nodes_before
from onnxsurgeon.graph.structure import describe
from onnxsurgeon.suggestions import did_you_mean

# Operators that may stand between the last layer of a classifier and its outputs.
_BEHIND = frozenset(
    """Softmax LogSoftmax Sigmoid ArgMax TopK Identity Cast Reshape Flatten Squeeze Unsqueeze ZipMap LabelEncoder
    ArrayFeatureExtractor Normalizer Binarizer""".split()  # noqa: SIM905
)
_TELLS = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK", "ZipMap", "LabelEncoder"))
_FEATURES = re.compile("embed|feature|hidden|pool|latent|encod", re.IGNORECASE)


class Place(NamedTuple):
    """The place of the new head.

    Attributes:
        tensor: the tensor that it reads.
        why: the reason in words.
    """

    tensor: str
    why: str


def place_of(model: onnx.ModelProto, at: str | None, constants: Collection[str], source: str) -> Place:
    """Find the tensor called ``at``, or written by the node of that name; where that is None, the one that fits.

    Args:
        model: the backbone; its bulky initializers may be missing.
        at: a tensor's name, or a node's.
        constants: names of all initializers.
        source: the beginning of error messages.

    Raises:
        ModelError: there is no such tensor, or it is a constant, or several tensors fit and the user has to choose.
    """
    graph = model.graph
    inputs = [value.name for value in graph.input if value.name not in constants]
    if at is None:
        return _chosen(graph, constants, source)
    made = {name for node in graph.node for name in node.output if name}
    if at in made or at in inputs:
        return Place(at, "as was asked for")
    if at in constants:
        raise ModelError(
            f"{source}: '{at}' is a constant, not a tensor that depends on the model's input", "place-of-head"
        )
    for node in graph.node:
        if at and node.name == at:
            return Place(node.output[0], f"which node '{at}' writes")
    known = [*(value.name for value in graph.output), *(n for n in made if n), *inputs]
    known += [node.name for node in graph.node if node.name]
    raise ModelError(f"{source}: has no tensor and no node called '{at}'{did_you_mean(at, known)}", "place-of-head")


def _chosen(graph: onnx.GraphProto, constants: Collection[str], source: str) -> Place:
    makers = {name: node for node in graph.node for name in node.output if name}
    outputs = [value.name for value in graph.output]
    heads: dict[str, tuple[onnx.NodeProto, str, bool]] = {}
    for name in outputs:
        found = _old_head(name, makers, constants)
        if found is None:
            heads = {}
            break
        heads[found[0].output[0]] = found
    if len(heads) == 1:
        ((node, read, is_told),) = heads.values()
        if is_told or not any(_FEATURES.search(name) for name in outputs):
            return Place(read, f"which the old head's {describe(node)} read")
    shared = _shared_head(graph, makers, constants) if len(outputs) > 1 else None
    if shared is not None:
        return Place(shared[1], f"which the old head's {describe(shared[0])} read")
    if len(outputs) > 1:
        listed = ", ".join(f"'{name}'" for name in outputs[:8])
        raise ModelError(
            f"{source}: which of its outputs the head reads has to be told, with --at: {listed}", "place-of-head"
        )
    return Place(outputs[0], "its output")


def _old_head(
    name: str, makers: dict[str, onnx.NodeProto], constants: Collection[str]
) -> tuple[onnx.NodeProto, str, bool] | None:
    """The last layer before an output, the tensor it reads, and whether a node behind it is a sign of classes.

    None where more than a classifier's suffix stands behind it.
    """
    is_told = False
    for _ in range(64):
        node = makers.get(name)
        if node is None:
            return None
        if node.op_type in ("Gemm", "MatMul"):
            read = [given for given in node.input[:2] if not _is_constant(given, makers, constants)]
            return (node, read[0], is_told) if len(read) == 1 else None
        given = [each for each in inputs_of(node) if not _is_constant(each, makers, constants)]
        if len(given) != 1 or node.op_type not in (*_BEHIND, "Add"):
            return None
        is_told |= node.op_type in _TELLS
        name = given[0]
    return None


def _shared_head(
    graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto], constants: Collection[str]
) -> tuple[onnx.NodeProto, str] | None:
    """The last layer and its input, where all outputs depend on it and a node behind it is a sign of classes."""
    needed = [nodes_before(graph, [value.name]) for value in graph.output]
    layers = [
        number
        for number in set.union(*needed)
        if graph.node[number].op_type in ("Gemm", "MatMul")
        and any(_is_constant(name, makers, constants) for name in graph.node[number].input[:2])
    ]
    if not layers or not all(max(layers) in each for each in needed):
        return None
    node = graph.node[max(layers)]
    follows, is_told = set(node.output), False
    for other in graph.node[max(layers) + 1 :]:
        if any(name in follows for name in inputs_of(other)):
            follows.update(other.output)
            is_told |= other.op_type in _TELLS
    read = [given for given in node.input[:2] if not _is_constant(given, makers, constants)]
    return (node, read[0]) if is_told and len(read) == 1 else None


def _is_constant(name: str, makers: dict[str, onnx.NodeProto], constants: Collection[str]) -> bool:
    """Whether a tensor is a constant, or a constant that is transposed, cast or dequantised."""
    for _ in range(8):
        node = makers.get(name)
        if node is None:
            return name in constants
        if node.op_type == "Constant":
            return True
        if node.op_type not in ("Transpose", "Cast", "Identity", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze"):
            return False
        name = node.input[0]
    return False
