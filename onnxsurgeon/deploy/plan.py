"""The plan of a trainer, decided before any file is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from onnxsurgeon.deploy import names
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import Task
from onnxsurgeon.training.dropout import masked_inputs, masked_layers
from onnxsurgeon.training.forward import by_unit_arrays, parameter_names
from onnxsurgeon.training.optimizers import Optimizer, make_optimizer
from onnxsurgeon.training.resident import numbered
from onnxsurgeon.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False)
class RowInput:
    """One tensor of rows that the files take.

    Attributes:
        name: name of the input.
        dtype: type of the values as they are given.
        shape: shape of one row; None: any size.
        scale: factor for the values, of shape () or one that broadcasts to a row's.
        offset: added after that, likewise.
        source: the model's own input that it is, "" where features.onnx computes it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    scale: Array | float = 1.0
    offset: Array | float = 0.0
    source: str = ""

    @property
    def is_scaled(self) -> bool:
        """Whether values are anything other than themselves in another type."""
        return bool(np.any(np.not_equal(self.scale, 1.0)) or np.any(self.offset))


class Parameter(NamedTuple):
    """A parameter in the state.

    Attributes:
        name: name in the user's file.
        inner: name in the graph of a step.
        shape: shape in the state: weights (units, inputs), all others (units,).
        by_unit: shape in the graph of a step; see ``by_unit_arrays``.
        factor: the factor by which the step's graph multiplies it, (units,), where a regression's last layer is trained
            in units.
        frozen: whether it stays as it is.
        values: its initial values, of ``shape``.
    """

    name: str
    inner: str
    shape: tuple[int, ...]
    by_unit: tuple[int, ...]
    factor: Array | None
    frozen: bool
    values: Array


@dataclass(frozen=True, eq=False)
class Plan:
    """A trainer before it is written.

    Attributes:
        network: the trained part of the user's network, with the values of the file.
        whole: the user's network.
        tasks: the task of each head.
        inputs: the rows as they are given to predict.onnx, and to features.onnx where there is one.
        rows: the rows as they are given to train.onnx, step.onnx and evaluate.onnx, one for each feature of the trunk.
        settings: the optimizer and the schedule of its rate.
        batch_size: rows in a batch.
        is_fixed: whether the files take no other number.
        frozen: names of the parameters that stay as they are.
        report_loss: whether each step's loss is an output of train.onnx.
        has_features: whether features.onnx makes ``rows`` of ``inputs``.
        classes: names of each head's classes; () where they are numbers.
        layouts: how the user's file holds parameters, by name; see ``deploy.layouts``.
    """

    network: Network
    whole: Network
    tasks: tuple[Task, ...]
    inputs: tuple[RowInput, ...]
    rows: tuple[RowInput, ...]
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    batch_size: int = 16
    is_fixed: bool = False
    frozen: frozenset[str] = frozenset()
    report_loss: bool = True
    has_features: bool = False
    classes: tuple[tuple[str, ...], ...] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def optimizer(self) -> Optimizer:
        """The rule of update."""
        return make_optimizer(self.settings)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter of the network, in the order of ``Network.parameters()``."""
        network = self.network
        found = []
        arrays, factors = by_unit_arrays(network), factors_of(network, self.tasks)
        for inner, (name, values), by_unit, factor in zip(
            parameter_names(network), network.parameters(), arrays, factors, strict=True
        ):
            own = values.T if values.ndim == 2 else values
            frozen = name in self.frozen
            found.append(Parameter(name, inner, own.shape, by_unit.shape, factor, frozen, own))
        return tuple(found)

    @property
    def trained(self) -> tuple[Parameter, ...]:
        """The parameters that are not frozen, which the state holds."""
        return tuple(each for each in self.parameters if not each.frozen)

    @property
    def masks(self) -> tuple[tuple[float, list[int]], tuple[float, list[int]]]:
        """For units and for inputs: the share that is left out, and the number of values of each mask of a step."""
        units, inputs = self.settings.dropout, self.settings.input_dropout
        return (units, masked_layers(self.network) if units else []), (
            inputs,
            masked_inputs(self.network) if inputs else [],
        )

    @property
    def has_masks(self) -> bool:
        """Whether anything is left out in training."""
        return any(widths for _, widths in self.masks)

    @property
    def targets(self) -> list[str]:
        """Names of the inputs that hold each head's targets."""
        return numbered(names.TARGETS, len(self.tasks))


def factors_of(network: Network, tasks: Sequence[Task]) -> list[Array | None]:
    """For each parameter the factor by which it is multiplied in training, (units,), as in ``training.units``."""
    units = {
        head.tensor: 1 / np.array(task.scale)
        for head, task in zip(network.heads, tasks, strict=True)
        if task.scale and not task.is_weighed
    }
    found: list[Array | None] = []
    for segment in network.segments:
        for layer in segment.layers:
            factor = segment.over_ends(units, 1.0) if layer is segment.layers[-1] else None
            found += [factor for _ in layer.parameters()]
    return network.once(found)
