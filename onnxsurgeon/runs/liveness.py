"""Whether a run goes on, has ended, or has died, as seen from beside it or through a shared folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from onnxsurgeon.runs.family import History
from onnxsurgeon.runs.journal import RunDirectory

FINISHED, GOING_ON, UNKNOWN, STOPPED = "finished", "going on", "not known yet", "stopped"
_LEAST = 30.0  # after this many seconds without a write, a run that nobody here holds counts as stopped
_STEPS = 3  # or after this many times its longest step so far


@dataclass
class Watch:
    """Observations of a run.

    Attributes:
        run: its folder.
        clock: seconds since some moment, as ``time.monotonic``.
    """

    run: RunDirectory
    clock: Callable[[], float] = time.monotonic
    _seen: tuple[int, int] | None = field(default=None, init=False)
    _changed: float | None = field(default=None, init=False)
    _since: float = field(init=False)
    _was_held: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def version(self) -> str:
        """A text that changes whenever something was written to the journal."""
        return "-".join(map(str, self._look()))

    def state(self, history: History) -> str:
        """FINISHED, GOING_ON, STOPPED, or UNKNOWN for a while after the watch began.

        A process of this machine holds its run. A process of another machine does so where the folder's file system
        knows locks; elsewhere the journal's growth shows it. Clocks of machines differ, so only this machine's clock is
        used.
        """
        self._look()
        if self.run.is_held():
            self._was_held = True
            return GOING_ON
        if history.finish is not None:
            return FINISHED
        if self._was_held:  # it was held and is no longer, so it has died
            return STOPPED
        patience = max(_LEAST, _STEPS * _longest_step(history))
        if self._changed is not None and self.clock() - self._changed < patience:
            return GOING_ON
        return UNKNOWN if self.clock() - self._since < patience else STOPPED

    def silence(self) -> float:
        """Seconds since something was last seen to be written, or since the watch began."""
        return self.clock() - (self._since if self._changed is None else self._changed)

    def _look(self) -> tuple[int, int]:
        try:
            found = self.run.journal.stat()
            now = (found.st_size, found.st_mtime_ns)
        except OSError:  # not written yet, or the shared folder is away for a moment
            now = (0, 0)
        if self._seen is not None and now != self._seen:
            self._changed = self.clock()
        self._seen = now
        return now


def _longest_step(history: History) -> float:
    """Seconds of the longest step between two decision points."""
    seconds = [decision.seconds for decision in history.decisions]
    return max((later - earlier for earlier, later in pairwise(seconds)), default=0.0)
