"""Command-line options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from onnxsurgeon import bounds
from onnxsurgeon.choices import (
    DATA,
    DEVICES,
    ENGINES,
    IMPUTATIONS,
    LAYOUTS,
    OUTPUT,
    RUN,
    SPLITS,
    TRACKERS,
    TRAINING,
    VALUES,
)
from onnxsurgeon.cli.field_options import one_of
from onnxsurgeon.cli.help import HelpAllOption
from onnxsurgeon.cli.settings_file import SettingsOption
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.task import CLASS_WEIGHTS, LOSSES, METRICS
from onnxsurgeon.training.settings import setting

if TYPE_CHECKING:
    from onnxsurgeon.data.dataset import Dataset
    from onnxsurgeon.data.options import InputOptions
    from onnxsurgeon.graph.network import Network


def data_names(incomplete: str) -> list[str]:
    """Names of data sets that begin with this text; where none does, the shell completes files."""
    from onnxsurgeon.data.catalogue import CATALOGUE

    return [name for name in CATALOGUE if name.startswith(incomplete)]


ModelArgument = Annotated[Path, typer.Argument(help="An ONNX model.", metavar="MODEL")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help=".npz, .npy, .csv, .parquet, folder of images; or a name that 'data list' shows.",
        metavar="DATA",
        autocompletion=data_names,
        rich_help_panel=DATA,
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="The file to write.", metavar="FILE", rich_help_panel=OUTPUT)
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.", rich_help_panel=OUTPUT)]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.", rich_help_panel=OUTPUT)
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Lift the bounds for files of unknown origin.",
        rich_help_panel=RUN,
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of every random choice.", metavar="N", rich_help_panel=RUN)
]
EngineOption = Annotated[
    str, typer.Option("--engine", rich_help_panel=RUN, **one_of("--engine", "Trains and evaluates.", ENGINES))
]
DeviceOption = Annotated[
    str, typer.Option("--device", rich_help_panel=RUN, **one_of("--device", "Where it computes.", DEVICES))
]
SplitOption = Annotated[
    str, typer.Option("--split", rich_help_panel=DATA, **one_of("--split", "Rows to measure; by default test.", SPLITS))
]
TeacherOption = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        help="A model with the same inputs, to be imitated.",
        metavar="MODEL",
        rich_help_panel=DATA,
    ),
]
FreezeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze",
        help="Leave a layer as it is: name, number, encoder.*",
        metavar="LAYER",
        rich_help_panel=TRAINING,
    ),
]
TrainOnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--train-only",
        help="Leave all others as they are; * for none.",
        metavar="LAYER",
        rich_help_panel=TRAINING,
    ),
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        rich_help_panel=OUTPUT,
        **one_of("--track", "Log there too; see the manual.", TRACKERS),
    ),
]


@dataclass(frozen=True)
class ReadingOptions:
    """Options of every command that reads data: how the rows of --data are read and become a model's input."""

    layout: str = setting("hwc", "Order of an image's values.", group=VALUES, choices=LAYOUTS)
    scale: float | None = setting(None, "Factor for the values; pixels: 1/255.", group=VALUES)
    mean: str = setting("", "Subtracted after scaling: one, or one a channel.", group=VALUES)
    std: str = setting("", "Divides after that, likewise.", group=VALUES)
    loss: str = setting("auto", "What training minimises.", group=DATA, choices=("auto", *LOSSES))
    classes: str = setting("", "Names of the classes, as the outputs are: no,yes.", group=DATA)
    class_weight: str = setting("none", "Evens out rare classes.", group=DATA, choices=CLASS_WEIGHTS)
    metric: str = setting("auto", "What decides.", group=DATA, choices=METRICS)
    target: list[str] | None = setting(
        None, "Column to predict, or several; or an .npy file.", group=DATA, metavar="COLUMN"
    )
    impute: str | None = setting(None, "Fills what is missing.", group=DATA, choices=IMPUTATIONS)
    validation_fraction: float | None = setting(None, "Of the training rows, to choose by; 0.1 to 0.25.", group=DATA)
    data_dir: Path | None = setting(None, "Folder with the data set's files.", group=DATA)

    @property
    def inputs(self) -> InputOptions:
        """How rows become the model's input.

        Raises:
            OnnxSurgeonError: a value makes no sense.
        """
        from onnxsurgeon.data.options import InputOptions

        return InputOptions(
            self.layout,
            self.scale,
            numbers(self.mean, "mean"),
            numbers(self.std, "std"),
            self.loss,
            tuple(name.strip() for name in self.classes.split(",")) if self.classes else (),
            self.class_weight,
            self.metric,
        )

    @property
    def rows(self) -> dict[str, Any]:
        """How rows are read, as keywords of ``load_dataset``, ``evolve`` and ``diff``."""
        return {
            "target": tuple(self.target or ()),
            "impute": self.impute,
            "validation_fraction": self.validation_fraction,
        }

    def load(self, data: str, network: Network) -> Dataset:
        """The data set, whose rows are for ``network``; a download shows its progress.

        Raises:
            DataError: it cannot be used.
        """
        from onnxsurgeon.cli import console
        from onnxsurgeon.data.load import load_dataset

        return load_dataset(data, folder=self.data_dir, progress=console.DownloadBar, networks=(network,), **self.rows)


def with_help_all(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--help-all`` to a command that has options for experts."""
    return _with("help_all", HelpAllOption, command)


def with_settings_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--settings FILE`` to a command."""
    return _with("settings_file", SettingsOption, command)


def _with(name: str, annotation: Any, command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option that takes effect when it is read, so that the command does not get it."""
    signature = inspect.signature(command)
    option = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

    @functools.wraps(command)
    def without(*arguments: Any, **options: Any) -> Any:
        options.pop(name, None)
        return command(*arguments, **options)

    without.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    without.__annotations__ = {**command.__annotations__, name: annotation}
    return without


def with_trust(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--trust`` to a command that reads others' files: with it, no bound of ``onnxsurgeon.bounds`` holds."""

    @functools.wraps(command)
    def trusting(*arguments: Any, trust: bool = False, **options: Any) -> Any:
        with bounds.lifted(trust):
            return command(*arguments, **options)

    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters = [each.replace(annotation=hints[each.name]) for each in signature.parameters.values()]
    parameters.append(inspect.Parameter("trust", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=TrustOption))
    trusting.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    trusting.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return trusting


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Read numbers separated by commas.

    Raises:
        SettingsError: they are none.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise SettingsError(
            f"{what}: '{text}' is no list of numbers such as 0.5 or 0.49,0.48,0.45", "senseless-value"
        ) from error


def shape(text: str) -> tuple[int, ...]:
    """Read a shape such as 28x28x1.

    Raises:
        SettingsError: it is none.
    """
    try:
        return tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError as error:
        raise SettingsError(f"input-shape: '{text}' is no shape such as 28x28x1", "senseless-value") from error


def units(text: str, what: str) -> tuple[int, ...]:
    """Read numbers of units such as 256-64.

    Raises:
        SettingsError: they are none.
    """
    try:
        return tuple(int(part) for part in text.split("-"))
    except ValueError as error:
        raise SettingsError(
            f"{what}: '{text}' is no number of units, such as 128, or 256-64 for two layers", "senseless-value"
        ) from error
