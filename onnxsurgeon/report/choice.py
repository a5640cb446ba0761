"""The networks that no other beats, each with its costs and its file, for a reader to pick from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxsurgeon.quantities import spell_latency, spell_size
from onnxsurgeon.runs.family import History


@dataclass(frozen=True)
class Place:
    """The place of a network of the front in a picture."""

    branch: int
    parameters: int
    accuracy: float


@dataclass(frozen=True)
class Choice:
    """A network of the front.

    Attributes:
        branch: its number.
        topology: widths of its layers.
        parameters: number of its parameters.
        accuracy: on the rows that decide.
        file: path in the run's folder, such as "front/000460.onnx"; "" where there is none.
        size: size of the file, in words; "" where it is not known.
        latency: latency of a row, in words; "" where it was not measured.
        is_result: whether it is best.onnx.
    """

    branch: int
    topology: str
    parameters: int
    accuracy: float
    file: str
    size: str
    latency: str
    is_result: bool


def points(history: History) -> list[Place]:
    """The front of a run, the smallest first."""
    return [Place(each.branch, each.parameters, each.accuracy) for each in choices(history, None)]


def choices(history: History, folder: Path | None) -> list[Choice]:
    """The front of a run, the smallest first: as it was written with ``--objective pareto``, else that of its branches.

    Files are looked for in ``folder``; with None they are left out.
    """
    if history.finish is not None and len(history.finish.front) > 1:
        return [
            Choice(
                entry.branch,
                entry.topology,
                entry.parameters,
                entry.accuracy,
                _there(folder, entry.file),
                spell_size(entry.size),
                spell_latency(entry.latency) if entry.latency else "",
                entry.branch == history.result,
            )
            for entry in sorted(history.finish.front, key=lambda entry: (entry.parameters, entry.branch))
        ]
    found = []
    for member in history.front():
        file = _there(folder, f"branches/{member.file}") if member.file else ""
        found.append(
            Choice(
                member.number,
                member.topology,
                member.parameters or 0,
                member.points[-1].accuracy,
                file,
                _size(folder, file),
                "",
                member.number == history.result,
            )
        )
    return found


def _there(folder: Path | None, file: str) -> str:
    """The file's name; "" where the file does not exist."""
    return file if folder is not None and (folder / file).is_file() else ""


def _size(folder: Path | None, file: str) -> str:
    """The size of the file, in words."""
    if folder is None or not file:
        return ""
    try:
        return spell_size((folder / file).stat().st_size)
    except OSError:
        return ""
