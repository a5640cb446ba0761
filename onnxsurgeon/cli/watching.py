"""The report of a run on loopback, renewed while the run goes on."""

from __future__ import annotations

import json
import re
import shlex
import threading
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from onnxsurgeon.cli.loopback import LoopbackServer
from onnxsurgeon.errors import OnnxSurgeonError
from onnxsurgeon.graph.files import open_regular
from onnxsurgeon.report import render_report, require_extra
from onnxsurgeon.runs.family import History
from onnxsurgeon.runs.history import read_history
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.liveness import FINISHED, GOING_ON, STOPPED, UNKNOWN, Watch

# The models of a run, and nothing else of its folder.
_MODEL = re.compile(r"/((?:branches/\d{4,}-[a-z_]+|front/\d+(?:-\d+)?|best)\.onnx)")
_HTML, _JSON = "text/html; charset=utf-8", "application/json"
_BYTES, _SCRIPT, _STYLE = "application/octet-stream", "text/javascript", "text/css"
_PARTS = {"/": ("watch.html", _HTML), "/watch.js": ("watch.js", _SCRIPT), "/watch.css": ("watch.css", _STYLE)}


class WatchServer(LoopbackServer):
    """Serves the report of one run, its news, and its models."""

    def __init__(self, run: Path, port: int | None) -> None:
        """Listen on ``port``; None: on the first that is free.

        Raises:
            RunError: the folder is no run directory, or the extra "report" is not installed.
            SettingsError: the port cannot be used.
        """
        require_extra()
        self.run = RunDirectory.open(run)
        self.watch = Watch(self.run)
        # A page takes seconds to make; meanwhile the news are served.
        self._rendering, self._looking = threading.Lock(), threading.Lock()
        self._page: tuple[str, bytes] = ("", b"")
        self._history: tuple[str, History] | None = None
        files = resources.files("onnxsurgeon.cli").joinpath("pages")
        self.parts = {path: (files.joinpath(name).read_bytes(), kind) for path, (name, kind) in _PARTS.items()}
        super().__init__(port)

    def found(self, path: str) -> tuple[BinaryIO, int, str] | None:
        """The resource at a path."""
        if path in self.parts:
            return _in_memory(*self.parts[path])
        name = _MODEL.fullmatch(path)
        try:
            if path == "/news":
                return _in_memory(json.dumps(self._what_is_new()).encode(), _JSON)
            if path == "/report.html":
                return _in_memory(self._render(), _HTML)
            if name is None:
                return None
            RunDirectory.open(self.run.path)  # links may have been added since then
            file = open_regular(self.run.path / name[1])
        except (OSError, OnnxSurgeonError):
            return None
        size = file.seek(0, 2)
        file.seek(0)
        return file, size, _BYTES

    def _render(self) -> bytes:
        """The report in its present state; it is only made anew where the journal has grown."""
        with self._rendering:
            version = self._version()
            if self._page[0] != version:
                self._page = version, render_report(self.run.path)
            return self._page[1]

    def _version(self) -> str:
        """A text that changes whenever the report would change."""
        return f"{self.watch.version()}-{self.run.best.is_file()}"

    def _what_is_new(self) -> dict[str, object]:
        with self._looking:
            version = self._version()
            if self._history is None or self._history[0] != version:
                self._history = version, read_history(self.run)
            history = self._history[1]
            state = self.watch.state(history)
            silence = self.watch.silence()
        last = history.decisions[-1] if history.decisions else None
        reached = "nothing is decided yet" if last is None else f"epoch {last.epoch:g} is decided"
        resume = shlex.join(["onnxsurgeon", "evolve", "--resume", str(self.run.path)])
        words = {
            FINISHED: "The run has finished.",
            GOING_ON: f"The run goes on: {reached}.",
            UNKNOWN: f"Nobody here holds the run: waiting whether it grows, for {silence:.0f} s; {reached}.",
            STOPPED: f"The run has died, or was stopped: {reached}. To go on: {resume}",
        }[state]
        return {"version": version, "state": state.replace(" ", "-"), "words": words}


def _in_memory(content: bytes, kind: str) -> tuple[BinaryIO, int, str]:
    return BytesIO(content), len(content), kind
