"""The convolutional networks that are measured, as ONNX has them and as PyTorch's tutorials write them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarking.task import Array

CLASSES = 10
POOL = "pool"


@dataclass(frozen=True)
class ImageNetwork:
    """3 × 3 convolutions, each with a Relu, then a dense layer.

    Attributes:
        channels: of the images.
        size: height and width of the images.
        batch: rows in a batch.
        parts: a number is a convolution of so many units; "pool" is the maximum of 2 × 2 values; a pair (units, stride)
            is a residual block of two convolutions, whose shortcut is a pointwise convolution where the shape changes;
            "mean" is that of each channel.
        steps: how many are timed together.
    """

    channels: int
    size: int
    batch: int
    parts: tuple[Any, ...]
    steps: int

    def __str__(self) -> str:
        """Such as "1-16-32, 28 × 28, 32"."""
        units = [part[0] if isinstance(part, tuple) else part for part in self.parts if not isinstance(part, str)]
        kind = "residual " if any(isinstance(part, tuple) for part in self.parts) else ""
        return f"{kind}{'-'.join(map(str, (self.channels, *units)))}, {self.size} × {self.size}, {self.batch}"

    def start(self, rng: np.random.Generator) -> list[Array]:
        """Weights and biases in the order in which they are used, as ONNX has them."""
        return [
            rng.uniform(-bound, bound, shape).astype(np.float32)
            for weight in self._weights()
            for shape in (weight, weight[:1])
            for bound in (1 / math.sqrt(math.prod(weight[1:])),)
        ]

    def _weights(self) -> list[tuple[int, ...]]:
        """The shapes of all weights."""
        found: list[tuple[int, ...]] = []
        channels, size = self.channels, self.size
        for part in self.parts:
            if isinstance(part, tuple):
                units, stride = part
                found += [(units, channels, 3, 3), (units, units, 3, 3)]
                if part != (channels, 1):
                    found.append((units, channels, 1, 1))
                channels, size = units, -(-size // stride)
            elif isinstance(part, int):
                found.append((part, channels, 3, 3))
                channels = part
            else:
                size = size // 2 if part == POOL else 1
        return [*found, (CLASSES, channels * size * size)]

    def model(self, start: list[Array]) -> Any:
        """An ONNX model of it with these parameters."""
        from onnx import TensorProto, helper, numpy_helper

        nodes: list[Any] = []

        def add(op: str, *inputs: str, **attributes: Any) -> str:
            nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], **attributes))
            return f"t{len(nodes) - 1}"

        names = iter([f"p{number}" for number in range(len(start))])

        def convolved(x: str, stride: int = 1, *, pad: int = 1) -> str:
            return add("Conv", x, next(names), next(names), pads=[pad] * 4, strides=[stride] * 2)

        x, channels = "x", self.channels
        for part in self.parts:
            if isinstance(part, tuple):
                inner = convolved(add("Relu", convolved(x, part[1])))
                x = add("Relu", add("Add", inner, x if part == (channels, 1) else convolved(x, part[1], pad=0)))
                channels = part[0]
            elif isinstance(part, int):
                x, channels = add("Relu", convolved(x)), part
            elif part == POOL:
                x = add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            else:
                x = add("GlobalAveragePool", x)
        y = add("Gemm", add("Flatten", x), next(names), next(names), transB=1)
        image: list[str | int | None] = ["rows", self.channels, self.size, self.size]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["rows", CLASSES])],
            [numpy_helper.from_array(values, f"p{number}") for number, values in enumerate(start)],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def module(self) -> Any:
        """A PyTorch module, its parameters in the order of ``start``."""
        import torch
        from torch import nn

        class Block(nn.Module):  # type: ignore[misc]
            def __init__(self, channels: int, units: int, stride: int) -> None:
                super().__init__()
                self.first = nn.Conv2d(channels, units, 3, stride, padding=1)
                self.second = nn.Conv2d(units, units, 3, padding=1)
                changes = (channels, 1) != (units, stride)
                self.shortcut = nn.Conv2d(channels, units, 1, stride) if changes else nn.Identity()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                inner = self.second(torch.relu(self.first(x)))
                return torch.relu(inner + self.shortcut(x))

        layers: list[Any] = []
        channels = self.channels
        for part in self.parts:
            if isinstance(part, tuple):
                layers.append(Block(channels, *part))
                channels = part[0]
            elif isinstance(part, int):
                layers += [nn.Conv2d(channels, part, 3, padding=1), nn.ReLU()]
                channels = part
            else:
                layers.append(nn.MaxPool2d(2) if part == POOL else nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(self._weights()[-1][1], CLASSES))


NETWORKS = (
    ImageNetwork(1, 28, 32, (16, POOL, 32, POOL), 60),
    ImageNetwork(3, 32, 32, (32, POOL, 64, POOL, 128, POOL), 15),
    ImageNetwork(3, 32, 64, (64, POOL, 64, POOL), 6),
    ImageNetwork(1, 28, 32, (8, POOL, 16, POOL), 100),
    ImageNetwork(3, 32, 32, (16, (16, 1), (32, 2), (64, 2), "mean"), 15),
)
