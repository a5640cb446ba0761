"""Networks whose moments are estimated, and moments by numpy alone."""

from dataclasses import replace

import numpy as np

from onnxsurgeon import create
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation, prelu
from tests.conftest import randomised

OPS = [op for op, known in ACTIVATIONS.items() if known.since <= 17]


def network(shape=(64, 12, 9, 10), op="Relu", seed=0):
    net = create(shape, seed=seed)
    made = {"PRelu": lambda n: prelu(np.ones(n, np.float32))}.get(op, lambda n: Activation(op))
    layers = [replace(layer, activation=made(layer.units)) for layer in net.layers[:-1]]
    return randomised(net.with_layers([*layers, net.layers[-1]]), seed)


def covariance(a, b):
    return (a - a.mean(0)).T @ (b - b.mean(0)) / len(a)
