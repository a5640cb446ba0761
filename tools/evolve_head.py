"""Evolve the dense head of a CNN on Fashion-MNIST, its backbone frozen; time what the cache of its features saves.

python tools/evolve_head.py                       # models/exports/torch-legacy-cnn.onnx, 12 epochs
python tools/evolve_head.py model.onnx --epochs 30
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import onnx

from onnxsurgeon import (
    BatchSchedule,
    Dataset,
    Examples,
    Network,
    SurgeonSettings,
    TrainingSpec,
    evolve,
    load_dataset,
    make_engine,
    prepare,
)
from onnxsurgeon.graph.opening import open_model

MODEL = Path(__file__).resolve().parent.parent / "models" / "exports" / "torch-legacy-cnn.onnx"
BACKBONE = ("*/Conv",)  # layers that stay as they are
TIMED_EPOCHS = 3


def train(network: Network, examples: Examples, epoch: int) -> Network:
    """One epoch of the head."""
    schedule = BatchSchedule(examples.rows, 16, seed=0)
    window = schedule.window(epoch * schedule.batches_per_epoch, (epoch + 1) * schedule.batches_per_epoch)
    return make_engine("loop").train(network, examples, window, TrainingSpec(0.005)).network


def time_cache(network: Network, data: Dataset) -> None:
    """Print the seconds of a few epochs with features computed once, and with features computed in every epoch."""
    train(network, prepare(network, data, data.test), 0)  # warm up
    begun = time.perf_counter()
    examples = prepare(network, data, data.train)
    once = time.perf_counter() - begun
    trained = network
    for epoch in range(TIMED_EPOCHS):
        trained = train(trained, examples, epoch)
    with_cache = time.perf_counter() - begun
    begun, trained = time.perf_counter(), network
    for epoch in range(TIMED_EPOCHS):
        trained = train(trained, prepare(network, data, data.train), epoch)
    without = time.perf_counter() - begun
    print(f"backbone over {examples.rows:,} rows: {once:.1f} s, {examples.features[0].nbytes / 1e6:.0f} MB of features")
    print(f"{TIMED_EPOCHS} epochs: {with_cache:.1f} s with features computed once, {without:.1f} s without the cache")


def backbone(path: Path, network: Network) -> dict[str, bytes]:
    """The bytes of every initializer that belongs to no dense layer of the head."""
    own = {name for name, _ in network.parameters()}
    tensors = onnx.load(path).graph.initializer
    return {tensor.name: tensor.SerializeToString() for tensor in tensors if tensor.name not in own}


def main() -> None:
    """Time, evolve, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    network, data = open_model(arguments.model, freeze=BACKBONE).network, load_dataset("fashion-mnist")
    print(f"{arguments.model.name}: head {network.topology}, prefix of {len(network.frame.prefix)} nodes")
    time_cache(network, data)
    settings = SurgeonSettings.from_preset(
        "corrected", epochs=arguments.epochs, initial_epochs=2, epoch_step=2, learning_rate=0.01, seed=6
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        evolved = evolve(arguments.model, "fashion-mnist", settings=settings, run_dir=run, freeze=BACKBONE)
        after = backbone(evolved.run / "best.onnx", open_model(evolved.run / "best.onnx").network)
    same = after == backbone(arguments.model, network)
    print(f"evolved in {evolved.seconds:.1f} s: {network.topology} ({network.parameter_count:,} parameters)", end=" ")
    print(f"-> {evolved.network.topology} ({evolved.network.parameter_count:,})")
    print(f"test accuracy {evolved.start.accuracy:.4f} -> {evolved.test.accuracy:.4f}")
    print(f"backbone, {len(after)} tensors: {'unchanged to the byte' if same else 'CHANGED'}")


if __name__ == "__main__":
    main()
