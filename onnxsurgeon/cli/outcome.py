"""The last output of ``evolve``: the result beside the given model, and its path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxsurgeon.cli.console import escape, figures_box, network_summary, out, print_line, rounding_note, table
from onnxsurgeon.cli.narrow import shorten
from onnxsurgeon.runs.footprint import figures, measured_figure, spell_metric

if TYPE_CHECKING:
    from onnxsurgeon.runs.entry import Entry
    from onnxsurgeon.surgeon.result import Evolved


def _whole(text: str) -> None:
    """Print a line with a path without breaking it, so that it can be copied."""
    out.print(text, soft_wrap=True)


def show_outcome(evolved: Evolved, copied_to: Path | None, page: Path | None) -> None:
    """Print the outcome of ``evolve``."""
    outside = 1 - evolved.training_seconds / evolved.seconds if evolved.seconds else 0.0
    metric = evolved.test.metric
    measured = measured_figure(metric, evolved.start.accuracy, evolved.test.accuracy)
    out.print()
    figures_box([*figures(evolved.before, evolved.after, is_given=evolved.is_given), measured])
    worse, others = evolved.remarks[: evolved.is_worse], evolved.remarks[evolved.is_worse :]
    for remark in worse:
        print_line(f"[bold red]{escape(remark)}[/]")
    out.print(f"\n[bold]{network_summary(evolved.network)}[/]")
    later = ", before it was trained on these as well" if evolved.is_refitted else ""
    print_line(f"{metric} {evolved.validation_accuracy:.4f} on the rows it was chosen by{later}")
    out.print(
        f"{metric} {evolved.test.accuracy:.4f} on the test split; the given model has {evolved.start.accuracy:.4f}"
    )
    _heads(evolved)
    rounding_note(evolved.branch.history[-1].rounding)
    print_line(f"surgeries: {', '.join(evolved.branch.lineage) or 'none'}")
    out.print(f"{evolved.steps:,} training steps in {evolved.seconds:.1f} s, {outside:.0%} of it outside training")
    if evolved.written_front:
        _front(evolved.written_front, metric)
    for remark in others:
        print_line(f"[yellow]{escape(remark)}[/]")
    if page is not None:
        _whole(f"report: {escape(str(page))}")
    _whole(f"result: [bold]{escape(str(copied_to or evolved.run / 'best.onnx'))}[/]")


def _heads(evolved: Evolved) -> None:
    """Print each of several heads apart."""
    rows = [
        (each["head"], each["metric"], spell_metric(each["start_test_accuracy"]), spell_metric(each["test_accuracy"]))
        for each in evolved.heads()
    ]
    if rows:
        table(("head", "metric", "given", "result"), rows, right=("given", "result"))


def _front(entries: Sequence[Entry], metric: str) -> None:
    """Print the networks of RUN/front, with the figures that limits ask for."""
    more = {
        "MACs": [entry.multiplications for entry in entries],
        "memory": [entry.memory for entry in entries],
    }
    asked = {title: counts for title, counts in more.items() if None not in counts}
    room = max(16, out.width - 56 - 14 * len(asked))  # beside the other columns
    rows = []
    for position, entry in enumerate(entries):
        counts = [f"{values[position]:,}" for values in asked.values()]
        cells = (f"{entry.accuracy:.4f}", *counts, f"{entry.latency or 0:.4f}")
        rows.append((entry.file, shorten(entry.topology, room), f"{entry.parameters:,}", *cells))
    numbers = ("parameters", metric, *asked, "ms a row")
    table(("front", "topology", *numbers), rows, right=numbers)
