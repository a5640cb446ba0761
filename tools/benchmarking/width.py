"""Cost of a training step against the width of a hidden layer, beside what its operations cost at the peak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarking.environments import Environment, compete
from benchmarking.serve import ARTIFACTS, LOOP, NUMPY, TORCH
from benchmarking.steps import records
from benchmarking.task import BATCH, STEPS, make_task, step_flops

WIDTHS = (10, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
PEERS = (LOOP, ARTIFACTS, TORCH, NUMPY)
INPUTS, CLASSES = 784, 10
RUN = 4e9  # floating-point operations of a run of a wide network: some 100 ms


def measure(environments: list[Environment], rounds: int, steps: int | None, folder: Path) -> list[dict[str, Any]]:
    """The records of ``steps.records`` for 784-w-10, of every width and peer."""
    measured = []
    for width in WIDTHS:
        sizes = (INPUTS, width, CLASSES)
        count = steps or int(min(STEPS["small"], max(30, RUN / step_flops(sizes))))
        task = make_task(sizes, count)
        entrants, _ = compete(environments, task, PEERS, rounds, folder)
        measured += [{**record, "width": width} for record in records("width", task, entrants)]
    return measured


def require_plot(path: Path) -> None:
    """Raise SystemExit, before anything is measured, where the picture could not be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install 'onnxsurgeon[report]'") from error
    if path.suffix not in (".png", ".svg"):
        raise SystemExit(f"--plot {path}: expected a name that ends in .png or .svg")


def plot(measured: list[dict[str, Any]], path: Path) -> None:
    """Draw the medians on two logarithmic axes, with quartiles as bars, and the limit."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[str, list[dict[str, Any]]] = {}
    for record in measured:
        lines.setdefault(f"{record['peer']}, {record['runs_on']}", []).append(record)
    for (label, points), marker in zip(lines.items(), "osD^vP*X" * len(lines), strict=False):
        medians = [point["step"]["median"] for point in points]
        below = [point["step"]["median"] - point["step"]["low"] for point in points]
        above = [point["step"]["high"] - point["step"]["median"] for point in points]
        widths = [point["width"] for point in points]
        axes.errorbar(widths, medians, (below, above), marker=marker, markersize=5, linewidth=1.4, label=label)
    gflops = max(record["peak"]["gflops"] for record in measured)
    limits = [step_flops((INPUTS, width, CLASSES)) / gflops / 1e3 for width in WIDTHS]
    axes.plot(WIDTHS, limits, color="black", linestyle="--", label=f"limit: operations at {gflops:.0f} GFLOP/s")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(WIDTHS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda width, _: f"{width:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("width w of the hidden layer of 784-w-10 (units)")
    axes.set_ylabel("time of a training step (µs)")
    axes.set_title(f"Cost of a training step: batch {BATCH}, SGD, float32, one thread")
    axes.grid(visible=True, which="major", linewidth=0.5, alpha=0.5)
    axes.legend(frameon=False)
    temporary = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)


def table(measured: list[dict[str, Any]]) -> str:
    """Medians as a Markdown table, a row for each width."""
    labels = list(dict.fromkeys(f"{record['peer']}, {record['runs_on']}" for record in measured))
    lines = [f"| w of 784-w-10 | {' | '.join(labels)} | limit |", f"| ---: |{' ---: |' * (len(labels) + 1)}"]
    gflops = max(record["peak"]["gflops"] for record in measured)
    for width in dict.fromkeys(record["width"] for record in measured):
        medians = {
            f"{record['peer']}, {record['runs_on']}": record["step"]["median"]
            for record in measured
            if record["width"] == width
        }
        times = [f"{medians[label]:,.1f}" if label in medians else "" for label in labels]
        limit = step_flops((INPUTS, width, CLASSES)) / gflops / 1e3
        lines.append(f"| {width} | {' | '.join(times)} | {limit:,.1f} |")
    return "\n".join(lines)
