"""Commands that look at models side by side, or in Netron: diff, view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon.choices import DATA
from onnxsurgeon.cli.field_options import pop_fields, with_fields
from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import (
    DeviceOption,
    EngineOption,
    JsonOption,
    ReadingOptions,
    SplitOption,
    data_names,
    with_settings_file,
    with_trust,
)

_FORMS = "A model file, a run directory (its best.onnx), or RUN#7 (its branch 7)."


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon diff model.onnx best.onnx; onnxsurgeon diff runs/m-1#0 runs/m-1",
    )(diff)
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon view best.onnx; onnxsurgeon view runs/m-digits-1 --branch 7",
    )(view)


@interruptible
@with_settings_file
@with_trust
@with_fields(ReadingOptions)
def diff(
    a: Annotated[str, typer.Argument(help=_FORMS, metavar="A")],
    b: Annotated[str, typer.Argument(help="What to compare it with, likewise.", metavar="B")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Compare them on a data set too; as for evaluate.",
            metavar="DATA",
            autocompletion=data_names,
            rich_help_panel=DATA,
        ),
    ] = "",
    split: SplitOption = "test",
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Compare two models: what became of each layer, and how far their outputs are apart."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.cli.differences import differences
    from onnxsurgeon.comparison.diff import diff as compare

    reading = pop_fields(ReadingOptions, settings)
    found = compare(
        a,
        b,
        data=data,
        split=split,
        options=reading.inputs,
        engine=engine,
        device=device,
        data_dir=reading.data_dir,
        **reading.rows,
        progress=console.DownloadBar,
    )
    if as_json:
        console.print_json(found.record())
    else:
        differences(found)


@with_trust
def view(
    model: Annotated[str, typer.Argument(help=_FORMS, metavar="MODEL|RUN")],
    branch: Annotated[int | None, typer.Option(min=0, help="Number of a branch of the run.", metavar="N")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on this machine.", metavar="N")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open a model in Netron: served to this machine only, until Ctrl-C.

    The page is Netron's own, not onnxsurgeon's: it asks ipinfo.io for your country and reports its usage to its author.
    The model stays on this machine: nothing else of its folder is served, and to requests for 127.0.0.1 and localhost
    only.
    """
    import webbrowser
    from contextlib import suppress

    from onnxsurgeon.cli import console
    from onnxsurgeon.cli.viewing import ViewServer
    from onnxsurgeon.graph.files import read_model
    from onnxsurgeon.runs.selection import model_file

    path: Path = model_file(model, branch)
    read_model(path)
    with ViewServer(path, port) as server, suppress(KeyboardInterrupt):
        console.out.print(f"{path}: served at {server.url} until Ctrl-C", markup=False, soft_wrap=True)
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()
