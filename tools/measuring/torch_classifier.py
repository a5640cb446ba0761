"""Networks that PyTorch trains for the measuring tools to make smaller, each in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from measuring.models import Array
from measuring.torch_training import export

functional = torch.nn.functional


def fit(
    network: Any,
    inputs: Sequence[Any],
    targets: Any,
    loss: Callable[[Any, Any], Any],
    *,
    epochs: int,
    seed: int,
    rate: float = 0.001,
    batch: int = 128,
) -> Any:
    """Train by AdamW and one cycle of the learning rate; ``inputs`` are what the network takes, (rows, …) each."""
    optimizer = torch.optim.AdamW(network.parameters(), rate, fused=True)
    order = torch.Generator().manual_seed(seed)
    count = len(inputs[0])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-count // batch))
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=order).split(batch):
            value = loss(network(*(each[rows] for each in inputs)), targets[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def perceptron(sizes: Sequence[int], activation: Callable[[], Any] = torch.nn.ReLU) -> Any:
    """Linear layers with activations between them."""
    layers: list[Any] = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), activation()]
    return torch.nn.Sequential(*layers[:-1])


def train_classifier(
    sizes: Sequence[int], images: Array, labels: Array, epochs: int, seed: int, cores: int, out: Path
) -> None:
    """Train a perceptron that flattens images (rows, height, width) of bytes, and write it; it ends in logits."""
    torch.manual_seed(seed)
    torch.set_num_threads(cores)
    pixels = torch.tensor(images).float() / 255
    network = torch.nn.Sequential(torch.nn.Flatten(), perceptron(sizes))
    fit(network, [pixels], torch.tensor(labels), functional.cross_entropy, epochs=epochs, seed=seed)
    export(network, pixels[:2], out, "images", ("logits",))
