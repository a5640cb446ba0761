"""Robot policies made smaller by rows without labels, beside what PyTorch makes of the same rows in the same time.

    python tools/shrink_policies.py --policies FOLDER --json policies.json     # all: nearly two hours of two cores
    python tools/shrink_policies.py --policies FOLDER --names go1 --kinds white --limits 96000 --seeds 1

FOLDER holds the policies and make_rows.py, which draws rows for them. 30,000 rows of one seed are there to train on and
to choose by; R² is the mean over the outputs on 10,000 rows of another seed, against the given policy's outputs, as
ONNX Runtime computes it with each file. The methods:

- straight: pruned by data to the limit, no training.
- scratch: a new perceptron in PyTorch with as many hidden layers, the same activation, and widths in the same ratios.
- trained-on: the straightly pruned network trained in PyTorch; the time to prune it is part of the time.
- onnxsurgeon: evolve --max-parameters --time-limit, all else by default.

PyTorch trains by AdamW at a batch of 128 and one cycle of the learning rate that ends when the time does, with as many
threads as are fastest, towards the policy's outputs in units of their deviations; what it loads first is not counted.
Learning rate and batch were chosen on go1's rows of seeds 101 and 102. The 36 runs of each method take a minute each,
those of straight pruning seconds; split them by the options with one file of --json, from which the tool goes on where
it was stopped. Needs PyTorch: ``make compare`` makes an environment with it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from measuring.machine import hold_cores
from measuring.markdown import change, spread, table
from measuring.models import facts, input_name, outputs, r_squared
from measuring.policies import SCRIPT, Drawn, Rows, read_rows
from measuring.pruning import pruned_straight
from searching.results import Results, Run
from searching.space import fit_widths

from onnxsurgeon import Dataset, Split, SurgeonSettings, evolve, load, prepare, save

METHODS = {
    "straight": "straight pruning, no training",
    "scratch": "imitation from scratch in PyTorch",
    "trained-on": "pruned, then trained on in PyTorch",
    "onnxsurgeon": "onnxsurgeon",
}
ABOVE = ("straight", "scratch", "trained-on")
LIMITS = (96_000, 48_000, 19_000)
KINDS = ("white", "structured")
# Learning rate of AdamW: a new network's, and a trained one's.
RATES = {"scratch": 0.003, "trained-on": 0.001}
BATCH = 128
# What go1 has to reach by R², by kind and limit.
WANTED = {
    ("white", 96_000): 0.95,
    ("structured", 96_000): 0.988,
    ("white", 48_000): 0.90,
    ("structured", 48_000): 0.972,
}


@dataclass(frozen=True)
class Case:
    """One policy, kind of rows, limit and seed."""

    policy: str
    kind: str
    limit: int
    seed: int

    def __str__(self) -> str:
        return f"{self.policy}-{self.kind}-{self.limit}-{self.seed}"

    @property
    def key(self) -> dict[str, Any]:
        """What it is found by among results, besides method and seed."""
        return {"policy": self.policy, "kind": self.kind, "limit": self.limit}


@dataclass(frozen=True)
class Rules:
    """What is the same for every run; see the options."""

    policies: Path
    folder: Path
    seconds: float
    rows: int
    fresh: int
    cores: int
    epochs: int | None

    def drawn(self, case: Case) -> Drawn:
        """The rows of the case, and the given policy."""
        return Drawn(self.policies, self.folder, case.policy, case.kind, case.seed, self.rows, self.fresh)

    def out(self, case: Case, method: str) -> Path:
        """Where a method's network is written."""
        return self.folder / f"{case}-{method}.onnx"


def main() -> None:
    """Make the runs that are missing, in turns, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=Path, required=True, metavar="FOLDER", help="policies and make_rows.py")
    parser.add_argument("--folder", type=Path, default=Path("build/policies"), help="for rows, networks and runs")
    parser.add_argument("--names", nargs="+", default=["go1", "bh"], help="of policies")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of rows")
    parser.add_argument("--limits", nargs="+", type=int, default=list(LIMITS), help="parameters")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=60, help="at most, for each run")
    parser.add_argument("--rows", type=int, default=30_000, help="to train on and to choose by")
    parser.add_argument("--fresh", type=int, default=10_000, help="rows to measure on")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="of onnxsurgeon; by default its own number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    given = parser.parse_args()
    for name in (SCRIPT, *(f"{name}.onnx" for name in given.names)):
        if not (given.policies / name).is_file():
            parser.error(f"--policies {given.policies}: holds no {name}")
    if given.seconds <= 0 or min(given.rows, given.fresh, *given.limits) < 1:
        parser.error("--seconds, --rows, --fresh and --limits are above 0")
    rules = Rules(given.policies, given.folder, given.seconds, given.rows, given.fresh, given.cores, given.epochs)
    cases = [
        Case(name, kind, limit, seed)
        for seed in given.seeds
        for name in given.names
        for kind in given.kinds
        for limit in given.limits
    ]
    try:
        compare(rules, cases, given.methods, given.json)
    except SystemExit as error:
        parser.exit(2, f"shrink_policies.py: {error.code}\n")


def compare(rules: Rules, cases: Sequence[Case], methods: Sequence[str], path: Path | None) -> None:
    """Make what is missing, all methods of a case one after the other, and print the tables.

    Raises:
        SystemExit: the results in ``path`` were made by other rules, or a run failed.
    """
    kept = {name: getattr(rules, name) for name in ("seconds", "rows", "fresh", "cores", "epochs")}
    results = Results(kept, path)
    hold_cores(rules.cores)
    rules.folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if results.find("given", 0, policy=case.policy) is None:
            results.add({"method": "given", "seed": 0, "policy": case.policy, **facts(rules.drawn(case).model)})
        for method in methods:
            run = results.find(method, case.seed, **case.key)
            if run is None:
                run = measure(rules, case, method)
                results.add(run)
            print(f"- {case}, {METHODS[method]}: {summary(run)}", flush=True)
    print(f"\n{report(results, cases, methods)}")


def measure(rules: Rules, case: Case, method: str) -> Run:
    """Make one network, and measure it on the fresh rows."""
    rows, out = read_rows(rules.drawn(case)), rules.out(case, method)
    out.unlink(missing_ok=True)
    extra = make(rules, case, method, rows, out)
    made = outputs(out, {input_name(out): rows.fresh})[0]
    measured = {"r2": r_squared(rows.fresh_outputs, made), **facts(out), **extra}
    return {"method": method, "seed": case.seed, **case.key, **measured}


def make(rules: Rules, case: Case, method: str, rows: Rows, out: Path) -> dict[str, Any]:
    """Write the method's network to ``out``; what else is to be told of how it was made."""
    model, begun = rules.drawn(case).model, time.perf_counter()
    if method == "onnxsurgeon":
        return shrink(rules, case, out)
    if method == "straight":
        save(pruned(model, rows, case), out)
        return {"seconds": time.perf_counter() - begun}
    from measuring.torch_training import Recipe, imitate_from_scratch, load_everything, train_on

    load_everything()
    begun = time.perf_counter()
    recipe = Recipe(RATES[method], BATCH, rules.seconds, case.seed, rules.cores)
    if method == "scratch":
        sizes, activation = shape(model, rows.train_outputs.shape[1], case.limit)
        name = input_name(model)
        trained = imitate_from_scratch(sizes, activation, rows.train, rows.train_outputs, recipe, out, name)
    else:
        start = out.with_suffix(".start.onnx")
        save(pruned(model, rows, case), start, overwrite=True)
        trained = train_on(start, rows.train, rows.train_outputs, recipe, out, begun)
    return {"seconds": trained.seconds, "epochs": trained.epochs, "threads": trained.threads}


def shrink(rules: Rules, case: Case, out: Path) -> dict[str, Any]:
    """One run of onnxsurgeon, as a user without labels makes it."""
    run = rules.folder / "runs" / str(case)
    shutil.rmtree(run, ignore_errors=True)  # of a run that was stopped
    wishes: dict[str, Any] = {"max_parameters": case.limit, "time_limit": rules.seconds, "seed": case.seed}
    if rules.epochs is not None:
        wishes["epochs"] = rules.epochs
    settings = SurgeonSettings.from_preset("default", **wishes)
    begun = time.perf_counter()
    evolved = evolve(rules.drawn(case).model, str(rules.drawn(case).file), settings=settings, run_dir=run, out=out)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "validation": evolved.validation_accuracy, "shortfall": evolved.shortfall}


def pruned(model: Path, rows: Rows, case: Case) -> Any:
    """The policy pruned to the limit by its training rows; its own outputs stand for labels."""
    network, name = load(model), input_name(model)
    split = Split({name: rows.train}, rows.train_outputs)
    dataset = Dataset("rows", split, split, 0)
    return pruned_straight(network, prepare(network, dataset, split), case.limit, case.seed)


def shape(model: Path, outputs: int, limit: int) -> tuple[tuple[int, ...], str]:
    """Sizes of a perceptron of at most ``limit`` parameters with the policy's ratios of widths, and its activation."""
    network = load(model)
    hidden = network.widths[1:-1]
    ratios = [1.0, *(after / before for before, after in pairwise(hidden))]
    activation = network.layers[0].activation
    return fit_widths(network.widths[0], outputs, ratios, limit), activation.op_type if activation else ""


def summary(run: Run) -> str:
    """A run in a line."""
    return f"{run['topology']}, {run['parameters']:,} parameters, R² {run['r2']:.4f}, {run['seconds']:.0f} s"


def report(results: Results, cases: Sequence[Case], methods: Sequence[str]) -> str:
    """R² by limit and method, what became of size and latency, and what is not as it has to be."""
    groups = list(dict.fromkeys((case.policy, case.kind, case.limit) for case in cases))
    seeds = list(dict.fromkeys(case.seed for case in cases))

    def found(group: tuple[str, str, int], method: str) -> list[Run]:
        key = dict(zip(("policy", "kind", "limit"), group, strict=True))
        return [run for seed in seeds if (run := results.find(method, seed, **key))]

    fidelity, sizes = [], []
    for group in groups:
        policy, kind, limit = group
        runs = {method: found(group, method) for method in methods}
        fidelity.append([policy, kind, f"{limit:,}", *(spread([run["r2"] for run in each]) for each in runs.values())])
        given = results.find("given", 0, policy=policy) or {}
        for method, each in runs.items():
            facts = [change(given[key], [run[key] for run in each]) for key in ("parameters", "bytes")]
            latency = change(given["latency"], [run["latency"] for run in each], 3)
            seconds = spread([run["seconds"] for run in each], 1)
            topologies = ", ".join(dict.fromkeys(run["topology"] for run in each))
            sizes.append([policy, kind, method, f"{limit:,}", *facts, latency, seconds, topologies])
    most, figures = "parameters at most", ["parameters", "bytes", "latency of a row, ms", "s", "topologies"]
    tables = [
        table(["policy", "rows", most, *(METHODS[method] for method in methods)], fidelity, texts=2),
        table(["policy", "rows", "method", most, *figures], sizes, texts=3),
    ]
    own = [(group, {method: found(group, method) for method in METHODS}) for group in groups]
    return "\n\n".join([*tables, *verdicts(own)])


def verdicts(groups: Sequence[tuple[tuple[str, str, int], dict[str, list[Run]]]]) -> list[str]:
    """What has to be, and is or is not: each limit met, R² above the other methods' and what go1 has to reach."""
    lines = []
    for (policy, kind, limit), runs in groups:
        if not runs["onnxsurgeon"]:
            continue
        problems = ["a limit is not met"] if any(run["parameters"] > limit for run in runs["onnxsurgeon"]) else []
        value, *others = (mean(run["r2"] for run in runs[m]) if runs[m] else -math.inf for m in ("onnxsurgeon", *ABOVE))
        for method, other in zip(ABOVE, others, strict=True):
            # What was pruned and trained on may be equalled.
            if value < other or (value == other and method != "trained-on"):
                problems.append(f"{METHODS[method]} is better")
        wanted = WANTED.get((kind, limit)) if policy == "go1" else None
        if wanted is not None and value < wanted:
            problems.append(f"{value:.4f}, not {wanted}")
        lines.append(f"- {policy}, {kind}, {limit:,}: {'; '.join(problems) or 'as it has to be'}")
    return ["\n".join(lines)] if lines else []


if __name__ == "__main__":
    main()
