"""Netron's page, served to this machine only, with one model and nothing else of the folder that it is in."""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from posixpath import normpath
from typing import BinaryIO
from urllib.parse import quote, unquote

from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.beside import referred_files

HOST = "127.0.0.1"
# As Netron's own server: ports that people know, and any free one where those are taken.
PORTS = (8080, 8081, 0)
# What Netron's page is made of; its Python files are none of it.
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


class ViewServer(ThreadingHTTPServer):
    """Serves Netron's page for one model, on loopback, to requests that were meant for it.

    A page of elsewhere can let its own name resolve to 127.0.0.1 and then read what is served there (DNS rebinding);
    but its requests say in ``Host`` whom they were meant for.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, model: Path, port: int | None) -> None:
        """Listen on ``port``; None: on the first of ``PORTS`` that is free.

        Raises:
            SettingsError: Netron is not installed, or not as it is known here, or the port cannot be used.
        """
        self.pages = _netron()
        self.index = _index(self.pages / "index.html", model.name)
        self.files = {f"{_DATA}{model.name}": model}
        self.files |= {f"{_DATA}{normpath(location)}": file for location, file in referred_files(model).items()}
        candidates = PORTS if port is None else (port,)
        for candidate in candidates:
            try:
                super().__init__((HOST, candidate), _Handler)
            except OSError as error:
                if candidate == candidates[-1]:
                    reason = f"port {candidate}: cannot be used: {error.strerror}; give another --port"
                    raise SettingsError(reason) from error
            else:
                break
        names = (HOST, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names} | (
            set(names) if self.server_port == 80 else set()
        )

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"


def _netron() -> Path:
    """The folder of Netron's page."""
    found = find_spec("netron")
    if found is None or found.origin is None:
        raise SettingsError("view needs Netron: pip install 'onnxsurgeon[view]'")
    return Path(found.origin).resolve().parent


def _index(page: Path, name: str) -> bytes:
    """Netron's page with what tells it which model to show, in the way in which its own server does."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Netron's page cannot be read: {error.strerror}: {page}") from error
    head, mark, tail = text.partition(_MARK)
    if not mark:
        raise SettingsError("this version of Netron is not known: its page does not say where to name a model")
    known = {"type": "Python", "file": f"{_DATA}{quote(name)}", "name": name, "identifier": name}
    lines = [f'<meta name="{key}" content="{html.escape(value)}">\n' for key, value in known.items()]
    return "".join((head, *lines, mark, tail)).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    timeout = 60  # for a request that never ends

    def do_GET(self) -> None:
        """Answer with a file, or with why not."""
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        """The same without the file."""
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts or not self.path.startswith("/"):
            self.send_error(HTTPStatus.FORBIDDEN, "This address serves its own name only")
            return
        found = self._found(unquote(self.path.partition("?")[0].partition("#")[0]))
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content, size, kind = found
        with content:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.end_headers()
            if has_body:
                shutil.copyfileobj(content, self.wfile)

    def _found(self, path: str) -> tuple[BinaryIO, int, str] | None:
        """What is at a path: its content, how many bytes that is, and its type."""
        if path in ("/", "/index.html"):
            return BytesIO(self.server.index), len(self.server.index), TYPES[".html"]
        file = self.server.files.get(path)
        kind = _BYTES
        if file is None and not path.startswith(_DATA) and "\0" not in path:
            file = (self.server.pages / path.lstrip("/")).resolve()
            kind = TYPES.get(file.suffix, "")
            if not kind or not file.is_relative_to(self.server.pages):
                return None
        if file is None or not file.is_file():
            return None
        return file.open("rb"), file.stat().st_size, kind

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  its name in the standard library
        """A request is no news."""
