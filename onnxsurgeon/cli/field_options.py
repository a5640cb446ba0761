"""Options made from the fields of a dataclass, and the dataclass made from their values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from onnxsurgeon.cli.help import WIDEST, Group
from onnxsurgeon.surgeon.fields import choices_of
from onnxsurgeon.surgeon.own_settings import group_of

T = TypeVar("T")


# The placeholder for a value of a plain type.
_PLACEHOLDERS: tuple[tuple[Any, str], ...] = ((int, "N"), (float, "X"), (str, "TEXT"), (Path, "PATH"))


def one_of(flag: str, text: str, choices: Iterable[str]) -> dict[str, Any]:
    """The keywords of ``typer.Option`` by which an option shows and completes its choices.

    Choices that leave no room beside the flag begin its text.
    """
    known = tuple(choices)
    listed = f"[{'|'.join(known)}]"
    is_narrow = len(f"{flag} {listed}") <= WIDEST

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in known if choice.startswith(incomplete)]

    return {
        "help": text if is_narrow else f"{listed} {text}",
        "metavar": listed if is_narrow else "NAME",
        "autocompletion": complete,
        "show_default": False,
    }


def with_fields(*kinds: type, skip: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for every field of these dataclasses to a command; the command gets the given ones as keywords.

    Name, type, group and help come from the field, so that a setting is described in one place only. A quantity comes
    as the text that was given; the dataclass reads it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command)
        hints = get_type_hints(command, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name])
            for name, parameter in signature.parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        for kind in kinds:
            types = get_type_hints(kind)
            described = [each for each in fields(kind) if "help" in each.metadata and each.name not in skip]
            parameters += [_parameter(kind, each, types[each.name]) for each in described]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def with_renamed(kind: type, names: Mapping[str, str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the former names of fields of ``kind`` to a command, by old and new name; help does not show them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command)
        types, entries = get_type_hints(kind), {entry.name: entry for entry in fields(kind)}
        old = [_parameter(kind, entries[new], types[new], old) for old, new in names.items()]
        command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *old])  # type: ignore[attr-defined]
        command.__annotations__ |= {parameter.name: parameter.annotation for parameter in old}
        return command

    return decorate


def _parameter(kind: type, entry: Field[Any], hint: Any, old: str = "") -> inspect.Parameter:
    """The option of a dataclass's field; it is hidden where it is for the ``old`` name."""
    about, name = entry.metadata, old or entry.name
    flag = f"--{name.replace('_', '-')}"
    default = "" if entry.default in (None, "", MISSING) else f" [default: {_spell(entry.default)}]"
    placeholder = about.get("metavar") or next((word for of, word in _PLACEHOLDERS if hint in (of, of | None)), None)
    shown: dict[str, Any] = {"help": about["help"] + default, "metavar": placeholder, "show_default": False}
    if "quantity" in about:
        shown["metavar"], hint = about["quantity"].placeholder, str
    elif "choices" in about:
        choices = choices_of(about["choices"])
        shown = one_of(flag, about["help"] + ("" if entry.default == choices[0] else default), choices)
    option = typer.Option(
        *((f"{flag}/--no-{flag[2:]}",) if hint is bool else (flag,)),
        rich_help_panel=Group(group_of(kind, entry.name), is_expert=about.get("is_expert", False)),
        hidden=bool(old),
        **shown,
    )
    annotation = Annotated[hint | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def pop_fields(kind: type[T], given: dict[str, Any]) -> T:
    """Make ``kind`` from those of its fields that are in ``given``, and remove them there; None counts as not given."""
    found = {field.name: given.pop(field.name, None) for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in found.items() if value is not None})


def _spell(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
