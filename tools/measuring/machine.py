"""The processors that a measurement may use."""

from __future__ import annotations

import os


def hold_cores(cores: int) -> None:
    """Keep this process and those it starts on so many cores, where the system can.

    Raises:
        SystemExit: there are fewer.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    free = sorted(os.sched_getaffinity(0))
    if len(free) < cores:
        raise SystemExit(f"--cores {cores}: this machine has {len(free)}")
    os.sched_setaffinity(0, free[:cores])
