"""The live view of ``evolve`` on a terminal: what the run is doing now, below the record of its decisions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onnxsurgeon.cli import console
from onnxsurgeon.cli.event_printer import EventPrinter, SilentPrinter
from onnxsurgeon.cli.narrow import heading, shorten, sparkline
from onnxsurgeon.cli.run_state import Row, RunState
from onnxsurgeon.runs.events import Event
from onnxsurgeon.surgeon.log import SCORE
from onnxsurgeon.surgeon.progress import ActiveJob, TrainingProgress

# A repaint takes some milliseconds of Python, during which no worker can go on to its next piece of work.
REPAINTS = 4  # a second
WIDE = 110  # from this many columns on, there is room for gains and for reasons in full
HIGH = 20  # from this many lines on, there is room for the course of the metric
SPARE = 2  # lines of the record that stay in sight
# Columns that everything except the topology takes: the number, surgery, figures, the outcome, and gaps.
NUMBERS, NUMBERS_WIDE = 62, 85
_DROPPED = {  # by reason: the long form and the short one
    SCORE: ("dropped: others score higher", "dropped: score"),
    "less accurate than before": ("dropped: less accurate than before", "less accurate"),
    "its weights became NaN or infinite": ("dropped: NaN or infinite weights", "dropped: NaN"),
}


def watcher(progress: TrainingProgress, *, silent: bool = False) -> EventPrinter:
    """The display of a run: a live view on a terminal, a line for each event elsewhere, or nothing."""
    if silent:
        return SilentPrinter()
    if sys.stdout.isatty() and not console.out.is_dumb_terminal:
        return LiveView(progress)
    return EventPrinter()


class LiveView(EventPrinter):
    """Shows the run in place; decisions are printed above it, and stay when the view is gone."""

    def __init__(self, progress: TrainingProgress) -> None:
        super().__init__()
        self.state = RunState(progress)
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        self._is_stopping = False
        self._live = Live(
            get_renderable=self._render,
            console=console.out,
            refresh_per_second=REPAINTS,
            transient=True,
            redirect_stderr=console.err.is_terminal,
        )

    def __call__(self, event: Event) -> None:
        """Take an event in; once something is decided, print it with the events that led to it."""
        with self._lock:
            self.state.consume(event)
        self.remember(event)
        if event["event"] in ("proposed", "recuperated", "trained", "dropped"):
            self._waiting.append(event)
            return
        self._print_waiting()
        super().__call__(event)
        if event["event"] == "run":
            self._live.start()

    def stopping(self) -> None:
        """Show that the run has been interrupted."""
        self._is_stopping = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._print_waiting()
        finally:
            self._live.stop()

    def _print_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            super().__call__(event)

    def _render(self) -> RenderableType:
        if not self._lock.acquire(timeout=1 / REPAINTS):  # an interrupt came while an event was taken in
            return Text()
        try:
            return render(self.state, console.out, is_stopping=self._is_stopping)
        finally:
            self._lock.release()


def render(state: RunState, screen: Console, *, is_stopping: bool = False) -> RenderableType:
    """The view, no wider and no higher than ``screen``."""
    width = screen.width
    header = [_bar(state, width), _line(_phase(state, is_stopping), width), _line(_speed(state), width)]
    if state.best is not None:
        header.append(_best(state.best, state.metric, width))
    if len(state.curve) > 1 and screen.height >= HIGH:
        header.append(_curve(state, width))
    underway = {each.branch: each for each in state.progress.underway}
    branches, candidates = state.branches, _candidates(state, underway)
    # Besides the rows there are two empty lines and two of column names; on a low screen the record has to give way.
    free = screen.height - len(header) - 6
    room = max(free - SPARE, min(free, 4))
    most = max(1, room - min(len(candidates), room // 2))
    columns = _Columns(width, [row.topology for row in (*branches, *candidates)])
    parts: list[RenderableType] = ["", *header]
    if branches and room > 0:
        parts += ["", *_table("branches", _fitting(branches, most), columns, state, underway)]
    if candidates and room > 1:
        rest = room - min(most, len(branches))
        parts += ["", *_table("candidates", _fitting(candidates, rest), columns, state, underway)]
    return Group(*parts)


def _bar(state: RunState, width: int) -> RenderableType:
    share = state.share
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(
        f"[bold]epoch {int(state.now)} of {state.epochs}[/]",
        ProgressBar(total=1.0, completed=share, width=max(10, min(60, width - 45))),
        f"{share:.0%} of the steps",
    )
    return grid


def _phase(state: RunState, is_stopping: bool) -> str:
    if is_stopping:
        return "[bold yellow]stopping …[/]"
    if state.is_finished:
        return "writing the report"
    if state.epoch >= state.epochs:
        return "measuring the result on the test split"
    if state.is_initial():
        return "training the given model"
    if not state.is_algorithm_1:
        return state.doing
    number, of = state.point
    drawn = f", draw {state.draw + 1} of at most {state.draws}" if state.draws > 1 else ""
    return f"decision point {number} of {of}{drawn}"


def _speed(state: RunState) -> str:
    rate = state.rate()
    left = state.seconds_left(rate)
    rest = "" if left is None or state.epoch >= state.epochs else f", about {_clock(left)} left"
    return f"{_clock(state.elapsed)} elapsed{rest}; {f'{rate:,.0f}' if rate else '–'} steps a second"


def _best(best: Row, metric: str, width: int) -> Text:
    before, after = (
        f"best so far: {metric} {best.accuracy:.4f}, branch {best.branch} (",
        f"), {_count(best)} parameters",
    )
    topology = shorten(best.topology, width - len(before) - len(after))
    return _line(f"{before}{topology}{after}", width)


def _curve(state: RunState, width: int) -> Text:
    """The course of the best network's metric over the decision points."""
    ends = f"{state.curve[0]:.4f} → {state.curve[-1]:.4f}"
    before = f"{state.metric} "
    return _line(f"{before}{sparkline(state.curve, max(1, width - len(before) - len(ends) - 1))} {ends}", width)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _line(text: str, width: int) -> Text:
    line = Text.from_markup(text)
    line.truncate(width, overflow="ellipsis")
    return line


def _candidates(state: RunState, underway: Mapping[int, ActiveJob]) -> list[Row]:
    """Candidates of this decision point, and branches that are trained on without surgery, by number."""
    rows = dict(state.candidates)
    for each in underway.values():
        # After a decision, its jobs are over: their branches go on or were dropped.
        row = rows.setdefault(each.branch, Row(each.branch, each.surgery)) if not _is_over(state, each) else None
        if row is not None:
            row.topology, row.parameters = each.topology, each.parameters
    return [rows[number] for number in sorted(rows)]


def _is_over(state: RunState, each: ActiveJob) -> bool:
    return each.branch not in state.candidates and any(row.branch >= each.branch for row in state.branches)


def _fitting(rows: Sequence[Row], room: int) -> tuple[list[Row], int]:
    """The rows for which there is room, and how many are left out, which takes a line.

    Dropped ones are left out first.
    """
    if len(rows) <= room:
        return list(rows), 0
    order = sorted(rows, key=lambda row: (row.stage == "dropped", -(row.score or 0.0), row.branch))
    kept = {row.branch for row in order[: room - 1]}
    return [row for row in rows if row.branch in kept], len(rows) - len(kept)


class _Columns:
    """The line of a branch in a table, laid out as in the record: figures stand below one another."""

    def __init__(self, width: int, topologies: Iterable[str]) -> None:
        self.width, self.is_wide = width, width >= WIDE
        others = NUMBERS_WIDE if self.is_wide else NUMBERS
        self.topology = max(8, min(max(map(len, topologies), default=8), width - others))

    def line(self, first: str, topology: str, figures: Sequence[str], outcome: str, style: str) -> Text:
        """A line whose ``figures`` are parameters, accuracy, gain and score.

        Where it is narrow, gain or score is "".
        """
        numbers = (f"{text:>{size}}" for text, size in zip(figures, (9, 6, 7, 6), strict=True) if text or self.is_wide)
        parts = [f"{first:<22}", f"{shorten(topology, self.topology):<{self.topology}}", *numbers, outcome]
        line = Text(" ".join(parts), style)
        line.truncate(self.width, overflow="ellipsis")
        return line


def _table(
    name: str, fitting: tuple[list[Row], int], columns: _Columns, state: RunState, underway: Mapping[int, ActiveJob]
) -> list[Text]:
    """A table of branches, with their gains, or of candidates, with scores and outcomes."""
    rows, left_out = fitting
    own = 2 if name == "branches" else 3
    names = ["params", heading(state.metric), "gain", "score"]
    lines = [columns.line(name, "topology", _chosen(names, own, columns), "", "bold")]
    for row in rows:
        figures = [
            _count(row),
            "–" if row.accuracy is None else f"{row.accuracy:.4f}",
            "–" if row.gain is None else f"{row.gain:+.4f}",
            "–" if row.score is None else f"{row.score:.4f}",
        ]
        outcome, style = ("", "") if name == "branches" else _outcome(row, state, underway, is_wide=columns.is_wide)
        first = f"{row.branch:>4} {row.surgery:.17}"
        lines.append(columns.line(first, row.topology, _chosen(figures, own, columns), outcome, style))
    if left_out:
        lines.append(columns.line(f"   … and {left_out} more", "", ("", "", "", ""), "", "dim"))
    return lines


def _chosen(figures: Sequence[str], own: int, columns: _Columns) -> list[str]:
    """The figures without the gain or the score where there is no room for both."""
    return [text if columns.is_wide or i < 2 or i == own else "" for i, text in enumerate(figures)]


def _count(row: Row) -> str:
    return "–" if row.parameters is None else f"{row.parameters:,}"


def _outcome(row: Row, state: RunState, underway: Mapping[int, ActiveJob], *, is_wide: bool) -> tuple[str, str]:
    """The outcome of a candidate, and the style of its line."""
    each = underway.get(row.branch)
    if row.stage == "dropped":
        long, short = _DROPPED.get(row.reason, (f"dropped: {row.reason}",) * 2)
        return long if is_wide else short, "dim"
    if row.stage == "kept":
        return "kept", "bold"
    if each is not None and not each.ended:
        if each.done == each.steps:
            return "measuring", "cyan"
        word = "trying" if each.stage == "recuperated" else "training"
        return (f"{word} {each.done / each.steps:.0%}", "cyan") if each.done else (f"{word} …", "")
    if row.stage == "trained":
        return ("trained" if row.draw == state.draw else "set aside"), "bold"
    return ("proposed", "") if row.stage == "proposed" and each is None else ("tried", "")
