"""Commands that make a model: new, head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxsurgeon.choices import DATA, IMPUTATIONS
from onnxsurgeon.cli.field_options import one_of
from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import (
    ForceOption,
    OutOption,
    SeedOption,
    data_names,
    shape,
    units,
    with_settings_file,
    with_trust,
)
from onnxsurgeon.errors import SettingsError

HIDDEN = "32"  # width of the hidden layer of a new network for a data set

if TYPE_CHECKING:
    from onnxsurgeon.data.widths import Widths


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
def new(
    out: OutOption,
    sizes: Annotated[
        str,
        typer.Argument(
            help="Widths from input to output, such as 784-10-10; or the shape of an image, then convolutions (c16), "
            "pooling (p), the mean of each channel (g) and widths, such as 28x28x1-c16-p-c32-p-10. With --data the "
            f"hidden ones alone, such as 64-32; by default {HIDDEN}.",
            metavar="SIZES",
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Rows that say how many inputs and outputs there are, and whether these are classes.",
            metavar="DATA",
            autocompletion=data_names,
            rich_help_panel=DATA,
        ),
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", help="Column to predict, or several; or an .npy file.", metavar="COLUMN", rich_help_panel=DATA
        ),
    ] = None,
    impute: Annotated[
        str | None,
        typer.Option("--impute", rich_help_panel=DATA, **one_of("--impute", "Fills what is missing.", IMPUTATIONS)),
    ] = None,
    input_shape: Annotated[str, typer.Option(help="Shape of one input row, such as 28x28x1.", metavar="SHAPE")] = "",
    activation: Annotated[str, typer.Option(help="ONNX op of the hidden layers' activation.", metavar="OP")] = "Relu",
    softmax: Annotated[
        bool | None, typer.Option(help="Put a Softmax after the logits; with --data, where labels are classes.")
    ] = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Write an untrained perceptron, or convolutional network: Glorot uniform weights, zero biases."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.graph.create import create, parse_sizes
    from onnxsurgeon.graph.create_convolutional import create_convolutional, is_convolutional
    from onnxsurgeon.graph.writer import save

    common: dict[str, Any] = {"seed": seed, "activation": activation, "name": out.stem}
    if data:
        if input_shape or is_convolutional(sizes):
            what = "--input-shape" if input_shape else f"'{sizes}'"
            raise SettingsError(f"{what}: with --data the rows say what goes in: give hidden widths alone", "exclusive")
        found = _widths(data, target or [], impute)
        widths = (found.inputs, *units(sizes or HIDDEN, "SIZES"), found.outputs)
        ends = found.has_classes if softmax is None else softmax
        network = create(widths, softmax=ends, input_shape=found.row, **common)
    elif not sizes:
        raise SettingsError("new needs SIZES, such as 784-10-10, or --data", "incomplete")
    elif target or impute:
        raise SettingsError(f"--{'target' if target else 'impute'}: is for --data, and there is none", "incomplete")
    elif is_convolutional(sizes):
        if input_shape:
            raise SettingsError(f"--input-shape: '{sizes}' begins with the shape of an input row already", "exclusive")
        network = create_convolutional(sizes, softmax=softmax is not False, **common)
    else:
        rows = shape(input_shape) if input_shape else None
        network = create(parse_sizes(sizes), softmax=softmax is not False, input_shape=rows, **common)
    console.remarks(save(network, out, overwrite=force))
    console.out.print(f"{out}: {console.network_summary(network)}", markup=False, soft_wrap=True)


def _widths(data: str, target: list[str], impute: str | None) -> Widths:
    """What a network for these rows takes and puts out."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.load import load_dataset
    from onnxsurgeon.data.widths import widths_of

    return widths_of(load_dataset(data, target=target, impute=impute, progress=console.DownloadBar))


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
