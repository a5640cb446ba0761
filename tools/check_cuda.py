"""Training on CUDA beside training on the processor: the same batches, the weights afterwards, and the time of a step.

    python tools/check_cuda.py                 # where onnxruntime-gpu is installed, and a GPU
    python tools/check_cuda.py --device cpu    # the processor beside itself: differences are 0

Three untrained networks, a small and a large one and a convolutional one, are trained on random rows by each engine
that is installed, with SGD and AdamW. Printed are the largest difference of a weight, as a share of the largest weight
of its tensor, both mean losses, and how many steps the device takes while the processor takes one. The exit code is 1
where the losses differ by more than a hundredth: weights of AdamW may part, since its steps divide by the root of what
is nearly 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from onnxsurgeon import EngineError, Examples, OnnxSurgeonError, TrainingSpec, create, make_engine
from onnxsurgeon.choices import DEVICES
from onnxsurgeon.graph.create_convolutional import create_convolutional
from onnxsurgeon.graph.network import Network
from onnxsurgeon.runtime import provider
from onnxsurgeon.training.engine import TrainedNetwork

NETWORKS = {
    "small": "64-32-10",
    "large": "784-300-100-100-10",
    "convolutional": "28x28x1-c16-p-c32-p-10",
}
ENGINES, OPTIMIZERS = ("loop", "artifacts"), ("sgd", "adamw")
ROWS, CLASSES, BATCH = 2_048, 10, 32
MOST_APART = 0.01  # of a loss


class Row(NamedTuple):
    """What came of one network, engine and optimizer."""

    network: str
    engine: str
    optimizer: str
    weights: float
    losses: tuple[float, float]
    ratio: float

    @property
    def is_right(self) -> bool:
        """Whether the losses are the same but for rounding."""
        return abs(self.losses[0] - self.losses[1]) <= MOST_APART * abs(self.losses[0])


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="beside the processor")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=256, help="of each training")
    given = parser.parse_args(arguments)
    if given.steps < 1:
        parser.error("--steps: expected at least 1")
    try:
        provider(given.device)
    except EngineError as error:
        print(f"check_cuda: {error}", file=sys.stderr)
        return 2
    wrong = 0
    print(
        "| network | engine | optimizer | weights apart | loss on the processor | on the device | steps in that time |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name in given.networks:
        for engine in ENGINES:
            for optimizer in OPTIMIZERS:
                try:
                    row = compare(name, engine, optimizer, given.device, given.steps)
                except OnnxSurgeonError as error:
                    why = "not installed" if error.kind in ("no-package", "no-training-build") else str(error)
                    print(f"| {name} | {engine} | {optimizer} | {why} | | | |")
                    continue
                wrong += not row.is_right
                before, after = row.losses
                print(
                    f"| {name} | {engine} | {optimizer} | {row.weights:.0e} | {before:.5f} | {after:.5f} | "
                    f"{row.ratio:.2f} |"
                )
    return min(wrong, 1)


def compare(name: str, engine: str, optimizer: str, device: str, steps: int) -> Row:
    """Train a network on the processor and on the device.

    Raises:
        EngineError: the engine or the device is not there, or the engine lacks the optimizer.
    """
    network, examples = task_of(NETWORKS[name])
    rate = 0.05 if optimizer == "sgd" else 0.001
    spec = TrainingSpec(learning_rate=rate, optimizer=optimizer, report_loss=True)
    batches = np.random.default_rng(1).integers(0, ROWS, (steps, BATCH))
    found: list[TrainedNetwork] = []
    for each in ("cpu", device):
        made = make_engine(engine, each)
        made.train(network, examples, [batches[:1]], spec)  # compiles
        found.append(made.train(network, examples, [batches], spec))
    ours, theirs = found
    apart = max(
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))
        for (_, a), (_, b) in zip(ours.network.parameters(), theirs.network.parameters(), strict=True)
    )
    losses = float(ours.mean_loss or 0), float(theirs.mean_loss or 0)
    return Row(name, engine, optimizer, apart, losses, ours.seconds / max(theirs.seconds, 1e-9))


def task_of(topology: str) -> tuple[Network, Examples]:
    """An untrained network, and random rows and classes for it."""
    if topology[0].isdigit() and "x" in topology:
        network = create_convolutional(topology)
    else:
        network = create(tuple(map(int, topology.split("-"))))
    ((_, shape),) = network.frame.trunk.features.items()
    rng = np.random.default_rng(0)
    rows = rng.random((ROWS, *(int(size or 0) for size in shape)), np.float32)
    return network, Examples.classification(rows, rng.integers(0, CLASSES, ROWS), CLASSES)


if __name__ == "__main__":
    sys.exit(main())
