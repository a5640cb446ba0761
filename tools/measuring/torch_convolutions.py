"""Small networks of convolutions in PyTorch, one residual, one plain: trained, and pruned by Torch-Pruning."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from measuring.models import Array
from measuring.torch_classifier import fit
from measuring.torch_training import export

functional = torch.nn.functional
RATE, BATCH = 0.004, 64
GRADIENT_BATCHES = 16  # that Taylor importances are sums over
HALVINGS = 12  # of the pruning ratio, until the size is met


class Block(torch.nn.Module):
    """Two convolutions of 3 × 3 with batch normalisation, beside a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = torch.nn.BatchNorm2d(channels)
        self.second = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = torch.nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        """(batch, channels, height, width) to the same."""
        inside = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.second_norm(self.second(inside)))


class Residual(torch.nn.Module):
    """A convolution in steps of 2, a block, one in steps of 2 to twice the channels, a block, the mean, ten classes."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False)
        self.stem_norm = torch.nn.BatchNorm2d(channels)
        self.early = Block(channels)
        self.down = torch.nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.late = Block(2 * channels)
        self.out = torch.nn.Linear(2 * channels, 10)

    def forward(self, x: Any) -> Any:
        """(batch, 1, 28, 28) to logits (batch, 10)."""
        x = self.early(functional.relu(self.stem_norm(self.stem(x))))
        x = self.late(functional.relu(self.down(x)))
        return self.out(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Plain(torch.nn.Module):
    """Two convolutions of 3 × 3 in steps of 2, and a dense layer to ten classes."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.second = torch.nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.out = torch.nn.Linear(2 * channels * 49, 10)

    def forward(self, x: Any) -> Any:
        """(batch, 1, 28, 28) to logits (batch, 10)."""
        x = functional.relu(self.second(functional.relu(self.first(x))))
        return self.out(x.flatten(1))


# And the learning rates that they are trained with.
KINDS: dict[str, tuple[Callable[[], Any], float]] = {"residual": (Residual, RATE), "plain": (Plain, RATE / 2)}


def pixels_of(images: Array) -> Any:
    """(rows, height, width) of bytes as (rows, 1, height, width) from 0 to 1."""
    return torch.tensor(images).float()[:, None] / 255


def train_network(kind: str, images: Array, labels: Array, epochs: int, seed: int, cores: int, out: Path) -> None:
    """Train one of ``KINDS``, and write it to ``out`` as ONNX and beside it, .pt, as PyTorch has it."""
    torch.manual_seed(seed)
    torch.set_num_threads(cores)
    make, rate = KINDS[kind]
    pixels, network = pixels_of(images), make()
    trained(network, pixels, torch.tensor(labels), epochs, seed, rate)
    torch.save(network.state_dict(), out.with_suffix(".pt"))
    export(network, pixels[:2], out, "images", ("logits",))


def trained(network: Any, pixels: Any, labels: Any, epochs: int, seed: int, rate: float = RATE) -> Any:
    """The network after so many epochs of AdamW with one cycle of the learning rate."""
    return fit(network, [pixels], labels, functional.cross_entropy, epochs=epochs, seed=seed, rate=rate, batch=BATCH)


def prune_groups(
    kind: str, given: Path, images: Array, labels: Array, most: int, epochs: int, seed: int, cores: int, out: Path
) -> dict[str, Any]:
    """Prune the network beside ``given`` (.pt) by Torch-Pruning to ``most`` parameters, train it, and write it.

    Channels of the whole network are ranked together, with those that depend on them, by weights' norms and by first
    order Taylor terms; what is right more often without training, on the rows it was ranked by, is trained.
    Parameters are counted as in the exported file, normalisation folded in.

    Returns:
        which importance that was.
    """
    import torch_pruning

    torch.manual_seed(seed)
    torch.set_num_threads(cores)
    make, rate = KINDS[kind]
    network = make()
    network.load_state_dict(torch.load(given.with_suffix(".pt"), weights_only=True))
    pixels, targets = pixels_of(images), torch.tensor(labels)
    some = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[: GRADIENT_BATCHES * BATCH]

    def pruned(importance: Callable[[], Any], ratio: float) -> Any:
        smaller = copy.deepcopy(network).eval()
        pruner = torch_pruning.pruner.BasePruner(
            smaller,
            pixels[:2],
            importance=importance(),
            pruning_ratio=ratio,
            global_pruning=True,
            ignored_layers=[smaller.out],
        )
        for rows in some.split(BATCH):
            functional.cross_entropy(smaller(pixels[rows]), targets[rows]).backward()
        pruner.step()
        smaller.zero_grad()
        return smaller

    found = {}
    for name, importance in (
        ("norms", lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2)),
        ("Taylor terms", torch_pruning.importance.GroupTaylorImportance),
    ):
        low, high = 0.0, 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(HALVINGS):
                ratio = (low + high) / 2
                smaller = pruned(importance, ratio)
                if folded_count(smaller) <= most:
                    high, found[name] = ratio, smaller
                else:
                    low = ratio
    best = max(found, key=lambda name: share_right(found[name], pixels[some], targets[some]))
    network = trained(found[best], pixels, targets, epochs, seed, rate)
    export(network, pixels[:2], out, "images", ("logits",))
    return {"importance": best}


def folded_count(network: Any) -> int:
    """Parameters of the network when its normalisations are folded: weights, and a bias for each unit."""
    layers = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d | torch.nn.Linear)]
    return sum(each.weight.numel() + each.weight.shape[0] for each in layers)


def share_right(network: Any, pixels: Any, targets: Any) -> float:
    """Share of the rows that are told right."""
    with torch.no_grad():
        return float((network.eval()(pixels).argmax(dim=1) == targets).float().mean())
