"""A network with another convolution behind a pool, which changes nothing at first.

The file is written with the convolution and its activation, and read again: what stands between a pool and what reads
it, is a segment by itself, or the beginning of the one that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.errors import ModelError, SurgeryError
from onnxsurgeon.graph.activations import Activation, prelu
from onnxsurgeon.graph.decompose import activation_nodes
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseLayer, LayerNames
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import from_parts
from onnxsurgeon.graph.without_block import with_values
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.linear_algebra import Array

POOLS = ("MaxPool", "AveragePool")


@dataclass(frozen=True)
class Pooled:
    """Where a convolution can stand behind a pool.

    Attributes:
        layer: the convolution whose units are pooled.
        tensor: what the pool writes, or the activation behind it: the new convolution reads that, and everything that
            did reads the new one.
        geometry: the new one's: 3 taps along each axis of which the pool leaves several positions, 1 along others.
        activation: the new one's: the last φ before ``tensor`` where all values there have φ(y) = y, else None.
    """

    layer: DenseLayer
    tensor: str
    geometry: Geometry
    activation: Activation | None


def pooled(network: Network, i: int) -> Pooled:
    """What becomes of width ``i`` behind its pool.

    Raises:
        SurgeryError: there is no such width, no single convolution writes it, or its units do not go through a pool
            that alone reads them.
    """
    number, position = network.place(i)
    segment = network.segments[number]
    layer = segment.layers[position]
    trunk = network.frame.trunk
    read = {each.input_name for each in network.segments} | {head.tensor for head in trunk.heads}
    readers: dict[str, list[Glue]] = {}
    for each in (step for step in trunk.steps if not isinstance(step, int)):
        for name in dict.fromkeys(each.inputs):
            readers.setdefault(name, []).append(each)
    tensor, phi, pool = segment.output_name, None, None
    if i > network.hidden_count and layer.geometry is not None:
        while tensor not in read and len(readers.get(tensor, ())) == 1:
            (step,) = readers[tensor]
            found = step.attributes.get("activation") if step.op == "Activation" else None
            if isinstance(found, Activation):
                phi = found
            elif step.op in POOLS:
                pool = step
            else:
                break
            tensor = step.output
    if pool is None:
        raise SurgeryError(
            f"'{network.name}' ({network.topology}): no convolution can stand behind a pool of layer {i}: what "
            f"'{layer.names.node}' puts out is not read by a pool alone, with its activation at most between them",
            "unlike-layer",
        )
    geometry = Geometry.centred([1 if size == 1 else 3 for size in pool.shape[2:]])
    # A mean may have zeros of padding in it: those too are values of φ then.
    keeps = phi is not None and phi.is_idempotent and (pool.op == "MaxPool" or not phi(np.zeros((1, 1))).any())
    return Pooled(layer, tensor, geometry, phi if keeps else None)


def with_convolution(network: Network, i: int) -> tuple[Network, dict[str, str]]:
    """The network with a convolution behind the pool of width ``i``, and what its weight goes by, by name.

    Args:
        network: in which no weight is another's transpose (``Network.parted``).
        i: a width that one convolution writes and a pool reads.

    Raises:
        SurgeryError: see ``pooled``; or the file has the pool in another form, or the convolution would be linear:
            slopes are trained only between two layers of a segment.
    """
    site = pooled(network, i)
    parts = to_parts(network)
    graph = parts.skeleton.graph
    dtype = network.segments[network.place(i)[0]].file_dtype
    place = next((n for n, node in enumerate(graph.node) if site.tensor in node.output), None)
    if place is None or site.tensor in network.frame.turned:
        raise SurgeryError(f"layer {i}: the file has the pool behind it in another form", "unlike-layer")
    names = _names(network, site.layer)
    before, n = f"{names.node}/input", site.layer.units
    for position, name in enumerate(graph.node[place].output):
        graph.node[place].output[position] = before if name == site.tensor else name
    for values, name in ((_identity(n, site.geometry), names.weight), (np.zeros(n), names.bias)):
        graph.initializer.append(numpy_helper.from_array(values.astype(dtype), name))
    phi = site.activation or prelu(np.ones(n, dtype))
    if phi.slope is not None:
        slopes = np.ones((n, *[1] * site.geometry.rank), dtype)
        graph.initializer.append(numpy_helper.from_array(slopes, names.slope))
    rest, constants = activation_nodes(
        phi, names.pre_activation, site.tensor, names.activation, dtype, network.frame.opset, names.slope
    )
    graph.initializer.extend(constants)
    for node in reversed([_convolve(before, site.geometry, names), *rest]):
        graph.node.insert(place + 1, node)
    try:
        found = from_parts(parts, name=network.name, source=network.name)
    except ModelError as error:
        raise SurgeryError(f"layer {i}: no convolution can stand behind its pool: {error}", "unlike-layer") from error
    if len(found.layers) != len(network.layers) + 1:
        raise SurgeryError(f"layer {i}: a convolution behind its pool would not be read as one", "unlike-layer")
    if phi.slope is not None and not any(name == names.slope for name, _ in found.parameters()):
        raise SurgeryError(
            f"layer {i}: no convolution can stand behind its pool: values there are not those of a Relu or Clip, and "
            "without such an activation it would be linear at the end of its segment",
            "unlike-layer",
        )
    return with_values(network, found), {names.weight: site.layer.names.weight}


def _names(network: Network, layer: DenseLayer) -> LayerNames:
    """Names after the layer before, which are the same in every branch in which this is done to it."""
    used, base = network.names(), f"{layer.names.node}/behind"
    while any(name in used for name in (*LayerNames.derived(base).all(), f"{base}/input")):
        base += "_"
    return LayerNames.derived(base)


def _identity(units: int, geometry: Geometry) -> Array:
    """A kernel (units, units, …) with a 1 at the centre of each unit's own."""
    weight = np.zeros((units, units, geometry.taps))
    weight[np.arange(units), np.arange(units), geometry.taps // 2] = 1
    return weight.reshape(units, units, *geometry.kernel)


def _convolve(x: str, geometry: Geometry, names: LayerNames) -> onnx.NodeProto:
    inputs, outputs = [x, names.weight, names.bias], [names.pre_activation]
    return helper.make_node("Conv", inputs, outputs, names.node, kernel_shape=geometry.kernel, pads=geometry.pads)
