"""What the Surgeon finds on real data, over several seeds: by limit, without one, from tabular sets, and by ingredient.

    python tools/better_networks.py                             # everything: hours on two cores
    python tools/better_networks.py --tables small large        # only these
    python tools/better_networks.py --tables ensemble --json f  # go on with what f holds

Every run holds out a tenth of the training rows to choose by; the test rows are looked at once, at its end. Two runs
are made side by side, each with one worker, so that seconds are those of one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from searching.results import Results, Run

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
SMALL, LARGE = MODELS / "fashion-mnist-small.onnx", MODELS / "fashion-mnist-large.onnx"
FASHION = [str(SMALL), "--data", "fashion-mnist"]
FOUR = ["--ensemble", "4"]  # what the runs without a limit on docs/measurements.md were made with
LIMIT = "--max-parameters"
# What each ingredient is worth: a run with one thing changed.
CHANGED: dict[str, list[str]] = {
    "as it is": [],
    "units split, not by gradients": ["--widen", "split"],
    "fresh units": ["--widen", "fresh"],
    "no growth beyond the limit": ["--overgrowth", "1"],
    "grown at once": ["--growth-factor", "100"],
    "shapes judged after a few batches": ["--trial", "0.005"],
    "one learning rate for all sizes": ["--size-rate", "0"],
    "inputs as they are": ["--no-standardise", "--input-dropout", "0.1"],
    "no dropout of inputs": ["--standardised-dropout", "0"],
    "no warm-up": ["--warmup", "0"],
    "no weight decay": ["--weight-decay", "0"],
    "constant learning rate": ["--schedule", "constant"],
    "SGD, momentum 0.9": ["--optimizer", "momentum", "--learning-rate", "0.02", "--weight-decay", "1e-4"],
}

# Name of a row → arguments of ``onnxsurgeon evolve``.
TABLES: dict[str, dict[str, list[str]]] = {
    "small": {
        "784-10-10, at most 10,000": [*FASHION, LIMIT, "10000"],
        "784-10-10, at most 55,000": [*FASHION, LIMIT, "55000"],
        "784-10-10, at most 110,000": [*FASHION, LIMIT, "110000"],
    },
    "large": {"784-300-100-100-10, at most 110,000": [str(LARGE), "--data", "fashion-mnist", LIMIT, "110000"]},
    "unlimited": {"784-10-10, no limit": [*FASHION, *FOUR]},
    "ensemble": {f"784-10-10, no limit, ensemble of {n}": [*FASHION, "--ensemble", f"{n}"] for n in (1, 2)},
    **{
        f"ablation-{limit}": {
            f"{name}, {limit}": [*FASHION, LIMIT, f"{limit}", *options] for name, options in CHANGED.items()
        }
        for limit in (10_000, 55_000)
    },
}
TABULAR = {"digits": (64, 16, 10), "breast_cancer": (30, 8, 2), "diabetes": (10, 8, 1)}


def main() -> None:
    """Make the runs that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*TABLES, "tabular"]
    parser.add_argument("--tables", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[23, 24, 25], help="none that settings were chosen by")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    arguments = parser.parse_args()
    results = Results({}, arguments.json)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.tables:
            rows = tabular(Path(folder)) if name == "tabular" else TABLES[name]
            make(results, rows, arguments.seeds, Path(folder))
            print(f"\n{table(results, rows, arguments.seeds)}", flush=True)


def make(results: Results, rows: dict[str, list[str]], seeds: Sequence[int], folder: Path) -> None:
    """The runs that are missing, two at a time."""
    wanted = [(name, seed) for seed in seeds for name in rows if results.find(name, seed) is None]
    with ThreadPoolExecutor(2) as pool:
        for run in pool.map(lambda job: evolve(job[0], rows[job[0]], job[1], folder), wanted):
            results.add(run)
            print(
                f"- {run['method']}, seed {run['seed']}: {run['topology']}, test {run['test_accuracy']:.4f}", flush=True
            )


def evolve(name: str, arguments: list[str], seed: int, folder: Path) -> Run:
    """One run of the command line.

    Raises:
        SystemExit: it failed.
    """
    run = folder / f"{abs(hash(name))}-{seed}"
    common = ["--seed", str(seed), "--workers", "1", "--run-dir", str(run), "--json"]
    command = [sys.executable, "-m", "onnxsurgeon", "evolve", *arguments, *common]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}: {done.stderr.strip()}")
    record = json.loads(done.stdout)
    kept = ("topology", "parameters", "validation_accuracy", "test_accuracy", "start_test_accuracy", "seconds")
    return {"method": name, "seed": seed, **{key: record[key] for key in kept}}


def tabular(folder: Path) -> dict[str, list[str]]:
    """Perceptrons trained plainly on three of scikit-learn's sets, and what is needed to evolve them."""
    rows = {}
    for name, sizes in TABULAR.items():
        table, new, trained = (folder / f"{name}{end}" for end in (".csv", "-new.onnx", ".onnx"))
        options = ["--data", str(table), "--target", "target"]
        if not trained.exists():
            write_table(name, table)
            _run("new", "-".join(map(str, sizes)), "-o", str(new), *(["--no-softmax"] if sizes[-1] == 1 else []))
            # As the search trains, and on the same rows: a start that has seen those it is judged by would always win.
            alone = ["--growth", "0", "--ensemble", "1", "--no-refit"]
            _run("evolve", str(new), *options, *alone, "--run-dir", str(folder / name), "-o", str(trained))
        rows[f"{name}, trained {'-'.join(map(str, sizes))}"] = [str(trained), *options, *FOUR]
    return rows


def write_table(name: str, path: Path) -> None:
    """One of scikit-learn's sets as a CSV file, columns of numbers standardised."""
    from sklearn import datasets, preprocessing

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = preprocessing.StandardScaler().fit_transform(x)
    if name == "diabetes":
        y = preprocessing.StandardScaler().fit_transform(y[:, None])[:, 0]
    head = ",".join([*(f"c{i}" for i in range(x.shape[1])), "target"])
    lines = [",".join([*(f"{value:.6g}" for value in row), str(target)]) for row, target in zip(x, y, strict=True)]
    path.write_text("\n".join([head, *lines]) + "\n")


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "onnxsurgeon", *arguments], check=True, stdout=subprocess.DEVNULL)


def table(results: Results, rows: dict[str, list[str]], seeds: Sequence[int]) -> str:
    """Means and deviations over the seeds, as Markdown."""
    head = ["", "parameters", "validation", "test", "start", "s on a core", "topologies"]
    lines = [_line(head), _line(["---", *["---:"] * 5, "---"])]
    for name in rows:
        runs = [run for seed in seeds if (run := results.find(name, seed))]
        figures = [
            f"{mean(_all(runs, 'parameters')):,.0f}",
            *(_spread(_all(runs, key)) for key in ("validation_accuracy", "test_accuracy", "start_test_accuracy")),
            f"{mean(_all(runs, 'seconds')):.0f}",
        ]
        lines.append(_line([name, *figures, ", ".join(run["topology"] for run in runs)]))
    return "\n".join(lines)


def _all(runs: Sequence[Run], key: str) -> list[Any]:
    return [run[key] for run in runs]


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
