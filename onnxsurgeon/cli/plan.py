"""The output of ``evolve --dry-run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxsurgeon.cli import console
from onnxsurgeon.quantities import spell_size

if TYPE_CHECKING:
    from onnxsurgeon.surgeon.dry_run import Plan


def plan(found: Plan) -> None:
    """Print what would be done, a line each."""
    least, most = (spell_seconds(each) for each in found.seconds)
    given = f"{found.topology}, {found.parameters:,} parameters, {spell_size(found.size)}"
    limit = "none on parameters or file size" if found.limit is None else f"{found.limit:,} parameters"
    rows = [
        ("search", found.search),
        ("given model", given),
        ("counts as", found.start),
        ("rows", f"{found.rows:,} to train on, {found.deciding_rows:,} to choose by ({found.metric})"),
        ("limit", limit),
        ("least reachable", f"{found.least_parameters:,} parameters, about {spell_size(found.least_size)}"),
        ("largest in training", f"about {found.largest:,} parameters"),
        ("training", f"{found.epochs} epochs, {found.engine} engine on {found.device}, {found.workers} workers"),
        *([("time before it", f"about {spell_seconds(found.search_seconds)}")] if found.search_seconds else []),
        ("time in training", least if least == most else f"about {least} to {most}"),
        ("an epoch of it", f"{spell_seconds(found.epoch_seconds)} with the given model"),
        ("memory", "not known here" if found.memory is None else f"about {spell_size(found.memory)}"),
    ]
    console.table(("would be done", ""), rows)
    console.remarks([*found.notes, "nothing was written"])


def spell_seconds(seconds: float) -> str:
    """Spell a time with two digits, such as "1.5 h" or "40 s"."""
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}" if seconds < 10 * length else f"{seconds / length:.0f} {unit}"
    return f"{1e3 * seconds:.0f} ms"
