"""Shrink a trained 784-256-128-10 on Fashion-MNIST: onnxsurgeon's surgeries beside onnxsim's structured pruning.

    python tools/shrink.py                    # three seeds, 75, 50 and 25 % of the hidden units kept
    python tools/shrink.py --seeds 0 1 --shares 0.5

Each network is trained on nine tenths of the training set; accuracies are those on the other tenth (validation) and on
the test set. All methods see the same calibration rows. Where onnxsim (0.8) is not installed, its lines are missing.

onnxsim's structured pruning ranks units by the norm of their incoming weights, or by that times the norm of their
activation (Wanda); its recovery, apply_pruning_finetune, is a ridge regression of every layer. That leaves a layer
alone both of whose sides were pruned, so it is also run one hidden layer at a time, which its interface has no option
for: the other layer's output is made an output of the model meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
import onnx

from onnxsurgeon import (
    BatchSchedule,
    Examples,
    Narrow,
    Network,
    TrainingSettings,
    create,
    from_model,
    load_dataset,
    make_engine,
    operate,
    prepare,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.surgery import Prune

SIZES = (784, 256, 128, 10)
BATCH = 32
SETTINGS = TrainingSettings(learning_rate=0.01, optimizer="momentum", schedule="cosine", weight_decay=1e-4)
HALF = 0.5


@dataclass(frozen=True)
class Data:
    """The rows that networks are trained on, chosen by, and in the end measured on; and those all methods see."""

    train: Examples
    validation: Examples
    test: Examples
    sample: np.typing.NDArray[Any]

    def feeds(self, model: onnx.ModelProto) -> list[dict[str, Any]]:
        """The sample as batches for the model's input."""
        value = model.graph.input[0]
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
        rows = self.train.stored[0].take(self.sample).astype(np.float32).reshape(-1, *shape)
        return [{value.name: rows[start : start + BATCH * 8]} for start in range(0, len(rows), BATCH * 8)]


# From a trained network and how many units of each hidden layer stay to a smaller network.
Method = Callable[[Network, tuple[int, ...], Data], Network]


def by_weights(network: Network, units: tuple[int, ...], data: Data) -> Network:
    """The paper's removal of neurons: singular value decomposition of the weights."""
    for layer, kept in enumerate(units, start=1):
        network = operate(network, Narrow(layer, kept)).network
    return network


def by_data(network: Network, units: tuple[int, ...], data: Data) -> Network:
    """Prune from the input on, each layer by the moments of the network as it then is."""
    for layer, kept in enumerate(units, start=1):
        network = operate(network, Prune(layer, kept), moments=calibrate(network, data.train, data.sample)).network
    return network


def by_onnxsim(network: Network, units: tuple[int, ...], data: Data, *, rank: str, ridge: float | None) -> Network:
    """All layers at once, as onnxsim does; without its recovery where ``ridge`` is None."""
    model = to_model(network)
    return from_model(_onnxsim(model, units[0] / network.widths[1], data, rank, ridge))


def by_onnxsim_layers(network: Network, units: tuple[int, ...], data: Data, *, rank: str, ridge: float) -> Network:
    """One hidden layer after the other: the chain of the other one is closed to it."""
    model, widths = to_model(network), network.widths
    for layer, kept in enumerate(units):
        other = network.layers[1 - layer].names.output
        model.graph.output.append(onnx.helper.make_tensor_value_info(other, onnx.TensorProto.FLOAT, None))
        model = _onnxsim(model, kept / widths[layer + 1], data, rank, ridge)
        del model.graph.output[-1]
    return from_model(model)


def _onnxsim(model: onnx.ModelProto, share: float, data: Data, rank: str, ridge: float | None) -> onnx.ModelProto:
    import onnxsim

    if rank == "l2":
        pruned = onnxsim.apply_structured_pruning(model, sparsity=1 - share)
    else:
        pruned = onnxsim.apply_structured_wanda_pruning(model, calibration_data=data.feeds(model), sparsity=1 - share)
    if ridge is not None:
        pruned = onnxsim.apply_pruning_finetune(model, pruned, calibration_data=data.feeds(model), reg_param=ridge)
    made: onnx.ModelProto = pruned
    return made


def methods() -> dict[str, Method]:
    """By what the table calls them."""
    found: dict[str, Method] = {"onnxsurgeon narrow (weights)": by_weights, "onnxsurgeon prune (data)": by_data}
    try:
        import onnxsim
    except ImportError:
        print("onnxsim is not installed here: its lines are missing")
        return found
    print(f"onnxsim {onnxsim.__version__}")
    for rank in ("l2", "wanda"):
        found[f"onnxsim {rank}, no recovery"] = partial(by_onnxsim, rank=rank, ridge=None)
        for ridge in (1e-2, 1e-4):  # the first is its default
            found[f"onnxsim {rank}, ridge {ridge:g}"] = partial(by_onnxsim, rank=rank, ridge=ridge)
        found[f"onnxsim {rank}, ridge 0.0001, by layer"] = partial(by_onnxsim_layers, rank=rank, ridge=1e-4)
    return found


def train(network: Network, data: Data, epochs: int, seed: int) -> Network:
    """So many epochs from a fresh optimizer state, the rate along a cosine to 0."""
    engine, schedule, state = make_engine("loop"), BatchSchedule(data.train.rows, BATCH, seed), None
    each = schedule.batches_per_epoch
    for epoch in range(epochs):
        window = schedule.window(epoch * each, (epoch + 1) * each)
        trained = engine.train(network, data.train, window, SETTINGS.spec(epochs, each, epoch * each), state)
        network, state = trained.network, trained.state
    return network


def main() -> None:
    """Train, shrink by every method, train a little more; then measure, the test set last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.75, HALF, 0.25], help="of the units, to keep")
    parser.add_argument("--epochs", type=int, default=10, help="of the first training")
    parser.add_argument("--recuperation", type=int, default=3, help="epochs after shrinking")
    parser.add_argument("--rows", type=int, default=4096, help="of the calibration sample")
    options = parser.parse_args()
    dataset = load_dataset("fashion-mnist")
    start = create(SIZES, input_shape=(28, 28, 1))
    splits = [*dataset.hold_out(), dataset.test]
    train_rows, validation, test = (prepare(start, dataset, split) for split in splits)
    # (kept, method, stage) → a network for each seed
    results: dict[tuple[float, str, str], list[Network]] = {}
    for seed in options.seeds:
        data = Data(train_rows, validation, test, sample_rows(train_rows, options.rows, seed))
        shrink_all(data, seed, options, results)
    report(results, validation, test)


def shrink_all(data: Data, seed: int, options: argparse.Namespace, results: dict[Any, list[Network]]) -> None:
    """Everything for one seed, into ``results``."""
    begun = time.perf_counter()
    start = train(create(SIZES, seed=seed, input_shape=(28, 28, 1)), data, options.epochs, seed)
    results.setdefault((1.0, "as trained", "before"), []).append(start)
    if options.recuperation:
        longer = train(start, data, options.recuperation, seed + 1000)
        results.setdefault((1.0, "as trained", "after"), []).append(longer)
    for name, method in methods().items():
        for share in options.shares:
            units = tuple(round(share * width) for width in SIZES[1:-1])
            smaller = method(start, units, data)
            if smaller.widths[1:-1] != units:
                raise SystemExit(f"{name} made {smaller.topology} instead of {units}")
            results.setdefault((share, name, "before"), []).append(smaller)
            if share == HALF and options.recuperation:
                recuperated = train(smaller, data, options.recuperation, seed + 1000)
                results.setdefault((share, name, "after"), []).append(recuperated)
    print(f"seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)


def report(results: dict[tuple[float, str, str], list[Network]], validation: Examples, test: Examples) -> None:
    """Accuracy, and what is lost of the trained network's: mean and deviation over the seeds."""
    engine = make_engine("loop")
    found = {
        key: [[engine.evaluate(network, rows).accuracy for network in networks] for rows in (validation, test)]
        for key, networks in results.items()
    }
    first = found[1.0, "as trained", "before"]
    print(f"\n{'kept':>5} {'method':38} {'training':8}  validation, lost        test, lost")
    for (share, name, stage), accuracies in found.items():
        cells = []
        for values, before in zip(accuracies, first, strict=True):
            lost = [a - b for a, b in zip(before, values, strict=True)]
            cells.append(f"{mean(values):.4f}, {spread(lost)}")
        print(f"{share:5.0%} {name:38} {stage:8}  {cells[0]}  {cells[1]}")


def spread(values: list[float]) -> str:
    """Mean and deviation."""
    return f"{mean(values):+.4f} ± {stdev(values) if len(values) > 1 else 0:.4f}"


if __name__ == "__main__":
    main()
