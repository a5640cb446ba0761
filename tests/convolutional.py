"""Networks with convolutions, put together by hand."""

from __future__ import annotations

import math

import numpy as np
import onnx
from measuring.reference import evaluate
from onnx import helper

from onnxsurgeon import Examples
from onnxsurgeon.graph.activations import Activation, prelu
from onnxsurgeon.graph.frame import Frame, Head, Trunk
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.layers import DenseChain, DenseLayer, LayerNames
from onnxsurgeon.graph.network import Network
from onnxsurgeon.training.forward import by_unit_arrays, from_by_unit, parameter_names
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.metrics import correct_and_loss
from tests.forward_model import forward_model


def geometry(kernel, strides=1, dilations=1, pads=0, groups=1):
    """Values that are given as one number hold along every axis."""

    def every(value, count):
        return tuple(value) if isinstance(value, tuple) else (value,) * count

    rank = len(kernel)
    return Geometry(tuple(kernel), every(strides, rank), every(dilations, rank), every(pads, 2 * rank), groups)


def convolution(channels, units, shape, activation="Relu", *, bias=True, seed=0, dtype=np.float64, name="conv"):
    """One layer with random values; ``activation`` is an op type, or None."""
    rng = np.random.default_rng(seed)
    inputs = channels // shape.groups * shape.taps
    weight = rng.standard_normal((inputs, units)) / math.sqrt(inputs)
    phi = None
    if activation == "PRelu":
        phi = prelu(rng.uniform(-0.5, 0.8, units).astype(dtype))
    elif activation:
        phi = Activation(activation)
    added = rng.standard_normal(units).astype(dtype) / 4 if bias else None
    return DenseLayer(weight.astype(dtype), added, phi, LayerNames.derived(f"{name}_{seed}"), shape)


def network_of(features, parts, *, constants=None, dtype=np.float64, seed=7, classes=3):
    """A network of ``parts`` one behind the other on one input (channels, space…), and a dense layer behind them.

    A part is a list of layers, a segment, or a function (name of what it reads, its shape with None for the batch, name
    of what it writes) → list of glue.
    """
    shape, name = (None, *features), "x"
    steps, segments = [], []
    for number, part in enumerate(parts):
        output = f"t{number}"
        if callable(part):
            made = part(name, shape, output)
            steps += made
            shape = made[-1].shape
        else:
            rank = part[0].geometry.rank + 2
            segments.append(DenseChain(tuple(part), name, output, rank=rank, space=shape[2:]))
            steps.append(len(segments) - 1)
            space = shape[2:]
            for layer in part:
                space = tuple(layer.geometry.sizes_behind(space))
            shape = (None, part[-1].units, *space)
        name = output
    flat = math.prod(shape[1:])
    steps.append(Glue("Reshape", (name,), "flat", (shape,), (None, flat)))
    rng = np.random.default_rng(seed)
    weight, bias = rng.standard_normal((flat, classes)) / math.sqrt(flat), rng.standard_normal(classes)
    dense = DenseLayer(weight.astype(dtype), bias.astype(dtype), None, LayerNames.derived("head"))
    segments.append(DenseChain((dense,), "flat", "logits"))
    steps.append(len(segments) - 1)
    trunk = Trunk({"x": tuple(features)}, tuple(steps), (Head("logits", classes),), constants or {})
    model = onnx.ModelProto(opset_import=[helper.make_opsetid("", 17)])
    return Network(tuple(segments), Frame(model, (0,) * len(segments), trunk), "convolutional")


def rows_for(features, rows=4, classes=3, seed=3, dtype=np.float64):
    """Random examples."""
    rng = np.random.default_rng(seed)
    return Examples.classification(
        rng.standard_normal((rows, *features)).astype(dtype), rng.integers(0, classes, rows), classes
    )


def reference_loss(network, data):
    """Mean cross-entropy by onnx.reference."""
    feeds = {"features": data.features[0]}
    feeds |= zip(parameter_names(network), (values for _, values in network.parameters()), strict=True)
    (outputs,) = evaluate(forward_model(network), feeds)
    return correct_and_loss(outputs, data.labels[0])[1] / data.rows


def loop_feeds(network, data):
    """One step of rate 1 on all rows."""
    dtype = network.dtype
    names = parameter_names(network)
    return {
        **{f"initial_{name}": values for name, values in zip(names, by_unit_arrays(network), strict=True)},
        "indices": np.arange(data.rows)[None],
        "rates": np.array([-1 / data.rows], dtype),
        "features": data.features[0],
        "targets": data.targets[0],
        "ones": np.ones((1, data.rows), dtype),
    }


def loop_gradients(network, data):
    """θ − θ' after that step, by onnx.reference: the gradients of the mean loss."""
    outputs = evaluate(training_loop(network, data), loop_feeds(network, data))
    trained = from_by_unit(network, outputs)
    pairs = zip(network.parameters(), trained.parameters(), strict=True)
    return [before - after for (_, before), (_, after) in pairs]


def difference_quotients(network, data, step=1e-6, seed=11):
    """For each parameter a random direction, and the loss's slope along it."""
    rng = np.random.default_rng(seed)
    values = [each for _, each in network.parameters()]
    found = []
    for number, each in enumerate(values):
        direction = rng.standard_normal(each.shape)
        moved = []
        for sign in (1, -1):
            changed = [v + sign * step * direction if i == number else v for i, v in enumerate(values)]
            moved.append(reference_loss(network.with_parameters(changed), data))
        found.append((direction, (moved[0] - moved[1]) / (2 * step)))
    return found
