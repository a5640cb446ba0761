"""A regression's last layer in units of its targets while it is trained; see ``Task.scale``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import Task
from onnxsurgeon.training.state import OptimizerState


def in_units(network: Network, tasks: Sequence[Task]) -> Network:
    """The network with the last layer of each scaled head divided by its units: W / s, b / s."""
    return _with_heads(network, tasks, inverse=False)


def from_units(network: Network, tasks: Sequence[Task]) -> Network:
    """The inverse of ``in_units``; powers of two round nothing."""
    return _with_heads(network, tasks, inverse=True)


def state_in_units(state: OptimizerState, network: Network, tasks: Sequence[Task]) -> OptimizerState:
    """The moments in the same units: first ones as the weights, second ones by the units' squares."""
    return _state(state, network, tasks, in_units)


def state_from_units(state: OptimizerState, network: Network, tasks: Sequence[Task]) -> OptimizerState:
    """The inverse of ``state_in_units``."""
    return _state(state, network, tasks, from_units)


def _state(
    state: OptimizerState, network: Network, tasks: Sequence[Task], change: Callable[[Network, Sequence[Task]], Network]
) -> OptimizerState:
    def repeated(moment: Network, power: int) -> Network:
        for _ in range(power):
            moment = change(moment, tasks)
        return moment

    return state.mapped(network, repeated) if any(task.scale for task in tasks) else state


def _with_heads(network: Network, tasks: Sequence[Task], *, inverse: bool) -> Network:
    units = {
        head.tensor: np.array(task.scale)
        for head, task in zip(network.heads, tasks, strict=True)
        if task.scale and not task.is_weighed
    }
    if not units:
        return network
    segments = []
    for segment in network.segments:
        scale = segment.over_ends(units, 1.0)
        if scale is not None:
            factor = scale if inverse else 1 / scale
            layers = (*segment.layers[:-1], _multiplied(segment.layers[-1], factor))
            segment = replace(segment, layers=layers)
        segments.append(segment)
    return replace(network, segments=tuple(segments))


def _multiplied(layer: DenseLayer, factor: Array) -> DenseLayer:
    with np.errstate(over="ignore"):  # weights that become infinite are reported as diverged
        weight = (layer.weight * factor).astype(layer.weight.dtype)
        bias = None if layer.bias is None else (layer.bias * factor).astype(layer.bias.dtype)
    return replace(layer, weight=weight, bias=bias)
