"""A training step of plain convolutional networks, beside PyTorch's: 3×3 convolutions, Relu, 2×2 pooling, a dense head.

All peers are in one process and take turns, so the Python that runs this needs an ONNX Runtime, and torch for its part.
Every one starts from the same weights, sees the same batches, and has as many threads as are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarking.steps import Spread, ratio
from benchmarking.task import RATE, Array

HEADER = (
    "| network, batch | peer | ms a step | steps of the loop in that time | max \\|Δ weights\\| |\n"
    "| --- | --- | ---: | ---: | ---: |"
)
LOOP = "loop engine"
CLASSES, ROWS, WARM_UP = 10, 1_024, 3


@dataclass(frozen=True)
class Plain:
    """Channels from the image's on, the image's height and width, rows in a batch."""

    channels: tuple[int, ...]
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.channels))}, {self.size} × {self.size}, {self.batch}"

    @property
    def flat(self) -> int:
        """Number of inputs of the dense head."""
        side: int = self.size // 2 ** (len(self.channels) - 1)
        return self.channels[-1] * side * side


NETWORKS = (Plain((1, 16, 32), 28, 32), Plain((3, 32, 64, 128), 32, 32), Plain((3, 64, 64), 32, 64))
STEPS = (60, 15, 6)

Step = Callable[[Array], list[Array]]  # trains on batches (steps, batch), from the start; the parameters in the end


def measure(rounds: int, threads: int = 1) -> Iterator[dict[str, Any]]:
    """For each network and peer the time of a step in each round, and what the table shows."""
    for network, steps in zip(NETWORKS, STEPS, strict=True):
        start, images, labels = _task(network)
        rng = np.random.default_rng(1)
        batches = rng.integers(0, ROWS, (steps, network.batch))
        peers = {LOOP: _loop(network, start, images, labels, threads)}
        if find_spec("torch") is not None:
            for name, last in (("PyTorch eager", False), ("PyTorch eager, channels last", True)):
                peers[name] = _torch(network, start, images, labels, threads, channels_last=last)
        times: dict[str, list[float]] = {name: [] for name in peers}
        ends: dict[str, list[Array]] = {}
        for number in range(rounds + 1):
            names = list(peers)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                begun = time.perf_counter()
                ends[name] = peers[name](batches if number else batches[:WARM_UP])
                if number:
                    times[name].append((time.perf_counter() - begun) / steps * 1e3)
        for name, each in times.items():
            differences = [abs(a - b).max() for a, b in zip(ends[name], ends[LOOP], strict=True)]
            yield {
                "network": str(network),
                "peer": name,
                "threads": threads,
                "milliseconds": each,
                "ratio": vars(ratio(each, times[LOOP])),
                "deviation": float(max(differences)),
            }


def row(record: dict[str, Any]) -> str:
    """A row of the table."""
    cells = (
        record["network"],
        record["peer"],
        Spread.of(record["milliseconds"]).text(1),
        Spread(**record["ratio"]).text(2),
        f"{record['deviation']:.0e}",
    )
    return f"| {' | '.join(cells)} |"


def _task(network: Plain) -> tuple[list[Array], Array, Array]:
    """Weights and biases as ONNX has them, images, labels."""
    rng = np.random.default_rng(0)
    start: list[Array] = []
    for channels, units in zip(network.channels, network.channels[1:], strict=False):
        bound = 1 / np.sqrt(9 * channels)
        start += [rng.uniform(-bound, bound, (units, channels, 3, 3)), rng.uniform(-bound, bound, units)]
    bound = 1 / np.sqrt(network.flat)
    start += [rng.uniform(-bound, bound, (CLASSES, network.flat)), rng.uniform(-bound, bound, CLASSES)]
    images = rng.random((ROWS, network.channels[0], network.size, network.size), np.float32)
    return [values.astype(np.float32) for values in start], images, rng.integers(0, CLASSES, ROWS)


def _loop(network: Plain, start: list[Array], images: Array, labels: Array, threads: int) -> Step:
    """Onnxsurgeon's loop engine, from an ONNX model of the network."""
    from onnx import TensorProto, helper, numpy_helper

    from onnxsurgeon import Examples, TrainingSpec, from_model, make_engine

    nodes, x = [], "x"
    for i in range(len(network.channels) - 1):
        nodes += [
            helper.make_node("Conv", [x, f"p{2 * i}", f"p{2 * i + 1}"], [f"z{i}"], pads=[1] * 4),
            helper.make_node("Relu", [f"z{i}"], [f"h{i}"]),
            helper.make_node("MaxPool", [f"h{i}"], [f"m{i}"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        x = f"m{i}"
    last = len(start) - 2
    nodes += [
        helper.make_node("Flatten", [x], ["flat"]),
        helper.make_node("Gemm", ["flat", f"p{last}", f"p{last + 1}"], ["y"], transB=1),
    ]
    image: list[str | int | None] = ["rows", network.channels[0], network.size, network.size]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", CLASSES])],
        [numpy_helper.from_array(values, f"p{number}") for number, values in enumerate(start)],
    )
    model = from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    examples, engine = Examples.classification(images, labels, CLASSES), make_engine("loop")
    spec = TrainingSpec(RATE, threads=lambda: threads)

    def step(batches: Array) -> list[Array]:
        trained = engine.train(model, examples, [batches], spec).network
        layers = [pair for segment in trained.segments for pair in segment.parameters_in_file()]
        return [values.T if name == f"p{last}" else values for name, values in layers]

    return step


def _torch(
    network: Plain, start: list[Array], images: Array, labels: Array, threads: int, *, channels_last: bool
) -> Step:
    """PyTorch as its tutorials write it."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    parts: list[Any] = []
    for channels, units in zip(network.channels, network.channels[1:], strict=False):
        parts += [nn.Conv2d(channels, units, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(network.flat, CLASSES))
    rows, goals = torch.from_numpy(images), torch.from_numpy(labels)
    if channels_last:
        model, rows = model.to(memory_format=torch.channels_last), rows.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def step(batches: Array) -> list[Array]:
        with torch.no_grad():
            for parameter, values in zip(model.parameters(), start, strict=True):
                parameter.copy_(torch.from_numpy(values))
        for batch in torch.from_numpy(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(rows[batch]), goals[batch]).backward()
            optimizer.step()
        return [parameter.detach().numpy().copy() for parameter in model.parameters()]

    return step
