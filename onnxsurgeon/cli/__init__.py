"""The command line: parse, call, print; no logic.

Commands import what they need when they run: ``onnxsurgeon --help`` must not wait for onnx and ONNX Runtime.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from onnxsurgeon import __version__
from onnxsurgeon.cli import console, data, learning, models
from onnxsurgeon.errors import OnnxSurgeonError

# Plain help: in rich's boxes, option names are cut off at 80 columns.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
models.register(app)
learning.register(app)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point: every error a user can cause is one line and exit code 2."""
    try:
        app()
    except OnnxSurgeonError as error:
        console.fail(str(error))
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Evolve a trained multilayer perceptron inside its ONNX file: smaller, faster or more accurate."""
    if version:
        console.out.print(f"onnxsurgeon {__version__}")
        raise typer.Exit
