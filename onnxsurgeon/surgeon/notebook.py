"""The progress of a run in a notebook, in one place that is renewed with every event."""

from __future__ import annotations

from collections import deque
from html import escape
from typing import Any

from onnxsurgeon.errors import RunError
from onnxsurgeon.runs.events import Event
from onnxsurgeon.surgeon.log import line_of

SHOWN = 8  # lines


class NotebookProgress:
    """A callback that shows a run's progress below a notebook's cell: ``evolve(…, callbacks=NotebookProgress())``.

    Attributes:
        html: the text that is shown.
    """

    def __init__(self) -> None:
        """Begin with an empty place.

        Raises:
            RunError: there is no IPython, which every notebook has.
        """
        try:
            from IPython.display import HTML, display
        except ImportError as error:
            raise RunError("NotebookProgress is for notebooks: there is no IPython here", "no-package") from error
        self._page: Any = HTML
        self._show: Any = display
        self._place: Any = None
        self._lines: deque[str] = deque(maxlen=SHOWN)
        self._epochs, self._epoch, self._best, self._metric = 0.0, 0.0, "", "accuracy"
        self.html = ""

    def __call__(self, event: Event) -> None:
        """Show the event."""
        if event["event"] == "run":
            self._epochs, self._metric = float(event["settings"].get("epochs") or 0), event["metric"]
        elif event["event"] == "resumed":
            self._epoch = float(event["epoch"])
        elif event["event"] == "started" or event["event"] == "decided":
            self._epoch, self._best = float(event["epoch"]), f"{event['best_accuracy']:.4f}"
        elif event["event"] == "finished":
            self._epoch, self._best = self._epochs, f"{event['test_accuracy']:.4f} on the test rows"
        line = line_of(event)
        if not line:
            return
        self._lines.append(line)
        self.html = self._rendered()
        if self._place is None:
            self._place = self._show(self._page(self.html), display_id=True)
        else:
            self._place.update(self._page(self.html))

    def _rendered(self) -> str:
        bar = f'<progress value="{self._epoch:g}" max="{self._epochs:g}"></progress>' if self._epochs else ""
        best = f" {escape(self._metric)} {escape(self._best)}" if self._best else ""
        lines = "\n".join(map(escape, self._lines))
        return f"<div>{bar} epoch {self._epoch:g}{best}</div><pre>{lines}</pre>"
