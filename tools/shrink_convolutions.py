"""A network of convolutions trained on Fashion-MNIST, made smaller: with labels, and with images alone.

    python tools/shrink_convolutions.py --json convolutions.json
    python tools/shrink_convolutions.py --wishes shrink-4 --methods onnxsurgeon --epochs 4
    python tools/shrink_convolutions.py --network plain --wishes macs-4 --json plain.json

The network, c1-c16+c16-c16-c16+c16-c32+c32-c32-c32+32-10, or plain c1-c32-c64+3136-10 in steps of 2, is trained in
PyTorch without a tenth of the training images, which decide (AdamW 0.004, 0.002 of the plain one, one cycle, batch 64),
and kept in the folder. What is asked for is evolve's --shrink 4, --max-latency of half the given network's and, with
images alone, --max-macs of a quarter; all else by default but for the number of epochs, which Torch-Pruning's result is
trained for as well, as the given network was. onnxsim prunes by 512 images and recovers by least squares; it does not
train. Test images are told right, and as the given network tells them, by ONNX Runtime; latencies are of a row on one
thread, in turns with the given network.
Needs PyTorch and onnxsim, which ``make compare`` makes an environment with, and for its row torch-pruning.
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
from measuring.markdown import NONE, change, spread, table
from measuring.models import Array, input_name, outputs
from measuring.pruning import pruned_straight
from searching.results import Results, Run

from onnxsurgeon import Dataset, InputOptions, Split, SurgeonSettings, evolve, load, load_dataset, prepare, save
from onnxsurgeon.surgeon.latency import latencies_of

NAME, CLASSES = "fashion-mnist", 10
OPTIONS = InputOptions(loss="cross-entropy")
WISHES = {
    "shrink-4": "a quarter of the parameters",
    "latency-2": "half the latency",
    "macs-4": "a quarter of the MACs, images alone",
}
OWN = "onnxsurgeon"
METHODS = {
    "straight": "straight pruning by data, no training",
    "onnxsim": "onnxsim's pruning, no training",
    "onnxsim-recovered": "onnxsim's pruning, recovered by least squares",
    "torch-pruning": "Torch-Pruning, trained",
    OWN: "onnxsurgeon",
}
RESIDUAL, PLAIN = NETWORKS = "residual", "plain"
KEYS = ("rows", "training_epochs", "epochs", "cores", "network")  # of Rules, that results were made by
AGREEMENT = 0.98  # with the given network, of what imitates it at a quarter of its MACs


@dataclass(frozen=True)
class Rules:
    """What is the same for every run; see the options."""

    folder: Path
    rows: int | None
    training_epochs: int
    epochs: int
    cores: int
    network: str = RESIDUAL


@dataclass(frozen=True)
class Images:
    """Fashion-MNIST in three parts: trained on, deciding, and never seen."""

    train: Split
    deciding: Split
    test: Split

    @classmethod
    def of(cls, rows: int | None) -> Images:
        """All training images, or the first ``rows``, a tenth of which decides."""
        dataset = load_dataset(NAME)
        if rows is not None:
            dataset = Dataset(NAME, dataset.train.take(np.arange(rows)), dataset.test, dataset.classes)
        return cls(*dataset.hold_out(), dataset.test)


def main() -> None:
    """Make the runs that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default=RESIDUAL, help="that is given")
    parser.add_argument("--wishes", nargs="+", choices=WISHES, default=list(WISHES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--folder", type=Path, default=Path("build/convolutions"), help="for images, networks and runs")
    parser.add_argument("--rows", type=int, help="training images, a tenth of which decides; by default all 60,000")
    parser.add_argument("--training-epochs", type=int, default=8, help="of the network that is given")
    parser.add_argument("--epochs", type=int, default=8, help="of evolve, and of what Torch-Pruning has pruned")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and go on with those it holds")
    given = parser.parse_args()
    rules = Rules(given.folder, given.rows, given.training_epochs, given.epochs, given.cores, given.network)
    try:
        compare(rules, given.wishes, given.methods, given.seeds, given.json)
    except SystemExit as error:
        parser.exit(2, f"shrink_convolutions.py: {error.code}\n")


def compare(
    rules: Rules, wishes: Sequence[str], methods: Sequence[str], seeds: Sequence[int], path: Path | None
) -> None:
    """Make what is missing, and print the tables.

    Raises:
        SystemExit: the results in ``path`` were made by other rules.
    """
    results = Results({name: getattr(rules, name) for name in KEYS}, path)
    hold_cores(rules.cores)
    rules.folder.mkdir(parents=True, exist_ok=True)
    images = Images.of(rules.rows)
    for seed in seeds:
        start = given_network(rules, images, seed)
        if results.find("given", seed) is None:
            results.add({"method": "given", "seed": seed, **measured(start, start, images)})
            print(f"- given, seed {seed}: {summary(results.runs[-1])}", flush=True)
        for wish in wishes:
            for method in methods:
                if method != OWN and wish != "shrink-4":
                    continue
                run = results.find(method, seed, wish=wish)
                if run is None:
                    run = measure(rules, images, start, wish, method, seed)
                    results.add(run)
                print(f"- {wish}, {METHODS[method]}, seed {seed}: {summary(run)}", flush=True)
    print(f"\n{report(results, wishes, methods, seeds)}")


def given_network(rules: Rules, images: Images, seed: int) -> Path:
    """The network that is given, trained where it has not been."""
    rows = "" if rules.rows is None else f"-{rules.rows}-rows"
    kind = "" if rules.network == RESIDUAL else f"-{rules.network}"
    path = rules.folder / f"given{kind}-{seed}-{rules.training_epochs}-epochs{rows}.onnx"
    if not path.exists():
        from measuring.torch_convolutions import train_network

        part = path.with_suffix(".part")
        labels = np.asarray(images.train.labels)
        shown = pictures(images.train)
        train_network(rules.network, shown, labels, rules.training_epochs, seed, rules.cores, part)
        part.with_suffix(".pt").replace(path.with_suffix(".pt"))
        part.replace(path)
    return path


def pictures(split: Split) -> Array:
    """The images (rows, 28, 28) as bytes."""
    return np.asarray(split.inputs).reshape(split.rows, 28, 28)


def pixels(split: Split) -> Array:
    """The images (rows, 1, 28, 28) as the network takes them."""
    return pictures(split)[:, None].astype(np.float32) / np.float32(255)


def measure(rules: Rules, images: Images, start: Path, wish: str, method: str, seed: int) -> Run:
    """One run."""
    out = rules.folder / f"{wish}-{method}-{seed}.onnx"
    out.unlink(missing_ok=True)
    given = load(start)
    most = given.parameter_count // 4
    labels, begun = np.asarray(images.train.labels), time.perf_counter()
    extra: dict[str, Any] = {}
    if method == "straight":
        dataset = Dataset(NAME, images.train, images.test, CLASSES)
        save(pruned_straight(given, prepare(given, dataset, images.train, OPTIONS), most, seed), out)
    elif method == OWN:
        folder = rules.folder / "runs" / f"{wish}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
        asked = limits(start, wish)
        settings = SurgeonSettings.from_preset("default", seed=seed, epochs=rules.epochs, **asked)
        data = data_for(rules, images, has_labels=wish != "macs-4")
        begun = time.perf_counter()
        evolved = evolve(start, data, settings=settings, options=OPTIONS, run_dir=folder, out=out)
        extra = {"asked": asked, "validation": evolved.validation_accuracy, "shortfall": evolved.shortfall}
    elif method == "torch-pruning":
        from measuring.torch_convolutions import prune_groups

        train = pictures(images.train)
        extra = prune_groups(rules.network, start, train, labels, most, rules.epochs, seed, rules.cores, out)
    else:
        from measuring.onnxsim_pruning import prune_by_onnxsim

        prune_by_onnxsim(start, pixels(images.train), most, out, recovers=method == "onnxsim-recovered")
    seconds = time.perf_counter() - begun
    same = {"method": method, "seed": seed, "wish": wish, "seconds": seconds}
    return {**same, **measured(start, out, images), **extra}


def limits(start: Path, wish: str) -> dict[str, Any]:
    """The setting of evolve, and its value."""
    if wish == "shrink-4":
        return {"shrink": 4}
    if wish == "macs-4":
        return {"max_macs": (load(start).multiplications or 0) // 4}
    (latency,) = latencies_of([start])
    if latency is None:
        raise SystemExit(f"{start}: ONNX Runtime cannot run it")
    return {"max_latency": latency / 2}


def data_for(rules: Rules, images: Images, *, has_labels: bool) -> str:
    """A file of the three parts, with labels or without."""
    file = rules.folder / f"{'labels' if has_labels else 'images'}-{rules.rows or 'all'}.npz"
    if not file.exists():
        parts = {"train": images.train, "validation": images.deciding, "test": images.test}
        arrays = {f"x_{name}": pictures(split)[..., None] for name, split in parts.items()}
        if has_labels:
            arrays |= {f"y_{name}": np.asarray(split.labels) for name, split in parts.items()}
        part = file.with_suffix(".part.npz")
        np.savez(part, **arrays)  # type: ignore[arg-type]
        part.replace(file)
    return str(file)


def measured(start: Path, path: Path, images: Images) -> dict[str, Any]:
    """What is told of the file at ``path``, and the latencies of both."""
    rows = pixels(images.test)
    before, after = (outputs(each, {input_name(each): rows})[0].argmax(axis=1) for each in (start, path))
    network, latencies = load(path), latencies_of([start, path])
    return {
        "topology": network.topology,
        "parameters": network.parameter_count,
        "macs": network.multiplications,
        "bytes": path.stat().st_size,
        "given_latency": latencies[0],
        "latency": latencies[1],
        "test": float(np.mean(after == np.asarray(images.test.labels))),
        "agreement": float(np.mean(after == before)),
    }


def summary(run: Run) -> str:
    """A run in a line."""
    return (
        f"{run['topology']}, {run['parameters']:,} parameters, {run['macs']:,} MACs, test {run['test']:.4f}, agreement "
        f"{run['agreement']:.4f}, {run.get('seconds', 0):.0f} s"
    )


def report(results: Results, wishes: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> str:
    """A table for each wish: a line for each method, and what became of the sizes."""
    parts = []
    given = [run for seed in seeds if (run := results.find("given", seed))]
    starts = {run["seed"]: run["test"] for run in given}
    for wish in wishes:
        rows = []
        for method in methods:
            runs = [run for seed in seeds if (run := results.find(method, seed, wish=wish))]
            if not runs:
                continue
            sizes = [
                change(mean(run[key] for run in given), [run[key] for run in runs])
                for key in ("parameters", "macs", "bytes")
            ]
            rows.append(
                [
                    METHODS[method],
                    spread([starts[run["seed"]] for run in runs]),
                    spread([run["test"] for run in runs]),
                    spread([starts[run["seed"]] - run["test"] for run in runs]),
                    spread([run["agreement"] for run in runs]),
                    *sizes,
                    latency(runs),
                    spread([run["seconds"] for run in runs], 0),
                    ", ".join(dict.fromkeys(run["topology"] for run in runs)),
                ]
            )
        head = ["", "test before", "test after", "lost", "agreement", "parameters", "MACs", "bytes"]
        parts.append(f"**{WISHES[wish]}**\n\n" + table([*head, "latency, ms", "s", "topologies"], rows))
        runs = [run for seed in seeds if (run := results.find(OWN, seed, wish=wish))]
        parts.extend(f"- seed {run['seed']}: {verdict(wish, run, starts)}" for run in runs)
    return "\n\n".join(parts)


def latency(runs: Sequence[Run]) -> str:
    """Of the given network and of the results, as measured in turns."""
    known = [run for run in runs if run["latency"] is not None]
    return change(mean(run["given_latency"] for run in known), [run["latency"] for run in known], 3) if known else NONE


def verdict(wish: str, run: Run, starts: dict[int, float]) -> str:
    """What has to be, and is or is not."""
    problems = [] if not run["shortfall"] else [run["shortfall"]]
    if wish == "macs-4" and run["agreement"] < AGREEMENT:
        problems.append(f"agreement {run['agreement']:.4f}, not at least {AGREEMENT}")
    return "; ".join(problems) or f"the limit is met; {starts[run['seed']] - run['test']:+.4f} of accuracy lost"


if __name__ == "__main__":
    main()
