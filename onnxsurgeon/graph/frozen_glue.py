"""Layers that are not trained, read as glue: products and sums with constants."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import geometry_of
from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.contractions import NotByRow, of_matmul
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.glue_node import Glue, NotGlue, glue_shape


def frozen_dense(node: gs.Node) -> list[Glue]:
    """Read a layer that is not trained, y = x W + b, as a product and a sum with constants; a convolution as itself.

    Raises:
        NotGlue: the shapes around it are not known.
    """
    x, y = node.inputs[0], node.outputs[0]
    if x.shape is None or y.shape is None:
        raise NotGlue("the shapes around it are not known")
    for position, what in enumerate(("weight", "bias")[: len(node.inputs) - 1], start=1):
        # The constant gets a name of its own, since layers that share a tensor need not have the same values of it.
        if not node.inputs[position].name.startswith(f"{y.name}/frozen_"):
            node.inputs[position] = gs.Constant(f"{y.name}/frozen_{what}", np.asarray(node.inputs[position].values))
    geometry = geometry_of(node)
    if geometry is not None:
        return _frozen_convolution(node, geometry)
    shapes = (glue_shape(x), glue_shape(node.inputs[1]))
    try:
        equation = of_matmul(*shapes, is_row=(True, False), is_vector=(False, False))
    except NotByRow as problem:
        raise NotGlue(str(problem)) from problem
    made = y.name if len(node.inputs) == 2 else f"{y.name}/product"
    names = (x.name, node.inputs[1].name)
    product = Glue("Einsum", names, made, shapes, glue_shape(y), {"equation": equation, "is_matmul": True}, label(node))
    if len(node.inputs) == 2:
        return [product]
    read, bias = (made, node.inputs[2].name), glue_shape(node.inputs[2])
    return [product, Glue("Add", read, y.name, (glue_shape(y), bias), glue_shape(y), {}, label(node))]


def _frozen_convolution(node: gs.Node, geometry: Geometry) -> list[Glue]:
    x, y, weight = node.inputs[0], node.outputs[0], node.inputs[1]
    if np.ndim(weight.values) == 2:  # the value is a matrix until it becomes a constant of its own
        units = weight.values.shape[1]
        kernel = weight.values.T.reshape(units, -1, *geometry.kernel)
        weight = node.inputs[1] = gs.Constant(weight.name, np.ascontiguousarray(kernel))
    read = node.inputs[:3]
    names, shapes = tuple(each.name for each in read), (glue_shape(x), *(np.shape(each.values) for each in read[1:]))
    return [Glue("Conv", names, y.name, shapes, glue_shape(y), {"geometry": geometry}, label(node))]
