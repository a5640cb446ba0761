"""The dense layers of an ONNX model in PyTorch, to be trained there and written back: what its user would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

functional = torch.nn.functional
# Operators of one output, from the node's attributes and inputs.
_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda a, x, y: x + y,
    "Sub": lambda a, x, y: x - y,
    "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y,
    "MatMul": lambda a, x, y: x @ y,
    "Gemm": lambda a, x, w, b: torch.addmm(b, x, w.T if a.get("transB") else w),
    "Identity": lambda a, x: x,
    "Relu": lambda a, x: functional.relu(x),
    "Elu": lambda a, x: functional.elu(x, a.get("alpha", 1.0)),
    "Tanh": lambda a, x: torch.tanh(x),
    "Sigmoid": lambda a, x: torch.sigmoid(x),
}
_DENSE = ("Gemm", "MatMul")


class TorchGraph:
    """A graph of dense layers as PyTorch computes it.

    Attributes:
        weights: what is trained, by name: what products read, and what is added to them.
        features: name of the tensor that the first product reads.
        output: name of the first output.
    """

    weights: dict[str, Any]
    features: str
    output: str

    def __init__(self, path: Path) -> None:
        """Read the model at ``path``.

        Raises:
            SystemExit: it has an operator that this does not know.
        """
        self._model = onnx.load(path)
        graph = self._model.graph
        self._producers = {name: node for node in graph.node for name in node.output}
        self._constants = {
            each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer
        }
        unknown = {node.op_type for node in graph.node} - {*_OPERATORS, "Split"}
        if unknown:
            raise SystemExit(f"{path}: no PyTorch is known here for {', '.join(sorted(unknown))}")
        products = [node for node in graph.node if node.op_type in _DENSE]
        self.features, self.output = products[0].input[0], graph.output[0].name
        trained = {name for node in products for name in node.input[1:]}
        made = {name for node in products for name in node.output}
        trained |= {
            name for node in graph.node if node.op_type == "Add" and made & {*node.input} for name in node.input
        }
        self.weights = {name: self._constants[name].requires_grad_() for name in sorted(trained & {*self._constants})}

    def run(self, wanted: str, given: Mapping[str, Any]) -> Any:
        """The tensor ``wanted`` from those ``given`` by name."""
        return self._value(wanted, {**self._constants, **given})

    def _value(self, name: str, known: dict[str, Any]) -> Any:
        if name not in known:
            node = self._producers[name]
            gate = self._gate(node)
            if gate is not None:
                known[name] = functional.silu(self._value(gate, known))
            else:
                attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
                inputs = [self._value(each, known) for each in node.input]
                if node.op_type == "Split":
                    known.update(zip(node.output, _split(attributes, len(node.output), *inputs), strict=True))
                else:
                    known[name] = _OPERATORS[node.op_type](attributes, *inputs)
        return known[name]

    def _gate(self, node: onnx.NodeProto) -> str | None:
        """The x of a node that computes x · sigmoid(x): PyTorch has that as one operator, which is faster."""
        if node.op_type != "Mul":
            return None
        for name, other in (tuple(node.input), tuple(reversed(node.input))):
            producer = self._producers.get(other)
            if producer is not None and producer.op_type == "Sigmoid" and producer.input[0] == name:
                return str(name)
        return None

    def save(self, path: Path) -> None:
        """Write the model with the weights as they are now."""
        for tensor in self._model.graph.initializer:
            if tensor.name in self.weights:
                tensor.CopyFrom(numpy_helper.from_array(self.weights[tensor.name].detach().numpy(), tensor.name))
        onnx.save(self._model, path)


def _split(attributes: Mapping[str, Any], count: int, x: Any, sizes: Any = None) -> Any:
    axis = attributes.get("axis", 0)
    given = attributes.get("split") if sizes is None else sizes.tolist()
    return torch.split(x, list(given) if given else x.shape[axis] // count, dim=axis)
