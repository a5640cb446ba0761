"""Trained networks whose widths several layers share: exactness of widening, and what pruning the shared ones gains.

    python tools/shared_widths.py              # some minutes of two cores

Residual net, Concat skips, a trunk of two heads, two towers; each 20 inputs, the first principal components of 30,000
images of Fashion-MNIST (t-shirt, pullover and shirt, 3 classes), trained in PyTorch (AdamW 0.001, one cycle, batch 128,
eight epochs) and written by both of PyTorch's exporters. For each: the shared groups, the largest deviation of the
whole model's outputs after widening each by an eighth, accuracy on the test rows after straight pruning by data to half
the parameters, with shared widths and without, and that of ``evolve --shrink 2``.
Needs PyTorch: ``make compare`` makes an environment with it.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring.datasets import fashion
from measuring.machine import hold_cores
from measuring.markdown import NONE, table
from measuring.models import Array, outputs
from measuring.torch_classifier import fit

from onnxsurgeon import Dataset, Network, Split, SurgeonSettings, Widen, calibrate, evolve, load, operate, prepare, save
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.recommend.shrinking import widths_for
from onnxsurgeon.surgery import Prune
from onnxsurgeon.surgery.prune import pruning_costs

CLASSES = (0, 2, 6)
INPUTS = 20
EXPORTERS = {"legacy": False, "dynamo": True}
nn: Any = torch.nn
Module: Any = torch.nn.Module


class Residual(Module):  # type: ignore[misc]
    """20-64, three blocks 64-128-64 that are added to what they read, 3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Linear(INPUTS, 64), nn.Linear(64, 3)
        self.first = nn.ModuleList(nn.Linear(64, 128) for _ in range(3))
        self.second = nn.ModuleList(nn.Linear(128, 64) for _ in range(3))

    def forward(self, x: Any) -> Any:
        """Logits."""
        x = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(torch.relu(first(x)))
        return self.out(x)


class Skips(Module):  # type: ignore[misc]
    """Layers of 64, 48 and 32 units, each of which reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(INPUTS, 64), nn.Linear(64, 48), nn.Linear(112, 32)
        self.out = nn.Linear(144, 3)

    def forward(self, x: Any) -> Any:
        """Logits."""
        a = torch.relu(self.a(x))
        ab = torch.cat([a, torch.relu(self.b(a))], 1)
        return self.out(torch.cat([ab, torch.relu(self.c(ab))], 1))


class Trunk(Module):  # type: ignore[misc]
    """20-96-64, read by two heads with a hidden layer each: the class, and whether it is a shirt."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(INPUTS, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU())
        self.first = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
        self.second = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, x: Any) -> Any:
        """Logits of both heads, which tell the same classes."""
        x = self.trunk(x)
        return self.first(x), self.second(x)


class Towers(Module):  # type: ignore[misc]
    """Two towers 10-64-48, on ten inputs each, whose results are multiplied, 3."""

    def __init__(self) -> None:
        super().__init__()
        half = INPUTS // 2
        self.first = nn.Sequential(nn.Linear(half, 64), nn.ReLU(), nn.Linear(64, 48))
        self.second = nn.Sequential(nn.Linear(half, 64), nn.ReLU(), nn.Linear(64, 48))
        self.out = nn.Linear(48, 3)

    def forward(self, x: Any) -> Any:
        """Logits."""
        half = INPUTS // 2
        return self.out(torch.relu(self.first(x[:, :half])) * torch.sigmoid(self.second(x[:, half:])))


NETWORKS = {"residual": Residual, "skips": Skips, "trunk, two heads": Trunk, "towers": Towers}


def main() -> None:
    """Train, prune, and print the table, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--exporters", nargs="*", default=list(EXPORTERS), choices=list(EXPORTERS))
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    hold_cores(given.cores)
    torch.set_num_threads(given.cores)
    (x, y), (x_test, y_test) = _rows()
    head = ("network", "exporter", "shared widths (ports)", "widened by", "given", "pruned", "without them", "evolved")
    print(table(head, [], texts=3), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in given.networks:
            torch.manual_seed(0)
            network = _trained(NETWORKS[name](), x, y)
            for exporter in given.exporters:
                path = Path(folder) / f"{name.partition(',')[0]}-{exporter}.onnx"
                _export(network, x[:2], path, dynamo=EXPORTERS[exporter])
                cells = [name, exporter, *_measured(path, (x, y), (x_test, y_test))]
                print(f"| {' | '.join(cells)} |", flush=True)  # one takes minutes


def _rows() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Rows of principal components and classes, to train and to test on."""
    data = fashion()
    assert data.test is not None
    parts = []
    for pixels, labels in ((data.x, data.y), data.test):
        chosen = np.isin(labels, CLASSES)
        parts.append((pixels[chosen], np.searchsorted(CLASSES, labels[chosen]).astype(np.int64)))
    (x, y), (x_test, y_test) = parts
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((x - mean).T))
    basis = vectors[:, ::-1][:, :INPUTS] / np.sqrt(values[::-1][:INPUTS])
    return (((x - mean) @ basis).astype(np.float32), y), (((x_test - mean) @ basis).astype(np.float32), y_test)


def _trained(network: Any, x: Array, y: Array) -> Any:
    def loss(given: Any, targets: Any) -> Any:
        heads = given if isinstance(given, tuple) else (given,)
        return sum(nn.functional.cross_entropy(each, targets) for each in heads)

    return fit(network, [torch.from_numpy(x)], torch.from_numpy(y), loss, epochs=8, seed=0)


def _export(network: Any, rows: Array, path: Path, *, dynamo: bool) -> None:
    names = ["first", "second"] if isinstance(network, Trunk) else ["logits"]
    options: dict[str, Any] = {"dynamo": dynamo, "input_names": ["x"], "output_names": names}
    if dynamo:
        options |= {"dynamic_shapes": [{0: torch.export.Dim("batch")}], "external_data": False, "verbose": False}
    else:
        options |= {"dynamic_axes": {each: {0: "batch"} for each in ("x", *names)}, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(network, (torch.from_numpy(rows),), path, **options)


def _measured(path: Path, train: tuple[Array, Array], test: tuple[Array, Array]) -> list[str]:
    network = load(path)
    heads = len(network.heads)
    sets = [Split(x, np.stack([y] * heads, axis=1) if heads > 1 else y) for x, y in (train, test)]
    data = Dataset("fashion", sets[0], sets[1], 3)
    rows = path.with_suffix(".npz")
    np.savez(rows, x_train=train[0], y_train=sets[0].labels, x_test=test[0], y_test=sets[1].labels)
    shared = range(network.hidden_count + 1, network.group_count + 1)
    ports = ", ".join(f"{network.group(i).units} ({network.group(i).ports})" for i in shared)
    before, moved = to_model(network), 0.0
    for i in shared:
        wider = to_model(operate(network, Widen(i, network.group(i).units // 8)).network)
        moved = max(moved, compare_models(before, wider, random_inputs(before)).relative)
    most = network.parameter_count // 2
    hidden = range(1, network.hidden_count + 1)
    cells = [ports, f"{moved:.0e}", f"{_accuracy(path, test):.4f}"]
    for groups in (range(1, network.group_count + 1), hidden):
        smaller = _pruned(network, data, groups, most)
        made = path.with_name("pruned.onnx")
        save(smaller, made, overwrite=True)
        cells.append(f"{_accuracy(made, test):.4f}" if smaller.parameter_count <= most else NONE)
    best = path.with_name("best.onnx")
    evolve(
        path,
        str(rows),
        settings=SurgeonSettings(shrink=2, epochs=10),
        run_dir=path.with_suffix(""),
        out=best,
        overwrite=True,
    )
    return [*cells, f"{_accuracy(best, test):.4f}"]


def _pruned(network: Network, data: Dataset, groups: range, most: int) -> Network:
    """Units taken from some groups alone, by one calibration; as near to ``most`` parameters as that comes."""
    examples = prepare(network, data, data.train)
    moments = calibrate(network, examples)
    widths = widths_for(network, {i: pruning_costs(network, i, moments) for i in groups}, most)
    smaller = network
    for i, units in widths.items():
        if units < network.group(i).units:
            smaller = operate(smaller, Prune(i, units), moments=calibrate(smaller, examples)).network
    return smaller


def _accuracy(path: Path, test: tuple[Array, Array]) -> float:
    """Share of the test rows whose class the first output tells."""
    x, y = test
    return float((outputs(path, {"x": x})[0].argmax(axis=1) == y).mean())


if __name__ == "__main__":
    main()
