"""What ``--log-file`` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxsurgeon.errors import OnnxSurgeonError, SettingsError


@contextmanager
def logged_to(path: Path | None) -> Iterator[None]:
    """Append what is logged to the file at ``path``, and what ends the command; None: nothing.

    Raises:
        SettingsError: it cannot be written.
    """
    if path is None:
        yield
        return
    logger = logging.getLogger("onnxsurgeon")
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"log-file: {path}: cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("interrupted")
        raise
    except OnnxSurgeonError as error:
        logger.error("%s", error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
