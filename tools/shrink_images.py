"""A PyTorch 784-512-256-10 trained on Fashion-MNIST, made smaller with labels and with images alone.

    python tools/shrink_images.py --json images.json       # all: some ten minutes of two cores
    python tools/shrink_images.py --wishes shrink-10 --data labels

The network has 535,818 parameters and ends in logits; it is trained once per seed, in PyTorch (AdamW 0.001, one cycle,
batch 128, ten epochs), and kept in the folder. Wishes are evolve's --shrink 10, --shrink 30 and --lose 0.005, all else
by default. With labels, evolve sees the data set by its name; without, an .npz of the same images as bytes and
--loss cross-entropy. Accuracy is that of the 10,000 test images by ONNX Runtime, which no run is told the labels of
before its end. *Unseen* are labels where the given network was trained without a tenth of the images, which decide: of
rows that it was trained on, it tells more right than it will of others, and --lose counts from there. Beside each
--shrink stands straight pruning by data to the same number of parameters, without training.
Needs PyTorch: ``make compare`` makes an environment with it.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from measuring.machine import hold_cores
from measuring.markdown import change, spread, table
from measuring.models import facts, input_name, outputs
from measuring.pruning import pruned_straight
from searching.results import Results, Run

from onnxsurgeon import Dataset, InputOptions, SurgeonSettings, evolve, load, load_dataset, prepare, save

NAME = "fashion-mnist"
SIZES = (784, 512, 256, 10)
OPTIONS = InputOptions(loss="cross-entropy")
# By name, the setting of evolve and its value.
WISHES: dict[str, tuple[str, float]] = {
    "shrink-10": ("shrink", 10),
    "shrink-30": ("shrink", 30),
    "lose-0.005": ("lose", 0.005),
}
# Test accuracy that may be lost, by wish and data.
MOST_LOST = {("shrink-10", "labels"): 0.0, ("shrink-10", "images"): 0.005}
UNSEEN = "with labels, deciding images unseen"
DATA = {
    "straight": "straight pruning, no training",
    "labels": "with labels",
    "images": "images alone",
    "unseen": UNSEEN,
}


@dataclass(frozen=True)
class Rules:
    """What is the same for every run; see the options."""

    folder: Path
    rows: int | None
    training_epochs: int
    epochs: int | None
    time_limit: float | None
    cores: int


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wishes", nargs="+", choices=WISHES, default=list(WISHES))
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--folder", type=Path, default=Path("build/images"), help="for images, networks and runs")
    parser.add_argument("--rows", type=int, help="images to train on; by default all 60,000")
    parser.add_argument("--training-epochs", type=int, default=10, help="of the network that is given")
    parser.add_argument("--epochs", type=int, help="of evolve; by default its own number")
    parser.add_argument("--time-limit", type=float, help="of evolve; by default none")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    given = parser.parse_args()
    rules = Rules(given.folder, given.rows, given.training_epochs, given.epochs, given.time_limit, given.cores)
    try:
        compare(rules, given.wishes, given.data, given.seeds, given.json)
    except SystemExit as error:
        parser.exit(2, f"shrink_images.py: {error.code}\n")


def compare(rules: Rules, wishes: Sequence[str], data: Sequence[str], seeds: Sequence[int], path: Path | None) -> None:
    """Make what is missing, and print the table.

    Raises:
        SystemExit: the results in ``path`` were made by other rules.
    """
    names = ("rows", "training_epochs", "epochs", "time_limit", "cores")
    results = Results({name: getattr(rules, name) for name in names}, path)
    hold_cores(rules.cores)
    rules.folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name in dict.fromkeys(map(given_for, data)):
            if results.find(name, seed) is None:
                start = given_network(rules, name, seed)
                results.add({"method": name, "seed": seed, "test": test_accuracy(start), **facts(start)})
                print(f"- {name}, seed {seed}: test {results.runs[-1]['test']:.4f}", flush=True)
        for wish in wishes:
            for kind in data:
                start = given_network(rules, given_for(kind), seed)
                if kind == "straight" and WISHES[wish][0] != "shrink":
                    continue
                run = results.find(kind, seed, wish=wish)
                if run is None:
                    run = measure(rules, start, wish, kind, seed)
                    results.add(run)
                print(f"- {wish}, {DATA[kind]}, seed {seed}: {summary(run)}", flush=True)
    print(f"\n{report(results, wishes, data, seeds)}")


def given_for(kind: str) -> str:
    """The network that runs with this kind of data begin with."""
    return "given-unseen" if kind == "unseen" else "given"


def given_network(rules: Rules, name: str, seed: int) -> Path:
    """The network that is given, trained where it has not been."""
    rows = "" if rules.rows is None else f"-{rules.rows}-rows"
    path = rules.folder / f"{name}-{seed}-{rules.training_epochs}-epochs{rows}.onnx"
    if not path.exists():
        from measuring.torch_classifier import train_classifier

        dataset = training_rows(rules)
        split = dataset.hold_out()[0] if name == "given-unseen" else dataset.train
        part = path.with_suffix(".part")
        images = np.asarray(split.inputs).reshape(split.rows, 28, 28)
        train_classifier(SIZES, images, split.labels, rules.training_epochs, seed, rules.cores, part)
        part.replace(path)
    return path


def training_rows(rules: Rules) -> Dataset:
    """Fashion-MNIST, with fewer training images where so few are wanted."""
    dataset = load_dataset(NAME)
    if rules.rows is None:
        return dataset
    return Dataset(NAME, dataset.train.take(np.arange(rules.rows)), dataset.test, dataset.classes)


def measure(rules: Rules, start: Path, wish: str, kind: str, seed: int) -> Run:
    """One run."""
    out = rules.folder / f"{wish}-{kind}-{seed}.onnx"
    out.unlink(missing_ok=True)
    setting, value = WISHES[wish]
    begun = time.perf_counter()
    extra: dict[str, Any] = {}
    if kind == "straight":
        network, dataset = load(start), training_rows(rules)
        examples = prepare(network, dataset, dataset.train, OPTIONS)
        save(pruned_straight(network, examples, int(network.parameter_count / value), seed), out)
    else:
        folder = rules.folder / "runs" / f"{wish}-{kind}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
        own = {name: given for name in ("epochs", "time_limit") if (given := getattr(rules, name)) is not None}
        whole = int(value) if value == int(value) else value
        settings = SurgeonSettings.from_preset("default", seed=seed, **{setting: whole}, **own)
        data = data_for(rules, kind)
        begun = time.perf_counter()
        evolved = evolve(start, data, settings=settings, options=OPTIONS, run_dir=folder, out=out)
        extra = {
            "validation": evolved.validation_accuracy,
            "shortfall": evolved.shortfall,
            "own": evolved.test.accuracy,
        }
    seconds = time.perf_counter() - begun
    same = {"method": kind, "seed": seed, "wish": wish, "seconds": seconds}
    return {**same, "test": test_accuracy(out), **facts(out), **extra}


def data_for(rules: Rules, kind: str) -> str:
    """What evolve is given as --data: the set's name, or a file of images."""
    if kind == "labels" and rules.rows is None:
        return NAME
    file = rules.folder / f"{kind}-{rules.rows or 'all'}.npz"
    if not file.exists():
        dataset = training_rows(rules)
        parts = {"train": dataset.train, "test": dataset.test}
        if kind == "unseen":
            parts["train"], parts["validation"] = dataset.hold_out()
        arrays = {f"x_{part}": np.asarray(split.inputs) for part, split in parts.items()}
        if kind != "images":
            arrays |= {f"y_{part}": split.labels for part, split in parts.items()}
        part = file.with_suffix(".part.npz")
        np.savez(part, **arrays)  # type: ignore[arg-type]
        part.replace(file)
    return str(file)


def test_accuracy(path: Path) -> float:
    """Share of the 10,000 test images that the file tells right, by ONNX Runtime."""
    split = load_dataset(NAME).test
    pixels = np.asarray(split.inputs).reshape(split.rows, 28, 28).astype(np.float32) / np.float32(255)
    return float(np.mean(outputs(path, {input_name(path): pixels})[0].argmax(axis=1) == split.labels))


def summary(run: Run) -> str:
    """A run in a line."""
    return f"{run['topology']}, {run['parameters']:,} parameters, test {run['test']:.4f}, {run['seconds']:.0f} s"


def report(results: Results, wishes: Sequence[str], data: Sequence[str], seeds: Sequence[int]) -> str:
    """A line for each wish and kind of data: test accuracy before and after, and what became of the sizes."""
    rows, lines = [], []
    for wish in wishes:
        for kind in data:
            given = [run for seed in seeds if (run := results.find(given_for(kind), seed))]
            before = {key: mean(run[key] for run in given) for key in ("parameters", "bytes", "latency")}
            runs = [run for seed in seeds if (run := results.find(kind, seed, wish=wish))]
            if not runs:
                continue
            starts = {run["seed"]: run["test"] for run in given}
            lost = [starts[run["seed"]] - run["test"] for run in runs]
            figures = [
                change(before[key], [run[key] for run in runs], digits)
                for key, digits in (("parameters", 0), ("bytes", 0), ("latency", 3))
            ]
            tests = [spread([run["test"] for run in each]) for each in (given, runs)]
            topologies = ", ".join(dict.fromkeys(run["topology"] for run in runs))
            seconds = spread([run["seconds"] for run in runs], 0)
            rows.append([wish, DATA[kind], *tests, spread(lost), *figures, seconds, topologies])
            lines.append(f"- {wish}, {DATA[kind]}: {verdict(wish, kind, before['parameters'], runs, mean(lost))}")
    head = ["wish", "data", "test before", "test after", "lost", "parameters", "bytes", "latency of a row, ms", "s"]
    return "\n\n".join([table([*head, "topologies"], rows, texts=2), "\n".join(lines)])


def verdict(wish: str, kind: str, given: float, runs: Sequence[Run], lost: float) -> str:
    """What has to be, and is or is not: the limit met, and at --shrink 10 so much lost at most."""
    setting, value = WISHES[wish]
    problems = []
    if setting == "shrink" and any(run["parameters"] > given / value for run in runs):
        problems.append("the limit is not met")
    most = MOST_LOST.get((wish, kind))
    if most is not None and lost > most:
        problems.append(f"{lost:.4f} lost, not at most {most}")
    return "; ".join(problems) or "as it has to be"


if __name__ == "__main__":
    main()
