"""What tests of the command line share."""

from onnxsurgeon.cli import app
from tests.conftest import MODELS

SMALL = str(MODELS / "digits-small.onnx")

QUICK = [
    "--preset",
    "corrected",
    "--epochs",
    "2",
    "--initial-epochs",
    "1",
    "--epoch-step",
    "1",
    "--recuperation-batches",
    "2",
    "--seed",
    "6",
]


def commands():
    from typer.main import get_command

    root = get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from ((name, inner) for inner in command.commands)
        else:
            yield (name,)
