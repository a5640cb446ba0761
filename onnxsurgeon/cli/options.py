"""Command-line options that several commands share, and options made from a dataclass's fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from onnxsurgeon.errors import SettingsError

ModelArgument = Annotated[Path, typer.Argument(help="An ONNX model.", metavar="MODEL")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="A data set's name (see 'data list'), an .npz, .npy, .csv or .parquet file, or a folder of images.",
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", help="A table's column to predict, or several; or the .npy file of labels."),
]
ImputeOption = Annotated[
    str | None, typer.Option("--impute", help="Fill a table's missing values: mean, median or most-frequent.")
]
ValidationFractionOption = Annotated[
    float | None, typer.Option("--validation-fraction", help="Share of the training rows to choose by; 0.1 by default.")
]
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Folder with the data set's files.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The file to write.", metavar="FILE")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
EngineOption = Annotated[str, typer.Option("--engine", help="auto, loop or artifacts.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
LayoutOption = Annotated[str, typer.Option("--layout", help="Order of image values in a flat input: hwc or chw.")]
ScaleOption = Annotated[float | None, typer.Option("--scale", help="Factor for the values; pixels: 1/255.")]
MeanOption = Annotated[str, typer.Option("--mean", help="Subtracted after scaling: one value, or one a channel.")]
StdOption = Annotated[str, typer.Option("--std", help="Divides after that: one value, or one a channel.")]
LossOption = Annotated[
    str,
    typer.Option("--loss", help="auto, cross-entropy, binary-cross-entropy or squared-error."),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        help="Log to tensorboard (RUN/tensorboard), mlflow ($MLFLOW_TRACKING_URI, or mlflow.db beside RUN), or both. "
        "A resumed run does not remember it: give it again.",
        metavar="TOOL",
    ),
]


def with_fields(dataclass: type, *, skip: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for every field of ``dataclass`` to a command; the command gets those given as keywords.

    Name, type and help come from the field, so that a setting is described in one place only.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command)
        hints = get_type_hints(command, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name])
            for name, parameter in signature.parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        types = get_type_hints(dataclass)
        for field in fields(dataclass):
            if field.name in skip:
                continue
            flag = f"--{field.name.replace('_', '-')}"
            names = (f"{flag}/--no-{flag[2:]}",) if types[field.name] is bool else (flag,)
            default = "" if field.default in (None, MISSING) else f" [default: {_spell(field.default)}]"
            option = typer.Option(*names, help=field.metadata["help"] + default, show_default=False)
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[types[field.name] | None, option],
                )
            )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    Raises:
        SettingsError: they are none.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise SettingsError(f"{what}: '{text}' is no list of numbers such as 0.5 or 0.49,0.48,0.45") from error


def shape(text: str) -> tuple[int, ...]:
    """A shape such as 28x28x1.

    Raises:
        SettingsError: it is none.
    """
    try:
        return tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError as error:
        raise SettingsError(f"input-shape: '{text}' is no shape such as 28x28x1") from error


def _spell(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
