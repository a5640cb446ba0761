"""Export networks whose layers share weights by both of PyTorch's exporters, and what PyTorch says of their gradients.

    python tools/shared_weights.py tests/shared_weights

Weights are random. Beside each file an .npz has rows, targets, the outputs and the gradients of the mean squared error,
in float64, by the parameters' names. Needs PyTorch 2.13 and onnxscript.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import Module

ROWS, TARGETS = 12, 3
OPSET, NEW_OPSET = 17, 20


class Towers(Module):  # type: ignore[misc]
    """Two inputs of 8 through the same 8-12-6; what the two give is multiplied, subtracted and concatenated; 3."""

    shapes = ((8,), (8,))

    def __init__(self, joint: str) -> None:
        super().__init__()
        self.joint = joint
        self.tower = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6))
        self.head = nn.Linear(12 if joint == "concatenated" else 6, TARGETS)

    def forward(self, a: Any, b: Any) -> Any:
        """Scores."""
        a, b = torch.tanh(self.tower(a)), torch.tanh(self.tower(b))
        joined = {"multiplied": a * b, "subtracted": torch.abs(a - b), "concatenated": torch.cat([a, b], 1)}
        return self.head(joined[self.joint])


class Twice(Module):  # type: ignore[misc]
    """8-10, a layer 10-10 that is applied three times, 3."""

    shapes = ((8,),)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(8, 10), nn.Linear(10, 10), nn.Linear(10, TARGETS)

    def forward(self, x: Any) -> Any:
        """Scores."""
        x = torch.tanh(self.first(x))
        for _ in range(3):
            x = torch.tanh(self.again(x))
        return self.head(x)


class Images(Module):  # type: ignore[misc]
    """Two images of 2 × 6 × 6 through the same convolutions 2-5-4, their means over space subtracted; 3."""

    shapes = ((2, 6, 6), (2, 6, 6))

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(4, TARGETS)

    def forward(self, a: Any, b: Any) -> Any:
        """Scores."""
        return self.head(self.tower(a).mean((2, 3)) - self.tower(b).mean((2, 3)))


class Words(Module):  # type: ignore[misc]
    """Two words of a table of 9 × 5, beside each other, 10-7-3."""

    shapes = ((), ())

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 5)
        self.body = nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, TARGETS))

    def forward(self, a: Any, b: Any) -> Any:
        """Scores."""
        return self.body(torch.cat([self.table(a), self.table(b)], 1))


NETWORKS: dict[str, Any] = {
    "towers-multiplied": lambda: Towers("multiplied"),
    "towers-subtracted": lambda: Towers("subtracted"),
    "towers-concatenated": lambda: Towers("concatenated"),
    "twice": Twice,
    "images": Images,
    "words": Words,
}


def export(name: str, folder: Path) -> None:
    """Write NAME-legacy.onnx and NAME-dynamo.onnx, and NAME.npz."""
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    integers = isinstance(net, Words)
    rows = [torch.randint(9, (ROWS,)) if integers else torch.randn(ROWS, *shape) for shape in net.shapes]
    names = ["a", "b"][: len(rows)]
    old, new = (folder / f"{name}-{exporter}.onnx" for exporter in ("legacy", "dynamo"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        given: dict[str, Any] = {"input_names": names, "output_names": ["scores"]}
        axes = {each: {0: "rows"} for each in (*names, "scores")}
        torch.onnx.export(net, tuple(rows), old, dynamo=False, opset_version=OPSET, dynamic_axes=axes, **given)
        batch = torch.export.Dim("rows", min=1, max=4096)
        options: dict[str, Any] = {"opset_version": NEW_OPSET, "external_data": False, "verbose": False}
        torch.onnx.export(
            net, tuple(rows), new, dynamo=True, dynamic_shapes=tuple({0: batch} for _ in rows), **options, **given
        )
    model = onnx.load(new)
    for holder in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    onnx.save(model, new)
    wide = net.double()
    values = [each if integers else each.double() for each in rows]
    targets = torch.randn(ROWS, TARGETS, dtype=torch.float64)
    scores = wide(*values)
    nn.functional.mse_loss(scores, targets).backward()
    found = {f"gradient/{key}": each.grad.numpy() for key, each in wide.named_parameters()}
    held = dict(zip(names, (each.numpy() for each in values), strict=True))
    np.savez(folder / f"{name}.npz", **held, targets=targets.numpy(), scores=scores.detach().numpy(), **found)


def main() -> None:
    """Export all."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        export(name, folder)


if __name__ == "__main__":
    main()
