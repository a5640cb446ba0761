"""Commands on data sets: list, info, fetch."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxsurgeon.cli.help import Command
from onnxsurgeon.cli.options import JsonOption, data_names

DataName = Annotated[str, typer.Argument(help="As 'data list' shows it.", metavar="NAME", autocompletion=data_names)]
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, describe and download the named data sets.")


@app.command("list", cls=Command, epilog="Example: onnxsurgeon data list")
def data_list(as_json: JsonOption = False) -> None:
    """List the named data sets and whether their files are here."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.catalogue import CATALOGUE
    from onnxsurgeon.data.load import describe, locate

    if as_json:
        console.print_json([describe(name) for name in CATALOGUE])
        return
    rows = []
    for name, source in CATALOGUE.items():
        place = "in the package" if not source.files else str(locate(name) or "not here")
        rows.append((name, f"{source.rows[0]:,} + {source.rows[1]:,}", "×".join(map(str, source.shape)), place))
    console.table(("name", "rows", "shape", "files"), rows, right=("rows",))


@app.command("info", cls=Command, epilog="Example: onnxsurgeon data info emnist")
def data_info(name: DataName, as_json: JsonOption = False) -> None:
    """Describe a data set: source, files, splits, where its files are looked for."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.load import describe

    record = describe(name)
    if as_json:
        console.print_json(record)
        return
    console.table(
        ("", ""), [(key, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for key, v in record.items()]
    )


@app.command("fetch", cls=Command, epilog="Example: onnxsurgeon data fetch cifar10")
def data_fetch(name: DataName) -> None:
    """Download a data set from its official source into the cache, checksums verified."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.load import fetch, locate, lookup

    key, source, _ = lookup(name)
    place = locate(key) or fetch(key, progress=console.DownloadBar)
    console.out.print(f"{key}: {place if source.files else 'in the package'}", soft_wrap=True)
