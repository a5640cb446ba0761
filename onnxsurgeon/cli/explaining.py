"""The command that explains the code behind a message: explain."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon explain D07; onnxsurgeon explain",
    )(explain)


def explain(
    code: Annotated[
        str, typer.Argument(help="What stands in brackets behind a message.", metavar="[CODE]", show_default=False)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what a refusal means and what to do about it; without a code, list them all."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.errors import SettingsError
    from onnxsurgeon.refusals import SECTIONS, refusals
    from onnxsurgeon.suggestions import did_you_mean

    entries = {entry.code: entry for entry in refusals().values()}
    wanted = code.strip(" []").upper()
    if wanted and wanted not in entries:
        known = f"expected such as {next(iter(entries))}; onnxsurgeon explain lists all"
        raise SettingsError(f"code: '{code}' is unknown: {known}{did_you_mean(wanted, entries)}", "unknown-choice")
    if as_json:
        found = [entries[wanted]] if wanted else list(entries.values())
        console.print_json([{**vars(entry), "link": entry.link} for entry in found])
    elif wanted:
        console.out.print(str(entries[wanted]), markup=False, soft_wrap=not console.out.is_terminal)
    else:
        for letter, section in SECTIONS.items():
            console.out.print(f"[bold]{section}[/]")
            for entry in entries.values():
                if entry.code.startswith(letter):
                    console.out.print(f"  {entry.code}  {console.escape(entry.heading)}", soft_wrap=True)
