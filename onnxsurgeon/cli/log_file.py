"""The targets of the log: the file of ``--log-file``, and standard error for warnings that a person must see."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from onnxsurgeon.errors import OnnxSurgeonError, SettingsError
from onnxsurgeon.printable import shown


@contextmanager
def logged_to(path: Path | None) -> Iterator[None]:
    """Append the log to the file at ``path``, with the error that ends the command; and report trackers that fail.

    Raises:
        SettingsError: it cannot be written.
    """
    told = logging.getLogger("onnxsurgeon.tracking")
    warnings = _ToPerson(logging.WARNING)
    told.addHandler(warnings)
    try:
        with _appended_to(path) if path is not None else nullcontext():
            yield
    finally:
        told.removeHandler(warnings)


class _ToPerson(logging.Handler):
    """One line on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        from onnxsurgeon.cli import console

        console.fail(record.getMessage())


class _OneLine(logging.Formatter):
    """Spells a record as one line, whatever it holds; a traceback keeps its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return shown(super().formatMessage(record))


class _File(logging.FileHandler):
    """A log file that ends the command if its disk is full or gone.

    Otherwise, logging would fill the terminal with errors.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise _unwritable(self.baseFilename, error) from error
        super().handleError(record)


def _unwritable(path: str | Path, error: OSError) -> SettingsError:
    return SettingsError(f"log-file: {path}: cannot be written: {error.strerror or error}", "cannot-write")


@contextmanager
def _appended_to(path: Path) -> Iterator[None]:
    logger = logging.getLogger("onnxsurgeon")
    try:
        handler = _File(path, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(message)s"))
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("interrupted")
        raise
    except OnnxSurgeonError as error:
        with suppress(SettingsError):  # the file itself may be what fails
            logger.error("%s [%s]", error, error.code)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        with suppress(OSError):
            handler.close()
