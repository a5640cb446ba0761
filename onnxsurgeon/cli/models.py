"""Commands that make a model: new, head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.new import new
from onnxsurgeon.cli.options import (
    ForceOption,
    OutOption,
    SeedOption,
    units,
    with_settings_file,
    with_trust,
)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon new 784-300-100-10 -o start.onnx --input-shape 28x28x1; "
        "onnxsurgeon new 28x28x1-c16-p-c32-p-10 -o cnn.onnx; "
        "onnxsurgeon new --data flats.csv --target rent -o start.onnx",
    )(new)
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon head backbone.onnx --classes cat,dog -o start.onnx; "
        "onnxsurgeon head classifier.onnx --classes 5 --hidden 0 -o start.onnx",
    )(head)


@interruptible
@with_settings_file
@with_trust
def head(
    backbone: Annotated[Path, typer.Argument(help="A trained model.", metavar="BACKBONE")],
    classes: Annotated[
        str, typer.Option("--classes", help="How many classes, or their names: cat,dog.", metavar="N|NAMES")
    ],
    out: OutOption,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="The tensor that the head reads, or the node that writes it; by default what the old head's last "
            "layer reads, or the model's output.",
            metavar="TENSOR",
        ),
    ] = None,
    hidden: Annotated[
        str, typer.Option(help="Units of its hidden layer, or of several: 256-64; 0: none.", metavar="UNITS")
    ] = "128",
    pool: Annotated[
        str,
        typer.Option(help="How several positions become one vector: mean, first (token) or flatten; auto: mean."),
    ] = "auto",
    softmax: Annotated[bool, typer.Option(help="Put a Softmax after the logits.")] = True,
    freeze: Annotated[
        bool, typer.Option(help="Mark what is before the head as frozen: evolve and train leave it as it is.")
    ] = True,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Put a new head on a backbone, or in the place of an old head: for other classes than it was trained for."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.graph.attach import attach_head, read_classes
    from onnxsurgeon.graph.files import require_writable
    from onnxsurgeon.graph.writer import save

    require_writable(out, overwrite=force)
    made = attach_head(
        backbone,
        read_classes(classes),
        at=at,
        hidden=() if hidden == "0" else units(hidden, "hidden"),
        pool=pool,
        softmax=softmax,
        freeze=freeze,
        seed=seed,
    )
    told = save(made.network, out, overwrite=force)
    console.remarks((*made.notes, *told))
    console.out.print(f"{out}: {console.network_summary(made.network)}", markup=False, soft_wrap=True)
