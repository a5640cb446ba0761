"""Bounds on the number of elements of tensors whose sizes depend on values, so that shape inference does not know them.

NonZero, Compress, Unique and the like make no more than they read; Concat adds up; products and broadcasting multiply.
Operators that may make more than that, such as Range or Tile by values that are not known, are left to ``graph.sizes``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import NodeProto, TensorProto, TypeProto, helper

_BROADCAST = frozenset(
    """Add Sub Mul Div Pow Mod Max Min Mean Sum And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Where PRelu
    BitShift BitwiseAnd BitwiseOr BitwiseXor BiasGelu Clip DequantizeLinear QuantizeLinear""".split()  # noqa: SIM905
)
# Their output has at most as many elements as the product of their inputs.
_MULTIPLY = frozenset(
    """MatMul MatMulInteger Gemm FusedMatMul FusedGemm Einsum Gather GatherElements GatherND Conv ConvInteger
    ConvTranspose QLinearConv QLinearMatMul Attention MultiHeadAttention NonMaxSuppression RNN LSTM GRU""".split()  # noqa: SIM905
)
# Operators of other domains whose first output has the shape of their first input; onnx has no inference for them.
_KEEP_SHAPE = frozenset(
    """Scaler Normalizer Imputer Binarizer LabelEncoder Gelu FastGelu BiasGelu QuickGelu SkipLayerNormalization
    SimplifiedLayerNormalization SkipSimplifiedLayerNormalization BiasSoftmax BiasDropout""".split()  # noqa: SIM905
)
_MOST_AXES = 8  # of a tensor whose rank is not known
_LARGEST = 2**62
Read = Sequence[tuple[TypeProto, int]]


def dims_of(kind: TypeProto) -> list[int | None] | None:
    """Sizes, None for one that is not known; None where not even the rank is."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in kind.tensor_type.shape.dim]


def foreign_types(node: NodeProto, read: Read) -> dict[str, TypeProto]:
    """Types that onnx does not infer, as far as they are simple; ``read`` has the types of the node's inputs."""
    if not node.output or not read:
        return {}
    kind = read[0][0].tensor_type.elem_type or TensorProto.FLOAT
    dims = dims_of(read[0][0])
    if node.domain not in ("", "ai.onnx") and node.op_type in _KEEP_SHAPE and dims is not None:
        kind = kind if node.domain != "ai.onnx.ml" else TensorProto.FLOAT
        return {node.output[0]: helper.make_tensor_type_proto(kind, dims)}
    matrix = dims_of(read[1][0]) if len(read) > 1 else None
    if node.op_type == "Gemm" and matrix is not None and len(matrix) == 2:
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return {node.output[0]: helper.make_tensor_type_proto(kind, [None, matrix[0 if turned else 1]])}
    return {}


def most_elements(node: NodeProto, read: Read) -> int:
    """An upper bound on the number of elements of each of the node's outputs.

    ``read`` has the type of each of its inputs and its number of elements, or a bound on that.
    """
    counts = [count for _, count in read]
    if node.op_type in _BROADCAST:
        found = _broadcast(read)
    elif node.op_type in ("Gemm", "MatMul", "FusedGemm", "FusedMatMul") and len(read) > 1:
        found = _product(read[0], read[1])
    elif node.op_type in _MULTIPLY:
        found = math.prod(max(1, count) for count in counts)
    else:
        found = sum(counts)
    if node.op_type == "NonZero":
        rank = dims_of(read[0][0]) if read else None
        found *= _MOST_AXES if rank is None else max(1, len(rank))
    if node.domain == "ai.onnx.ml" and node.op_type != "ZipMap":  # a column for each category, class or target
        listed = [a for a in node.attribute if a.name.startswith(("cats_", "classlabels_"))]
        targets = [a.i for a in node.attribute if a.name in ("n_targets", "targets")]
        found *= 1 + max([*(len(a.ints) + len(a.strings) for a in listed), *targets], default=0)
    return min(found, _LARGEST)


def _broadcast(read: Read) -> int:
    """The product of the largest possible sizes of each axis.

    Where a rank is not known, the product of all elements.
    """
    shapes = []
    for kind, count in read:
        dims = dims_of(kind)
        if dims is None:
            return math.prod(max(1, count) for _, count in read)
        known = math.prod(max(1, size) for size in dims if size is not None)
        shapes.append([max(1, count // known) if size is None else size for size in dims])
    rank = max(map(len, shapes), default=0)
    return math.prod(max(([1] * (rank - len(shape)) + shape)[axis] for shape in shapes) for axis in range(rank))


def _product(first: tuple[TypeProto, int], second: tuple[TypeProto, int]) -> int:
    """A bound for a product with a matrix of known shape: as many rows as fit the other operand."""
    for (kind, _), (_, other) in ((second, first), (first, second)):
        dims = dims_of(kind)
        if dims is not None and len(dims) == 2 and None not in dims and all(dims):
            low, high = sorted(size or 1 for size in dims)
            return -(-other // low) * high
    return max(1, first[1]) * max(1, second[1])
