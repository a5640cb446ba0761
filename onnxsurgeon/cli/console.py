"""What the command line shows: tables, lines and progress bars. Only ``cli`` uses it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich import markup
from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from onnxsurgeon.cli.narrow import packed, shorten
from onnxsurgeon.cli.spectra import spectra
from onnxsurgeon.printable import shown
from onnxsurgeon.runs.footprint import Figure, figures, measured_figure
from onnxsurgeon.surgeon.log import SCORE, near_chance

if TYPE_CHECKING:
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.operating.perform import Performed
    from onnxsurgeon.recommend import Candidate, LayerReport, PruningReport, Thresholds
    from onnxsurgeon.runs.entry import Entry
    from onnxsurgeon.runs.events import Event, Measured, Run
    from onnxsurgeon.surgeon.result import Evolved
    from onnxsurgeon.surgery.proof import GroupProof

LONGEST_PREFIX = 16
MOST_ROWS = 300  # of recommendations, and of pictures of layers: thousands take longer to lay out than all else
SHARES = (0.75, 0.5, 0.25)  # of a layer's units left
WITHOUT_DATA = (
    "narrow, factorize and merge go by the weights' singular values alone: for a trained network, prune by data is the "
    "better judge, and inspect --data shows what it would lose"
)


class Terminal(Console):
    """A console that sends no control character but rich's own and line ends, whatever was forgotten to be escaped."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of text to be sent."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(shown(segment.text, keep="\n"), segment.style)


out = Terminal(highlight=False, emoji=False)
err = Terminal(stderr=True, highlight=False, emoji=False)


def escape(text: str) -> str:
    """Text that others wrote, for a place where rich reads markup."""
    return markup.escape(shown(text))


def print_json(record: Any) -> None:
    """One JSON document on standard output, and nothing else."""
    sys.stdout.write(json.dumps(record, indent=2) + "\n")


def fail(message: str, code: str = "") -> None:
    """One line on standard error; behind it the code by which ``explain`` knows what it means."""
    behind = f" [dim]{escape(f'[{code}]')}[/]" if code else ""
    err.print(f"[bold red]onnxsurgeon:[/] {escape(' '.join(message.split()))}{behind}", soft_wrap=True)


def remarks(sentences: Sequence[str], *, as_json: bool = False) -> None:
    """What is to be known besides the result, a line each; on standard error where the other is for a JSON document."""
    for sentence in sentences:
        (err if as_json else out).print(f"[dim]{escape(' '.join(sentence.split()))}[/]", soft_wrap=True)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | list[str]]],
    *,
    right: Sequence[str] = (),
    fold: Sequence[str] | None = None,
) -> None:
    """A plain table; columns in ``right`` are aligned to the right; those in ``fold`` (None: all) may be broken.

    A cell is a text, or a list of lines.
    """
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        kept = fold is not None and column not in fold
        grid.add_column(
            escape(column),
            justify="right" if column in right else "left",
            overflow="ellipsis" if kept else "fold",
            no_wrap=kept,
        )
    for row in rows:
        grid.add_row(*(escape(cell) if isinstance(cell, str) else "\n".join(map(escape, cell)) for cell in row))
    out.print(grid)


def network_summary(network: Network) -> str:
    """Topology and parameter count on one line; of convolutions also how often is multiplied (MACs), where known."""
    text = f"{network.topology}, {network.parameter_count:,} parameters"
    count = network.multiplications if any(segment.is_convolution for segment in network.segments) else None
    return text if count is None else f"{text}, {count:,} MACs a row"


def inspection(
    network: Network,
    reports: Sequence[LayerReport],
    candidates: Sequence[Candidate],
    thresholds: Thresholds,
    pruning: Sequence[PruningReport] | None = None,
    proofs: Sequence[GroupProof] = (),
) -> None:
    """What ``inspect`` shows; with ``pruning`` also what the data say, with ``proofs`` that groups are right."""
    from onnxsurgeon.graph.memory import liveness

    frame = network.frame
    kinds = ", ".join(dict.fromkeys(str(segment.file_dtype) for segment in network.segments))
    out.print(f"[bold]{escape(network.name)}[/]: {network_summary(network)}, {kinds}, opset {frame.opset}")
    out.print(
        f"prefix: {escape(_prefix([node.op_type for node in frame.prefix_nodes]))}; "
        f"suffix: {escape(', '.join(frame.suffix)) or 'none'}"
    )
    found = liveness(network)
    if found is not None and found.peak:
        out.print(f"memory: at most {found.peak:,} bytes of tensors at once for a row, at {escape(found.at)}")
    for note in frame.notes:
        out.print(f"[dim]note: {escape(note)}[/]")
    out.print()
    _layers(network, reports)
    if network.group_count > network.hidden_count:
        _shared_widths(network)
    if proofs:
        _proofs(network, proofs)
    if reports:
        spectra(out, reports[:MOST_ROWS], thresholds)
        if len(reports) > MOST_ROWS:
            out.print(f"[dim]… and those of {len(reports) - MOST_ROWS:,} more layers: --json has all[/]")
    if pruning:
        _pruning(pruning)
    by = "" if pruning is None else " by the weights' singular values"
    out.print(f"\n[bold]Recommended[/]{by}, best first:")
    proposals = [(str(c), f"{c.score:.3f}", f"{c.parameters:,}", c.reason) for c in candidates[:MOST_ROWS]]
    table(("surgery", "score", "parameters", "reason"), proposals, right=("score", "parameters"))
    if len(candidates) > MOST_ROWS:
        out.print(f"[dim]… and {len(candidates) - MOST_ROWS:,} more: --json shows all[/]")
    if pruning is None and reports:
        out.print(f"[dim]{WITHOUT_DATA}[/]")


def _shared_widths(network: Network) -> None:
    """Which layers write and read each width that several layers share, and what else has a value for each unit."""
    out.print("\n[bold]Widths that several layers share[/]: units come and go in all of them at once")
    rows = []
    for i in range(network.hidden_count + 1, network.group_count + 1):
        group = network.group(i)
        besides = [each.tensor for each in group.followers]
        besides += [network.segments[number].layers[0].names.node for number, _ in group.each]
        rows.append(
            (
                str(i),
                str(group.units),
                network.nodes_of(group.writers),
                network.nodes_of(group.readers),
                besides + [f"{group.normalised} (normalises)"] * bool(group.normalised),
            )
        )
    table(("layer", "units", "written by", "read by", "besides"), rows, fold=("written by", "read by", "besides"))


def _proofs(network: Network, proofs: Sequence[GroupProof]) -> None:
    """How far the outputs move when units change places: in all that knows of them, and in the first layer alone."""
    out.print("\n[bold]Units permuted[/]: how far the outputs move, of their scale")
    rows = []
    for i, proof in enumerate(proofs, start=1):
        rows.append((str(i), str(network.group(i).ports), f"{proof.together:.1e}", f"{proof.alone:.1e}"))
    table(("layer", "ports", "everywhere at once", "in the first layer alone"), rows, right=("ports",))


def _layers(network: Network, reports: Sequence[LayerReport]) -> None:
    """All layers; where convolutions are among them, with what each lies like in space and what it costs."""
    several, in_space = len(network.segments) > 1, any(segment.is_convolution for segment in network.segments)
    rows, remaining = [], iter(reports)
    for number, segment in enumerate(network.segments, start=1):
        own = zip(segment.layers, network.same_as(number - 1), segment.multiplications(), strict=True)
        for position, (layer, first, count) in enumerate(own):
            is_own = number - 1 not in network.tied
            report = next(remaining) if is_own and position < segment.hidden_count else None
            what = "output" if report is None else str(report.layer)
            size = f"{network.own_count(layer):,}"
            kind = "dense" if layer.geometry is None else str(layer.geometry)
            cells = [
                *([str(number)] if several else []),
                what if is_own else "",
                layer.names.node,
                f"{layer.channels} × {layer.units}",
                *([kind] if in_space else []),
                "–" if report is None else str(layer.activation or "linear"),
                size if first is None else f"{size} + of {first.names.node}",
                *(["?" if count is None else f"{count:,}"] if in_space else []),
                "" if report is None else f"{report.removable} of {report.units}",
            ]
            rows.append(cells)
    named = ["layer", "node", "shape", "activation", "params", "removable"]
    if in_space:
        named[3:3], named[-1:-1] = ["kernel"], ["MACs"]
    columns = ["part", *named] if several else named
    table(columns, rows, right=("params", "MACs", "removable"), fold=("node", "kernel", "activation"))


def _pruning(reports: Sequence[PruningReport]) -> None:
    """What ``prune`` would lose, and as much of it as is recommended."""
    from onnxsurgeon.recommend.pruning import MOST_LOST

    out.print("\n[bold]Recommended by the data[/], for a trained network:")
    rows = []
    for report in reports:
        errors = (_error(report.error_at(share)) for share in SHARES)
        found = report.candidate
        surgery, count = ("–", "") if found is None else (str(found), f"{found.parameters:,}")
        rows.append((str(report.layer), *errors, surgery, count, report.reason))
    shares = tuple(f"{share:.0%}" for share in SHARES)
    table(("layer", *shares, "surgery", "parameters", "reason"), rows, right=(*shares, "parameters"))
    out.print(
        f"[dim]predicted errors with {', '.join(shares)} of the units left, of the next layer's standard deviation; "
        f"recommended are the fewest units with at most {MOST_LOST:g}[/]"
    )


def _prefix(ops: Sequence[str]) -> str:
    """The prefix's operators in order; of many, the first and the last."""
    kept = [op for op in ops if op != "Constant"]
    if len(kept) > LONGEST_PREFIX:
        half = LONGEST_PREFIX // 2
        kept = [*kept[:half], f"… ({len(kept) - 2 * half} more)", *kept[-half:]]
    return " → ".join(kept) or "none"


def operations(performed: Sequence[Performed]) -> None:
    """What ``operate`` did; with data also the errors that were predicted and found."""
    has_data = any(found is not None for _, found in performed)
    rows = []
    for record, found in performed:
        errors = (_error(record.predicted), _error(found)) if has_data else ()
        counts = f"{record.parameters_before:,} → {record.parameters:,}"
        kind = "exact" if record.exact else "approximate"
        rows.append((record.surgery, kind, f"{record.deviation:.2e}", *errors, counts))
    errors = ("predicted", "found") if has_data else ()
    table(("surgery", "kind", "deviation", *errors, "parameters"), rows, right=("deviation", *errors))
    rounding_note(performed[-1].record.rounding if performed else 0.0)


def _error(error: float | None) -> str:
    return "–" if error is None else f"{error:.2e}"


def rounding_note(rounding: float) -> None:
    """Say how much writing weights in the file's own type changed them, where it did."""
    if rounding:
        _plain(f"[dim]weights are rounded to the file's type, by up to {rounding:.1e} of their tensor's largest[/]")


_UNBOUNDED = 10_000  # columns
SURGERY = 17  # columns of a surgery; of several at once the first are shown


class EventPrinter:
    """Prints one line for each event of a run that a person wants to see."""

    def __init__(self) -> None:
        self.run = ""
        self.classes, self.metric = 0, "accuracy"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to print."""

    def stopping(self) -> None:
        """The run has been interrupted, and is about to stop."""

    @property
    def onward(self) -> str:
        """What to do about an interrupted run."""
        return f"continue with: onnxsurgeon evolve --resume {self.run}" if self.run else "nothing was written"

    def remember(self, event: Event) -> None:
        """Print nothing; only remember where the run is."""
        if event["event"] == "run":
            self.run = event["path"]

    def __call__(self, event: Event) -> None:
        """Print ``event``, or nothing."""
        self.remember(event)
        if event["event"] == "run":
            self._opening(event)
        elif event["event"] == "started":
            _plain(f"epoch   0: given model {event['topologies'][0]}, {self.metric} {event['best_accuracy']:.4f}")
            if near_chance(event["best_accuracy"], self.classes):
                _plain("[dim]near chance: untrained, or in need of another --scale, --mean, --std or --layout[/]")
            self._column_names()
        elif event["event"] == "resumed":
            going_on = [(each["branch"], each["topology"], each["accuracy"]) for each in event["branches"]]
            _plain(_branches(f"epoch {event['epoch']:>3}: resumed with", going_on))
            self._column_names()
        elif event["event"] == "extended":
            _plain(f"epoch {event['epoch']:>3}: goes on to epoch {event['run_epochs']}")
        elif event["event"] == "recuperated" or event["event"] == "trained":
            self._measured(event)
        elif event["event"] == "chosen":
            made = ", on made rows as well" if event["uses_made"] else ""
            rate = f"learning rate {event['learning_rate']:.2g}{made}"
            _plain(f"[dim]chosen  {event['branch']:>4} {rate}: {escape(event['reason'])}[/]")
        elif event["event"] == "dropped" and event["reason"] != SCORE:
            _plain(f"[dim]dropped {event['branch']:>4} {escape(event['reason'])}[/]")
        elif event["event"] == "decided":
            kept = zip(event["branches"], event["topologies"], event["accuracies"], strict=True)
            epoch = f"epoch {event['epoch']:>3}"
            _plain(f"[bold]{epoch}[/]{_branches(f'{epoch}: keep', list(kept)).removeprefix(epoch)}")

    @staticmethod
    def _measured(event: Measured) -> None:
        word = "tried" if event["event"] == "recuperated" else "trained"
        surgery = event["surgery"]
        surgery = surgery if len(surgery) <= SURGERY else f"{surgery[: SURGERY - 1]}…"
        columns = _topology_columns()
        line = (
            f"{word:<7} {event['branch']:>4} {surgery:<{SURGERY}} {shorten(event['topology'], columns):<{columns}} "
            f"{event['parameters']:>9,} {event['accuracy']:.4f} {event['gain']:+.4f} {event['score']:.4f}"
        )
        _plain(f"[dim]{line}[/]" if event["event"] == "recuperated" else line)

    def _opening(self, event: Run) -> None:
        made = f" and {event['made_rows']:,} made of them" if event["made_rows"] else ""
        _plain(
            f"run [bold]{escape(self.run)}[/]: {event['rows']:,} rows to train on{made}, "
            f"{event['validation_rows']:,} to choose by ({event['validation']}), "
            f"{event['engine']} engine on {event['device']}, {event['workers']} workers"
            + (f" at {event['cluster']}" if event["cluster"] else "")
        )
        if (event["task"], event["metric"]) != ("multi-class", "accuracy"):
            _plain(f"task: {event['task']}, judged by {event['metric']}")
        self.metric = event["metric"]
        self.classes = event["classes"]
        if event["start"]["reason"]:
            word = "trained" if event["start"]["is_trained"] else "untrained"
            _plain(f"[dim]the given model counts as {word}: {escape(event['start']['reason'])}[/]")
        for note in event["notes"]:
            _plain(f"[dim]{escape(note)}[/]")
        if event["other_versions"]:
            started_with = ", ".join(event["other_versions"])
            _plain(f"[yellow]started with {escape(started_with)}: the result's bytes may differ from that run's[/]")

    @staticmethod
    def _column_names() -> None:
        surgery, topology = f"{'surgery':<{SURGERY}}", f"{'topology':<{_topology_columns()}}"
        _plain(f"[dim]{'':<7} {'':>4} {surgery} {topology} {'params':>9} accur.    gain  score[/]")


class SilentPrinter(EventPrinter):
    """Prints nothing."""

    def __call__(self, event: Event) -> None:
        """Only remember where the run is."""
        self.remember(event)


def _branches(beginning: str, branches: Sequence[tuple[int, str, float]]) -> str:
    """Number, topology and metric of branches behind ``beginning``; on a terminal no wider than it is."""
    width = out.width if out.is_terminal else _UNBOUNDED
    room = max(8, width - len(beginning) - 20)
    items = [f"{number} ({shorten(topology, room)}) {accuracy:.4f}" for number, topology, accuracy in branches]
    return packed(beginning, items, width)


def _topology_columns() -> int:
    """How wide topologies are in the lines of candidates, which fit 80 columns, or more where there are more."""
    return max(16, min(44, out.width - 64))


def _plain(text: str) -> None:
    """A line; on a terminal it is broken between words, never inside a number, and elsewhere not at all."""
    out.print(text, soft_wrap=not out.is_terminal)


def _whole(text: str) -> None:
    """A line with a path, which stays one that can be copied."""
    out.print(text, soft_wrap=True)


def result(evolved: Evolved, copied_to: Path | None, page: Path | None) -> None:
    """What ``evolve`` says at its end."""
    outside = 1 - evolved.training_seconds / evolved.seconds if evolved.seconds else 0.0
    metric = evolved.test.metric
    measured = measured_figure(metric, evolved.start.accuracy, evolved.test.accuracy)
    out.print()
    figures_box([*figures(evolved.before, evolved.after, is_given=evolved.is_given), measured])
    worse, others = evolved.remarks[: evolved.is_worse], evolved.remarks[evolved.is_worse :]
    for remark in worse:
        _plain(f"[bold red]{escape(remark)}[/]")
    out.print(f"\n[bold]{network_summary(evolved.network)}[/]")
    later = ", before it was trained on these as well" if evolved.is_refitted else ""
    _plain(f"{metric} {evolved.validation_accuracy:.4f} on the rows it was chosen by{later}")
    out.print(
        f"{metric} {evolved.test.accuracy:.4f} on the test split; the given model has {evolved.start.accuracy:.4f}"
    )
    rounding_note(evolved.branch.history[-1].rounding)
    _plain(f"surgeries: {', '.join(evolved.branch.lineage) or 'none'}")
    out.print(f"{evolved.steps:,} training steps in {evolved.seconds:.1f} s, {outside:.0%} of it outside training")
    if evolved.written_front:
        _front(evolved.written_front, metric)
    for remark in others:
        _plain(f"[yellow]{escape(remark)}[/]")
    if page is not None:
        _whole(f"report: {escape(str(page))}")
    _whole(f"result: [bold]{escape(str(copied_to or evolved.run / 'best.onnx'))}[/]")


def _front(entries: Sequence[Entry], metric: str) -> None:
    """The networks of RUN/front, with what limits ask for of each."""
    more = {
        "MACs": [entry.multiplications for entry in entries],
        "memory": [entry.memory for entry in entries],
    }
    asked = {title: counts for title, counts in more.items() if None not in counts}
    room = max(16, out.width - 56 - 14 * len(asked))  # beside the other columns
    rows = []
    for position, entry in enumerate(entries):
        counts = [f"{values[position]:,}" for values in asked.values()]
        figures = (f"{entry.accuracy:.4f}", *counts, f"{entry.latency or 0:.4f}")
        rows.append((entry.file, shorten(entry.topology, room), f"{entry.parameters:,}", *figures))
    numbers = ("parameters", metric, *asked, "ms a row")
    table(("front", "topology", *numbers), rows, right=numbers)


def figures_box(found: Sequence[Figure]) -> None:
    """Figures side by side, each before → after with its change below; where that is too wide, below one another."""
    grid = _figures_across(found)
    wanted = out.measure(grid, options=out.options.update(max_width=_UNBOUNDED)).maximum
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
    """A progress bar for one file, with the interface that pooch wants of tqdm."""

    def __init__(self, name: str) -> None:
        self.total = 0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=err
        )
        self._task = self._progress.add_task(name, total=None)

    def update(self, count: int) -> None:
        """``count`` more bytes have come."""
        self._progress.start()
        self._progress.update(self._task, advance=count, total=self.total)

    def reset(self) -> None:
        """Start again from nothing; pooch does so before it fills the bar."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """The file is complete."""
        self._progress.stop()
