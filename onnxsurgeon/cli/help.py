"""Help in groups: what most people want comes first, and what experts want only on request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from onnxsurgeon.choices import GROUPS
from onnxsurgeon.suggestions import nearest

FIRST, ABOUT = "Options", "Help"
WIDEST = 24  # an option and its value of at most this many characters have their text on the same line
CONTEXT = {"max_content_width": 110}
_ALL = "onnxsurgeon.help_all"
_UsageError: Any = typer.BadParameter.__mro__[1]  # Typer has it, but does not name it


class Group(str):
    """The heading under which an option is shown; with ``is_expert`` only by ``--help-all``."""

    __slots__ = ("is_expert",)
    is_expert: bool

    def __new__(cls, name: str, *, is_expert: bool = False) -> Group:
        """Make the heading of that name."""
        group = super().__new__(cls, name)
        group.is_expert = is_expert
        return group


class Command(TyperCommand):
    """A command whose help has its options in groups; for an unknown option it suggests known ones."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as every command does; an unknown option is compared with all known ones."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "possibilities") and hasattr(error, "option_name"):  # NoSuchOption of Typer's Click
                _suggest(error, [flag for each in self.get_params(ctx) if not _is_hidden(each) for flag in each.opts])
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then each group under its heading, texts aligned; the groups of searches come last."""
        found: dict[str, list[tuple[str, str]]] = {}
        arguments = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            group = getattr(parameter, "rich_help_panel", None)
            if record is None or (getattr(group, "is_expert", False) and not ctx.meta.get(_ALL)):
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                name = ABOUT if "--help" in parameter.opts else group or FIRST
                found.setdefault(str(name), []).append(record)
        every = [record for records in found.values() for record in records]
        width = max((len(record[0]) for record in every if len(record[0]) <= WIDEST), default=0)
        if arguments:
            with formatter.section("Arguments"):
                _write(formatter, arguments, width)
        order = [FIRST, *GROUPS]
        for name in sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name == ABOUT)):
            with formatter.section(name):
                _write(formatter, found[name], width)


class Program(TyperGroup):
    """All commands; a wrong call ends with a code, as every other error does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as every group does."""
        with _coded():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Invoke as every group does."""
        with _coded():
            return super().invoke(ctx)


@contextmanager
def _coded() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        from onnxsurgeon.refusals import refusal

        if type(error).show is _UsageError.show:  # the error of a group without a command shows its help
            text = f"{error.format_message()} [{refusal('usage').code}]"
            error.format_message = lambda: text
        raise


def _suggest(error: Any, flags: list[str]) -> None:
    """Let the error of an unknown option suggest known ones."""
    words = {flag.lstrip("-"): flag for flag in flags if flag.startswith("--")}
    found = [words[word] for word in nearest(error.option_name.lstrip("-"), words)]
    hint = f": did you mean {' or '.join(found)}?" if found else ""
    error.possibilities, error.message = None, f"No such option: {error.option_name}{hint}"


def _is_hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _write(formatter: Any, rows: Iterable[tuple[str, str]], width: int) -> None:
    """Write rows of two columns, the first of this width.

    Where its text is wider, the other begins on the next line.
    """
    for first, second in rows:
        lines = wrapped(second, max(formatter.width - width - 4, 10)) or [""]
        if len(first) > width:
            lines.insert(0, "")
        formatter.write(f"  {first.ljust(width)}  {lines[0]}".rstrip() + "\n")
        for line in lines[1:]:
            formatter.write(f"{'':{width + 4}}{line}\n")


def wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; a list of choices that is too long for a line is broken behind one of them."""
    lines: list[str] = []
    for word in text.split():
        pieces = [word] if len(word) <= width else re.findall(r"[^|]+\|?", word)
        for number, piece in enumerate(pieces):
            longer = f"{lines[-1]}{'' if number else ' '}{piece}" if lines else piece
            if lines and len(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    return lines


def _show_all(ctx: typer.Context, value: bool | None) -> None:
    if value:
        ctx.meta[_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


HelpAllOption = Annotated[
    bool | None,
    typer.Option(
        "--help-all",
        is_eager=True,
        expose_value=False,
        callback=_show_all,
        help="Show the experts' options as well.",
        rich_help_panel=ABOUT,
    ),
]
