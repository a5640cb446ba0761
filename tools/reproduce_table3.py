"""Reprint rows of the paper's Table 3: baseline and Surgeon, means and deviations over seeds.

    python tools/reproduce_table3.py --data fashion-mnist --sizes small medium --seeds 6 63 72 77 97

For every seed a fresh Glorot uniform network is drawn, trained plainly for 100 epochs (the baseline), and evolved
with preset paper; both see the same batches, and both are measured on the test split, as in the paper.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from make_models import LARGE, MEDIUM, SHAPES, SMALL

from onnxsurgeon import SurgeonSettings, create, evolve, load_dataset, make_engine, save
from onnxsurgeon.report.known import PAPER
from onnxsurgeon.training.fit import fit

SIZES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
SEEDS = (6, 63, 72, 77, 97)  # the paper's


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
    print(f"\n| {arguments.data} | baseline | Surgeon | parameters | paper: baseline, Surgeon |")
    print("| --- | --- | --- | --- | --- |")
    for size in arguments.sizes:
        rows = [run for run in runs if run["size"] == size]
        change = [row["surgeon_parameters"] / row["parameters"] - 1 for row in rows]
        topology = "-".join(map(str, (int(np.prod(shape)), *SIZES[size], classes)))
        known = PAPER.get((arguments.data, topology))
        paper = f"{known.baseline}, {known.surgeon}" if known else "not known to us"
        print(
            f"| {size}, {len(rows)} seeds | {spread([row['baseline'] for row in rows])} "
            f"| {spread([row['surgeon'] for row in rows])} | {np.mean(change):+.1%} ± {np.std(change):.1%} | {paper} |"
        )


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds."""
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


if __name__ == "__main__":
    main()
