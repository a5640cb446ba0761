"""What a user waits for before anything happens: the command's help, and importing the package."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from benchmarking.environments import TOOLS
from benchmarking.steps import Spread

COMMANDS = {
    "python, and nothing": "pass",
    "import onnxsurgeon": "import onnxsurgeon",
    "onnxsurgeon --help": "import sys; sys.argv = ['onnxsurgeon', '--help']; from onnxsurgeon.cli import main; main()",
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each command as a process of its own, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, code in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=TOOLS.parent, check=True)
            if number:  # the first round fills the system's file cache
                seconds[name].append(time.perf_counter() - start)
    return seconds


def text(seconds: dict[str, Any]) -> str:
    """The figures as Markdown list items."""
    return "\n".join(f"- {name}: {Spread.of(values).text(2)} s" for name, values in seconds.items())
