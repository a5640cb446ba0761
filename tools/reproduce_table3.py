"""Reprint rows of the paper's Table 3: baseline and Surgeon, means and deviations over seeds.

    python tools/reproduce_table3.py --data fashion-mnist --sizes small medium --seeds 6 63 72 77 97

For every seed a fresh Glorot uniform network is drawn, trained plainly for 100 epochs (the baseline), and evolved
with preset paper; both see the same batches, and both are measured on the test split, as in the paper. The paper's own
figures, means and deviations of 15 runs, are printed beside ours.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from make_models import LARGE, MEDIUM, SHAPES, SMALL
from paper_table3 import SEEDS, TABLE_3

from onnxsurgeon import SurgeonSettings, create, evolve, load_dataset, make_engine, save
from onnxsurgeon.training.fit import fit

SIZES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}


def main() -> None:
    """Parse, run, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", choices=SHAPES)
    parser.add_argument("--sizes", nargs="+", default=["small", "medium"], choices=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--json", type=Path, help="also write every run's figures to this file")
    arguments = parser.parse_args()
    shape, classes = SHAPES[arguments.data]
    dataset, engine = load_dataset(arguments.data), make_engine("loop")
    runs = []
    for size in arguments.sizes:
        sizes = (int(np.prod(shape)), *SIZES[size], classes)
        for seed in arguments.seeds:
            network = create(sizes, input_shape=shape, seed=seed)
            _, baseline = fit(network, dataset, engine, epochs=arguments.epochs, seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                start = Path(folder, "start.onnx")
                save(network, start)
                settings = SurgeonSettings.from_preset("paper", seed=seed, epochs=arguments.epochs)
                begun = time.perf_counter()
                evolved = evolve(start, arguments.data, settings=settings, run_dir=Path(folder, "run"))
            runs.append(
                {
                    "size": size,
                    "seed": seed,
                    "baseline": baseline.accuracy,
                    "surgeon": evolved.test.accuracy,
                    "parameters": network.parameter_count,
                    "surgeon_parameters": evolved.network.parameter_count,
                    "topology": evolved.network.topology,
                    "steps": evolved.steps,
                    "seconds": time.perf_counter() - begun,
                }
            )
            print("  ".join(f"{key} {value}" for key, value in runs[-1].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(runs, indent=2) + "\n")
    print("", *lines(arguments.data, runs), sep="\n")


def lines(data: str, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The Markdown table, line by line: a row for each size in ``runs``, the paper's figures behind ours."""
    yield f"| {data} | baseline | Surgeon | parameters | paper: baseline | Surgeon | parameters |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for size in dict.fromkeys(run["size"] for run in runs):
        rows = [run for run in runs if run["size"] == size]
        change = [row["surgeon_parameters"] / row["parameters"] - 1 for row in rows]
        cells = [
            f"{size}, {len(rows)} seeds",
            spread([row["baseline"] for row in rows]),
            spread([row["surgeon"] for row in rows]),
            f"{np.mean(change):+.1%} ± {np.std(change):.1%}",
            *papers(data, size),
        ]
        yield f"| {' | '.join(cells)} |"


def papers(data: str, size: str) -> tuple[str, str, str]:
    """What the paper prints for this network: baseline, Surgeon, change of the parameters."""
    if (data, size) not in TABLE_3:
        return "–", "–", "–"
    row = TABLE_3[data, size]
    change = row.parameters
    percent = "not legible to us" if change is None else f"{change.mean:+.2f}% ± {change.deviation:.2f}%"
    return str(row.baseline), str(row.surgeon), percent


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds."""
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


if __name__ == "__main__":
    main()
