"""The means by which every command shows its results: lines, tables, figures and progress bars.

Only ``cli`` uses it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import markup
from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from onnxsurgeon.printable import shown
from onnxsurgeon.runs.footprint import Figure

if TYPE_CHECKING:
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.operating.perform import Performed
    from onnxsurgeon.training.metrics import HeadMetrics


_UNKNOWN_WIDTH = 80


class Terminal(Console):
    """A console that sends no control characters except rich's own and line ends, even where text was not escaped."""

    def __init__(self, **options: Any) -> None:
        """Take rich's options; COLUMNS=0, which some editors and schedulers set, is an unknown width."""
        super().__init__(**options)
        if self.width < 1:
            self.width = _UNKNOWN_WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of text that are sent."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(shown(segment.text, keep="\n"), segment.style)


out = Terminal(highlight=False, emoji=False)
err = Terminal(stderr=True, highlight=False, emoji=False)


def escape(text: str) -> str:
    """Escape text that others wrote, for a place where rich reads markup."""
    return markup.escape(shown(text))


def print_json(record: Any) -> None:
    """Print one JSON document on standard output, and nothing else."""
    sys.stdout.write(json.dumps(record, indent=2) + "\n")


def fail(message: str, code: str = "") -> None:
    """Print one line on standard error; behind it stands the code by which ``explain`` knows its meaning."""
    behind = f" [dim]{escape(f'[{code}]')}[/]" if code else ""
    err.print(f"[bold red]onnxsurgeon:[/] {escape(' '.join(message.split()))}{behind}", soft_wrap=True)


def remarks(sentences: Sequence[str], *, as_json: bool = False) -> None:
    """Print sentences besides the result, a line each.

    On standard error where standard output is for a JSON document.
    """
    for sentence in sentences:
        (err if as_json else out).print(f"[dim]{escape(' '.join(sentence.split()))}[/]", soft_wrap=True)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | list[str]]],
    *,
    right: Sequence[str] = (),
    fold: Sequence[str] | None = None,
) -> None:
    """Print a plain table; columns in ``right`` are aligned to the right; those in ``fold`` (None: all) may be broken.

    A cell is a text, or a list of lines.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        cells = [row[number] for row in rows]
        # Of a column that is no wider than its heading nothing is gained by breaking that.
        is_short = all(isinstance(cell, str) and len(cell) <= len(column) for cell in cells) and " " not in column
        kept = is_short or (fold is not None and column not in fold)
        grid.add_column(
            escape(column),
            justify="right" if column in right else "left",
            overflow="ellipsis" if kept else "fold",
            no_wrap=kept,
        )
    for row in rows:
        grid.add_row(*(escape(cell) if isinstance(cell, str) else "\n".join(map(escape, cell)) for cell in row))
    out.print(grid)


def heads(found: Sequence[HeadMetrics]) -> None:
    """Show each of several heads apart; nothing where there is one."""
    if found:
        rows = [(each.head, each.metric, f"{each.accuracy:.4f}", f"{each.loss:.4f}") for each in found]
        table(("head", "metric", "value", "loss"), rows, right=("value", "loss"))


def network_summary(network: Network) -> str:
    """Topology and parameter count on one line; for convolutions also the multiplications (MACs), where known."""
    text = f"{network.topology}, {network.parameter_count:,} parameters"
    count = network.multiplications if any(segment.is_convolution for segment in network.segments) else None
    return text if count is None else f"{text}, {count:,} MACs a row"


def operations(performed: Sequence[Performed]) -> None:
    """Show the records of ``operate``; with data also the errors that were predicted and found."""
    has_data = any(found is not None for _, found in performed)
    rows = []
    for record, found in performed:
        errors = (relative_error(record.predicted), relative_error(found)) if has_data else ()
        counts = f"{record.parameters_before:,} → {record.parameters:,}"
        kind = "exact" if record.exact else "approximate"
        rows.append((record.surgery, kind, f"{record.deviation:.2e}", *errors, counts))
    errors = ("predicted", "found") if has_data else ()
    table(("surgery", "kind", "deviation", *errors, "parameters"), rows, right=("deviation", *errors))
    rounding_note(performed[-1].record.rounding if performed else 0.0)


def relative_error(error: float | None) -> str:
    """A relative error as a cell of a table, a dash where it is not known."""
    return "–" if error is None else f"{error:.2e}"


def rounding_note(rounding: float) -> None:
    """Say by how much writing weights in the file's own type changed them, where it did."""
    if rounding:
        print_line(f"[dim]weights are rounded to the file's type, by up to {rounding:.1e} of their tensor's largest[/]")


UNBOUNDED = 10_000  # columns


def print_line(text: str) -> None:
    """Print a line; on a terminal it is broken between words, never inside a number, and elsewhere not at all."""
    out.print(text, soft_wrap=not out.is_terminal)


def figures_box(found: Sequence[Figure]) -> None:
    """Show figures side by side, each before → after with its change below.

    One below another where that is too wide.
    """
    grid = _figures_across(found)
    wanted = out.measure(grid, options=out.options.update(max_width=UNBOUNDED)).maximum
    out.print(grid if wanted <= out.width else _figures_down(found))


def _figures_across(found: Sequence[Figure]) -> Table:
    grid = Table(box=ROUNDED, show_header=False, show_lines=False)
    for _ in found:
        grid.add_column(justify="center", no_wrap=True)
    grid.add_row(*(f"[dim]{escape(each.name)}[/]" for each in found))
    grid.add_row(*(f"{escape(each.before)} → [bold]{escape(each.after)}[/]" for each in found))
    grid.add_row(*(f"[bold]{escape(each.change)}[/]" for each in found))
    return grid


def _figures_down(found: Sequence[Figure]) -> Table:
    grid = Table(box=ROUNDED, show_header=False, show_lines=False)
    sides: tuple[JustifyMethod, ...] = ("left", "right", "left")
    for number, side in enumerate(sides):
        grid.add_column(justify=side, no_wrap=number > 0)  # a name may be broken, a number may not
    for each in found:
        change, name = f"[bold]{escape(each.change)}[/]", f"[dim]{escape(each.name)}[/]"
        grid.add_row(name, f"{escape(each.before)} → [bold]{escape(each.after)}[/]", change)
    return grid


class DownloadBar:
    """A progress bar for one file, with those parts of tqdm's interface that pooch uses."""

    def __init__(self, name: str) -> None:
        self.total = 0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=err
        )
        self._task = self._progress.add_task(name, total=None)

    def update(self, count: int) -> None:
        """Add ``count`` bytes that have come."""
        self._progress.start()
        self._progress.update(self._task, advance=count, total=self.total)

    def reset(self) -> None:
        """Start again from nothing, as pooch does before it fills the bar."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """End the bar, since the file is complete."""
        self._progress.stop()
