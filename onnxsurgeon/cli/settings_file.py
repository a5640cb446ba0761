"""Options from a TOML file, ``--settings FILE``: keys are named as the options are; options given beside it win."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon.choices import RUN
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.suggestions import did_you_mean

LARGEST = 2**20  # bytes
# Options that a file cannot set: its own path, and those that end the command before it begins.
_NOT_HERE = {"settings", "help", "help-all", "version"}


def read_settings_file(path: Path, parameters: Iterable[Any]) -> dict[str, Any]:
    """Values by parameter, for Click's ``default_map``, which reads them as if they stood on the command line.

    Args:
        path: path of the file.
        parameters: parameters of the command.

    Raises:
        SettingsError: the file cannot be read, or has an entry that is no option of the command or is no value of it.
    """
    known = {name: parameter for parameter in parameters for name in _names(parameter)}
    values: dict[str, Any] = {}
    for key, value in _entries(path).items():
        name = key.replace("_", "-")
        if name not in known:
            raise SettingsError(
                f"{path}: '{key}' is no option of this command{did_you_mean(name, known)}", "settings-file"
            )
        parameter = known[name]
        if parameter.name in values:
            raise SettingsError(f"{path}: '{key}' is there twice", "settings-file")
        values[parameter.name] = _value(parameter, value, f"{path}: {key}")
    return values


def _entries(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait without end
            raise SettingsError(f"{path}: is no regular file", "no-such-file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}", "cannot-read") from error
    if len(content) > LARGEST:
        raise SettingsError(f"{path}: has more than {LARGEST:,} bytes; expected a few options", "settings-file")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is no UTF-8; expected TOML, such as epochs = 20", "settings-file") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is no TOML, such as epochs = 20: {error}", "settings-file") from error


def _names(parameter: Any) -> list[str]:
    """The names of an option or argument in a file."""
    if parameter.param_type_name == "argument":
        return [parameter.name.replace("_", "-")]
    return [name for flag in parameter.opts if (name := flag.lstrip("-")) not in _NOT_HERE and flag.startswith("--")]


def _value(parameter: Any, value: Any, name: str) -> Any:
    """The value as it would be given; Click reads texts, and refuses 2.5 where an integer is meant."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise SettingsError(f"{name}: expected true or false", "settings-file")
        return value
    is_several = bool(getattr(parameter, "multiple", False)) or getattr(parameter, "nargs", 1) != 1
    if isinstance(value, list) and is_several:
        return [_text(each, name) for each in value]
    return [_text(value, name)] if is_several else _text(value, name)


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SettingsError(f"{name}: expected a text or a number", "settings-file")
    return str(value)


def _take(ctx: typer.Context, value: Path | None) -> None:
    if value is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **read_settings_file(value, ctx.command.params)}


SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        is_eager=True,
        expose_value=False,
        callback=_take,
        help="Options from a TOML file: epochs = 20.",
        metavar="FILE",
        rich_help_panel=RUN,
    ),
]
