"""The type of glue, and helpers that its readers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import one_of_alike
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.queries import constant_values, has_input
from onnxsurgeon.linear_algebra import Array

Shape = tuple[int | None, ...]
EPSILON = float(np.float32(1e-5))  # a default attribute is a float32 like any other


@dataclass(frozen=True, eq=False)
class Glue:
    """One differentiable node in a form that does not depend on the opset; axis 0 is the batch.

    Attributes:
        op: a key of ``READERS`` or of ``ACTIVATIONS``, or the operator into which a reader there turns the node.
        inputs: names of the tensors it reads, constants included.
        output: name of the tensor it writes.
        shapes: the inputs' shapes, with None for a size that is not known; the batch's never is.
        shape: the output's shape.
        attributes: whatever else the operator needs, ``axis``, ``axes``, ``activation``, …
        node: the node's name in messages.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    shapes: tuple[Shape, ...]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""

    @property
    def signature(self) -> tuple[object, ...]:
        """Everything with which the glue computes, as plain values."""
        given = [(key, v.tobytes() if isinstance(v, np.ndarray) else str(v)) for key, v in self.attributes.items()]
        return self.op, self.inputs, self.output, self.shapes, self.shape, sorted(given)


class NotGlue(Exception):  # noqa: N818 - a finding, not an error
    """The node cannot be trained through; the text says why."""


def glue_shape(tensor: Any) -> Shape:
    """The shape of a glue node's input or output: all sizes for a constant, else None for axis 0 and unknown sizes."""
    if isinstance(tensor, gs.Constant):
        return tuple(int(size) for size in np.shape(tensor.values))
    sizes = tensor.shape
    return (None, *[size if isinstance(size, int) and size >= 0 else None for size in sizes[1:]]) if sizes else ()


def tensors_of(node: gs.Node) -> list[Any]:
    """The inputs that are given."""
    return [tensor for tensor in node.inputs if tensor.name]


def glue_of(node: gs.Node, op: str = "", inputs: int | None = None, **attributes: Any) -> Glue:
    """Glue that reads the node's first ``inputs`` inputs, or all of them, and applies ``op``, by default its own.

    Of a constant that is the same for every row of a fixed batch, one row is read.

    Raises:
        NotGlue: a constant among the inputs has a row for each row of the batch.
    """
    written = node.outputs[0]
    out = glue_shape(written)
    for position, tensor in enumerate(node.inputs[:inputs]):
        if not isinstance(tensor, gs.Constant):
            continue
        shape = glue_shape(tensor)
        if len(shape) == len(out) and shape and shape[0] != 1:
            one = one_of_alike(np.asarray(tensor.values), 0)
            if one is None:
                raise NotGlue(f"its constant '{tensor.name}' depends on the batch")
            node.inputs[position] = gs.Constant(f"{tensor.name}/row", one)
    read = tensors_of(node)[:inputs]
    names = tuple([tensor.name for tensor in read])
    return Glue(op or node.op, names, written.name, tuple(map(glue_shape, read)), out, attributes, label(node))


def axis_of(node: gs.Node, axis: int) -> int:
    """Read an axis of the node's first input, counted from 0.

    Raises:
        NotGlue: it is the batch's axis.
    """
    rank = len(glue_shape(node.inputs[0]))
    axis = int(axis) % rank if rank else 0
    if axis == 0:
        raise NotGlue("it works along the batch")
    return axis


def names_from(node: gs.Node, begin: int) -> tuple[str, ...]:
    """Names of the inputs from ``begin`` on."""
    return tuple(tensor.name for tensor in node.inputs[begin:] if tensor.name)


def constant_of(node: gs.Node, position: int) -> Array:
    """The values of an input.

    Raises:
        NotGlue: it is not constant.
    """
    values = constant_values(node.inputs[position]) if has_input(node, position) else None
    if values is None:
        raise NotGlue(f"its input {position} is not constant")
    return values


def space_of(tensor: Any) -> tuple[int, ...]:
    """The sizes of a tensor's axes of space.

    Raises:
        NotGlue: it has none, or they are not known.
    """
    shape = glue_shape(tensor)
    sizes = tuple(size for size in shape[2:] if size is not None)
    if not sizes or len(sizes) != len(shape) - 2:
        raise NotGlue("the sizes of the axes that it works along are not known")
    return sizes
