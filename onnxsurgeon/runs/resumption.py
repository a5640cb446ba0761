"""The point from which a killed run goes on: the last checkpoint in its journal, or another one that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import TEMPORARY_SUFFIX, write_bytes
from onnxsurgeon.runs.damage import why_damaged
from onnxsurgeon.runs.events import Digests, Extended, Measured, Resumable
from onnxsurgeon.runs.journal import CHECKPOINTS, RunDirectory
from onnxsurgeon.runs.lines import Line


@dataclass(frozen=True)
class Resumption:
    """The point from which a run goes on.

    Attributes:
        kept: the journal's lines up to it.
        event: the event of its own line; None: the run begins anew.
        trained: by branch number, the digests of its files at the end of its training; only for branches since this
            checkpoint and up to the next.
    """

    kept: tuple[Line, ...]
    event: Resumable | None
    trained: dict[int, Digests]

    @property
    def run_epochs(self) -> int | None:
        """The length of the run at this point, where it was made longer; None: the length in its settings."""
        found = [cast(Extended, line.record) for line in self.kept if line.kind == "extended"]
        return found[-1]["run_epochs"] if found else None


def _digests(event: Measured) -> Digests:
    """The digests in the event: runs whose optimizer has no state lack one, and a stranger's may lack both."""
    return cast(Digests, {key: event[key] for key in ("digest", "state_digest") if key in event})


def _epoch(checkpoint: Line) -> int:
    return cast(Resumable, checkpoint.record)["epoch"]


def onward(found: Sequence[Line]) -> str:
    """Say how a run with a damaged journal can go on; ``found`` are the checkpoints that are whole."""
    if not found:
        return "there is no checkpoint to go on from: --from-checkpoint 0 begins anew"
    line, epoch = found[-1].number, _epoch(found[-1])
    return f"the last whole checkpoint is in line {line} (epoch {epoch}): --from-checkpoint {line} goes on from there"


def find_checkpoint(run: RunDirectory, wanted: int | None = None) -> Resumption:
    """Find the point from which the run goes on, without changing anything.

    Args:
        run: the run directory.
        wanted: number of the line of a checkpoint; 0: the run begins anew; None: the last checkpoint.

    Raises:
        RunError: a line is damaged and no checkpoint is wanted, since more could be lost than is known; there is no
            checkpoint, but there are branches; or the wanted line holds none. The text names lines.
    """
    kept: list[Line] = []
    damaged: Line | None = None
    for line in run.lines():
        damage = line.damage or why_damaged(line.record or {})
        if not damage:
            kept.append(line)
        elif not line.is_cut_off and damaged is None:
            damaged = Line(line.number, line.content, None, damage)
    found = [line for line in kept if line.kind in CHECKPOINTS]
    if wanted is None and damaged is not None:
        raise RunError(
            f"{run.journal}: line {damaged.number} is damaged: {damaged.damage}; {onward(found)}",
            "damaged-journal",
        )
    if wanted is None and not found and _has_trained(run):
        raise RunError(
            f"{run.journal}: holds no checkpoint, though branches were trained; {onward(found)}",
            "damaged-journal",
        )
    if wanted == 0 or not found:
        if wanted:
            raise RunError(f"{run.journal}: line {wanted} is no checkpoint; {onward(found)}", "damaged-journal")
        return Resumption((), None, {})
    chosen = next((line for line in found if line.number == wanted), found[-1] if wanted is None else None)
    if chosen is None:
        places = ", ".join(f"{line.number} (epoch {_epoch(line)})" for line in found[-8:])
        raise RunError(
            f"{run.journal}: line {wanted} is no checkpoint; the last ones are in lines {places}",
            "damaged-journal",
        )
    later = found[found.index(chosen) + 1].number if chosen is not found[-1] else kept[-1].number + 1
    since = (line for line in kept if line.kind == "trained" and chosen.number < line.number < later)
    trained = {event["branch"]: _digests(event) for event in (cast(Measured, line.record) for line in since)}
    upto = tuple(line for line in kept if line.number <= chosen.number)
    return Resumption(upto, cast(Resumable, chosen.record), trained)


def rewind(run: RunDirectory, wanted: int | None = None) -> Resumption:
    """Cut the journal back to the point from which the run goes on.

    Unfinished temporary files are removed, and damaged lines too where a checkpoint was ``wanted``.

    Raises:
        RunError: as ``find_checkpoint`` does, or a file cannot be written.
    """
    found = find_checkpoint(run, wanted)
    try:
        for leftover in (*run.path.glob(f".*{TEMPORARY_SUFFIX}"), *run.branches.glob(f".*{TEMPORARY_SUFFIX}")):
            leftover.unlink()
    except OSError as error:
        raise RunError(f"{error.filename or run.path}: cannot be removed: {error.strerror}", "cannot-write") from error
    write_bytes(run.journal, b"".join(line.content for line in found.kept), overwrite=True)
    return found


def _has_trained(run: RunDirectory) -> bool:
    names = (path.name for path in run.branches.iterdir())
    return any(name.endswith(".onnx") and not name.startswith(("0000-", ".")) for name in names)
