"""A run's history as plain rows, as a pandas DataFrame, and as a notebook's table."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxsurgeon.errors import RunError
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.model import RunModel

if TYPE_CHECKING:
    from onnxsurgeon.runs.family import History, Member

_WHOLE = ("number", "parent", "parameters", "draw")
_REAL = ("epoch", "decision_epoch", "accuracy", "gain", "loss", "score", "proposal")
_SHOWN = ("number", "parent", "surgery", "epoch", "topology", "parameters", "accuracy", "gain", "score", "outcome")
_TEXTS = ("surgery", "topology", "outcome")
_LEFT = ' style="text-align: left"'
COLUMNS = (
    "number",
    "parent",
    "surgery",
    "epoch",
    "stage",
    "topology",
    "parameters",
    "accuracy",
    "gain",
    "loss",
    "score",
    "kept",
    "result",
    "outcome",
    "file",
    "decision_epoch",
    "draw",
    "proposal",
    "reason",
)


class RunTable:
    """The readable contents of a run directory; of a run that is going on, as it was when first asked for.

    Attributes:
        run: the run directory.
    """

    run: Path

    @cached_property
    def _read(self) -> History:
        from onnxsurgeon.runs.history import read_history

        return read_history(RunDirectory.open(self.run))

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """A row for each branch that was measured, by number; what is not known is None.

        ``number``, ``parent``, ``surgery``: its own number, that of the branch from which it was made, and the surgery.
        ``epoch``, ``stage``, ``accuracy``, ``gain``, ``loss``, ``score``: its latest measurement on the validation
        rows, "recuperated" or "trained"; the gain is over its parent, the score that of the search. ``topology``,
        ``parameters``: widths of its layers, and number of its parameters. ``kept``, ``result``, ``outcome``: whether
        the run went on with it, whether it is the result, and its fate, in words. ``file``: path of its ONNX file.
        ``decision_epoch``, ``draw``, ``proposal``, ``reason``: when it was proposed, in which draw, with which score of
        the recommendation, and why.
        """
        members = (member for member in self._read.members.values() if member.latest is not None)
        return [self._row(member) for member in members]

    @property
    def damaged(self) -> tuple[int, ...]:
        """Numbers of the journal's lines, from 1, that cannot be read; their contents are missing from the history."""
        return tuple(self._read.damaged)

    @property
    def front(self) -> tuple[RunModel, ...]:
        """The models that no other of the run beats in accuracy with as few parameters, the largest first.

        With objective pareto they are those of RUN/front, which no other beats in latency either.
        """
        finish = self._read.finish
        if finish is not None and finish.front:
            return tuple(RunModel(self.run, **asdict(entry)) for entry in finish.front)
        found = [
            RunModel(
                self.run,
                f"branches/{member.file}",
                member.number,
                member.topology,
                member.parameters or 0,
                member.points[-1].accuracy,
                member.points[-1].loss,
            )
            for member in self._read.front()
            if member.file
        ]
        return tuple(reversed(found))

    def report(self) -> Path:
        """Write RUN/report.html, as ``onnxsurgeon report`` does; return its path.

        Raises:
            RunError: it cannot be written, or the extra "report" is not installed.
        """
        path: Path = _pages().write_report(self.run)
        return path

    def plot(self, picture: str = "accuracy") -> Any:
        """One of the report's pictures as a ``matplotlib.figure.Figure``: "accuracy", "size", "widths", "tree", ….

        Raises:
            RunError: there is no such picture, the run has nothing for it, or the extra "report" is not installed.
        """
        return _pages().draw_picture(self.run, picture)

    def to_frame(self) -> Any:
        """The history as a ``pandas.DataFrame``.

        Raises:
            RunError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            if error.name != "pandas":
                raise
            raise RunError("to_frame needs pip install 'onnxsurgeon[pandas]'", "no-package") from error
        types = dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_REAL, "float64")
        return pd.DataFrame(self.history, columns=list(COLUMNS)).astype(types)

    def _repr_html_(self) -> str:
        """The history as a table, for notebooks; the result's row is bold."""
        head = "".join(f"<th{_LEFT if name in _TEXTS else ''}>{name}</th>" for name in _SHOWN)
        body = "\n".join(_html_row(row) for row in self.history)
        return (
            f"<p>{escape(repr(self))}</p>\n"
            '<div style="max-height: 32em; overflow: auto">\n'
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
        )

    def _row(self, member: Member) -> dict[str, Any]:
        latest = member.latest
        return {
            "number": member.number,
            "parent": member.parent,
            "surgery": member.surgery,
            "epoch": latest and latest.epoch,
            "stage": latest and latest.stage,
            "topology": member.topology,
            "parameters": member.parameters,
            "accuracy": latest and latest.accuracy,
            "gain": member.gain,
            "loss": latest and latest.loss,
            "score": member.score,
            "kept": member.kept,
            "result": member.number == self._read.result,
            "outcome": self._read.fate(member),
            "file": str(self.run / "branches" / member.file) if member.file else None,
            "decision_epoch": member.epoch,
            "draw": member.draw,
            "proposal": member.proposal,
            "reason": member.reason,
        }


@dataclass(frozen=True, eq=False, repr=False)
class RunRecord(RunTable):
    """A run directory that was read; see ``read_run``.

    Attributes:
        run: the run directory.
    """

    run: Path

    def summary(self) -> str:
        """The run in a few lines: its state, and the models of its front."""
        rows = [
            f"{each.file}: {each.topology}, {each.parameters:,} parameters, {each.accuracy:.4f}" for each in self.front
        ]
        return "\n".join([repr(self)[1:-1], *rows])

    @property
    def finished(self) -> bool:
        """Whether the run has come to its result."""
        return self._read.finish is not None

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        lines = f", {len(self.damaged)} damaged lines left out" if self.damaged else ""
        best = "".join(
            f", best {row['number']} ({row['topology']}) {row['accuracy']:.4f}" for row in self.history if row["result"]
        )
        return f"<{type(self).__name__} {self.run}: {state}, {len(self.history)} branches{best}{lines}>"


def _pages() -> Any:
    """The room of pages and pictures, which is above this one; it is found by its name when it is asked for."""
    return import_module("onnxsurgeon.report")


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Read the run in the folder ``path``: finished, still going, or killed at any moment.

    Raises:
        RunError: it is no run directory.
    """
    return RunRecord(RunDirectory.open(Path(path)).path)


def _html_row(row: dict[str, Any]) -> str:
    weight = ' style="font-weight: bold"' if row["result"] else ""
    cells = (f"<td{_LEFT if name in _TEXTS else ''}>{escape(_spell(name, row[name]))}</td>" for name in _SHOWN)
    return f"<tr{weight}>{''.join(cells)}</tr>"


def _spell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "gain":
        return f"{value:+.4f}"
    if isinstance(value, float):
        return f"{value:.4f}" if name != "epoch" else f"{value:.2f}".removesuffix(".00")
    return f"{value:,}" if isinstance(value, int) else str(value)
