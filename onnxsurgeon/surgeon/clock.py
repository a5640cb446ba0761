"""The beginning of a run's time, and the part of a time limit that is kept for its end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

END_SECONDS = 2.5  # the least time for the end of a run: the test rows, latencies, a report
MOST_FOR_THE_END = 0.25  # of a time limit
REPORT = 2.2  # times as long as Python's start and a report's imports, on a free machine and on a busy one
MOST_WITH_A_REPORT = 0.5


@dataclass(frozen=True)
class Clock:
    """The clock by which a time limit is counted.

    Attributes:
        begun: when the time began, by ``time.perf_counter``.
        report: seconds for a report that is written behind the run; 0: there is none.
    """

    begun: float
    report: float = 0.0

    @classmethod
    def of_process(cls) -> Clock:
        """The clock of a command whose process serves only the run.

        It began with the process, and it ends with a report. The time for the report is estimated from the time that
        the process took to come here, imports included: both are Python's work, on a machine that is equally busy.
        """
        seconds = process_seconds()
        return cls(time.perf_counter() - seconds, REPORT * seconds)

    def deadline(self, limit: float) -> float:
        """Seconds after which nothing more is trained; the rest of a time limit is for the end of the run."""
        if not self.report:
            return max((1 - MOST_FOR_THE_END) * limit, limit - END_SECONDS)
        return max((1 - MOST_WITH_A_REPORT) * limit, limit - max(END_SECONDS, END_SECONDS / 4 + self.report))


def process_seconds() -> float:
    """The age of this process; where the system does not tell, the time it was at work."""
    try:
        started = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return time.process_time()
