"""Standard output that is closed, full, or a pipe that nobody reads: an error of one line, as any other."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from onnxsurgeon.errors import OnnxSurgeonError


class OutputError(OnnxSurgeonError):
    """Standard output cannot be written to."""


class _Output(io.TextIOWrapper):
    """Standard output whose failures are our own errors; libraries would hide some, and end the process at others."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _failed(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _failed(error) from error


def _failed(error: OSError) -> OutputError:
    return OutputError(f"standard output cannot be written to: {error.strerror or error}", "standard-output")


@contextmanager
def written_out() -> Iterator[None]:
    """While a command runs, its output arrives, or OutputError is raised, at its end at the latest.

    Raises:
        OutputError: standard output is closed, so that a file might take its place; or it fails.
    """
    if sys.stderr is None:
        _occupy(2)
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as the process lives
    if sys.stdout is None:
        _occupy(1)
        raise OutputError("standard output is closed; > /dev/null lets it be", "standard-output")
    if type(sys.stdout) is io.TextIOWrapper:
        how = {name: getattr(sys.stdout, name) for name in ("encoding", "errors", "line_buffering", "write_through")}
        sys.stdout = _Output(sys.stdout.detach(), **how)
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs, /) -> None:
        # The live view's thread failed, and the main thread will fail as well.
        if not issubclass(args.exc_type, OutputError):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()


def give_up(number: int) -> None:
    """Discard what is still to come on standard output (1) or error (2), since the end of the process flushes both."""
    stream = sys.stdout if number == 1 else sys.stderr
    with suppress(OSError, ValueError, AttributeError):
        if stream.fileno() == number:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


def _occupy(number: int) -> None:
    """Make sure that no file which is opened later becomes standard output or error."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
