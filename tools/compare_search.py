"""Searches for networks at equal wall time: onnxsurgeon, Optuna over PyTorch, and scikit-learn's MLPClassifier.

    python tools/compare_search.py --json compare.json            # three seeds, 300 s each: 45 minutes
    python tools/compare_search.py --methods torch --seeds 0 --time-limit 30

Per method and seed there is one search; for each budget the network with the best validation accuracy among those with
at most that many parameters is measured on the test rows. Searches whose results are in the file of --json are not made
again. Needs optuna, PyTorch and scikit-learn: ``make compare`` makes an environment of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from measuring.machine import hold_cores
from searching import optuna_search, surgeon
from searching.networks import Candidate, Search, accuracy, held_back_rows, record, within
from searching.results import Results, Run, table

from onnxsurgeon import Dataset, Network, load_dataset, make_engine, prepare
from onnxsurgeon.runs.versions import versions

BUDGETS = (10_000, 30_000, 100_000, 300_000)
METHODS = {"onnxsurgeon": "onnxsurgeon", "torch": "Optuna over PyTorch", "sklearn": "Optuna over MLPClassifier"}
# Beside those that onnxsurgeon depends on.
PACKAGES: dict[str, tuple[str, ...]] = {
    "onnxsurgeon": (),
    "torch": ("optuna", "torch"),
    "sklearn": ("optuna", "scikit-learn"),
}
ROOT = Path(__file__).resolve().parent.parent
CAPTION = """Accuracy on the test rows of {rules.data}, mean ± standard deviation over seeds.

- All methods: the same {rows};
  {rules.seconds:g} s of searching on {rules.cores} cores; one search a seed. For each budget the network with the best
  validation accuracy among those with at most that many parameters is measured on the {test} test rows, once.
- onnxsurgeon: evolve --objective pareto from {rules.start.name}, as many epochs as the time allows, everything else by
  default.
- Optuna: for each budget an equal share of the time, a TPE sampler and a median pruner; {rules.cores} processes of one
  thread each. Sampled: 1 to 3 hidden layers, their widths fitted to the budget; learning rate, batch size 32 to 256, 5
  to 30 epochs, weight decay; in PyTorch AdamW or SGD with Nesterov momentum, dropout, batch normalisation (folded when
  trained), a cosine or a constant rate; in scikit-learn Adam or SGD with Nesterov momentum. The first trials are
  settings known to be good, those of a later budget the best two of the one before; each trial's best epoch counts.
- Searches are stopped by the clock: another run is another sample. Trials, epochs and seconds are means over seeds; the
  trials of onnxsurgeon are the branches it measured. Wall time is that of the whole method. Optuna's seconds begin when
  data and libraries are loaded; those of onnxsurgeon are of its whole process."""


@dataclass(frozen=True)
class Rules:
    """What is the same for every method; see the options."""

    data: str
    start: Path
    seconds: float
    budgets: tuple[int, ...]
    cores: int

    def caption(self, dataset: Dataset) -> str:
        """The rules in words."""
        train, validation = dataset.hold_out()
        rows = f"{train.rows:,} rows to train on, without augmentation, {validation.rows:,} to choose by"
        return CAPTION.format(rules=self, rows=rows, test=f"{dataset.test.rows:,}")


def main() -> None:
    """Make what searches are missing, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS), help="numbers of parameters")
    parser.add_argument("--time-limit", type=float, default=300, metavar="SECONDS", help="of each search")
    parser.add_argument("--cores", type=int, default=2, help="to search on")
    parser.add_argument("--data", default="fashion-mnist", help="name of a data set of one class a row")
    parser.add_argument("--start", type=Path, default=ROOT / "models" / "fashion-mnist-small.onnx", help="a model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    arguments = parser.parse_args()
    if arguments.time_limit <= 0 or arguments.cores < 1 or min(arguments.budgets) < 1:
        parser.error("--time-limit, --cores and --budgets are above 0")
    if arguments.json and not arguments.json.parent.is_dir():  # said now, not after minutes of searching
        parser.error(f"--json {arguments.json}: no such folder")
    budgets = tuple(sorted(set(arguments.budgets)))
    rules = Rules(arguments.data, arguments.start, arguments.time_limit, budgets, arguments.cores)
    try:
        compare(rules, arguments.methods, arguments.seeds, arguments.json)
    except SystemExit as error:
        parser.exit(2, f"compare_search.py: {error.code}\n")


def compare(rules: Rules, methods: list[str], seeds: list[int], path: Path | None) -> None:
    """The searches of one seed after the other, so that methods meet the same weather; and the table.

    Raises:
        SystemExit: the results in ``path`` were made by other rules, or a search failed.
    """
    settings = {"data": rules.data, "start": rules.start.name, "seconds": rules.seconds, "cores": rules.cores}
    results = Results({**settings, "budgets": list(rules.budgets)}, path)
    dataset = load_dataset(rules.data)  # downloads it where that is to be done: no search has to
    hold_cores(rules.cores)
    for seed in seeds:
        for method in methods:
            if results.find(method, seed) is None:
                results.add(measure(rules, dataset, method, seed))
            run = results.find(method, seed)
            print(f"- {METHODS[method]}, seed {seed}: {summary(run)}" if run else "", flush=True)
    runs = [run for run in results.runs if run["method"] in methods and run["seed"] in seeds]
    print(f"\n{table(runs, METHODS, rules.budgets)}\n\n{rules.caption(dataset)}")


def measure(rules: Rules, dataset: Dataset, method: str, seed: int) -> Run:
    """Search, then measure what was found for each budget on the test rows."""
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        found = search(rules, method, seed, Path(name) / "run")
        seconds = time.perf_counter() - start
    chosen = {str(budget): within(found.candidates, budget) for budget in rules.budgets}
    entries = {budget: one and record(one, test_accuracy(one, dataset)) for budget, one in chosen.items()}
    others = {package: version(package) for package in PACKAGES[method]}
    done = {"trials": found.trials, "epochs": found.epochs, "search_seconds": found.seconds, "seconds": seconds}
    return {"method": method, "seed": seed, **done, "versions": {**versions(), **others}, "found": entries}


def search(rules: Rules, method: str, seed: int, folder: Path) -> Search:
    """One search by one method."""
    if method == "onnxsurgeon":
        most = rules.budgets[-1]
        job = surgeon.SurgeonJob(rules.start, rules.data, seed, rules.seconds, most, rules.cores)
        return surgeon.search(job, folder)
    return optuna_search.search(method, rules.data, seed, rules.seconds, rules.budgets, rules.cores)


def test_accuracy(candidate: Candidate, dataset: Dataset) -> float:
    """On the test rows, by ONNX Runtime or, for plain layers, by numpy."""
    if isinstance(candidate.network, Network):
        examples = prepare(candidate.network, dataset, dataset.test)
        return make_engine("loop").evaluate(candidate.network, examples).accuracy
    return accuracy(candidate.network, held_back_rows(dataset))


def summary(run: Run) -> str:
    """Such as "10,000: 0.8701 (784-12-10); 12 trials, 150 epochs, 301 s"."""
    found = [
        f"{int(budget):,}: {entry['test']:.4f} ({entry['topology']})" if entry else f"{int(budget):,}: none"
        for budget, entry in run["found"].items()
    ]
    return f"{', '.join(found)}; {run['trials']} trials, {run['epochs']:.0f} epochs, {run['seconds']:.0f} s"


if __name__ == "__main__":
    main()
