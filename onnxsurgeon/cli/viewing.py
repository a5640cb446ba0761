"""Netron's page, served to this machine only, with one model and nothing else of its folder."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from posixpath import normpath
from typing import BinaryIO
from urllib.parse import quote

from onnxsurgeon.cli.loopback import LoopbackServer
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.beside import referred_files

# The file types of Netron's page, without its Python files.
TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_BYTES = "application/octet-stream"
_DATA = "/data/"
_MARK = '<meta name="version"'


class ViewServer(LoopbackServer):
    """Serves Netron's page for one model."""

    def __init__(self, model: Path, port: int | None) -> None:
        """Listen on ``port``; None: on the first of ``PORTS`` that is free.

        Raises:
            SettingsError: Netron is not installed, or not as it is known here, or the port cannot be used.
        """
        self.pages = _netron()
        self.index = _index(self.pages / "index.html", model.name)
        self.files = {f"{_DATA}{model.name}": model}
        self.files |= {f"{_DATA}{normpath(location)}": file for location, file in referred_files(model).items()}
        super().__init__(port)

    def found(self, path: str) -> tuple[BinaryIO, int, str] | None:
        """The resource at a path."""
        if path in ("/", "/index.html"):
            return BytesIO(self.index), len(self.index), TYPES[".html"]
        file = self.files.get(path)
        kind = _BYTES
        try:
            if file is None and not path.startswith(_DATA):
                file = (self.pages / path.lstrip("/")).resolve()
                kind = TYPES.get(file.suffix, "")
                if not kind or not file.is_relative_to(self.pages):
                    return None
            if file is None or not file.is_file():
                return None
            return file.open("rb"), file.stat().st_size, kind
        except (OSError, ValueError):  # a name that is too long, or that no file can have
            return None


def _netron() -> Path:
    """The folder of Netron's page."""
    found = find_spec("netron")
    if found is None or found.origin is None:
        raise SettingsError("view needs Netron: pip install 'onnxsurgeon[view]'", "no-package")
    return Path(found.origin).resolve().parent


def _index(page: Path, name: str) -> bytes:
    """Netron's page, told which model to show in the way in which its own server does it."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Netron's page cannot be read: {error.strerror}: {page}", "no-port") from error
    head, mark, tail = text.partition(_MARK)
    if not mark:
        raise SettingsError(
            "this version of Netron is not known: its page does not say where to name a model", "no-port"
        )
    known = {"type": "Python", "file": f"{_DATA}{quote(name)}", "name": name, "identifier": name}
    lines = [f'<meta name="{key}" content="{html.escape(value)}">\n' for key, value in known.items()]
    return "".join((head, *lines, mark, tail)).encode()
