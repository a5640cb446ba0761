"""Collects the nodes of a graph under construction and invents names for the tensors between them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.linear_algebra import Array

BLOCKED = "com.microsoft.nchwc"  # the domain of ONNX Runtime's operators over blocks of channels
OPSET = 17  # of training graphs: every ONNX Runtime from 1.17 on runs it; younger activations are written in parts


class GraphBuilder:
    """A list of nodes in topological order and the constants they read.

    Attributes:
        dtype: type of the floating point constants.
        block: number of channels of a block, where convolutions may be computed over blocks; see ``blocks``.
        nodes: the nodes added so far.
        constants: initializers added so far, by name.
    """

    def __init__(self, dtype: np.dtype[Any], block: int = 0) -> None:
        self.dtype, self.block = dtype, block if dtype == np.float32 else 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node with one output; return the output's name."""
        y = output or f"{op_type.lower()}_{len(self.nodes)}"
        # ONNX Runtime names the nodes of its fusions after these: without names, two fusions of a kind clash.
        self.nodes.append(helper.make_node(op_type, list(inputs), [y], name=y, **attributes))
        return y

    def gemm(
        self,
        a: str,
        b: str,
        c: str = "",
        *,
        transA: bool = False,  # noqa: N803 - Gemm's own names
        transB: bool = False,  # noqa: N803
        alpha: float = 1.0,
        beta: float = 1.0,
        output: str = "",
    ) -> str:
        """Append α A B + β C, with A and B transposed where that is wanted; return its name."""
        attributes = {"transA": int(transA), "transB": int(transB), "alpha": alpha, "beta": beta}
        return self.add("Gemm", a, b, *([c] if c else []), output=output, **attributes)

    def append(self, node: onnx.NodeProto) -> str:
        """Append a finished node; return its first output's name."""
        self.nodes.append(node)
        return str(node.output[0])

    def scalar(self, value: float) -> str:
        """A floating point constant of shape ()."""
        return self.constant(f"scalar_{value}", np.array(value, self.dtype))

    def axes(self, *axes: int) -> str:
        """An integer constant that lists axes."""
        return self.constant("axes_" + "_".join(map(str, axes)), np.array(axes, np.int64))

    def integers(self, *values: int) -> str:
        """An integer constant of shape (n,): a shape, or axes."""
        return self.constant("integers_" + "_".join(map(str, values)), np.array(values, np.int64))

    def array(self, values: Array) -> str:
        """A floating point constant with these values."""
        converted = np.ascontiguousarray(values, self.dtype)
        digest = hashlib.sha256(repr(converted.shape).encode() + converted.tobytes()).hexdigest()[:16]
        return self.constant(f"array_{digest}", converted)

    def constant(self, name: str, values: Array) -> str:
        """A constant of that name and these values."""
        self.constants.setdefault(name, numpy_helper.from_array(values, name))
        return name
