"""Commands that show a run as a page: report, watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.options import with_trust
from onnxsurgeon.errors import RunError


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon report runs/m-cifar10-1; onnxsurgeon report runs/m-1 runs/m-2",
    )(report)
    app.command(cls=Command, context_settings=CONTEXT, epilog="Example: onnxsurgeon watch runs/m-cifar10-1")(watch)


@with_trust
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    run2: Annotated[Path | None, typer.Argument(help="Another: side by side instead.", metavar="[RUN2]")] = None,
    plots: Annotated[bool, typer.Option("--plots", help="Also write the pictures to RUN/plots: SVG, PNG.")] = False,
) -> None:
    """Write RUN/report.html; also of a run that is still going or was killed.

    Of two runs, write RUN/side_by_side.html: what each came to, how they went, in which settings they differ.
    Lines of its journal that are damaged are left out, told, and make the exit code 2.
    """
    from onnxsurgeon.cli import console
    from onnxsurgeon.report import write_plots, write_report, write_side_by_side
    from onnxsurgeon.runs.table import read_run

    page = write_report(run) if run2 is None else write_side_by_side(run, run2)
    console.out.print(str(page), markup=False, soft_wrap=True)
    for path in write_plots(run) if plots else ():
        console.out.print(str(path), markup=False, soft_wrap=True)
    damaged = read_run(run).damaged
    if damaged:
        lines = f"line{'s' if len(damaged) > 1 else ''} {', '.join(map(str, damaged[:10]))}"
        more = f" and {len(damaged) - 10} more" if len(damaged) > 10 else ""
        raise RunError(f"{run / 'journal.jsonl'}: {lines}{more}: damaged, and left out of the report", "left-out")


@with_trust
def watch(
    run: Annotated[Path, typer.Argument(help="A run directory, of this machine or a shared one.", metavar="RUN")],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on this machine.", metavar="N")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Show the report of a run while it goes on, in the browser, until Ctrl-C.

    It is renewed whenever something is decided, says whether the run goes on or died, and is served to this machine
    only. Nothing is written into the run's folder.
    """
    import webbrowser
    from contextlib import suppress

    from onnxsurgeon.cli import console
    from onnxsurgeon.cli.watching import WatchServer

    with WatchServer(run, port) as server, suppress(KeyboardInterrupt):
        console.out.print(f"{run}: watched at {server.url} until Ctrl-C", markup=False, soft_wrap=True)
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()
