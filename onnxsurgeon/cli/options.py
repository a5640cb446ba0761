"""Command-line options that several commands share, and options made from a dataclass's fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from onnxsurgeon import bounds
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.training.settings import setting

if TYPE_CHECKING:
    from onnxsurgeon.data.dataset import Dataset
    from onnxsurgeon.data.options import InputOptions
    from onnxsurgeon.graph.network import Network

T = TypeVar("T")

ModelArgument = Annotated[Path, typer.Argument(help="An ONNX model.", metavar="MODEL")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="A data set's name (see 'data list'), an .npz, .npy, .csv or .parquet file, or a folder of images.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The file to write.", metavar="FILE")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
TrustOption = Annotated[
    bool,
    typer.Option("--trust", help="Lift the bounds on the memory and work that files of unknown origin may ask for."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
EngineOption = Annotated[str, typer.Option("--engine", help="auto, loop or artifacts.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
TeacherOption = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        help="An ONNX model with the same inputs, whose outputs are imitated.",
        metavar="MODEL",
    ),
]
FreezeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze",
        help="A layer that stays as it is: its node's name as in inspect, a pattern (encoder.*), or its number; "
        "repeat it for several.",
        metavar="LAYER",
    ),
]
TrainOnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--train-only",
        help="A layer that is trained, all others staying as they are; * for all, also those that the file marks as "
        "frozen.",
        metavar="LAYER",
    ),
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


@dataclass(frozen=True)
class ReadingOptions:
    """How the rows of --data are read and become a model's input: options of every command that reads data."""

    layout: str = setting("hwc", "Order of image values in a flat input: hwc or chw.")
    scale: float | None = setting(None, "Factor for the values; pixels: 1/255.")
    mean: str = setting("", "Subtracted after scaling: one value, or one a channel.")
    std: str = setting("", "Divides after that: one value, or one a channel.")
    loss: str = setting("auto", "auto, cross-entropy, binary-cross-entropy or squared-error.")
    classes: str = setting("", "Names of the model's classes in the order of its outputs, where it has none: no,yes.")
    class_weight: str = setting("none", "balanced weighs a row's loss by the inverse of its class's share.")
    metric: str = setting("auto", "balanced-accuracy is the mean over the classes.")
    target: list[str] | None = setting(None, "A table's column to predict, or several; or the .npy file of labels.")
    impute: str | None = setting(None, "Fill a table's missing values: mean, median or most-frequent.")
    validation_fraction: float | None = setting(
        None, "Share of the training rows to choose by; by default 0.1, of few rows up to 0.25."
    )
    data_dir: Path | None = setting(None, "Folder with the data set's files.")

    @property
    def inputs(self) -> InputOptions:
        """How rows become input.

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


def with_fields(dataclass: type, *, skip: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for every field of ``dataclass`` to a command; the command gets those given as keywords.

    Name, type and help come from the field, so that a setting is described in one place only. A quantity comes as the
    text that was given: the dataclass reads it.
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
            default = "" if field.default in (None, "", MISSING) else f" [default: {_spell(field.default)}]"
            kind = field.metadata.get("quantity")
            option = typer.Option(
                *names,
                help=field.metadata["help"] + default,
                show_default=False,
                metavar=None if kind is None else kind.placeholder,
            )
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    annotation=Annotated[(types[field.name] if kind is None else str) | None, option],
                )
            )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def with_trust(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--trust`` to a command that reads others' files: within it, no bound of ``onnxsurgeon.bounds`` holds."""

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


def taken(kind: type[T], given: dict[str, Any]) -> T:
    """``kind`` made of those of its fields that are in ``given``, from which they are removed; None: not given."""
    found = {field.name: given.pop(field.name, None) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in found.items() if value is not None})


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


def units(text: str, what: str) -> tuple[int, ...]:
    """Numbers of units such as 256-64.

    Raises:
        SettingsError: they are none.
    """
    try:
        return tuple(int(part) for part in text.split("-"))
    except ValueError as error:
        raise SettingsError(f"{what}: '{text}' is no number of units, such as 128, or 256-64 for two layers") from error


def _spell(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
