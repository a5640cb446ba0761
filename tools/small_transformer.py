"""Export a small transformer of PyTorch by both of its exporters: a digit's rows are its tokens.

    python tools/small_transformer.py tests/transformers

One block of attention of two heads, LayerNormalization, a perceptron with Gelu, residual sums, a mean over the tokens
and a head of ten classes; weights as PyTorch draws them, from a fixed seed. Needs PyTorch 2.13 and onnxscript.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

TOKENS, FEATURES, WIDTH, HEADS, INNER, CLASSES = 8, 8, 16, 2, 32, 10


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V for each head, and a layer that joins the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.joined = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        # Without a bias, as in Whisper: what it adds to a row of scores is the same everywhere, which Softmax takes out
        # again. Its gradient is nothing but rounding, of which AdamW makes steps of full size.
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Any) -> Any:
        """From (rows, tokens, width) to the same shape."""
        q, k, v = (each(x).reshape(-1, TOKENS, HEADS, WIDTH // HEADS) for each in (self.query, self.key, self.value))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        weights = torch.softmax(q @ k.transpose(2, 3) * (WIDTH // HEADS) ** -0.5, -1)
        return self.joined((weights @ v).transpose(1, 2).reshape(-1, TOKENS, WIDTH))


class Transformer(nn.Module):
    """One block, normalised before each part, behind an embedding of the rows and of their places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.places = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.1)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.inner = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, pixels: Any) -> Any:
        """From (rows, 8, 8) to probabilities."""
        x = self.embed(pixels) + self.places
        x = x + self.attention(self.first(x))
        x = x + self.inner(self.second(x))
        return torch.softmax(self.head(x.mean(1)), -1)


def export(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net, x = Transformer().eval(), torch.randn(3, TOKENS, FEATURES)
    names = {"input_names": ["pixels"], "output_names": ["probabilities"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (x,),
            folder / "torch-legacy.onnx",
            dynamo=False,
            opset_version=17,
            dynamic_axes={"pixels": {0: "batch"}, "probabilities": {0: "batch"}},
            **names,
        )
        shapes = {"pixels": {0: torch.export.Dim("batch")}}
        torch.onnx.export(
            net, (x,), folder / "torch-dynamo.onnx", dynamo=True, dynamic_shapes=shapes, external_data=False, **names
        )
    model = onnx.load(folder / "torch-dynamo.onnx")
    for node in model.graph.node:  # the exporter's notes of its source code
        del node.metadata_props[:]
    onnx.save(model, folder / "torch-dynamo.onnx")


if __name__ == "__main__":
    export(Path(sys.argv[1]))
