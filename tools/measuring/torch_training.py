"""Imitation in PyTorch, as a knowing user would do it in a given time: AdamW, one cycle of the learning rate."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measuring.models import Array, input_name, outputs
from measuring.torch_graph import TorchGraph

RISE, FIRST = 0.3, 1 / 25  # as PyTorch's OneCycleLR has them by default
PROBED = 40  # steps by which the faster number of threads is found, within a fiftieth of the time for each
ACTIVATIONS = {"Swish": torch.nn.SiLU, "Relu": torch.nn.ReLU, "Elu": torch.nn.ELU, "Tanh": torch.nn.Tanh}


@dataclass(frozen=True)
class Recipe:
    """How to train; ``seconds`` is all the time there is, that to find the faster number of threads included.

    The learning rate's cycle goes by the clock, so that it ends when the time does, whatever else the machine does.
    """

    learning_rate: float
    batch: int
    seconds: float
    seed: int
    cores: int
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Trained:
    """What the training was: passes over the rows, seconds, and the number of threads that was the faster one."""

    epochs: float
    seconds: float
    threads: int


def one_cycle(progress: float) -> float:
    """What the learning rate is multiplied by when this part of the time is gone: a rise and a fall, both cosines."""
    if progress < RISE:
        return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * progress / RISE)) / 2
    return (1 + math.cos(math.pi * min(1.0, (progress - RISE) / (1 - RISE)))) / 2


def train(
    parameters: Sequence[Any], predict: Callable[[Any], Any], x: Any, y: Any, recipe: Recipe, begun: float | None = None
) -> Trained:
    """Train ``parameters`` so that ``predict`` of rows x (rows, n) comes near y (rows, k) in each one's deviation.

    ``begun`` is when the time began, by ``time.perf_counter``; by default now.
    """
    start = time.perf_counter() if begun is None else begun
    torch.manual_seed(recipe.seed)
    unit = 1 / y.std(dim=0)
    optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)

    def step(rows: Any, targets: Any) -> None:
        loss = ((predict(rows) - targets) * unit).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    threads = _faster(parameters, optimizer, lambda: step(x[: recipe.batch], y[: recipe.batch]), recipe)
    steps, each = 0, math.ceil(len(x) / recipe.batch)
    while True:
        order = torch.randperm(len(x))
        batches = zip(x[order].split(recipe.batch), y[order].split(recipe.batch), strict=True)
        for rows, targets in batches:
            progress = (time.perf_counter() - start) / recipe.seconds
            if progress >= 1 and steps > 0:
                return Trained(steps / each, time.perf_counter() - start, threads)
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * one_cycle(progress)
            step(rows, targets)
            steps += 1


def load_everything() -> None:
    """One step of a network of one unit: what PyTorch loads when an optimizer first steps takes seconds."""
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(1, 1)).sum().backward()
    optimizer.step()


def _faster(parameters: Sequence[Any], optimizer: Any, step: Callable[[], None], recipe: Recipe) -> int:
    """Set PyTorch to the number of threads that steps are fastest with; parameters and optimizer are as before."""
    values, paces = [each.detach().clone() for each in parameters], {}
    for threads in range(1, recipe.cores + 1):
        torch.set_num_threads(threads)
        step()
        begun, done = time.perf_counter(), 0
        while done == 0 or (done < PROBED and time.perf_counter() - begun < recipe.seconds / 50):
            step()
            done += 1
        paces[threads] = (time.perf_counter() - begun) / done
    with torch.no_grad():
        for each, value in zip(parameters, values, strict=True):
            each.copy_(value)
    optimizer.state.clear()
    chosen = min(paces, key=lambda threads: paces[threads])
    torch.set_num_threads(chosen)
    return chosen


class Scaled(torch.nn.Module):
    """A perceptron between what makes its inputs standard and what gives its outputs their mean and deviation."""

    def __init__(self, sizes: Sequence[int], activation: str, x: Any, y: Any) -> None:
        super().__init__()
        layers: list[Any] = []
        for n_in, n_out in pairwise(sizes):
            layers += [torch.nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        self.inner = torch.nn.Sequential(*layers[:-1])
        deviation = x.std(dim=0)
        self.register_buffer("x_mean", x.mean(dim=0))
        self.register_buffer("x_unit", 1 / torch.where(deviation > 0, deviation, 1.0))
        self.register_buffer("y_mean", y.mean(dim=0))
        self.register_buffer("y_deviation", y.std(dim=0))

    def standard(self, x: Any) -> Any:
        """Inputs as the perceptron sees them."""
        return (x - self.x_mean) * self.x_unit

    def unscaled(self, made: Any) -> Any:
        """What the perceptron makes, in the targets' units."""
        return made * self.y_deviation + self.y_mean

    def forward(self, x: Any) -> Any:
        """Rows (batch, n) to (batch, k)."""
        return self.unscaled(self.inner(self.standard(x)))


def imitate_from_scratch(
    sizes: Sequence[int], activation: str, x: Array, y: Array, recipe: Recipe, out: Path, name: str
) -> Trained:
    """Train a new perceptron towards y (rows, k), and write it to ``out``; its input is called ``name``."""
    begun = time.perf_counter()
    torch.manual_seed(recipe.seed)
    rows, targets = torch.from_numpy(x), torch.from_numpy(y)
    network = Scaled(sizes, activation, rows, targets)
    parameters = list(network.inner.parameters())
    with torch.no_grad():
        features = network.standard(rows)
    trained = train(parameters, lambda each: network.unscaled(network.inner(each)), features, targets, recipe, begun)
    export(network.eval(), rows[:2], out, name)
    return trained


def export(network: Any, rows: Any, out: Path, name: str = "input", outputs: Sequence[str] = ("output",)) -> None:
    """Write a network for any number of rows, as PyTorch's older exporter does."""
    axes = {each: {0: "batch"} for each in (name, *outputs)}
    options: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer one takes many times as long
        torch.onnx.export(network, (rows,), out, input_names=[name], output_names=list(outputs), **options)


def train_on(path: Path, x: Array, y: Array, recipe: Recipe, out: Path, begun: float | None = None) -> Trained:
    """Train the model at ``path`` towards y (rows, k) of its first output, and write it to ``out``.

    Raises:
        SystemExit: PyTorch does not compute what ONNX Runtime does with the same file.
    """
    begun = time.perf_counter() if begun is None else begun
    graph, name = TorchGraph(path), input_name(path)
    wanted = graph.output
    with torch.no_grad():
        features = graph.run(graph.features, {name: torch.from_numpy(x)})
        made = graph.run(wanted, {graph.features: features[:100]}).numpy()
    expected = outputs(path, {name: x[:100]})[0]
    if not np.allclose(made, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max())):
        raise SystemExit(f"{path}: PyTorch computes something else than ONNX Runtime")
    parameters = list(graph.weights.values())
    targets = torch.from_numpy(y)
    trained = train(
        parameters, lambda each: graph.run(wanted, {graph.features: each}), features, targets, recipe, begun
    )
    graph.save(out)
    return trained
