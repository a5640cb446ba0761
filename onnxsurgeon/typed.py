"""Checks of values that were read from JSON against type hints, since a file may be damaged or come from a stranger."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = 2**63 - 1  # of integers: a larger one is damage, and breaks arithmetic
_SHOWN = 40
_PLAIN = {str: "a text", bool: "true or false", int: "an integer", float: "a number", type(None): "null"}


class UnfitError(ValueError):
    """A value is not of the expected type; the text names the value, and what was expected."""


def check(value: object, hint: Any, name: str, *, needed: tuple[str, ...] | None = None) -> None:
    """Check that ``value``, as ``json.loads`` gave it, fits a type hint.

    The hint may be a plain type, ``list``, ``tuple[T, ...]``, ``dict`` of texts, ``Literal``, a union, a typed dict or
    a dataclass. Entries of a dataclass that have a default may be missing; no record may have entries that are not
    known.

    Args:
        value: a text, number, list, dict, ….
        hint: a type.
        name: the value's name in the error's text; "" where it is the whole record.
        needed: the entries of a typed dict that must be there; None for those that the type says.

    Raises:
        UnfitError: the value does not fit.
    """
    origin = get_origin(hint)
    if hint is Any:
        return
    if hint in _PLAIN:
        _check_plain(value, hint, name)
    elif origin in (Union, types.UnionType):
        _check_union(value, get_args(hint), name)
    elif origin is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise UnfitError(f"{_called(name)} is {shown(value)}")
    elif origin in (list, tuple) or hint in (list, tuple):
        entries = _of(value, list, name, "a list")
        for position, entry in enumerate(entries):
            check(entry, (get_args(hint) or (Any,))[0], f"{name}[{position}]")
    elif is_typeddict(hint):
        required = hint.__required_keys__ if needed is None else needed
        _check_entries(value, get_type_hints(hint), required, name)
    elif is_dataclass(hint):
        required = [f.name for f in fields(hint) if f.default is MISSING and f.default_factory is MISSING]
        _check_entries(value, get_type_hints(hint), required, name)
    elif origin in (dict, Mapping) or hint is dict:
        for key, entry in _of(value, dict, name, "a record").items():
            check(entry, (get_args(hint) or (str, Any))[1], f"{name}.{key}" if name else key)
    else:
        raise TypeError(f"{hint} is not a type that is known here")


def kind_of(value: object) -> str:
    """Describe a value of an unexpected type for an error's text: "int 3", "ndarray (10, 4) of float32"."""
    name = type(value).__name__
    if value is None:
        return name.removesuffix("Type")
    if isinstance(value, str | bytes | int | float | bool):
        return f"{name} {shown(value)}"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", "")
    if isinstance(shape, tuple):
        return f"{name} {shape}" + (f" of {dtype}" if dtype else "")
    return f"{name} of {len(value)}" if isinstance(value, list | tuple | dict | set) else name


def shown(value: object) -> str:
    """Show a value in an error's text, cut off where it is long."""
    text = repr(value) if not isinstance(value, list | dict) else f"a {'list' if isinstance(value, list) else 'record'}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _check_plain(value: object, kind: type, name: str) -> None:
    wanted: tuple[type, ...] = (int, float) if kind is float else (kind,)
    fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
    if fits and isinstance(value, int) and abs(value) > LARGEST:
        raise UnfitError(f"{_called(name)} is too large")
    if fits and isinstance(value, str) and "\0" in value:
        raise UnfitError(f"{_called(name)} holds a NUL")
    if not fits:
        raise UnfitError(f"{_called(name)} is {shown(value)}, not {_PLAIN[kind]}")


def _check_union(value: object, kinds: tuple[Any, ...], name: str) -> None:
    if value is None and type(None) in kinds:
        return
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            check(value, kind, name)
        except UnfitError:
            continue
        return
    check(value, others[-1], name)


def _check_entries(value: object, hints: Mapping[str, Any], required: typing.Iterable[str], name: str) -> None:
    record = _of(value, dict, name, "a record")
    for key in required:
        if key not in record:
            raise UnfitError(f"'{name}.{key}' is missing" if name else f"'{key}' is missing")
    for key, entry in record.items():
        if key not in hints:
            raise UnfitError(f"'{name}.{key}' is not known" if name else f"'{key}' is not known")
        check(entry, hints[key], f"{name}.{key}" if name else key)


def _of(value: object, kind: type, name: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise UnfitError(f"{_called(name)} is {shown(value)}, not {what}")
    return value


def _called(name: str) -> str:
    return f"'{name}'" if name else "it"
