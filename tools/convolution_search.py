"""CNNs grown by evolve from an untrained one, on Fashion-MNIST, to limits of parameters.

    python tools/convolution_search.py --json convolutions.json       # all: a few hours of one core
    python tools/convolution_search.py --limits 20000 --seeds 1

The start is what ``onnxsurgeon new 28x28x1-c8-p-c16-p-10`` writes, 9,098 parameters, with weights by the run's seed.
Wishes are evolve's --max-parameters, all else by default but for the number of epochs: no augmentation, a tenth of
the training images held out to decide by. Accuracy is that of the 10,000 test images by ONNX Runtime, which no run is
told the labels of before its end. Beside it stand what was picked by hand and trained in PyTorch (12 epochs of AdamW,
one cycle, the test accuracy at the end), and what the test accuracy has to be.
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
from measuring.markdown import spread, table
from measuring.models import facts, input_name, outputs
from searching.results import Results, Run

from onnxsurgeon import Dataset, SurgeonSettings, create_convolutional, evolve, load, load_dataset, save

NAME = "fashion-mnist"
START = "28x28x1-c8-p-c16-p-10"
# Limits of parameters, and what the mean test accuracy has to be.
WANTED = {20_000: 0.918, 60_000: 0.927, 200_000: 0.935}
# Parameters and test accuracy of what was picked by hand.
BY_HAND = {"16-32, a dense head": (20_490, 0.9151), "16-32-64, a dense head": (54_666, 0.9225)}
METHOD = "evolve"


@dataclass(frozen=True)
class Rules:
    """What is the same for every run; see the options."""

    folder: Path
    start: str
    rows: int | None
    epochs: int
    cores: int


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", nargs="+", type=int, default=list(WANTED), help="most parameters")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, default=Path("build/convolutions"), help="for networks and runs")
    parser.add_argument("--start", default=START, help="what is grown, as new takes it")
    parser.add_argument("--rows", type=int, help="images to train on and to decide by; by default all 60,000")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    given = parser.parse_args()
    rules = Rules(given.folder, given.start, given.rows, given.epochs, given.cores)
    try:
        compare(rules, given.limits, given.seeds, given.json)
    except SystemExit as error:
        parser.exit(2, f"convolution_search.py: {error.code}\n")


def compare(rules: Rules, limits: Sequence[int], seeds: Sequence[int], path: Path | None) -> None:
    """Make what is missing, and print the table.

    Raises:
        SystemExit: the results in ``path`` were made by other rules.
    """
    results = Results({name: getattr(rules, name) for name in ("start", "rows", "epochs", "cores")}, path)
    hold_cores(rules.cores)
    rules.folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for limit in limits:
            run = results.find(METHOD, seed, limit=limit)
            if run is None:
                run = measure(rules, limit, seed)
                results.add(run)
            print(f"- {limit:,}, seed {seed}: {summary(run)}", flush=True)
    print(f"\n{report(results, limits, seeds)}")


def measure(rules: Rules, limit: int, seed: int) -> Run:
    """One run."""
    start, out = rules.folder / f"start-{seed}.onnx", rules.folder / f"{limit}-{seed}.onnx"
    save(create_convolutional(rules.start, seed=seed), start, overwrite=True)
    out.unlink(missing_ok=True)
    folder = rules.folder / "runs" / f"{limit}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    settings = SurgeonSettings.from_preset("default", seed=seed, epochs=rules.epochs, max_parameters=limit)
    begun = time.perf_counter()
    evolved = evolve(start, data_for(rules), settings=settings, run_dir=folder, out=out)
    seconds = time.perf_counter() - begun
    same = {"method": METHOD, "seed": seed, "limit": limit, "seconds": seconds, "test": test_accuracy(out)}
    extra: dict[str, Any] = {"validation": evolved.validation_accuracy, "multiplications": load(out).multiplications}
    return {**same, **facts(out), **extra}


def data_for(rules: Rules) -> str | Dataset:
    """The data set by its name, or with fewer training images where so few are wanted."""
    if rules.rows is None:
        return NAME
    dataset = load_dataset(NAME)
    return Dataset(NAME, dataset.train.take(np.arange(rules.rows)), dataset.test, dataset.classes)


def test_accuracy(path: Path) -> float:
    """Share of the 10,000 test images that the file tells right, by ONNX Runtime."""
    split = load_dataset(NAME).test
    pixels = np.asarray(split.inputs).reshape(split.rows, 1, 28, 28).astype(np.float32) / np.float32(255)
    return float(np.mean(outputs(path, {input_name(path): pixels})[0].argmax(axis=1) == split.labels))


def summary(run: Run) -> str:
    """A run in a line."""
    return f"{run['topology']}, {run['parameters']:,} parameters, test {run['test']:.4f}, {run['seconds'] / 60:.1f} min"


def report(results: Results, limits: Sequence[int], seeds: Sequence[int]) -> str:
    """A line for each limit, and one for each network that was picked by hand."""
    rows, lines = [], []
    for limit in limits:
        runs = [run for seed in seeds if (run := results.find(METHOD, seed, limit=limit))]
        if not runs:
            continue
        figures = [
            spread([run["test"] for run in runs]),
            f"{WANTED[limit]:.3f}" if limit in WANTED else "–",
            f"{mean(run['parameters'] for run in runs):,.0f}",
            f"{mean(run['multiplications'] for run in runs) / 1e6:.2f}",
            f"{mean(run['latency'] for run in runs):.3f}",
            f"{mean(run['bytes'] for run in runs):,.0f}",
            f"{mean(run['seconds'] for run in runs) / 60:.1f}",
        ]
        rows.append([f"{limit:,}", str(len(runs)), *figures, ", ".join(dict.fromkeys(run["topology"] for run in runs))])
        lines.append(f"- {limit:,}: {verdict(limit, runs)}")
    for name, (parameters, test) in BY_HAND.items():
        rows.append([name, "–", f"{test:.4f}", "–", f"{parameters:,}", "–", "–", "–", "–", "–"])
    head = ["parameters at most", "seeds", "test accuracy", "wanted", "parameters", "MACs of a row, millions"]
    head += ["latency of a row, ms", "bytes", "minutes", "topologies"]
    return "\n\n".join([table(head, rows), "\n".join(lines)])


def verdict(limit: int, runs: Sequence[Run]) -> str:
    """What has to be, and is or is not."""
    problems = []
    if any(run["parameters"] > limit for run in runs):
        problems.append("the limit is not met")
    short = WANTED.get(limit, 0.0) - mean(run["test"] for run in runs)
    if short > 0:
        problems.append(f"{short:.4f} short of {WANTED[limit]}")
    return "; ".join(problems) or "as it has to be"


if __name__ == "__main__":
    main()
