"""Export small convolutional networks of Flax by jax2onnx, channels last, for tests of reading and writing.

    python tools/convolution_zoo_jax.py tests/convolutions     # NAME-jax2onnx.onnx

Weights are random, statistics of normalisations too. Needs jax, flax and jax2onnx.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import onnx
from flax import nnx
from jax import numpy as jnp
from jax2onnx import to_onnx

IMAGE = (12, 12, 3)


class Vgg(nnx.Module):
    """Convolutions with pooling, and dense layers behind them."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.Conv(3, 6, (3, 3), rngs=rngs), nnx.Conv(6, 8, (3, 3), rngs=rngs)
        self.dense, self.out = nnx.Linear(72, 10, rngs=rngs), nnx.Linear(10, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """Logits of images (batch, 12, 12, 3)."""
        x = nnx.max_pool(nnx.relu(self.first(x)), window_shape=(2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.second(x)), window_shape=(2, 2), strides=(2, 2))
        return self.out(nnx.relu(self.dense(x.reshape(x.shape[0], 72))))


class ResNet(nnx.Module):
    """A stem and a block around which its input goes, normalised."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem, self.a, self.b = (
            nnx.Conv(n, 6, (3, 3), use_bias=False, strides=s, rngs=rngs) for n, s in ((3, 2), (6, 1), (6, 1))
        )
        self.norms = nnx.List([nnx.BatchNorm(6, rngs=rngs) for _ in range(3)])
        self.out = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """Logits of images (batch, 12, 12, 3)."""
        x = nnx.relu(self.norms[0](self.stem(x)))
        x = nnx.relu(x + self.norms[2](self.b(nnx.relu(self.norms[1](self.a(x))))))
        return self.out(x.mean((1, 2)))


class MobileNet(nnx.Module):
    """Depthwise and pointwise convolutions, silu."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.deep = nnx.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
        self.point, self.out = nnx.Conv(6, 8, (1, 1), rngs=rngs), nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """Logits of images (batch, 12, 12, 3)."""
        x = nnx.silu(self.point(nnx.silu(self.deep(nnx.silu(self.stem(x))))))
        return self.out(x.mean((1, 2)))


class Inception(nnx.Module):
    """Branches side by side, and one pooled."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem, self.a = nnx.Conv(3, 6, (3, 3), rngs=rngs), nnx.Conv(6, 3, (1, 1), rngs=rngs)
        self.b, self.out = nnx.Conv(6, 4, (1, 5), rngs=rngs), nnx.Linear(7, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """Logits of images (batch, 12, 12, 3)."""
        x = nnx.avg_pool(nnx.relu(self.stem(x)), window_shape=(2, 2), strides=(2, 2))
        return self.out(jnp.concatenate([nnx.relu(self.a(x)), nnx.relu(self.b(x))], -1).mean((1, 2)))


class Sound(nnx.Module):
    """One dimension; signals are (batch, length, channels)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(2, 6, (5,), strides=2, padding="VALID", rngs=rngs)
        self.second = nnx.Conv(6, 8, (3,), kernel_dilation=2, rngs=rngs)
        self.out = nnx.Linear(112, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        """Logits of signals (batch, 32, 2)."""
        x = nnx.elu(self.second(nnx.relu(self.first(x))))
        return self.out(x.reshape(x.shape[0], 112))


ZOO: dict[str, tuple[Callable[[nnx.Rngs], nnx.Module], tuple[int, ...]]] = {
    "vgg": (Vgg, IMAGE),
    "resnet": (ResNet, IMAGE),
    "mobilenet": (MobileNet, IMAGE),
    "inception": (Inception, IMAGE),
    "sound": (Sound, (32, 2)),
}


def network(name: str) -> Any:
    """The network, in evaluation mode, its normalisations' values drawn."""
    made: Any = ZOO[name][0](nnx.Rngs(0))
    key = jax.random.key(0)
    for _, module in nnx.iter_graph(made):
        if isinstance(module, nnx.BatchNorm):
            for value, low, high in (
                (module.scale, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.mean, -0.5, 0.5),
                (module.var, 0.5, 1.5),
            ):
                key, own = jax.random.split(key)
                value.value = jax.random.uniform(own, value.value.shape, minval=low, maxval=high)
    made.eval()
    return made


def export(name: str, folder: Path) -> None:
    """Write NAME-jax2onnx.onnx, the batch symbolic."""
    model = to_onnx(network(name), [("B", *ZOO[name][1])], input_names=["pixels"], output_names=["scores"])
    onnx.save(model, folder / f"{name}-jax2onnx.onnx")


def main() -> None:
    """Export all, or those that are named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or ZOO:
        export(name, folder)


if __name__ == "__main__":
    main()
