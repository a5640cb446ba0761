"""What all tools that show a run have in common, and the callback that serves them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from types import TracebackType
from typing import Protocol, Self, cast

from onnxsurgeon.runs.events import Event
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.tracking.values import Entry, Values, hyperparameters

_log = logging.getLogger(__name__)
_LONGEST_REASON = 300

Settings = Mapping[str, bool | int | float | str]
Logged = set[tuple[str, int]]

FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"


class Tracker(Protocol):
    """One tool. If one of its methods fails, the run goes on without it."""

    name: str

    def begin(self, run: RunDirectory, settings: Settings) -> Logged:
        """Open the run, or open it again.

        Return name and step of the entries that are there and must not come twice.
        """

    def log(self, entry: Entry) -> None:
        """Add numbers and texts."""

    def finish(self, run: RunDirectory) -> None:
        """Note that the run has its result."""

    def close(self, outcome: str) -> None:
        """Write what has not been written yet; ``outcome`` is FINISHED, INTERRUPTED or FAILED."""


class Tracking:
    """A callback that passes events on to trackers; used as a context, it closes them at its end.

    A tracker that fails is reported once, through ``logging``, and left out from then on.
    """

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = list(trackers)
        self._logged: dict[str, Logged] = {}
        self._values = Values()
        self._run = RunDirectory(Path())
        self._finished = False

    def __call__(self, event: Event) -> None:
        """Log an event; errors of trackers are not raised."""
        if not self._trackers:
            return
        try:
            if event["event"] == "run":
                self._begin(RunDirectory(Path(event["path"])))
            else:
                self._log(event)
        except Exception as error:  # such as KeyError for a journal of an older version, which holds less
            for tracker in list(self._trackers):
                self._give_up(tracker, error)
        if event["event"] == "finished":
            self._finished = True
            self._each(lambda tracker: tracker.finish(self._run))

    def _begin(self, run: RunDirectory) -> None:
        self._run = run
        settings = hyperparameters(run.read_settings())

        def begin(tracker: Tracker) -> None:
            self._logged[tracker.name] = tracker.begin(run, settings)

        self._each(begin)
        # Give the trackers of a resumed run what they lack. Where the run had finished, it will finish again.
        for event in cast("list[Event]", run.read_journal()):  # a loss that is infinite is logged as well
            if event["event"] != "finished":
                self._log(event)

    def _log(self, event: Event) -> None:
        entry = self._values.entry(event)
        if entry is None:
            return

        def log(tracker: Tracker) -> None:
            logged = self._logged[tracker.name]
            numbers = {name: value for name, value in entry.numbers.items() if (name, entry.step) not in logged}
            texts = {name: value for name, value in entry.texts.items() if (name, entry.step) not in logged}
            logged.update((name, entry.step) for name in (*numbers, *texts))
            tracker.log(replace(entry, numbers=numbers, texts=texts))

        self._each(log)

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                action(tracker)
            except Exception as error:
                self._give_up(tracker, error)

    def _give_up(self, tracker: Tracker, error: Exception) -> None:
        self._trackers.remove(tracker)
        reason = shorten(str(error), _LONGEST_REASON, placeholder=" …") or type(error).__name__
        _log.warning("tracking with %s failed, the run goes on without it: %s", tracker.name, reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        broken_off = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        outcome = FINISHED if self._finished else broken_off
        self._trackers = [tracker for tracker in self._trackers if tracker.name in self._logged]  # those begun
        self._each(lambda tracker: tracker.close(outcome))
