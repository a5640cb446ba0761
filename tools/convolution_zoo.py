"""Export small convolutional networks by both of PyTorch's exporters, for tests of reading and writing.

    python tools/convolution_zoo.py tests/convolutions

Weights are random, statistics of normalisations too; each file is of a kind that people have, in a few kilobytes.
Needs PyTorch 2.13 and onnxscript. What the newer exporter notes of its own source code is left out of the files: it
takes more bytes than the weights.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

OPSET = 17  # of the older exporter; the newer one writes 20
NEW_OPSET = 20


def conv(n_in: int, n_out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the size, unless it steps."""
    return nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, **options)


class Plus(nn.Module):
    """φ(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut or nn.Identity(), after or nn.Identity()

    def forward(self, x: Any) -> Any:
        """The sum."""
        return self.after(self.body(x) + self.shortcut(x))


class Beside(nn.Module):
    """Branches side by side along the channels; with ``keep``, the input before them."""

    def __init__(self, *branches: nn.Module, keep: bool = False) -> None:
        super().__init__()
        self.branches, self.keep = nn.ModuleList(branches), keep

    def forward(self, x: Any) -> Any:
        """All branches of one input."""
        return torch.cat([x] * self.keep + [branch(x) for branch in self.branches], 1)


class Excite(nn.Module):
    """Channels weighed by what 1 × 1 convolutions make of their means."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        layers = nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1), nn.Hardsigmoid()
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), *layers)

    def forward(self, x: Any) -> Any:
        """The weighed channels."""
        return x * self.weigh(x)


class Shuffle(nn.Module):
    """Channels of groups, mixed."""

    def forward(self, x: Any) -> Any:
        """The channels in another order."""
        batch, channels, height, width = x.shape
        return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


class ChannelsLast(nn.Module):
    """A module that works on the last axis, between two that work on axis 1."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        """As ConvNeXt does it."""
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """One level down and up again, with what was before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(conv(1, 6), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), conv(6, 8), nn.ReLU(), conv(8, 6), nn.ReLU())
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.out = nn.Sequential(conv(12, 6), nn.ReLU(), nn.Conv2d(6, 2, 1))

    def forward(self, x: Any) -> Any:
        """A map of x's size."""
        first = self.down(x)
        return self.out(torch.cat([first, self.up(self.deep(first))], 1))


def head(channels: int, classes: int = 5) -> list[nn.Module]:
    """Means of the channels, and a dense layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def vgg() -> nn.Module:
    """Convolutions two by two with pooling, and a dense head."""
    first = conv(3, 6), nn.ReLU(), conv(6, 6), nn.ReLU(), nn.MaxPool2d(2)
    second = conv(6, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(72, 10), nn.ReLU(), nn.Linear(10, 5))


def resnet() -> nn.Module:
    """A block that keeps the size and one that halves it, normalised."""

    def body(n_in: int, n_out: int, stride: int) -> nn.Module:
        first = conv(n_in, n_out, stride=stride, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
        return nn.Sequential(*first, conv(n_out, n_out, bias=False), nn.BatchNorm2d(n_out))

    shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
    stem = conv(3, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU()
    return nn.Sequential(
        *stem, Plus(body(6, 6, 1), after=nn.ReLU()), Plus(body(6, 8, 2), shortcut, nn.ReLU()), *head(8)
    )


def resnet_before() -> nn.Module:
    """Normalisation and activation before each convolution."""
    body = nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6)
    return nn.Sequential(conv(3, 6), Plus(nn.Sequential(*body)), nn.BatchNorm2d(6), nn.ReLU(), *head(6))


def mobilenet() -> nn.Module:
    """An inverted bottleneck: pointwise, depthwise, pointwise, with ReLU6."""
    wide = nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
    deep = conv(12, 12, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
    body = nn.Sequential(*wide, *deep, nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6))
    return nn.Sequential(conv(3, 6, stride=2), nn.BatchNorm2d(6), nn.ReLU6(), Plus(body), *head(6))


def mobilenet_excited() -> nn.Module:
    """Depthwise convolutions, Hardswish, and channels weighed by their means."""
    body = nn.Conv2d(6, 12, 1), nn.Hardswish(), conv(12, 12, 5, groups=12), Excite(12, 4), nn.Hardswish()
    return nn.Sequential(conv(3, 6), nn.Hardswish(), Plus(nn.Sequential(*body, nn.Conv2d(12, 6, 1))), *head(6))


def efficientnet() -> nn.Module:
    """SiLU, which exporters write in parts."""
    return nn.Sequential(conv(3, 6, bias=False), nn.BatchNorm2d(6), nn.SiLU(), conv(6, 8), nn.SiLU(), *head(8))


def all_convolutions() -> nn.Module:
    """Steps in place of pooling, and classes by the means of maps."""
    layers = conv(3, 6), nn.LeakyReLU(0.1), conv(6, 8, stride=2), nn.LeakyReLU(0.1), nn.Conv2d(8, 5, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def sound() -> nn.Module:
    """One dimension: steps, dilation, slopes by channel, overlapping pooling."""
    first = nn.Conv1d(2, 6, 5, stride=2), nn.PReLU(6), nn.Conv1d(6, 8, 3, dilation=2, padding=2), nn.PReLU(8)
    return nn.Sequential(*first, nn.MaxPool1d(3, 2), nn.Conv1d(8, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3))


def volume() -> nn.Module:
    """Three dimensions."""
    first = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 6, (1, 3, 3), (1, 2, 2)), nn.ELU()
    return nn.Sequential(*first, nn.AvgPool3d(2), nn.Flatten(), nn.Linear(12, 3))


def densenet() -> nn.Module:
    """Each convolution reads all that came before."""
    blocks = [Beside(nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), conv(n, 4)), keep=True) for n in (6, 10)]
    return nn.Sequential(conv(3, 6), *blocks, nn.Conv2d(14, 7, 1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(252, 5))


def inception() -> nn.Module:
    """Branches of several kernels side by side."""
    wide = nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), conv(4, 4, 5), nn.ReLU())
    pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(6, 3, 1), nn.ReLU())
    branches = nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU()), wide, pooled
    return nn.Sequential(conv(3, 6), nn.ReLU(), Beside(*branches), *head(10))


def shufflenet() -> nn.Module:
    """Grouped convolutions and their channels shuffled."""
    body = conv(3, 8), nn.ReLU(), nn.Conv2d(8, 8, 1, groups=2), nn.ReLU(), Shuffle(), conv(8, 8, groups=4), nn.ReLU()
    return nn.Sequential(*body, *head(8))


def convnext() -> nn.Module:
    """A depthwise 7 × 7, a normalisation over channels and dense layers on them, channels last."""
    dense = ChannelsLast(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)))
    return nn.Sequential(nn.Conv2d(3, 6, 2, 2), Plus(nn.Sequential(conv(6, 6, 7, groups=6), dense)), *head(6))


def group_normalised() -> nn.Module:
    """Groups of channels normalised together."""
    return nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), *head(6))


def autoencoder() -> nn.Module:
    """Down by steps, and up again by a transposed convolution."""
    up = nn.ConvTranspose2d(8, 6, 2, stride=2)
    return nn.Sequential(conv(1, 6), nn.ReLU(), conv(6, 8, stride=2), nn.ReLU(), up, nn.ReLU(), conv(6, 1))


def padded() -> nn.Module:
    """Borders that are mirrored, or padded on two sides only, before the convolution."""
    first = nn.ReflectionPad2d(1), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 8, 2)
    return nn.Sequential(*first, nn.SELU(), *head(8))


def adaptive() -> nn.Module:
    """Means over windows of three and four, since 5 does not divide 12."""
    first = conv(3, 6), nn.ReLU(), conv(6, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(5)
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(100, 5))


IMAGE = (3, 12, 12)
ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg": (vgg, IMAGE),
    "resnet": (resnet, IMAGE),
    "resnet-before": (resnet_before, IMAGE),
    "mobilenet": (mobilenet, IMAGE),
    "mobilenet-excited": (mobilenet_excited, IMAGE),
    "efficientnet": (efficientnet, IMAGE),
    "all-convolutions": (all_convolutions, IMAGE),
    "sound": (sound, (2, 32)),
    "volume": (volume, (1, 5, 8, 8)),
    "densenet": (densenet, IMAGE),
    "inception": (inception, IMAGE),
    "shufflenet": (shufflenet, IMAGE),
    "convnext": (convnext, IMAGE),
    "group-normalised": (group_normalised, IMAGE),
    "autoencoder": (autoencoder, (1, 12, 12)),
    "unet": (UNet, (1, 12, 12)),
    "padded": (padded, IMAGE),
    "adaptive": (adaptive, IMAGE),
}
NEW_ONLY = ("adaptive",)  # which the older exporter refuses


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network and rows that it takes."""
    torch.manual_seed(0)
    make, shape = ZOO[name]
    made = make().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return made, torch.randn(2, *shape)


def export(name: str, folder: Path) -> None:
    """Write NAME-torch-legacy.onnx, where that exporter can, and NAME-torch-dynamo.onnx."""
    made, x = network(name)
    old, new = (folder / f"{name}-torch-{exporter}.onnx" for exporter in ("legacy", "dynamo"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        names = {"input_names": ["pixels"], "output_names": ["scores"]}
        if name not in NEW_ONLY:
            torch.onnx.export(
                made, (x,), old, dynamo=False, opset_version=OPSET, dynamic_axes={"pixels": {0: "rows"}}, **names
            )
        torch.onnx.export(
            made,
            (x,),
            new,
            dynamo=True,
            opset_version=NEW_OPSET,
            dynamic_shapes=({0: torch.export.Dim("rows", min=1, max=4096)},),
            external_data=False,
            verbose=False,
            **names,
        )
    model = onnx.load(new)
    for holder in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    onnx.save(model, new)


def main() -> None:
    """Export all, or those that are named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or ZOO:
        export(name, folder)


if __name__ == "__main__":
    main()
