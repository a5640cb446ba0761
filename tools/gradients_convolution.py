"""Gradients of convolutional networks beside PyTorch's: one step in float64 and a hundred in float32, layer by layer.

    python tools/gradients_convolution.py ["name of a row" ...]

Needs torch and an ONNX Runtime. Each network is made and exported by PyTorch, read from the
file, and trained by the loop engine's graph: in float64 by onnx.reference, since ONNX Runtime has no convolution of
float64; in float32 by ONNX Runtime. Both see the same batches. Printed are the largest difference of a gradient, as a
share of the largest gradient, and the losses behind the hundredth step. The exit code is 1 where a gradient differs by
more than 1e-6 or a loss by more than 1e-3.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from measuring.reference import evaluate  # noqa: E402
from torch import nn  # noqa: E402

from onnxsurgeon import Examples, TrainingSpec, load, make_engine  # noqa: E402
from onnxsurgeon.graph.network import Network  # noqa: E402
from onnxsurgeon.training.forward import by_unit_arrays, from_by_unit, parameter_names  # noqa: E402
from onnxsurgeon.training.loop_graph import training_loop  # noqa: E402

CLASSES, FEW, BATCH, STEPS, RATE = 4, 5, 16, 100, 0.05
SAME_GRADIENT, SAME_LOSS = 1e-6, 1e-3


class Residual(nn.Module):  # type: ignore[misc]
    """x + f(x), f's branch a convolution with batch normalisation, and one behind the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-0.5, 0.5)
            self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return torch.relu(self.norm(torch.relu(x) + self.branch(x)))


class Excite(nn.Module):  # type: ignore[misc]
    """Each channel times a gate that goes by the means of all."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        gate = torch.relu(self.down(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.up(gate))


class Shuffle(nn.Module):  # type: ignore[misc]
    """Channels of two groups interleaved, then half of them multiplied by the others."""

    def __init__(self, channels: int, *space: int) -> None:
        super().__init__()
        self.half, self.space = channels // 2, space

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        mixed = x.reshape(-1, 2, self.half, *self.space).transpose(1, 2).reshape(-1, 2 * self.half, *self.space)
        return mixed[:, : self.half] * torch.tanh(mixed[:, self.half :])


class Branches(nn.Module):  # type: ignore[misc]
    """Two convolutions of one tensor, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 4, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run it."""
        return torch.relu(torch.cat([self.a(x), self.b(x)], 1))


def networks() -> dict[str, tuple[tuple[int, ...], list[nn.Module]]]:
    """Name → input (channels, space…), and the modules before the dense layer."""
    image = (3, 12, 11)
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]

    def behind(*modules: nn.Module) -> tuple[tuple[int, ...], list[nn.Module]]:
        return image, [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *modules]

    wide = [nn.Conv2d(3, 16, 3), nn.Tanh(), nn.Conv2d(16, 20, 3, padding=1), nn.Tanh(), nn.Conv2d(20, 6, 3)]
    return {
        "3×3": (image, first),
        "3×3, many channels": (image, wide),
        "strides, odd padding": behind(nn.Conv2d(8, 6, (3, 2), stride=(2, 3), padding=(1, 1))),
        "dilation": behind(nn.Conv2d(8, 6, 3, dilation=2, padding=2)),
        "pointwise": behind(nn.Conv2d(8, 14, 1), nn.ReLU(), nn.Conv2d(14, 5, 1, stride=2)),
        "depthwise, separable": behind(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 6, 1), nn.ReLU()),
        "depthwise, two units each": behind(nn.Conv2d(8, 16, 3, stride=2, groups=8), nn.Tanh()),
        "grouped": behind(nn.Conv2d(8, 12, 3, groups=4), nn.Tanh()),
        "one axis": (
            (3, 25),
            [nn.Conv1d(3, 8, 5, stride=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 6, 3, padding=1)],
        ),
        "three axes": ((2, 6, 7, 6), [nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 5, 2)]),
        "PReLU": (image, [nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 6, 3)]),
        "SiLU": (image, [nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 6, 3)]),
        "MaxPool, side by side": behind(nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU()),
        "MaxPool, overlapping": behind(nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 6, 3)),
        "MaxPool, ceil_mode": behind(nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(8, 6, 3)),
        "AvgPool": behind(nn.AvgPool2d(2), nn.Conv2d(8, 6, 3)),
        "AvgPool, overlapping": behind(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(8, 6, 3)),
        "AvgPool, ceil_mode": behind(nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(8, 6, 3)),
        "global mean": behind(nn.AdaptiveAvgPool2d(1)),
        "global maximum": behind(nn.AdaptiveMaxPool2d(1)),
        "padding": behind(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(8, 6, 3, stride=2)),
        "nearest": behind(nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, stride=2)),
        "bilinear": behind(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 4, 3, stride=2)),
        "InstanceNorm": behind(nn.InstanceNorm2d(8), nn.Conv2d(8, 4, 3)),
        "GroupNorm": behind(nn.GroupNorm(4, 8), nn.Conv2d(8, 4, 3)),
        "residual with BatchNorm": behind(Residual(8), nn.Conv2d(8, 4, 3)),
        "squeeze and excitation": behind(Excite(8, 3), nn.Conv2d(8, 4, 3)),
        "channel shuffle": behind(Shuffle(8, *image[1:]), nn.Conv2d(4, 6, 3)),
        "branches joined": behind(Branches(8), nn.Conv2d(7, 4, 3)),
        "depth to space": behind(nn.PixelShuffle(2), nn.Conv2d(2, 4, 3, stride=2)),
    }


def main() -> None:
    """Measure and print every network; exit 1 where one differs."""
    print("| network | gradient, float64 | loss behind 100 steps, float32 | PyTorch's |\n| --- | ---: | ---: | ---: |")
    failed = []
    for name, (features, modules) in networks().items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            difference = one_step(features, modules, Path(folder) / "model.onnx")
            ours, theirs = many_steps(features, modules, Path(folder) / "model.onnx")
        print(f"| {name} | {difference:.0e} | {ours:.5f} | {theirs:.5f} |", flush=True)
        if not (difference <= SAME_GRADIENT and abs(ours - theirs) <= SAME_LOSS):
            failed.append(name)
    if failed:
        sys.exit(f"different: {', '.join(failed)}")


def _whole(features: tuple[int, ...], modules: list[nn.Module], dtype: torch.dtype) -> nn.Module:
    """With a dense layer behind the modules; the same values at every call."""
    torch.manual_seed(1)
    for module in modules:
        for part in module.modules():
            if hasattr(part, "reset_parameters") and not isinstance(part, nn.BatchNorm2d | nn.PReLU):
                part.reset_parameters()
    body = nn.Sequential(*modules).double()
    for part in body.modules():
        if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
            part.requires_grad_(requires_grad=False)  # as here, where they are glue
    body.eval()
    width = body(torch.zeros(1, *features, dtype=torch.float64)).numel()
    return nn.Sequential(body, nn.Flatten(), nn.Linear(width, CLASSES)).to(dtype).eval()


def _rows(features: tuple[int, ...], rows: int, dtype: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, CLASSES, rows)
    patterns = rng.standard_normal((CLASSES, *features))
    return (patterns[labels] + rng.standard_normal((rows, *features))).astype(dtype), labels


def _read(model: nn.Module, x: Any, path: Path) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.from_numpy(x[:2]),),
            str(path),
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "rows"}, "y": {0: "rows"}},
        )
    return load(path)


def _by_name(network: Network) -> dict[str, Any]:
    return {name: values for segment in network.segments for name, values in segment.parameters_in_file()}


def one_step(features: tuple[int, ...], modules: list[nn.Module], path: Path) -> float:
    """The largest difference of a gradient, as a share of the largest."""
    model = _whole(features, modules, torch.float64)
    x, labels = _rows(features, FEW, np.float64)
    network, data = _read(model, x, path), Examples.classification(x, labels, CLASSES)
    names = parameter_names(network)
    feeds = {f"initial_{name}": values for name, values in zip(names, by_unit_arrays(network), strict=True)}
    feeds |= {
        "indices": np.arange(FEW)[None],
        "rates": np.array([-1 / FEW]),
        "features": data.features[0],
        "targets": data.targets[0],
        "ones": np.ones((1, FEW)),
    }
    before, after = _by_name(network), _by_name(from_by_unit(network, evaluate(training_loop(network, data), feeds)))
    nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(labels)).backward()
    gradients = {name: values.grad.numpy() for name, values in model.named_parameters() if values.grad is not None}
    largest = max(float(abs(gradient).max()) for gradient in gradients.values())
    found = 0.0
    for name, values in model.named_parameters():
        if name in gradients:
            own = _of_the_same_values(before, values.detach().numpy())
            ours = before[own] - after[own]
            ours = ours.T if ours.ndim == 2 and values.ndim == 2 else ours.reshape(values.shape)
            found = max(found, float(abs(ours - gradients[name]).max()) / largest)
    return found


def _of_the_same_values(parameters: dict[str, Any], values: Any) -> str:
    """The name that the exporter gave to a parameter."""
    for name, own in parameters.items():
        for each in (own, own.T):
            if each.size == values.size and np.array_equal(each.reshape(-1), values.reshape(-1)):
                return name
    raise AssertionError("a parameter is not in the file")


def many_steps(features: tuple[int, ...], modules: list[nn.Module], path: Path) -> tuple[float, float]:
    """Losses on the batches' rows behind a hundred steps, of the loop engine and of PyTorch."""
    model = _whole(features, modules, torch.float32)
    x, labels = _rows(features, BATCH * 10, np.float32)
    network, data = _read(model, x, path), Examples.classification(x, labels, CLASSES)
    batches = np.random.default_rng(3).integers(0, len(x), (STEPS, BATCH))
    engine = make_engine("loop")
    trained = engine.train(network, data, [batches], TrainingSpec(RATE)).network
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], RATE)
    rows, goals = torch.from_numpy(x), torch.from_numpy(labels)
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(rows[batch]), goals[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        theirs = float(nn.functional.cross_entropy(model(rows), goals))
    return float(engine.evaluate(trained, data).loss), theirs


if __name__ == "__main__":
    main()
