"""What glue is, and what its readers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import constant_values, one_of_alike
from onnxsurgeon.graph.normal_form import label
from onnxsurgeon.linear_algebra import Array

Shape = tuple[int | None, ...]
EPSILON = float(np.float32(1e-5))  # a default attribute is a float32 like any other


@dataclass(frozen=True, eq=False)
class Glue:
    """One differentiable node in a form that does not depend on the opset; axis 0 is the batch.

    Attributes:
        op: a key of ``READERS`` or of ``ACTIVATIONS``, or what a reader there turns the node into.
        inputs: names of the tensors it reads, constants included.
        output: name of the tensor it writes.
        shapes: the inputs' shapes; None: a size that is not known, as the batch never is.
        shape: the output's.
        attributes: what else the op needs, ``axis``, ``axes``, ``activation``, …
        node: what messages call the node.
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
        """Everything that the glue computes with, as plain values."""
        given = [(key, v.tobytes() if isinstance(v, np.ndarray) else str(v)) for key, v in self.attributes.items()]
        return self.op, self.inputs, self.output, self.shapes, self.shape, sorted(given)


class NotGlue(Exception):  # noqa: N818 - a finding, not an error
    """The node cannot be trained through; the text says why."""


def shape_of(tensor: Any) -> Shape:
    """Shape of a tensor; of constants all sizes, of others None for axis 0 and for what is not known."""
    if isinstance(tensor, gs.Constant):
        return tuple(int(size) for size in np.shape(tensor.values))
    sizes = [size if isinstance(size, int) and size >= 0 else None for size in tensor.shape]
    return (None, *sizes[1:]) if sizes else ()


def tensors_of(node: gs.Node) -> list[Any]:
    """The inputs that the node has."""
    return [tensor for tensor in node.inputs if tensor.name]


def glue_of(node: gs.Node, op: str = "", inputs: int | None = None, **attributes: Any) -> Glue:
    """Glue that reads the node's first ``inputs`` inputs (None: all) and does ``op`` (its own).

    Of a constant that is the same for every row of a fixed batch, one row is read.

    Raises:
        NotGlue: a constant among them has a row for each row of the batch.
    """
    out = shape_of(node.outputs[0])
    for position, tensor in enumerate(node.inputs):
        shape = shape_of(tensor) if isinstance(tensor, gs.Constant) else ()
        if len(shape) == len(out) and shape and shape[0] != 1 and (inputs is None or position < inputs):
            one = one_of_alike(np.asarray(tensor.values), 0)
            if one is None:
                raise NotGlue(f"its constant '{tensor.name}' depends on the batch")
            node.inputs[position] = gs.Constant(f"{tensor.name}/row", one)
    read = tensors_of(node)[:inputs]
    shapes = tuple(shape_of(tensor) for tensor in read)
    return Glue(
        op or node.op,
        tuple(tensor.name for tensor in read),
        node.outputs[0].name,
        shapes,
        out,
        attributes,
        label(node),
    )


def axis_of(node: gs.Node, axis: int) -> int:
    """An axis of the node's first input, counted from 0.

    Raises:
        NotGlue: it is the batch's.
    """
    rank = len(shape_of(node.inputs[0]))
    axis = int(axis) % rank if rank else 0
    if axis == 0:
        raise NotGlue("it works along the batch")
    return axis


def names_from(node: gs.Node, begin: int) -> tuple[str, ...]:
    """Names of the inputs from ``begin`` on."""
    return tuple(tensor.name for tensor in node.inputs[begin:] if tensor.name)


def has_input(node: gs.Node, position: int) -> bool:
    """Whether the node has that input."""
    return len(node.inputs) > position and bool(node.inputs[position].name)


def constant_of(node: gs.Node, position: int) -> Array:
    """The values of an input.

    Raises:
        NotGlue: it is not constant.
    """
    values = constant_values(node.inputs[position]) if has_input(node, position) else None
    if values is None:
        raise NotGlue(f"its input {position} is not constant")
    return values
