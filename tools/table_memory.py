"""The most memory that commands take for a large CSV file, beside the array that its numbers become.

    python tools/table_memory.py [FOLDER] [--megabytes 1000] [--columns 20] [--command evolve]

Each command is measured as a whole, in a process of its own. What is right is at most 1.2 times the array plus 300 MB;
the exit code is 1 where a command takes more. The file stays in FOLDER where one is given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import csv

ROOT = Path(__file__).resolve().parent.parent
MB = 10**6
BLOCK = 20_000  # rows that are written at a time
MOST, BESIDES = 1.2, 300 * MB
CLASSES = 2
COMMANDS = {
    "evaluate": "evaluate {model} --data {table} --target y",
    "inspect": "inspect {model} --data {table} --target y",
    "evolve": "evolve {model} --data {table} --target y --epochs 1 --run-dir {run} --quiet",
}


def main() -> int:
    """Parse the options, write the file and run the commands; 1 where one fails, or takes too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the file is to stay; by default it is deleted")
    parser.add_argument("--megabytes", type=int, default=1000, help="of the CSV file")
    parser.add_argument("--columns", type=int, default=20, help="of numbers, besides the target's")
    parser.add_argument("--command", choices=COMMANDS, action="append", help="one, or several; by default all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = write(folder / "table.csv", options.megabytes * MB, options.columns)
        array = rows * options.columns * np.dtype(np.float64).itemsize
        size = (folder / "table.csv").stat().st_size
        allowed = MOST * array + BESIDES
        print(
            f"{size / MB:,.0f} MB: {rows:,} rows of {options.columns} numbers, an array of {array / MB:,.0f} MB; "
            f"allowed are {allowed / MB:,.0f} MB",
            flush=True,
        )
        sizes = f"{options.columns}-16-{CLASSES}"
        run(f"new {sizes} -o {folder / 'model.onnx'} --force")
        taken = [measure(name, folder) for name in options.command or COMMANDS]
    return int(any(most > allowed for most in taken))


def write(path: Path, size: int, columns: int) -> int:
    """Write a table of about so many bytes; how many rows it has."""
    rng, rows = np.random.default_rng(0), 0
    with path.open("wb") as file:
        while file.tell() < size:
            x = rng.standard_normal((BLOCK, columns))
            named = {f"c{number}": x[:, number] for number in range(columns)}
            table = pyarrow.table({**named, "y": (x[:, 0] > 0).astype(int)})
            csv.write_csv(table, file, csv.WriteOptions(include_header=not rows))
            rows += BLOCK
    return rows


def measure(name: str, folder: Path) -> float:
    """Print what a command takes; the most bytes that were resident, infinitely many where it fails."""
    start = time.perf_counter()
    given = {"model": folder / "model.onnx", "table": folder / "table.csv", "run": folder / "run"}
    code, printed, most = run(COMMANDS[name].format(**given))
    print(f"{name:<10} {most / MB:6,.0f} MB  {time.perf_counter() - start:6.1f} s, exit {code}", flush=True)
    if code:
        print(f"        {printed.strip().splitlines()[-1][:200]}")
    return float("inf") if code else most


def run(command: str) -> tuple[int, str, int]:
    """Run a command: its exit code, what it printed, and the most bytes that were resident."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "onnxsurgeon", *command.split()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, printed, used.ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
