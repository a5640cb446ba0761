"""Products of rows by one constant vector, the last layer of many regressions: dense layers with one unit.

MatMul(x, w) for w (n,) loses its last axis, and no tensor of the file has the layer's output (…, 1). Before reading,
such a product becomes Squeeze(MatMul(x, w')) for w' (n, 1), and its bias, or a factor of one value, comes before the
Squeeze. The model's inputs and outputs keep names, shapes and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from onnxsurgeon.graph.canonical import constant_values
from onnxsurgeon.graph.canonical.queries import has_input, is_trained_vector, shape_of
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.normal_form import operator

AFFINE = ("Add", "Sub", "Mul", "Div")
FUSED = "com.microsoft::FusedMatMul"
PRODUCTS = ("MatMul", "Einsum", FUSED)
SQUEEZED_BY_INPUT = 13  # the opset from which on Squeeze reads its axes
FROM_THE_END = 11  # the opset from which on axes may be counted from the last
OLDEST = 7  # the opset from which on Add and the like broadcast as NumPy does
COLUMN = "/column"  # follows the name of what such a product wrote


@dataclass(frozen=True)
class ByVector:
    """A product by a vector, by the names of the file's tensors.

    Attributes:
        output: what it writes.
        x: the rows.
        weight: the vector.
        rank: number of axes of ``x``; 0 where it is not known.
        swaps: whether the vector is multiplied by the last axis but one.
        keeps: whether ``output`` keeps its last axis, of size 1.
    """

    output: str
    x: str
    weight: str
    rank: int
    swaps: bool = False
    keeps: bool = False


def products_by_vectors(graph: gs.Graph, model: onnx.ModelProto, ranks: Mapping[str, int] | None) -> list[ByVector]:
    """The products by vectors that may have been trained, of the model whose canonical graph is given.

    ``ranks`` are the file's numbers of axes, by name, where the model takes one row.
    """
    candidates = [node for node in graph.nodes if _may_be(node)]
    if not candidates:
        return []
    written = {node.output[0]: node for node in model.graph.node if node.output}
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    found = []
    for node in candidates:
        given = written.get(node.outputs[0].name) if node.outputs else None
        if given is None or given.op_type != operator(node).rpartition("::")[2]:
            continue
        if given.op_type == "ReduceSum":
            product = _summed(node, given, written) if ranks is None else None
        else:
            product = _multiplied(node, given, written, ranks or {})
        if product is not None and (product.rank or opset >= FROM_THE_END):
            found.append(product)
    return found


def _may_be(node: gs.Node) -> bool:
    """Whether a node could be such a product, as far as is quickly seen."""
    op = operator(node)
    if op not in PRODUCTS:
        return op == "ReduceSum"
    return any(isinstance(tensor, gs.Constant) and len(tensor.shape) == 1 for tensor in node.inputs)


def _multiplied(
    node: gs.Node, given: onnx.NodeProto, written: Mapping[str, onnx.NodeProto], ranks: Mapping[str, int]
) -> ByVector | None:
    """MatMul, FusedMatMul or Einsum with a vector."""
    if operator(node) not in PRODUCTS or len(node.inputs) != 2 or len(given.input) != 2:
        return None
    constant = [isinstance(tensor, gs.Constant) for tensor in node.inputs]
    if sum(constant) != 1:
        return None
    slot = constant.index(True)
    values, x = constant_values(node.inputs[slot]), node.inputs[1 - slot]
    if values is None or values.ndim != 1 or not is_trained_vector(values):
        return None
    if given.input[1 - slot] == given.input[slot]:
        return None
    rank = ranks.get(x.name, 0) if ranks else len(shape_of(x) or ())
    name, weight, y = given.input[1 - slot], given.input[slot], given.output[0]
    writer = written.get(name)
    if operator(node) == "Einsum":
        equation = next((each.s.decode() for each in given.attribute if each.name == "equation"), "")
        swaps = _axis_of_einsum(equation, slot)
        if swaps is None or (swaps and rank < 3):
            return None
        return ByVector(y, name, weight, rank, swaps)
    if any(each.name.startswith("trans") and each.i for each in given.attribute):
        return None
    swaps = slot == 0 and rank != 1
    if swaps and writer is not None and writer.op_type == "Transpose" and _order(writer) in ([1, 0], [0, 2, 1]):
        return ByVector(y, writer.input[0], weight, rank)
    # Of two axes that are multiplied along the first one, the other has to be the rows, which only a Transpose tells.
    return None if swaps and rank < 3 else ByVector(y, name, weight, rank, swaps)


def _order(transpose: onnx.NodeProto) -> list[int]:
    return next((list(each.ints) for each in transpose.attribute if each.name == "perm"), [1, 0])


def _axis_of_einsum(equation: str, slot: int) -> bool | None:
    """Whether Einsum multiplies the vector by the last axis but one, and not by the last; None where by another."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(terms) != 2 or len(terms[slot]) != 1:
        return None
    letter, rows = terms[slot], terms[1 - slot]
    letters = rows.replace("...", "")
    if letters.count(letter) != 1 or len(set(letters)) < len(letters):
        return None
    rest = rows.replace(letter, "")
    # Without an arrow, the letters of the result come in the order of the alphabet.
    if result != rest if arrow else rest.replace("...", "") != "".join(sorted(rest.replace("...", ""))):
        return None
    return False if rows.endswith(letter) else True if rows[-2:-1] == letter else None


def _summed(node: gs.Node, given: onnx.NodeProto, written: Mapping[str, onnx.NodeProto]) -> ByVector | None:
    """ReduceSum(Mul(x, w)) over the last axis."""
    product = node.inputs[0].inputs[0] if len(node.inputs[0].inputs) == 1 else None
    times = written.get(given.input[0])
    if product is None or times is None or product.op != "Mul" or times.op_type != "Mul" or len(product.inputs) != 2:
        return None
    shape, axes = shape_of(product.outputs[0]), node.attrs.get("axes")
    if axes is None and has_input(node, 1):
        axes = constant_values(node.inputs[1])
    if not shape or axes is None or given.input[0] != product.outputs[0].name:
        return None
    if [int(axis) % len(shape) for axis in np.ravel(axes)] != [len(shape) - 1] or len(shape) < 2:
        return None
    for slot, tensor in enumerate(product.inputs):
        values, x = constant_values(tensor), shape_of(product.inputs[1 - slot])
        if values is None or x is None or len(x) != len(shape) or values.ndim > len(shape):
            continue
        if values.size == x[-1] == values.shape[-1] and is_trained_vector(values.reshape(-1)):
            keeps = bool(node.attrs.get("keepdims", 1))
            return ByVector(given.output[0], times.input[1 - slot], times.input[slot], len(shape), keeps=keeps)
    return None


def with_columns(model: onnx.ModelProto, products: Sequence[ByVector], graph: gs.Graph) -> onnx.ModelProto:
    """The model with a product by a matrix of one column in each one's place; ``graph`` is its canonical graph."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _Columns(made, graph).run({product.output: product for product in products})
    return made


class _Columns:
    """The model while it is changed."""

    def __init__(self, model: onnx.ModelProto, graph: gs.Graph) -> None:
        self.graph = model.graph
        self.opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self.outputs = {value.name for value in self.graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.taken = {tensor.name for tensor in self.graph.initializer} | {value.name for value in self.graph.input}
        for node in self.graph.node:
            self.taken.update(node.output)
            for name in inputs_of(node):
                self.taken.add(name)
                self.readers.setdefault(name, []).append(node)
        # Whatever has one value and at most one axis is a bias of one unit, also of a row that has no axes.
        read = {id(tensor): tensor for node in graph.nodes for tensor in node.inputs}.values()
        self.scalars = {each.name for each in read if isinstance(each, gs.Constant) and np.shape(each.values) == ()}
        self.ones = {each.name for each in read if isinstance(each, gs.Constant) and np.shape(each.values) == (1,)}
        self.gone: set[str] = set()
        self.writer = onnx.NodeProto()  # the last node that writes a tensor with the last axis

    def run(self, products: Mapping[str, ByVector]) -> None:
        """Write every product anew, and drop what was only read by one of them."""
        order: list[onnx.NodeProto] = []
        behind: dict[int, list[onnx.NodeProto]] = {}  # what comes behind a node, by its id
        for node in self.graph.node:
            product = products.get(node.output[0]) if node.output else None
            order += [node] if product is None else self._written(node, product, behind)
            order += behind.pop(id(node), ())
        kept = [
            onnx.NodeProto.FromString(node.SerializeToString())
            for node in order
            if not self.gone.issuperset(node.output)
        ]
        del self.graph.node[:]
        self.graph.node.extend(kept)
        shapes = [value for value in self.graph.value_info if value.name not in self.gone]
        del self.graph.value_info[:]
        self.graph.value_info.extend(shapes)

    def _written(
        self, node: onnx.NodeProto, product: ByVector, behind: dict[int, list[onnx.NodeProto]]
    ) -> list[onnx.NodeProto]:
        """The nodes in the place of one product; a Squeeze that comes later goes into ``behind``."""
        y, name = product.output, node.name or product.output
        x, column = product.x, self._fresh(f"{product.weight}{COLUMN}")
        nodes: list[onnx.NodeProto] = []
        shape = self._integers(f"{column}/shape", [-1, 1])
        nodes.append(helper.make_node("Reshape", [product.weight, shape], [column]))
        if product.swaps:
            order = list(range(product.rank))
            order[-2:] = order[-1], order[-2]
            x = self._fresh(f"{y}/turned")
            nodes.append(helper.make_node("Transpose", [product.x], [x], perm=order))
        times = self.readers[node.input[0]] if node.op_type == "ReduceSum" else []
        if len(times) == 1 and node.input[0] not in self.outputs:
            self.gone.add(node.input[0])
        last = onnx.NodeProto(op_type="MatMul", name=name, input=[x, column], output=[y], doc_string=node.doc_string)
        last.metadata_props.extend(node.metadata_props)
        if node.domain not in ("", "ai.onnx"):
            last.domain, last.op_type = node.domain, node.op_type
            last.attribute.extend(node.attribute)
        nodes.append(last)
        if product.keeps:
            return nodes
        y, inner = self._behind_bias(last, y, product.rank)
        squeeze = self._squeeze(inner, y, product.rank - 1 if product.rank else -1)
        behind.setdefault(id(self.writer), []).append(squeeze)
        return [*nodes, *behind.pop(id(last), ())]

    def _behind_bias(self, last: onnx.NodeProto, y: str, rank: int) -> tuple[str, str]:
        """Let the product, and what adds or multiplies one value behind it, write new tensors, with the last axis.

        Return the name of what the last of these nodes wrote before, and that of what it writes now.
        """
        self.writer = last
        while True:
            inner = self._fresh(f"{y}{COLUMN}")
            self.writer.output[0] = inner
            step = self._affine(y, rank)
            if step is None:
                return y, inner
            position = list(step.input).index(y)
            step.input[position] = inner
            self.gone.add(y)
            self.writer, y = step, step.output[0]

    def _affine(self, y: str, rank: int) -> onnx.NodeProto | None:
        """The only node that reads a tensor, where it adds or multiplies one value and nothing else."""
        readers = self.readers.get(y, [])
        if len(readers) != 1 or y in self.outputs or self.opset < OLDEST:
            return None
        (node,) = readers
        if node.op_type not in AFFINE or node.domain not in ("", "ai.onnx") or list(node.input).count(y) != 1:
            return None
        term = node.input[1 - list(node.input).index(y)]
        return node if term in self.scalars or (term in self.ones and rank > 1) else None

    def _squeeze(self, x: str, y: str, axis: int) -> onnx.NodeProto:
        if self.opset < SQUEEZED_BY_INPUT:
            return helper.make_node("Squeeze", [x], [y], axes=[axis])
        return helper.make_node("Squeeze", [x, self._integers(f"{y}{COLUMN}/axes", [axis])], [y])

    def _integers(self, name: str, values: list[int]) -> str:
        name = self._fresh(name)
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
