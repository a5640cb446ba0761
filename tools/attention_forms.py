"""Export forms of attention by both of PyTorch's exporters, and what PyTorch says of their gradients.

    python tools/attention_forms.py tests/attention [NAME ...]

Masks that are computed, attention to another input's steps, blocks that are written by hand. Weights are random. Beside
the files of a form, NAME-EXPORTER.onnx, an .npz has rows, targets, the outputs, and the parameters and gradients of the
mean squared error by PyTorch's names, in float64. Needs PyTorch 2.13 and onnxscript.
"""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import Module, functional

ROWS, STEPS, OTHERS, TARGETS = 6, 5, 4, 3
INPUTS, UNITS, HEADS, INNER, LONGEST = 3, 8, 2, 12, 9
EACH = UNITS // HEADS
EXPORTS = {"legacy": 17, "dynamo": 18, "dynamo23": 23}  # from opset 23 on, Attention is one node
NEW = ("encoder", "plain", "decoder")  # which have it


def causal(steps: int) -> Any:
    """−∞ for the steps behind each, 0 elsewhere."""
    return nn.Transformer.generate_square_subsequent_mask(steps)


class Form(Module):  # type: ignore[misc]
    """3-8, the form itself, which each class below says, the mean over the steps, 8-3."""

    inputs: tuple[str, ...] = ("x",)

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.head = nn.Linear(INPUTS, UNITS), nn.Linear(UNITS, TARGETS)
        self.build()
        with torch.no_grad():  # biases of 0 and scales of 1 alone would be one constant for several nodes
            for each in self.parameters():
                each += 0.1 * torch.randn_like(each)

    def build(self) -> None:
        """Add the form's own modules."""

    def forward(self, x: Any, other: Any = None) -> Any:
        """Scores (rows, 3) of rows (rows, steps, 3), and of the other input where the form has one."""
        return self.head(self.attend(self.entry(x), other).mean(1))


class Encoder(Form):
    """nn.TransformerEncoder with a causal mask."""

    def build(self) -> None:
        """One layer, normalised first."""
        layer = nn.TransformerEncoderLayer(UNITS, HEADS, INNER, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def attend(self, h: Any, _: Any) -> Any:
        """The encoder."""
        return self.body(h, mask=causal(h.shape[1]), is_causal=True)


class StepsFirst(Form):
    """The same with the steps in front, normalised last."""

    def build(self) -> None:
        """One layer."""
        layer = nn.TransformerEncoderLayer(UNITS, HEADS, INNER, 0.0)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def attend(self, h: Any, _: Any) -> Any:
        """The encoder."""
        return self.body(h.transpose(0, 1), mask=causal(h.shape[1]), is_causal=True).transpose(0, 1)


class Plain(Form):
    """scaled_dot_product_attention that is causal, between four layers."""

    def build(self) -> None:
        """Queries, keys, values and what follows."""
        self.q, self.k, self.v, self.o = (nn.Linear(UNITS, UNITS) for _ in range(4))

    def attend(self, h: Any, _: Any) -> Any:
        """The attention and its residual."""
        rows, steps, _ = h.shape
        q, k, v = (each(h).view(rows, steps, HEADS, EACH).transpose(1, 2) for each in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return h + self.o(mixed.transpose(1, 2).reshape(rows, steps, UNITS))


class Block(Form):
    """A block as GPT has it, written by hand: places, one layer for queries, keys and values, a mask of a buffer."""

    def build(self) -> None:
        """Normalisations, attention, and 8-12-8."""
        self.places = nn.Embedding(LONGEST, UNITS)
        self.ln1, self.ln2, self.ln3 = (nn.LayerNorm(UNITS) for _ in range(3))
        self.qkv, self.proj = nn.Linear(UNITS, 3 * UNITS), nn.Linear(UNITS, UNITS)
        self.up, self.down = nn.Linear(UNITS, INNER), nn.Linear(INNER, UNITS)
        self.register_buffer("seen", torch.tril(torch.ones(LONGEST, LONGEST)).view(1, 1, LONGEST, LONGEST))

    def attend(self, h: Any, other: Any) -> Any:
        """The block."""
        h = h + self.places(torch.arange(h.shape[1], device=h.device))
        rows, steps, _ = h.shape
        q, k, v = self.qkv(self.ln1(h)).split(UNITS, dim=2)
        q, k, v = (each.view(rows, steps, HEADS, EACH).transpose(1, 2) for each in (q, k, v))
        mixed = functional.softmax(self.masked(q @ k.transpose(-2, -1), other), dim=-1) @ v
        h = h + self.proj(mixed.transpose(1, 2).contiguous().view(rows, steps, UNITS))
        return self.ln3(h + self.down(functional.gelu(self.up(self.ln2(h)))))

    def masked(self, scores: Any, _: Any) -> Any:
        """What is behind is filled with −∞."""
        steps = scores.shape[-1]
        return (scores * (1.0 / math.sqrt(EACH))).masked_fill(self.seen[:, :, :steps, :steps] == 0, float("-inf"))


class Chosen(Block):
    """The same with torch.where and the lowest number."""

    def masked(self, scores: Any, _: Any) -> Any:
        """What is behind becomes the lowest number there is."""
        scores = scores / torch.full([], EACH**0.5, dtype=scores.dtype)
        steps = scores.size(-1)
        lowest = torch.full([], torch.finfo(scores.dtype).min, dtype=scores.dtype)
        return torch.where(self.seen[:, :, :steps, :steps].to(torch.bool), scores, lowest)


class Compared(Block):
    """The same with a mask that is computed from the places, and laid out for every row."""

    def masked(self, scores: Any, _: Any) -> Any:
        """A number is added, which is the lowest there is for what is behind."""
        rows, _, steps, _ = scores.shape
        at = torch.arange(steps, device=scores.device)
        seen = (at[None, :] <= at[:, None])[None, None].expand(rows, 1, steps, steps)
        return scores * EACH**-0.5 + torch.where(seen, 0.0, torch.finfo(torch.float32).min)


class Padded(Block):
    """The same with a second input that tells which steps are none."""

    inputs = ("x", "padding")

    def masked(self, scores: Any, other: Any) -> Any:
        """What is none is filled with −∞."""
        return (scores * EACH**-0.5).masked_fill(other[:, None, None, :], float("-inf"))


class Filled(Form):
    """nn.MultiheadAttention with key_padding_mask, which gives its weights too."""

    inputs = ("x", "padding")

    def build(self) -> None:
        """The attention."""
        self.body = nn.MultiheadAttention(UNITS, HEADS, batch_first=True)

    def attend(self, h: Any, other: Any) -> Any:
        """The attention and its residual."""
        return h + self.body(h, h, h, key_padding_mask=other)[0]


class Cross(Form):
    """nn.MultiheadAttention to the steps of another input."""

    inputs = ("x", "memory")

    def build(self) -> None:
        """The attention, and a layer for the other input."""
        self.other = nn.Linear(INPUTS, UNITS)
        self.body = nn.MultiheadAttention(UNITS, HEADS, batch_first=True)

    def attend(self, h: Any, other: Any) -> Any:
        """The attention and its residual."""
        memory = self.other(other)
        return h + self.body(h, memory, memory, need_weights=False)[0]


class Decoder(Cross):
    """nn.TransformerDecoderLayer, causal."""

    def build(self) -> None:
        """The layer, and one for the other input."""
        self.other = nn.Linear(INPUTS, UNITS)
        self.body = nn.TransformerDecoderLayer(UNITS, HEADS, INNER, 0.0, batch_first=True)

    def attend(self, h: Any, other: Any) -> Any:
        """The layer."""
        return self.body(h, self.other(other), tgt_mask=causal(STEPS), tgt_is_causal=True)


class Whole(Cross):
    """nn.Transformer: an encoder and a decoder that is causal."""

    def build(self) -> None:
        """One layer each, and one for the other input."""
        self.other = nn.Linear(INPUTS, UNITS)
        self.body = nn.Transformer(UNITS, HEADS, 1, 1, INNER, 0.0, batch_first=True, norm_first=True)

    def attend(self, h: Any, other: Any) -> Any:
        """Both."""
        return self.body(self.other(other), h, tgt_mask=causal(STEPS))


FORMS: dict[str, type[Form]] = {
    "encoder": Encoder,
    "steps-first": StepsFirst,
    "plain": Plain,
    "block": Block,
    "chosen": Chosen,
    "compared": Compared,
    "padded": Padded,
    "filled": Filled,
    "cross": Cross,
    "decoder": Decoder,
    "whole": Whole,
}


def exporters(name: str) -> list[str]:
    """Which exports there are of a form: torch.export cannot follow how nn.Transformer looks for a causal mask."""
    return ["legacy"] if name == "whole" else list(EXPORTS) if name in NEW else ["legacy", "dynamo"]


def given(name: str) -> dict[str, Any]:
    """Rows for a form."""
    padding = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    for row in range(ROWS):
        padding[row, STEPS - row % 3 :] = True
    known = {"x": torch.randn(ROWS, STEPS, INPUTS), "memory": torch.randn(ROWS, OTHERS, INPUTS), "padding": padding}
    return {each: known[each] for each in FORMS[name].inputs}


def export(net: Module, rows: dict[str, Any], exporter: str, path: Path) -> None:
    """Write one file, the batch dynamic."""
    names: dict[str, Any] = {"input_names": list(rows), "output_names": ["scores"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            axes = {each: {0: "rows"} for each in (*rows, "scores")}
            options: dict[str, Any] = {"dynamo": False, "dynamic_axes": axes}
        else:
            batch = torch.export.Dim("rows", min=1, max=4096)
            shapes = tuple({0: batch} for _ in rows)
            options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False, "verbose": False}
        torch.onnx.export(net, tuple(rows.values()), path, opset_version=EXPORTS[exporter], **options, **names)
    model = onnx.load(path)
    for holder in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.save(model, path)


def make(name: str, folder: Path) -> None:
    """Write the files of a form."""
    torch.manual_seed(0)
    net = FORMS[name]().eval()
    rows = given(name)
    for exporter in exporters(name):
        export(net, rows, exporter, folder / f"{name}-{exporter}.onnx")
    wide = net.double()
    values = [each.double() if each.is_floating_point() else each for each in rows.values()]
    targets = torch.randn(ROWS, TARGETS, dtype=torch.float64)
    scores = wide(*values)
    functional.mse_loss(scores, targets).backward()
    found = {f"gradient/{key}": each.grad.numpy() for key, each in wide.named_parameters()}
    found |= {f"parameter/{key}": each.detach().numpy() for key, each in wide.named_parameters()}
    held = dict(zip(rows, (each.numpy() for each in values), strict=True))
    np.savez_compressed(
        folder / f"{name}.npz", **held, targets=targets.numpy(), scores=scores.detach().numpy(), **found
    )
    if name == "cross":  # of a causal mask in float16 the older exporter makes a file that nothing loads
        half = {key: each.half() for key, each in rows.items()}
        export(FORMS[name]().eval().half(), half, "legacy", folder / "half-legacy.onnx")


def main() -> None:
    """Export all, or those named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or FORMS:
        make(name, folder)


if __name__ == "__main__":
    main()
