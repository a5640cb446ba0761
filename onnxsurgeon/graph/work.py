"""How long a node takes to run, told from shapes alone: most take about as long as their tensors take to write.

The unit is what one value takes in a plain operation on one core, about a nanosecond. What is told is an order of
magnitude, rather too much than too little: it tells a file that would run for minutes from one that is merely large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx import NodeProto, TensorProto, TypeProto

from onnxsurgeon.graph.unknown_sizes import dims_of

RUN = 2**10  # of a node inside a body, however small its tensors
MULTIPLICATIONS = 16  # of a product of float matrices, that take as long as one plain operation
TEXT = 128  # what reading or writing a text takes
OF_CONVOLUTIONS = 4  # the same of one with few channels
_VIEWS = frozenset(("Constant", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"))
_TEXTS = frozenset(
    "LabelEncoder RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer Tokenizer".split()  # noqa: SIM905
)
# What one value that is read or written takes in these; 2 in others.
_EACH = {
    **dict.fromkeys(("Exp", "Log", "Tanh", "Sigmoid", "Erf", "Pow", "Softmax", "LogSoftmax", "Gelu", "Mod"), 8),
    **dict.fromkeys(("Compress", "CumSum", "GatherElements", "GatherND", "ScatterElements", "ScatterND"), 8),
    **dict.fromkeys(("ArgMax", "ArgMin", "RoiAlign"), 8),
    **dict.fromkeys(("NonZero", "Transpose", "RandomNormal", "RandomNormalLike", "Bernoulli"), 16),
    **dict.fromkeys(("Resize", "Upsample", "GridSample", "AffineGrid", "Col2Im", "OneHot"), 16),
    **dict.fromkeys((*_TEXTS, "Multinomial"), TEXT),
}
Read = Sequence[tuple[TypeProto, int]]  # types of a node's inputs, and bounds on their numbers of elements


def work(node: NodeProto, read: Read, written: int) -> int:
    """About how many plain operations a node takes that writes so many values."""
    op = node.op_type
    if op in _VIEWS:
        return 0
    whole, has_texts = written, op == "Cast" and _integer(node, "to", 0) == TensorProto.STRING
    for kind, count in read:  # of every node of a file, so that no generator is made
        whole += count
        has_texts = has_texts or kind.tensor_type.elem_type == TensorProto.STRING
    if has_texts:
        return TEXT * whole
    more = _MORE.get(op)
    return _EACH.get(op, 2) * whole + (more(node, read, written) if more and read else 0)


def temporary(node: NodeProto, read: Read, written: int) -> int:
    """Bytes that a node needs beside its inputs and outputs while it runs, where they are more than these.

    NonZero and Compress collect places in a list that doubles, and Unique keeps every value in a tree.
    """
    if node.op_type in ("NonZero", "Compress"):
        return 3 * 8 * written
    return 128 * read[0][1] if node.op_type == "Unique" and read else 0


def _product(node: NodeProto, read: Read, written: int) -> int:
    return _multiplications(_inner(node, _shapes(read), [count for _, count in read]) * written, read)


def _einsum(node: NodeProto, read: Read, _: int) -> int:
    return _multiplications(_of_einsum(node, _shapes(read), [count for _, count in read]), read)


def _convolution(node: NodeProto, read: Read, written: int) -> int:
    if len(read) < 2:
        return 0
    taps = read[1][1] // ((_shapes(read)[1] or [1])[0] or 1)
    if node.op_type == "ConvTranspose":  # it adds up what overlaps, value by value
        return 2 * read[0][1] * taps
    return written * taps // OF_CONVOLUTIONS


def _recurrent(_: NodeProto, read: Read, __: int) -> int:
    width = (_shapes(read)[0] or [None])[-1] or 1
    return _multiplications(read[0][1] // width * sum(count for _, count in read[1:3]), read)


def _determinant(_: NodeProto, read: Read, __: int) -> int:
    return read[0][1] * ((_shapes(read)[0] or [None])[-1] or 1) // MULTIPLICATIONS


def _sorted(each: int) -> Callable[[NodeProto, Read, int], int]:
    """What takes so much for a value and each doubling of their number."""
    return lambda _, read, written: each * max(read[0][1], written) * read[0][1].bit_length()


_MORE: dict[str, Callable[[NodeProto, Read, int], int]] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "FusedMatMul", "Gemm", "FusedGemm", "QLinearMatMul"), _product),
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose", "QLinearConv", "FusedConv", "DeformConv"), _convolution),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(
        ("AveragePool", "LpPool", "MaxPool"),
        lambda node, _, written: written * math.prod(_integers(node, "kernel_shape")) // 2,
    ),
    **dict.fromkeys(("DFT", "STFT"), _sorted(32)),
    "TopK": _sorted(16),
    "Unique": _sorted(128),
    "Einsum": _einsum,
    "Det": _determinant,
    "LRN": lambda node, _, written: written * _integer(node, "size", 1) // 8,
    "NonMaxSuppression": lambda _, read, __: read[-1][1] and read[min(1, len(read) - 1)][1] * max(1, read[0][1] // 4),
    "RoiAlign": lambda node, _, written: 32 * written * max(1, _integer(node, "sampling_ratio", 0)) ** 2,
}


def _shapes(read: Read) -> list[list[int | None] | None]:
    return [dims_of(kind) for kind, _ in read]


def _multiplications(count: int, read: Read) -> int:
    """Plain operations that so many multiplications take; those of floats are done several at once."""
    is_float = all(kind.tensor_type.elem_type in (0, 1, 10, 11, 16) for kind, _ in read[:2])
    return count // (MULTIPLICATIONS if is_float else 1)


def _inner(node: NodeProto, shapes: Sequence[list[int | None] | None], counts: Sequence[int]) -> int:
    """Over how many values a product adds up; where that is not known, the most it can be."""
    first, second = (*shapes, None)[:2]
    if first:
        axis = 0 if node.op_type in ("Gemm", "FusedGemm") and _integer(node, "transA", 0) else -1
        if first[axis] is not None:
            return first[axis] or 1
    if second:
        turned = node.op_type in ("Gemm", "FusedGemm") and _integer(node, "transB", 0)
        known = second[-1 if turned or len(second) == 1 else -2]
        if known is not None:
            return known
    return max(1, min(counts[:2]))


def _of_einsum(node: NodeProto, shapes: Sequence[list[int | None] | None], counts: Sequence[int]) -> int:
    """The number of combinations of all indices, two operands after the other; at most the product of the operands."""
    equation = next((each.s.decode(errors="replace") for each in node.attribute if each.name == "equation"), "")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    if len(terms) == len(shapes):
        for term, shape in zip(terms, shapes, strict=True):
            if shape is not None and len(term) == len(shape) and None not in shape:
                for letter, size in zip(term, shape, strict=True):
                    sizes[letter] = max(sizes.get(letter, 1), size or 1)
    if not sizes or any(letter not in sizes for term in terms for letter in term):
        return math.prod(max(1, count) for count in counts)
    done, total = set(terms[0]), 0
    for term in terms[1:]:
        # ONNX Runtime multiplies pair by pair, and adds up an index as soon as no later operand has it.
        total += math.prod(sizes[letter] for letter in done | set(term))
        later = set("".join(terms[terms.index(term) + 1 :])) | set(equation.partition("->")[2])
        done = (done | set(term)) & later
    return total


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), default)


def _integers(node: NodeProto, name: str) -> list[int]:
    return next(([max(1, abs(size)) for size in each.ints] for each in node.attribute if each.name == name), [])
