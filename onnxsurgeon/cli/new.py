"""The command that makes a model: new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxsurgeon.choices import DATA, IMPUTATIONS
from onnxsurgeon.cli.field_options import one_of
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import ForceOption, OutOption, SeedOption, data_names, shape, units
from onnxsurgeon.errors import SettingsError

if TYPE_CHECKING:
    from onnxsurgeon.data.widths import Widths

HIDDEN = "32"  # width of the hidden layer of a new network for a data set


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

    dataset = load_dataset(data, target=target, impute=impute, progress=console.DownloadBar)
    found = widths_of(dataset)
    console.remarks(dataset.remarks)
    return found
