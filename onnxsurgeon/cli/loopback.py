"""A server for this machine alone, which answers only requests that were meant for it."""

from __future__ import annotations

import shutil
import sys
from abc import abstractmethod
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO
from urllib.parse import unquote

from onnxsurgeon.errors import SettingsError

HOST = "127.0.0.1"
# Ports that people know, and any free one where those are taken.
PORTS = (8080, 8081, 0)


class LoopbackServer(ThreadingHTTPServer):
    """Serves on loopback what ``found`` finds, to requests that were meant for it.

    A foreign page can let its own name resolve to 127.0.0.1 and then read what is served there (DNS rebinding), but its
    requests name the host for which they were meant in ``Host``.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int | None) -> None:
        """Listen on ``port``; None: on the first of ``PORTS`` that is free.

        Raises:
            SettingsError: the port cannot be used.
        """
        candidates = PORTS if port is None else (port,)
        for candidate in candidates:
            try:
                super().__init__((HOST, candidate), _Handler)
            except OSError as error:
                if candidate == candidates[-1]:
                    reason = f"port {candidate}: cannot be used: {error.strerror}; give another --port"
                    raise SettingsError(reason, "no-port") from error
            else:
                break
        names = (HOST, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names} | (
            set(names) if self.server_port == 80 else set()
        )

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error, since browsers may go away in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @abstractmethod
    def found(self, path: str) -> tuple[BinaryIO, int, str] | None:
        """The resource at a path: its content, number of bytes, and type; None where there is none."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    timeout = 60  # for a request that never ends

    def do_GET(self) -> None:
        """Answer with a file, or with the reason why not."""
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the file."""
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts or not self.path.startswith("/"):
            self.send_error(HTTPStatus.FORBIDDEN, "This address serves its own name only")
            return
        found = self.server.found(unquote(self.path.partition("?")[0].partition("#")[0]))
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content, size, kind = found
        with content:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-cache")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.end_headers()
            if has_body:
                shutil.copyfileobj(content, self.wfile)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  its name in the standard library
        """Ignore the message, since a request is no news."""
