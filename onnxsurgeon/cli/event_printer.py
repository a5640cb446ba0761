"""A run as it goes on: a line for each event that a person wants to see, where there is no live view."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from onnxsurgeon.cli.console import UNBOUNDED, escape, out, print_line
from onnxsurgeon.cli.narrow import heading, packed, shorten
from onnxsurgeon.surgeon.log import SCORE, near_chance

if TYPE_CHECKING:
    from onnxsurgeon.runs.events import Event, Measured, Run

SURGERY = 17  # columns of a surgery; of several at once, the first are shown


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
        """Do nothing, since nothing is left to print."""

    def stopping(self) -> None:
        """Say that the run has been interrupted and is about to stop."""

    @property
    def onward(self) -> str:
        """Say how to go on with an interrupted run."""
        return f"continue with: onnxsurgeon evolve --resume {self.run}" if self.run else "nothing was written"

    def remember(self, event: Event) -> None:
        """Only remember where the run is, without printing."""
        if event["event"] == "run":
            self.run = event["path"]

    def __call__(self, event: Event) -> None:
        """Print ``event``, unless nobody needs to see it."""
        self.remember(event)
        if event["event"] == "run":
            self._opening(event)
        elif event["event"] == "started":
            print_line(f"epoch   0: given model {event['topologies'][0]}, {self.metric} {event['best_accuracy']:.4f}")
            if near_chance(event["best_accuracy"], self.classes):
                print_line("[dim]near chance: untrained, or in need of another --scale, --mean, --std or --layout[/]")
            self._column_names()
        elif event["event"] == "resumed":
            going_on = [(each["branch"], each["topology"], each["accuracy"]) for each in event["branches"]]
            print_line(_branches(f"epoch {event['epoch']:>3}: resumed with", going_on))
            self._column_names()
        elif event["event"] == "extended":
            print_line(f"epoch {event['epoch']:>3}: goes on to epoch {event['run_epochs']}")
        elif event["event"] == "recuperated" or event["event"] == "trained":
            self._measured(event)
        elif event["event"] == "chosen":
            made = ", on made rows as well" if event["uses_made"] else ""
            rate = f"learning rate {event['learning_rate']:.2g}{made}"
            print_line(f"[dim]chosen  {event['branch']:>4} {rate}: {escape(event['reason'])}[/]")
        elif event["event"] == "dropped" and event["reason"] != SCORE:
            print_line(f"[dim]dropped {event['branch']:>4} {escape(event['reason'])}[/]")
        elif event["event"] == "decided":
            kept = zip(event["branches"], event["topologies"], event["accuracies"], strict=True)
            epoch = f"epoch {event['epoch']:>3}"
            print_line(f"[bold]{epoch}[/]{_branches(f'{epoch}: keep', list(kept)).removeprefix(epoch)}")

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
        print_line(f"[dim]{line}[/]" if event["event"] == "recuperated" else line)

    def _opening(self, event: Run) -> None:
        made = f" and {event['made_rows']:,} made of them" if event["made_rows"] else ""
        print_line(
            f"run [bold]{escape(self.run)}[/]: {event['rows']:,} rows to train on{made}, "
            f"{event['validation_rows']:,} to choose by ({event['validation']}), "
            f"{event['engine']} engine on {event['device']}, {event['workers']} workers"
            + (f" at {event['cluster']}" if event["cluster"] else "")
        )
        if (event["task"], event["metric"]) != ("multi-class", "accuracy"):
            print_line(f"task: {event['task']}, judged by {event['metric']}")
        self.metric = event["metric"]
        self.classes = event["classes"]
        if event["start"]["reason"]:
            word = "trained" if event["start"]["is_trained"] else "untrained"
            print_line(f"[dim]the given model counts as {word}: {escape(event['start']['reason'])}[/]")
        for note in event["notes"]:
            print_line(f"[dim]{escape(note)}[/]")
        if event["other_versions"]:
            started_with = ", ".join(event["other_versions"])
            print_line(f"[yellow]started with {escape(started_with)}: the result's bytes may differ from that run's[/]")

    def _column_names(self) -> None:
        surgery, topology = f"{'surgery':<{SURGERY}}", f"{'topology':<{_topology_columns()}}"
        print_line(
            f"[dim]{'':<7} {'':>4} {surgery} {topology} {'params':>9} {heading(self.metric):<6}    gain  score[/]"
        )


class SilentPrinter(EventPrinter):
    """Prints nothing."""

    def __call__(self, event: Event) -> None:
        """Only remember where the run is."""
        self.remember(event)


def _branches(beginning: str, branches: Sequence[tuple[int, str, float]]) -> str:
    """Number, topology and metric of branches behind ``beginning``; on a terminal no wider than that."""
    width = out.width if out.is_terminal else UNBOUNDED
    room = max(8, width - len(beginning) - 20)
    items = [f"{number} ({shorten(topology, room)}) {accuracy:.4f}" for number, topology, accuracy in branches]
    return packed(beginning, items, width)


def _topology_columns() -> int:
    """The width of topologies in the lines of candidates, which fit 80 columns, or more on wider terminals."""
    return max(16, min(44, out.width - 64))
