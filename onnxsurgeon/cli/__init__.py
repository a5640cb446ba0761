"""The command line: parse, call, print; no logic.

Commands import what they need when they run: ``onnxsurgeon --help`` must not wait for onnx, numpy or rich.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from onnxsurgeon import __version__
from onnxsurgeon.cli import (
    comparing,
    data,
    deploying,
    explaining,
    inspecting,
    learning,
    models,
    operating,
    reporting,
    training,
)
from onnxsurgeon.cli.encoding import make_printable
from onnxsurgeon.cli.help import Program
from onnxsurgeon.cli.streams import OutputError, give_up, written_out
from onnxsurgeon.errors import OnnxSurgeonError

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,  # in rich's boxes, option names are cut off at 80 columns
    # A group's flag that is not given is None, and Typer would load pydantic to make a bool of it, which takes half the
    # time of a command's own help.
    context_settings={
        "default_map": {
            **dict.fromkeys(("help", "install_completion", "show_completion"), False),
            "data": {"help": False},
        }
    },
)
models.register(app)
inspecting.register(app)
operating.register(app)
training.register(app)
learning.register(app)
reporting.register(app)
comparing.register(app)
deploying.register(app)
explaining.register(app)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line.

    Every error that a user can cause is one line, which ends with its code, and exit code 2.
    """
    make_printable()
    learning.renew()
    try:
        with written_out():
            app()
    except (OnnxSurgeonError, OSError) as error:
        _fail(error)
        sys.exit(2)


def _fail(error: OnnxSurgeonError | OSError) -> None:
    """Print one line on standard error, where that can be written to."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.refusals import refusal

    if isinstance(error, OutputError):
        give_up(1)
    text, kind = str(error), refusal("system" if isinstance(error, OSError) else error.kind)
    if isinstance(error, OSError):  # of the disk, the network or a library
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error.strerror or text
    try:
        console.fail(text or type(error).__name__, kind.code)
    except OSError:
        give_up(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Evolve a trained network inside its ONNX file: smaller, faster or more accurate."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # so far, there was nothing to be ended in good order
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if version:
        typer.echo(f"onnxsurgeon {__version__}")
        raise typer.Exit
